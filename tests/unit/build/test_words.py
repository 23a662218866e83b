from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.build.words import WordError, expand, expand_text, split

VARIABLES = {"a": "1", "empty": "", "path": "/usr/lib/x.tar.gz", "s": "two words"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b  c", ["a", "b", "c"]),
        ("a='x y' \"p q\"r", ["a='x y'", '"p q"r']),
        (r"a\ b c", [r"a\ b", "c"]),
        ("", []),
        ("'a\\' b", ["'a\\'", "b"]),
    ],
)
def test_split(text: str, expected: list[str]) -> None:
    assert [word.text for word in split(text)] == expected


def test_offsets() -> None:
    assert [word.offset for word in split("  ab  c", offset=10)] == [12, 16]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x$a", "x1"),
        ("${a}b", "1b"),
        ("$ab", ""),
        ("$none.", "."),
        ("'$a'", "$a"),
        ('"$a\'"', "1'"),
        (r"\$a", "$a"),
        (r'"\$a\n"', r"$a\n"),
        ("$", "$"),
        ("${none:-d}", "d"),
        ("${empty:-d}", "d"),
        ("${empty-d}", ""),
        ("${none-$a}", "1"),
        ("${a:+y}${none:+n}${empty+e}", "ye"),
        ("${none:-${empty:-z}}", "z"),
        ("${path##*/}", "x.tar.gz"),
        ("${path#*/}", "usr/lib/x.tar.gz"),
        ("${path%.*}", "/usr/lib/x.tar"),
        ("${path%%.*}", "/usr/lib/x"),
        ("${path/x/y}", "/usr/lib/y.tar.gz"),
        ("${path//r/R}", "/usR/lib/x.taR.gz"),
        ("${s}", "two words"),
        ('${none:-"q w"}', "q w"),
        ("a\\ b", "a b"),
    ],
)
def test_expand(text: str, expected: str) -> None:
    assert expand(text, VARIABLES) == expected


@pytest.mark.parametrize("text", ["'a", '"a', "${a", "${}", "${a^^}", "${none:?is needed}", "${none?}"])
def test_errors(text: str) -> None:
    with pytest.raises(WordError):
        expand(text, VARIABLES)


def test_heredoc_text() -> None:
    assert expand_text("'$a' \"${a}\" \\$a \\x", VARIABLES) == "'1' \"1\" $a \\x"


def test_other_escape() -> None:
    assert expand(r"C:\x `$a", VARIABLES, "`") == r"C:\x $a"


@given(st.text(alphabet=st.sampled_from("ab${}:-+?#%/'\"\\ *"), max_size=60))
def test_bounded(text: str) -> None:
    try:
        expand(text, VARIABLES)
    except WordError as error:
        assert error.brief
