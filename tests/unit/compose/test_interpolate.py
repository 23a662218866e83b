"""The interpolation grammar and its casts."""

from __future__ import annotations

import pytest

from orchestra.compose import reader
from orchestra.compose.diagnostics import ComposeError, Problems
from orchestra.compose.interpolate import (
    Interpolator,
    InvalidTemplate,
    MissingVariable,
    substitute,
    variables,
)
from orchestra.compose.tree import Scalar, get, plain

ENV = {"SET": "value", "EMPTY": "", "NUM": "3", "REF": "$SET"}


@pytest.mark.parametrize(("text", "result"), [
    ("$SET", "value"), ("${SET}", "value"), ("a${NOPE}b", "ab"), ("${REF}", "$SET"),
    ("${EMPTY:-d}${EMPTY-d}", "d"), ("${NOPE:-d}${NOPE-e}", "de"),
    ("${SET:+y}${SET+y}-${EMPTY:+y}-${EMPTY+y}-${NOPE:+y}-${NOPE+y}", "yy--y--"),
    ("${SET:?no}${EMPTY?no}", "value"), ("$$SET $${SET} $$$SET", "$SET ${SET} $value"),
    ("$ $5 $- a$", "$ $5 $- a$"), ("${NOPE:-${NADA:-${SET}}-x}", "value-x"),
    ("${NOPE:-a${SET}b${NUM}c}", "avalueb3c"), ('${NOPE:-{"json":{"a":1}}}', '{"json":{"a":1}}'),
    ("${NOPE:-a?b:+c}", "a?b:+c"), ("${NOPE-a:-b}", "a:-b"), ("${set:-lower}", "lower"), ("$SET-x", "value-x"),
    ("$SET_x", ""), ("${SET}}", "value}"), ("${NOPE:-$$SET}", "$SET"), ("${NOPE:- a }", " a "), ("$é", "$é"),
    ("${NOPE:-one\ntwo}", "one\ntwo"), ("${SET:-${NADA?boom}}", "value"), ("${SET:+${NUM}}", "3"), ("", ""),
])
def test_grammar(text: str, result: str) -> None:
    assert substitute(text, ENV.get) == result


@pytest.mark.parametrize("text", ["${", "${}", "${1X}", "${SET/a/b}", "${SET", "${SET:-x", "${ SET }", "${SET:x}",
                                  "${é}", "${NOPE:-${}}", "${SET:", "${-x}", "${$SET}"])
def test_invalid(text: str) -> None:
    with pytest.raises(InvalidTemplate):
        substitute(text, ENV.get)


@pytest.mark.parametrize(("text", "message"), [
    ("${NOPE?}", "required variable NOPE is missing a value"),
    ("${EMPTY:?set it to ${SET}}", "required variable EMPTY is missing a value: set it to value"),
    ("${NOPE:-${NADA?boom}}", "required variable NADA is missing a value: boom"),
])
def test_required(text: str, message: str) -> None:
    with pytest.raises(MissingVariable, match="^" + message + "$"):
        substitute(text, ENV.get)


def test_missing_are_named() -> None:
    missing: list[str] = []
    substitute("$A ${B} ${C:-x} ${D-${E}}", ENV.get, missing)
    assert missing == ["A", "B", "E"]


def test_deep_nesting_is_bounded() -> None:
    with pytest.raises(InvalidTemplate):
        substitute("${A:-" * 500 + "}" * 500, ENV.get)


def run(text: str) -> tuple[object, Problems]:
    problems = Problems()
    (root,) = reader.parse(text, "c.yaml", problems)
    Interpolator(ENV, problems, set()).tree(root)
    return plain(root), problems


def test_casts() -> None:
    text = ("services: {a: {scale: $NUM, cpus: '${NUM}.5', tty: 'true', privileged: 'off', user: '5',"
            " ulimits: {nofile: '5', x: {soft: '1', hard: '2'}}, ports: [{target: '80', published: '90'}, '81'],"
            " cpu_rt_period: '5ms'}}\nnetworks: {n: {external: 'yes'}}\n")
    data, problems = run(text)
    assert data == {
        "services": {"a": {
            "scale": 3, "cpus": 3.5, "tty": True, "privileged": False, "user": "5",
            "ulimits": {"nofile": 5, "x": {"soft": 1, "hard": 2}},
            "ports": [{"target": 80, "published": "90"}, "81"], "cpu_rt_period": "5ms"}},
        "networks": {"n": {"external": True}},
    }
    assert len(problems.warnings) == 2
    assert not problems.errors


@pytest.mark.parametrize("body", ["tty: maybe", "tty: '1'", "scale: abc", "scale: '0x10'", "scale: ' 2'", "cpus: abc",
                                  "init: $NOPE", "pids_limit: '1.5'", "scale: ''"])
def test_bad_casts_name_the_path(body: str) -> None:
    _, problems = run(f"services: {{a: {{{body}}}}}\n")
    (problem,) = problems.errors
    assert problem.path == f"services.a.{body.split(':')[0]}"
    assert problem.location is not None


def test_keys_stay_and_several_problems_are_found() -> None:
    data, problems = run("$SET: $SET\nb: ['${', '${NOPE?x}', $NUM]\n")
    assert data == {"$SET": "value", "b": ["${", "${NOPE?x}", "3"]}
    assert [problem.path for problem in problems.errors] == ["b[0]", "b[1]"]


def test_unset_variable_warns_once_at_its_first_place() -> None:
    _, problems = run("a: $NOPE\nb: $NOPE\n")
    (warning,) = problems.warnings
    assert warning.location is not None and warning.location.line == 1
    assert 'the "NOPE" variable is not set' in warning.message


def test_variables_are_remembered_on_the_node() -> None:
    problems = Problems()
    (root,) = reader.parse("a: ${X:-$SET}$NUM\n", "c.yaml", problems)
    Interpolator(ENV, problems, set()).tree(root)
    node = get(root, ("a",))
    assert isinstance(node, Scalar)
    assert (node.value, node.raw, node.variables) == ("value3", "${X:-$SET}$NUM", ("X", "SET", "NUM"))


def test_mentioned_variables() -> None:
    (root,) = reader.parse("a: ['$A ${B:-${C?x}} $$D']\n", "c.yaml", Problems())
    assert variables(root) == {"A": ("", "", "a[0]"), "B": (":-", "${C?x}", "a[0]"), "C": ("?", "x", "a[0]")}


def test_growth_of_a_document_is_bounded() -> None:
    problems = Problems()
    (root,) = reader.parse("a: [" + "$BIG," * 200 + "]\n", "c.yaml", problems)
    with pytest.raises(ComposeError):
        Interpolator({"BIG": "x" * 1_000_000}, problems, set()).tree(root)
    with pytest.raises(InvalidTemplate):
        substitute("$BIG" * 20, {"BIG": "x" * 1_000_000}.get)
