"""Properties of the text half of the Compose language: bounded, never a traceback, lawful merging."""

from __future__ import annotations

import string
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestra.compose import dotenv, merge, reader
from orchestra.compose.diagnostics import ComposeError, Problems
from orchestra.compose.interpolate import (
    Interpolator,
    InvalidTemplate,
    MissingVariable,
    substitute,
    variables,
)
from orchestra.compose.tree import Mapping, clone, from_plain, plain, walk

RELAXED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

template = st.lists(st.sampled_from(
    ["$", "$$", "${", "}", "{", ":-", "-", ":?", "?", ":+", "+", "A", "B", "NOPE", "x", " ", "\n", "é", "1", "/"]),
    max_size=30).map("".join)
NAMES = {"A": "a", "B": ""}


@RELAXED
@given(template | st.text())
def test_interpolation_gives_text_or_one_of_its_two_errors(text: str) -> None:
    try:
        result = substitute(text, NAMES.get)
    except (InvalidTemplate, MissingVariable):
        return
    assert isinstance(result, str)


@RELAXED
@given(st.text())
def test_doubled_dollars_come_out_as_written(text: str) -> None:
    assert substitute(text.replace("$", "$$"), NAMES.get) == text


@RELAXED
@given(st.text(alphabet=st.characters(exclude_characters="$")))
def test_text_without_dollar_is_untouched(text: str) -> None:
    assert substitute(text, NAMES.get) == text


@RELAXED
@given(st.text() | template | st.lists(st.sampled_from(
    ["A", "=", "'", '"', "\\", "\n", " #", "#", "$A", "${", "}", "export ", ":", " ", "\t", "\r\n", "n", "0"]),
    max_size=25).map("".join))
def test_env_files_give_variables_or_a_numbered_error(text: str) -> None:
    for read in (lambda: dotenv.parse(text, NAMES.get), lambda: dotenv.parse_raw(text, NAMES.get)):
        try:
            found = read()
        except dotenv.DotenvError as error:
            assert 1 <= error.line <= text.count("\n") + 1
            continue
        assert all(key and 1 <= line <= text.count("\n") + 1 for key, (_, line) in found.items())


@RELAXED
@given(st.dictionaries(st.text(string.ascii_letters + "_", min_size=1), st.text(
    alphabet=st.characters(exclude_characters="\r", exclude_categories=["Cs"]))))
def test_single_quotes_round_trip(data: dict[str, str]) -> None:
    data = {key: value for key, value in data.items() if not value.endswith("\\") and "\\'" not in value}
    text = "".join(f"{key}='" + value.replace("'", "\\'") + "'\n" for key, value in data.items())
    found = dotenv.parse(text, {}.get)
    assert {key: value for key, (value, _) in found.items()} == data


yaml_like = st.lists(st.sampled_from(
    ["a", "b", ": ", "- ", "\n", "  ", "[", "]", "{", "}", ",", "&x ", "*x", "<<", "!reset", "!override ", "!!int ",
     "'", '"', "|", ">", "#", "? ", "---\n", "...\n", "yes", "1", "0x", "2001-01-01", "~", "\t", "%", "@", "é", "\x00"]),
    max_size=40).map("".join)


@RELAXED
@given(yaml_like | st.text())
def test_yaml_gives_trees_or_located_problems(text: str) -> None:
    problems = Problems()
    try:
        documents = reader.parse(text, "c.yaml", problems)
    except ComposeError as error:
        assert all(item.location is not None for item in error.problems)
        assert str(error)
        return
    for document in documents:
        for _, node in walk(document):
            assert node.location.line >= 1
        variables(document)
        Interpolator(NAMES, problems, set()).tree(document)
        merge.take_tags(document)
    for problem in problems:
        assert problem.text()


keys = st.sampled_from(["services", "networks", "a", "b", "ports", "environment", "build", "args", "logging", "depends_on",
                        "volumes", "ulimits", "ipam", "config", "labels", "command", "extra_hosts", "driver", "subnet"])
leaves = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | st.text(
    "abK=:/$", max_size=5)
trees = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
                     max_leaves=25)
documents = st.dictionaries(keys, trees, max_size=4).map(
    lambda data: {"services": {"a": data, "b": data}, "networks": {"n": data}})


def tree(data: Any) -> Mapping:
    node = from_plain(data)
    assert isinstance(node, Mapping)
    return node


def combine(*parts: Any) -> tuple[Any, bool]:
    """(merged data, whether something clashed)."""
    problems = Problems()
    root = tree(parts[0])
    for part in parts[1:]:
        merge.merge(root, tree(part), problems)
        merge.unique(root)
    return plain(root), bool(problems.errors)


@RELAXED
@given(documents, documents)
def test_merging_anything_ends_well(one: Any, two: Any) -> None:
    combine(one, two)


@RELAXED
@given(documents)
def test_nothing_over_something_changes_nothing_but_repetitions(one: Any) -> None:
    once, _ = combine(one, {})
    assert combine(once, {}) == (once, False)


values = st.text("ab", max_size=2)
plain_service = st.fixed_dictionaries({}, optional={
    "user": values, "hostname": values, "command": st.lists(values, max_size=2),
    "environment": st.dictionaries(values.filter(bool), values, max_size=3),
    "cap_add": st.lists(values, max_size=3), "post_start": st.lists(values, max_size=2),
    "deploy": st.fixed_dictionaries({}, optional={"replicas": st.integers(0, 3), "mode": values}),
    "ulimits": st.dictionaries(values, st.integers(0, 3), max_size=2),
})


@RELAXED
@given(plain_service, plain_service, plain_service)
def test_merging_is_associative_for_services(one: Any, two: Any, three: Any) -> None:
    one, two, three = ({"services": {"a": part}} for part in (one, two, three))
    left, clash = combine(combine(one, two)[0], three)
    right, clash2 = combine(one, combine(two, three)[0])
    assert not clash and not clash2
    assert _sets(left) == _sets(right)


def _sets(data: Any) -> Any:
    """Repeated ``K=V`` items keep the first position, so only their content is compared."""
    service = data["services"]["a"]
    environment = service.get("environment")
    if isinstance(environment, dict):
        environment = [f"{key}={value}" for key, value in environment.items()]
    return {**service, "environment": sorted(environment or [])}


@RELAXED
@given(documents)
def test_copies_are_equal_and_independent(data: Any) -> None:
    node = tree(data)
    copy = clone(node)
    assert plain(copy) == data
    assert isinstance(copy, Mapping)
    copy.items.clear()
    assert plain(node) == data
