"""Schema violations as located problems with a suggestion."""

from __future__ import annotations

import pytest
from support.compose_text import problems


def one(text: str) -> tuple[str, str, int, int, str | None]:
    found = problems(text)
    assert len(found) == 1, [item.message for item in found]
    place = found[0].location
    assert place is not None
    return found[0].message, found[0].path, place.line, place.column, found[0].hint


def test_unknown_attribute() -> None:
    assert one("services:\n  web:\n    imge: x\n") == (
        "unknown attribute imge in services.web", "services.web.imge", 3, 5, "did you mean image?")


def test_service_attribute_at_the_top() -> None:
    message, path, line, _, hint = one("services: {a: {image: x}}\nports: [80]\n")
    assert (message, path, line) == ("unknown attribute ports at the top level", "ports", 2)
    assert hint == "ports belongs to a service: indent it below services"


def test_number_for_text() -> None:
    message, path, line, column, hint = one("services:\n  a:\n    image: x\n    user: 1000\n")
    assert message == "services.a.user must be a string, not a number"
    assert (path, line, column) == ("services.a.user", 4, 11)
    assert hint == 'write it in quotes: "1000"'


def test_bad_word_names_the_near_one() -> None:
    _, path, _, _, hint = one("services: {a: {image: x, depends_on: {b: {condition: healthy}}}, b: {image: x}}")
    assert path == "services.a.depends_on.b.condition"
    assert hint is not None and "service_healthy" in hint


@pytest.mark.parametrize(("text", "words"), [
    ("services: [a]", "services must be a mapping, not a list"),
    ("services: {a: 3}", "services.a must be a mapping, not a number"),
    ("services: {a: {image: x, cap_add: [A, B, A]}, b: {image: x, group_add: [1, 1]}}", "items must be unique"),
    ("services: {a: {image: x, volumes: [{target: /x}]}}", "type is required"),
    ("services: {a: {image: x, oom_score_adj: 5000}}", "must be between -1000 and 1000, not 5000"),
    ("services: {a: {image: x, networks: 3}}", "services.a.networks must be a list or a mapping, not a number"),
    ("services: {'a b': {image: x}}", "'a b' is no valid name here"),
])
def test_words(text: str, words: str) -> None:
    assert any(words in item.message for item in problems(text)), [item.message for item in problems(text)]


def test_all_at_once_and_sorted() -> None:
    found = problems("services:\n  a:\n    imag: x\n    user: 1\n  b: []\nfoo: 1\n")
    assert [item.location.line for item in found if item.location] == [3, 4, 5, 6]
