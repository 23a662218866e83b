"""Edges, orders, cycles and the five renderings."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
from support.compose_text import project

from orchestra.cli.render.graph import RENDERERS
from orchestra.graph import (
    CycleError,
    Thing,
    cycle,
    dependencies,
    drawing,
    graph,
    start_order,
    stop_order,
)

TEXT = """
services:
  web: {image: nginx, ports: ["80:80"], depends_on: {api: {condition: service_healthy, restart: true}}, networks: [front]}
  api: {build: ., depends_on: {db: {condition: service_healthy}, cache: {condition: service_started, required: false}},
        networks: [front, back], secrets: [key]}
  db: {image: db, volumes: ["data:/data", "ro:/ro:ro"], networks: [back]}
  cache: {image: cache, networks: [back], scale: 2}
networks: {front: {}, back: {internal: true}}
volumes: {data: {}, ro: {}}
secrets: {key: {environment: K}}
"""


def test_orders() -> None:
    found = project(TEXT)
    assert start_order(found) == (("cache", "db"), ("api",), ("web",))
    assert stop_order(found) == (("web",), ("api",), ("cache", "db"))


def test_reach() -> None:
    found = project(TEXT)
    assert dependencies(found, ["api"]) == {"api", "db", "cache"}


def test_edges() -> None:
    made = graph(project(TEXT))
    link = made.edges[Thing("service", "api"), Thing("service", "cache")]["link"]
    assert link.optional and link.label == "service_started"
    assert made.edges[Thing("service", "db"), Thing("volume", "ro")]["link"].label == "/ro:ro"


def test_cycle() -> None:
    found = project("services: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]}}", no_consistency=True)
    assert set(cycle(found)) == {"a", "b"} and len(cycle(found)) == 3
    with pytest.raises(CycleError, match="dependency cycle: "):
        start_order(found)


def test_renderings() -> None:
    made = drawing(project(TEXT))
    text = RENDERERS["text"](made)
    assert "  api  (build)\n" in text and "    after db [healthy]\n" in text and "network back: api, cache, db" in text
    dot = RENDERERS["dot"](made)
    assert '"service:web" -> "service:api" [label="healthy, restart"];' in dot and dot.count("{") == dot.count("}")
    mermaid = RENDERERS["mermaid"](made)
    assert mermaid.startswith("flowchart LR\n") and '-.->|"started, optional"|' in mermaid
    data = json.loads(RENDERERS["json"](made))
    assert data["start_order"] == [["cache", "db"], ["api"], ["web"]]
    assert {"from": "service:api", "to": "service:cache", "label": "service_started", "required": False,
            "restart": False} in data["edges"]
    root = ElementTree.fromstring(RENDERERS["svg"](made))
    assert len(root.findall("{http://www.w3.org/2000/svg}g")) == len(made.things)


def test_names_are_escaped() -> None:
    made = drawing(project('services: {a: {image: "x", ports: ["80"]}}\nx-a: 1', project_name="p"))
    made = type(made)('a"<&', made.things, made.links, made.layers, {made.things[0]: 'q"<\\'})
    ElementTree.fromstring(RENDERERS["svg"](made))
    assert '\\"<' in RENDERERS["dot"](made)
