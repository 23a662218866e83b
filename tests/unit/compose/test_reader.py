"""YAML 1.2 scalars, keys, anchors, merge keys, tags and bounds of the located reader."""

from __future__ import annotations

import math

import pytest

from orchestra.compose import reader
from orchestra.compose.diagnostics import ComposeError, Problems
from orchestra.compose.tree import Mapping, Scalar, get, plain
from orchestra.errors import Location


def read(text: str, problems: Problems | None = None) -> Mapping:
    (document,) = reader.parse(text, "c.yaml", problems or Problems())
    assert isinstance(document, Mapping)
    return document


@pytest.mark.parametrize(("text", "value"), [
    ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("y", "y"), ("n", "n"), ("tRue", "tRue"),
    ("true", True), ("True", True), ("FALSE", False),
    ("", None), ("~", None), ("null", None), ("Null", None), ("NULL", None), ("nUll", "nUll"),
    ("12:30", "12:30"), ("1:30:00", "1:30:00"),
    ("0755", 493), ("0o17", 15), ("017", 15), ("08", 8.0), ("0o9", "0o9"), ("0x1F", 31), ("0b101", 5),
    ("-0x10", -16), ("1_000", 1000), ("+5", 5), ("-5", -5), ("--5", "--5"), ("-", "-"), ("+", "+"), (".", "."),
    ("1e3", 1000.0), ("1.10", 1.1), (".5", 0.5), ("5.", 5.0), ("1.2.3", "1.2.3"), ("1e", "1e"),
    ("18446744073709551615", 18446744073709551615), ("99999999999999999999", 1e20),
    (".inf", math.inf), ("-.INF", -math.inf), ("10.0.0.1", "10.0.0.1"), ("0", 0), ("00", 0), ("1,000", "1,000"),
])
def test_unquoted_scalars(text: str, value: object) -> None:
    got = reader.resolve(text)
    assert got == value
    assert type(got) is type(value)


def test_not_a_number() -> None:
    assert math.isnan(reader.resolve(".nan"))  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "date"), [
    ("2001-01-01", True), ("2001-1-1", True), ("2001-12-14t21:59:43.10-05:00", True), ("2001-12-14 21:59:43", True),
    ("2001-1", False), ("2001-01-01x", False), ("20010101", False), ("1.2-3", False),
])
def test_dates(text: str, date: bool) -> None:
    assert reader.is_date(text) is date


def test_every_value_knows_its_place() -> None:
    root = read("a:\n  b: [x, {c: y}]\n")
    node = get(root, ("a", "b", 1, "c"))
    assert isinstance(node, Scalar)
    assert node.location == Location("c.yaml", 2, 14)
    inner = get(root, ("a",))
    assert isinstance(inner, Mapping)
    assert inner.key_location("b") == Location("c.yaml", 2, 3)


def test_quoted_text_stays_text() -> None:
    assert plain(read("a: \"5\"\nb: '~'\nc: |\n  5\n")) == {"a": "5", "b": "~", "c": "5\n"}


def problems_of(text: str) -> list[str]:
    problems = Problems()
    try:
        reader.parse(text, "c.yaml", problems)
    except ComposeError:
        pass
    return [f"{item.location.line}:{item.location.column} {item.message}" for item in problems.errors
            if item.location]


def test_duplicate_keys_name_both_places_and_are_all_found() -> None:
    problems = Problems()
    reader.parse("a: 1\nb: {c: 1, c: 2}\na: 2\n", "c.yaml", problems)
    assert [item.message for item in problems.errors] == [
        "key 'c' is already defined at line 2", "key 'a' is already defined at line 1"]
    assert problems.errors[1].notes == ("first defined at c.yaml:1:1",)


@pytest.mark.parametrize("key", ["1", "true", "1.5", "~", "[a]", "{a: b}", "0x1"])
def test_keys_must_be_text(key: str) -> None:
    assert "non-text key" in problems_of(f"{key}: x\n")[0]


def test_quoted_and_word_keys_are_text() -> None:
    assert plain(read('"1": a\nyes: b\non: c\n"<<": d\n!!str 2: e\n')) == {
        "1": "a", "yes": "b", "on": "c", "<<": "d", "2": "e"}


def test_date_is_refused_but_not_below_an_extension() -> None:
    assert problems_of("x-a: {b: [2001-01-01]}\nc: 2001-01-01\n") == ["2:4 2001-01-01 is a date for YAML, not text"]


def test_numbers_are_finite() -> None:
    assert problems_of("a: .inf\nb: [.nan]\nc: '.inf'\n") == ["1:4 .inf is no finite number", "2:5 .nan is no finite number"]


def test_merge_key_own_keys_win_then_the_first_map() -> None:
    text = "a: &a {k: 1, z: 2}\nb: &b {k: 3, n: 4}\nc:\n  z: 9\n  <<: [*a, *b, {m: 5}]\n"
    assert plain(get(read(text), ("c",))) == {"z": 9, "k": 1, "n": 4, "m": 5}


@pytest.mark.parametrize("text", ["a:\n  <<: x\n", "a:\n  <<: [x]\n", "a: {<<: {b: 1}, <<: {c: 1}}\n"])
def test_merge_key_refusals(text: str) -> None:
    assert "<<" in problems_of(text)[0]


def test_aliases_are_copies() -> None:
    root = read("a: &a {b: 1}\nc: *a\n")
    first, second = get(root, ("a",)), get(root, ("c",))
    assert isinstance(first, Mapping) and isinstance(second, Mapping)
    second.items["b"] = Scalar(2)
    assert plain(first) == {"b": 1}


@pytest.mark.parametrize(("text", "words"), [
    ("a: *b\n", "unknown anchor"), ("a: &a [*a]\n", "contains itself"), ("a: [\n", "invalid YAML"),
    ("a: \"x\n", "invalid YAML"), ("a: \0b\n", "control characters"),
    ("[" * 500, "levels deep"), ("a: !!int x\n", "cannot read 'x' as !!int"), ("a: !!binary '*'\n", "base64"),
    ("a: b: c\n", "mapping values are not allowed"), ("? [\n", "invalid YAML"),
])
def test_refused_with_a_place(text: str, words: str) -> None:
    assert any(words in message for message in problems_of(text))


def test_tabs_are_explained() -> None:
    problems = Problems()
    with pytest.raises(ComposeError) as caught:
        reader.parse("a:\n\tb: c\n", "c.yaml", problems)
    assert "tabs" in str(caught.value)


def test_alias_bomb_is_refused_early() -> None:
    text = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
    for level in range(1, 30):
        text += f"a{level}: &a{level} [{','.join([f'*a{level - 1}'] * 10)}]\n"
    assert "aliases expand" in problems_of(text)[0]


def test_tags() -> None:
    problems = Problems()
    root = read("a: !reset []\nb: !override {c: 1}\nd: !reset\ne: !foo 5\nf: !!str 5\ng: !!float 1\n", problems)
    assert [node.tag for node in root.items.values()] == ["reset", "override", "reset", "", "", ""]
    assert plain(root)["e"] == "5" and plain(root)["f"] == "5" and plain(root)["g"] == 1.0
    assert [item.message for item in problems.warnings] == ["the YAML tag !foo means nothing here and is ignored"]


def test_documents() -> None:
    documents = reader.parse("a: 1\n---\nb: 2\n...\n", "c.yaml", Problems())
    assert [plain(document) for document in documents] == [{"a": 1}, {"b": 2}]
