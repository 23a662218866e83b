"""The grammar of env files."""

from __future__ import annotations

import pytest

from orchestra.compose.dotenv import DotenvError, parse, parse_raw


def values(text: str, **known: str) -> dict[str, str]:
    return {key: value for key, (value, _) in parse(text, known.get).items()}


@pytest.mark.parametrize(("text", "result"), [
    ("A=1\nB = 2\nC: 3\nexport D=4\n\n# c\n  E=5\n", {"A": "1", "B": "2", "C": "3", "D": "4", "E": "5"}),
    ("A=a # c\nB=a#b\nC=\"a # b\" # c\nD='a # b'\nE=\nF=#x\n",
     {"A": "a", "B": "a#b", "C": "a # b", "D": "a # b", "E": "", "F": "#x"}),
    ("A='a$B ${C}\\n'\nB='it\\'s'\nC='x\ny'\n", {"A": "a$B ${C}\\n", "B": "it's", "C": "x\ny"}),
    ('A="a\\tb\\nc\\\\d\\"e"\nC="\\$Z $$Z"\nD="\\0101\\a"\n', {"A": 'a\tb\nc\\d"e', "C": "$Z $Z", "D": "A\a"}),
    ('A="\\x41\\q\\c\\09"\n', {"A": "\\x41\\q\\c\\09"}), ("A=a\\nb\\\n", {"A": "a\\nb\\"}),
    ("A=1\nB=$A${NOPE:-d}\nC=$$A\n", {"A": "1", "B": "1d", "C": "$A"}), ("\ufeffA=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
    ("a.b-c=1\nd[0]=2\nÄ=ö", {"a.b-c": "1", "d[0]": "2", "Ä": "ö"}), ("A=1\nA=2\n", {"A": "2"}), ("", {}), ("#x", {}),
    ("A=http://x/?a=b&c=d#f\nB: c=d\nC=b:c\n", {"A": "http://x/?a=b&c=d#f", "B": "c=d", "C": "b:c"}),
    ('A="x"B\nC=1\n', {"A": "x", "C": "1"}), ("A=  a  b  \n", {"A": "a  b"}), ("NOPE\n", {}), ("A=", {"A": ""}),
])
def test_grammar(text: str, result: dict[str, str]) -> None:
    assert values(text) == result


def test_lookup_comes_before_the_file_and_gives_bare_names() -> None:
    assert values("A=1\nB=$A\nexport H\nG", A="shell", H="h", G="g") == {"A": "1", "B": "shell", "H": "h", "G": "g"}


@pytest.mark.parametrize(("text", "line"), [
    ("A=1\nB!=2\n", 2), ('A=1\n\nB="x\ny', 3), ("A B=1\n", 1), ("=1\n", 1), ("A=${NOPE?must}\n", 1), ("\nA=${1}\n", 2),
    ("A='x\ny'\nB?\n", 3), ('A="x\ny"\nB?\n', 3), ("A\nB\nC*\n", 3), ("# c\n# d\n!\n", 3),
])
def test_errors_carry_their_line(text: str, line: int) -> None:
    with pytest.raises(DotenvError) as caught:
        values(text)
    assert caught.value.line == line


def test_lines_and_unset_variables() -> None:
    missing: list[tuple[str, int]] = []
    found = parse("A='1\n2'\n\nB=$X\n", {}.get, lambda name, line: missing.append((name, line)))
    assert found == {"A": ("1\n2", 1), "B": ("", 4)}
    assert missing == [("X", 4)]


def test_raw() -> None:
    found = parse_raw("A=\"x\" # y\nB=$A\n  C='z'\n# c\nD= v \r\nE\nF\n", {"E": "e"}.get)
    assert {key: value for key, (value, _) in found.items()} == {
        "A": '"x" # y', "B": "$A", "C": "'z'", "D": " v ", "E": "e"}
    for bad in ("A B=1", "=1"):
        with pytest.raises(DotenvError):
            parse_raw(bad, {}.get)


def test_growth_is_bounded() -> None:
    doubling = "A=xxxxxxxxxx\n" + "".join(f"{chr(66 + n)}=${chr(65 + n)}${chr(65 + n)}\n" for n in range(25))
    with pytest.raises(DotenvError):
        values(doubling)
    with pytest.raises(DotenvError):
        values("".join(f"K{n}=$BIG\n" for n in range(300)), BIG="x" * 1_000_000)
