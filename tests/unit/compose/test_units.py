"""Durations, sizes, numbers, modes and command lines."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.compose import units

SECOND = 1_000_000_000


@pytest.mark.parametrize(("text", "seconds"), [
    ("90s", 90), ("1h30m", 5400), ("1.5s", 1.5), ("1d", 86400), ("1w2d", 777600), ("250ms", 0.25), ("0", 0), ("-1s", -1),
    ("1m1ms", 60.001), (".5s", 0.5)])
def test_duration(text: str, seconds: float) -> None:
    assert units.duration(text) == seconds * SECOND


@pytest.mark.parametrize("text", ["10", "", "x", "1x", "1 s", "s", "1s1", "-", "1..2s", "9" * 300 + "s", "99999999999w"])
def test_duration_refused(text: str) -> None:
    with pytest.raises(ValueError):
        units.duration(text)


@pytest.mark.parametrize(("nanoseconds", "text"), [
    (0, "0s"), (90 * SECOND, "1m30s"), (5400 * SECOND, "1h30m0s"), (86400 * SECOND, "24h0m0s"), (1_500_000_000, "1.5s"),
    (500_000_000, "500ms"), (1_500_000, "1.5ms"), (1_500, "1.5µs"), (1, "1ns"), (-SECOND, "-1s"), (60_001_000_000, "1m0.001s")])
def test_duration_text(nanoseconds: int, text: str) -> None:
    assert units.duration_text(nanoseconds) == text


@given(st.integers(-10**18, 10**18))
def test_duration_round_trip(nanoseconds: int) -> None:
    assert units.duration(units.duration_text(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(("value", "number"), [
    ("1.5g", 1610612736), ("64m", 64 << 20), ("1KiB", 1024), ("1 kb", 1024), ("5b", 5), ("100", 100), (100, 100), (-1, -1), ("-1", -1),
    ("1t", 1 << 40), ("1p", 1 << 50), (1000.0, 1000)])
def test_size(value: object, number: int) -> None:
    assert units.size(value) == number


@pytest.mark.parametrize("value", ["", "x", "1x", "-2k", "1bb", "1  k", "1ki", "1mx", True, "9" * 300, float("nan"), "99999999p"])
def test_size_refused(value: object) -> None:
    with pytest.raises(ValueError):
        units.size(value)


def test_numbers() -> None:
    assert units.whole("3") == units.whole(3.0) == 3
    assert units.number("1e1") == 10
    assert isinstance(units.number("2.0"), int)
    assert units.count("all") == -1
    assert units.mode("0440") == units.mode("0o440") == units.mode(288) == 288
    for bad in ("3.5", "x", True, 2.5):
        with pytest.raises(ValueError):
            units.whole(bad)
    for bad in ("9", "x", True):
        with pytest.raises(ValueError):
            units.mode(bad)


@pytest.mark.parametrize(("text", "words"), [
    ("", []), ("a", ["a"]), ("a b", ["a", "b"]), ("""echo "a b" 'c d' e\\ f""", ["echo", "a b", "c d", "e f"]),
    ('a""b', ["ab"]), ("''", [""]), ('"\\n"', ["\\n"]), ('"\\""', ['"'])])
def test_split_command(text: str, words: list[str]) -> None:
    assert units.split_command(text) == words


@pytest.mark.parametrize("text", ["'a", '"a', "a\\"])
def test_split_command_refused(text: str) -> None:
    with pytest.raises(ValueError):
        units.split_command(text)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8), max_size=5))
def test_split_command_of_quoted_words(words: list[str]) -> None:
    assert units.split_command(shlex.join(words)) == words
