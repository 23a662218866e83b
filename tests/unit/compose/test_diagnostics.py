"""How problems are collected and printed."""

from __future__ import annotations

from orchestra.compose.diagnostics import LIMIT, ComposeError, Problems
from orchestra.errors import Location, OrchestraError


def test_text_with_source_line_and_caret() -> None:
    problems = Problems()
    problems.sources["c.yaml"] = "a: 1\nb:\tbad\n"
    problems.error("no good", Location("c.yaml", 2, 4), ("services", "web", "ports", 0), hint="do better",
                   notes=("set before",))
    (problem,) = problems.errors
    assert problem.path == "services.web.ports[0]"
    assert problem.text() == ("c.yaml:2:4: error: no good\n    b: bad\n       ^\n  note: set before\n  hint: do better")
    assert problem.to_dict()["line"] == 2


def test_long_lines_are_cut_around_the_column() -> None:
    problems = Problems()
    problems.sources["c"] = "x" * 500 + "Y" + "x" * 500
    problems.error("there", Location("c", 1, 501))
    _, line, caret = problems.errors[0].text().split("\n")
    assert len(line) <= 110 and line[caret.index("^")] == "Y"


def test_sorted_and_counted_once() -> None:
    problems = Problems()
    for line in (3, 1, 2, 1):
        problems.error("x", Location("f", line, 1))
    problems.warn("w", Location("f", 9, 1))
    assert [item.location.line for item in problems.errors if item.location] == [1, 2, 3]
    assert len(problems.warnings) == 1 and problems


def test_the_exception_carries_all_and_crosses_a_socket() -> None:
    problems = Problems()
    problems.check()
    for line in range(LIMIT + 5):
        problems.error("x", Location("f", line + 1, 1))
    try:
        problems.check()
    except ComposeError as error:
        assert str(error).endswith("… and 5 more errors")
        assert len(error.problems) == LIMIT + 5
        other = OrchestraError.from_dict(error.to_dict())
        assert (other.brief, other.exit_code) == ("x", error.exit_code)
    else:
        raise AssertionError("nothing was raised")


def test_problems_without_a_place() -> None:
    problems = Problems()
    problems.error("alone")
    assert problems.errors[0].text() == "error: alone"
