"""A project crosses the socket unchanged."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support.compose_cases import cases
from support.compose_text import project

from orchestra.compose.codec import project_from_dict, to_dict, value_from_dict
from orchestra.compose.model import Mount, Port, Project


def crossed(found: Project) -> Project:
    return project_from_dict(json.loads(json.dumps(to_dict(found))))


def test_round_trip() -> None:
    found = project(
        "services: {a: {image: x, ports: [80], volumes: [/x, '/a:/b'], depends_on: [b], healthcheck: {test: a, interval: 5s},"
        " deploy: {replicas: 0}, command: [], init: false, environment: {A: , B: ''}, ulimits: {nofile: 5}}, b: {image: y}}")
    assert crossed(found) == found


def test_corpus_round_trip() -> None:
    from orchestra.compose import ComposeError, load

    count = 0
    for case in cases():
        if not case.name.startswith("model-"):
            continue
        try:
            found = load(case.load_options(case.folder / "input"))
        except ComposeError:
            continue
        assert crossed(found) == found, case.name
        count += 1
    assert count > 150


def test_defaults_are_not_sent() -> None:
    assert to_dict(Port(80)) == {"target": 80}
    assert to_dict(replace(Port(80), protocol="udp")) == {"target": 80, "protocol": "udp"}


def test_unknown_fields_are_ignored() -> None:
    assert value_from_dict(Mount, {"type": "bind", "target": "/x", "newer": 1}) == Mount("bind", "/x")


def test_other_values_are_refused() -> None:
    with pytest.raises(TypeError):
        to_dict(object())
