"""The canonical texts: layout as docker compose's, and they load back to the same model."""

from __future__ import annotations

import json
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.compose_cases import cases
from support.compose_text import loaded

from orchestra.compose import dump
from orchestra.compose.diagnostics import Problems
from orchestra.compose.reader import parse
from orchestra.compose.tree import plain

TEXT = """
services:
  b: {image: y, environment: {A: "a\\nb\\n", B: "yes", C: "1.0", D: "$$x", E: " a", F: "a: b"}, ports: ["80:80"], x-own: 1}
  a: {build: ., depends_on: [b], command: [], networks: {n: }}
networks: {n: {internal: true}}
x-top: {k: [1, {a: b}]}
"""

YAML = """\
name: p
services:
  a:
    build:
      context: /srv/p
      dockerfile: Dockerfile
    command: []
    depends_on:
      b:
        condition: service_started
        required: true
    networks:
      "n": null
  b:
    environment:
      A: |
        a
        b
      B: "yes"
      C: "1.0"
      D: $$x
      E: ' a'
      F: 'a: b'
    image: "y"
    networks:
      default: null
    ports:
      - mode: ingress
        target: 80
        published: "80"
        protocol: tcp
    x-own: 1
networks:
  default:
    name: p_default
  "n":
    name: p_n
    internal: true
x-top:
  k:
    - 1
    - a: b
"""


def test_yaml_layout() -> None:
    assert dump.to_yaml(loaded(TEXT)) == YAML


def test_json() -> None:
    data = json.loads(dump.to_json(loaded(TEXT)))
    assert list(data) == ["name", "networks", "services", "x-top"]
    assert data["services"]["b"]["environment"]["D"] == "$$x"
    assert data["services"]["b"]["command"] is None
    assert "x-own" not in data["services"]["b"]


def test_corpus_loads_back() -> None:
    from orchestra.compose import ComposeError
    from orchestra.compose.loader import load_full

    count = 0
    for case in cases():
        if not case.name.startswith("model-") or any(key.startswith("no_") for key in case.options):
            continue
        try:
            first = load_full(case.load_options(case.folder / "input"))
        except ComposeError:
            continue
        for text in (dump.to_yaml(first), dump.to_json(first)):
            again = loaded(text, all_resources=True, profiles=("*",), environ={})
            for section in dump.SECTIONS:
                ours = {key: item.canonical for key, item in getattr(first.project, section).items()}
                theirs = {key: item.canonical for key, item in getattr(again.project, section).items()}
                assert theirs == ours, (case.name, section)
        count += 1
    assert count > 150


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=12) | st.sampled_from(
    ["\n", "a\n", "a\n\n", " a\nb", "a \nb", "yes", "~", "1_0", "0x1f", "1:30", "-", "- a", "a: b", "#a", "a #b", "'", '"', "\\",
     "\ta", "...", "---", "<<", "=", "2020-01-01", "\u2028", "\x85", "\ufeff", "|", "a:", ":a", "?", "? a", "%", "@", "!a", "*a", "&a"])
DATA = st.recursive(WORDS | st.none() | st.booleans() | st.integers(-10**12, 10**12), lambda inner: st.lists(
    inner, max_size=3) | st.dictionaries(WORDS.filter(bool), inner, max_size=3), max_leaves=10)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(WORDS.filter(bool), DATA, max_size=4))
def test_yaml_of_any_data(data: dict[str, Any]) -> None:
    text = dump.yaml_text(data)
    documents = parse(text, "x", Problems())
    assert plain(documents[0]) == data, text
    assert yaml.safe_load(text) == data


def test_keys_come_in_natural_order() -> None:
    from orchestra.compose.dump import yaml_text

    keys = ["web10", "web2", "WEB_S", "WEB_SERVER_ID", "WEB_SERVERS", "_A", "b"]
    data = {"services": dict.fromkeys(sorted(keys), "x")}
    assert [line.split(":")[0].strip() for line in yaml_text(data).splitlines()[1:]] == [
        "_A", "WEB_S", "WEB_SERVER_ID", "WEB_SERVERS", "b", "web2", "web10"]
