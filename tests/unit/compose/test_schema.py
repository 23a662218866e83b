"""Our schema is a schema, equal to the official one, and its compiled form decides as jsonschema does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from orchestra.compose.schema import checker, document
from orchestra.compose.tree import from_plain

CHECKOUT = Path(__file__).resolve().parents[3]
OFFICIAL = CHECKOUT.parent / "shared/data/compose-spec.json"
CASES = CHECKOUT / "tests/conformance/compose/cases"


def compiled(data: Any) -> bool:
    faults: list[Any] = []
    checker()(from_plain(data), (), faults)
    return not faults


@lru_cache(maxsize=1)
def ours() -> Draft202012Validator:
    return Draft202012Validator(document())


@lru_cache(maxsize=1)
def official() -> Draft202012Validator | None:
    return Draft202012Validator(json.loads(OFFICIAL.read_text())) if OFFICIAL.is_file() else None


def agree(data: Any) -> None:
    verdict = ours().is_valid(data)
    assert compiled(data) == verdict, [error.message for error in ours().iter_errors(data)]
    peer = official()
    if peer is not None:
        assert peer.is_valid(data) == verdict, json.dumps(data)[:500]


def corpus() -> Iterator[Any]:
    for file in sorted(CASES.glob("*/input/**/*.y*ml")):
        try:
            for data in yaml.load_all(file.read_text("utf-8"), yaml.CSafeLoader):
                yield json.loads(json.dumps(data))
        except (yaml.YAMLError, ValueError, TypeError, UnicodeError, RecursionError):
            continue


def test_is_a_schema() -> None:
    Draft202012Validator.check_schema(document())


def test_every_attribute_is_described() -> None:
    service = document()["$defs"]["service"]["properties"]
    assert len(service) > 90
    for name, item in service.items():
        assert item.get("title") == name
    described = [name for name, item in service.items() if item.get("description")]
    assert len(described) > 90


@pytest.mark.skipif(not OFFICIAL.is_file(), reason="the official schema is not beside the checkout")
def test_the_official_schema_is_there() -> None:
    assert official() is not None


def test_corpus() -> None:
    count = 0
    for data in corpus():
        agree(data)
        count += 1
    assert count > 300


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 2000), st.floats(allow_nan=False, allow_infinity=False, width=16),
    st.sampled_from(["", "a", "80", "1g", "10s", "always", "host", "service_started", "bind", "sync", "z", "all", "x-a"]))
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(["a", "x-b", "type", "source", "target", "path", "command", "soft", "hard", "name", "condition", ""]),
    inner, max_size=3), max_leaves=6)


def names(schema: dict[str, Any]) -> list[str]:
    found = set(schema.get("properties", ()))
    for value in schema.values():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                found.update(names(item))
    return sorted(found)


def from_schema(schema: dict[str, Any], depth: int = 0) -> st.SearchStrategy[Any]:
    """Documents that mostly fit the schema, with slips."""
    defs = document()["$defs"]
    if "$ref" in schema:
        return st.deferred(lambda: from_schema(defs[schema["$ref"].rsplit("/", 1)[1]], depth))
    if "oneOf" in schema:
        return st.one_of(*(from_schema(item, depth) for item in schema["oneOf"]), VALUES if depth else LEAVES)
    properties = schema.get("properties")
    if properties and depth < 6:
        inner = {key: from_schema(value, depth + 1) for key, value in properties.items()}
        chosen = st.lists(st.sampled_from(sorted(inner)), max_size=4, unique=True)
        required = schema.get("required", [])
        return chosen.flatmap(lambda keys: st.fixed_dictionaries({key: inner[key] for key in {*keys, *required}}))
    if "patternProperties" in schema and depth < 6:
        value = next(iter(schema["patternProperties"].values()))
        return st.dictionaries(st.sampled_from(["a", "b", "x-c", "a b", "nofile"]), from_schema(value, depth + 1), max_size=2)
    if "items" in schema and depth < 7:
        return st.lists(from_schema(schema["items"], depth + 1), max_size=3)
    if "enum" in schema:
        return st.sampled_from([*schema["enum"], "other"])
    return LEAVES


SERVICE = sorted(document()["$defs"]["service"]["properties"].items())
SLOW = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


@SLOW
@given(st.data())
def test_generated_services(data: st.DataObject) -> None:
    key, schema = data.draw(st.sampled_from(SERVICE))
    agree({"services": {"a": {"image": "x", key: data.draw(from_schema(schema, 1))}}})


@SLOW
@given(st.data())
def test_generated_resources(data: st.DataObject) -> None:
    section = data.draw(st.sampled_from(["networks", "volumes", "secrets", "configs", "models", "include"]))
    agree({section: data.draw(from_schema(document()["properties"][section]))})


@SLOW
@given(VALUES, st.sampled_from([key for key, _ in SERVICE]))
def test_any_value_anywhere(value: Any, key: str) -> None:
    agree({"services": {"a": {key: value}}})
