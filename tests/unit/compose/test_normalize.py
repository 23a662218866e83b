"""Short forms, defaults, paths and names; everything twice gives the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.compose_text import loaded, project

from orchestra.compose import normalize, normalize_ports, normalize_volumes
from orchestra.compose.diagnostics import Problems
from orchestra.compose.options import LoadContext
from orchestra.compose.tree import Mapping, from_plain, plain


@pytest.mark.parametrize(("text", "entries"), [
    ("80", [(80, "", "")]), ("8080:80", [(80, "8080", "")]), ("1-2:3-4", [(3, "1", ""), (4, "2", "")]),
    ("8000-8009:80", [(80, "8000-8009", "")]), ("[::1]:80:81", [(81, "80", "::1")]), ("127.0.0.1::80", [(80, "", "127.0.0.1")]),
    ("3-5", [(3, "", ""), (4, "", ""), (5, "", "")])])
def test_ports(text: str, entries: list[tuple[int, str, str]]) -> None:
    made = normalize_ports.parse(text)
    assert [(port["target"], port.get("published", ""), port.get("host_ip", "")) for port in made] == entries


@pytest.mark.parametrize("text", ["", "x", "80:x", "70000", "80-81:80-82", "80/foo", "1.2.3:80:80", "90-80", "80:", "::"])
def test_ports_refused(text: str) -> None:
    with pytest.raises(ValueError):
        normalize_ports.parse(text)


@given(st.text(st.sampled_from("0123456789:-[]/.tcpud"), max_size=20))
def test_ports_never_break(text: str) -> None:
    try:
        made = normalize_ports.parse(text)
    except ValueError:
        return
    assert all(0 <= port["target"] <= 65535 for port in made)


@given(st.text(st.sampled_from("abC:/.~,rozZ\\"), max_size=16))
def test_volumes_never_break(text: str) -> None:
    try:
        made = normalize_volumes.parse(text)
    except ValueError:
        return
    assert made["type"] in ("bind", "volume") and made["target"]


SHORT = {
    "services": {
        "a": {"image": "x", "ports": ["80-81"], "volumes": ["/a:/b", "v:/v", "vv:/vv:ro"], "build": ".", "depends_on": ["b"],
              "networks": ["n"], "devices": ["/dev/a"], "dns": "1.1.1.1", "tmpfs": "/t", "env_file": "e", "secrets": ["s"],
              "gpus": "all", "configs": ["c"], "links": ["b"], "models": ["m"]},
        "b": {"image": "y"}},
    "networks": {"n": {"external": {"name": "foo"}}}, "volumes": {"vv": None}, "secrets": {"s": {"file": "f"}}}


def context() -> LoadContext:
    return LoadContext("/srv/p", {}, Problems(), project_name="p", home="/home/u")


def test_twice_is_once() -> None:
    tree = from_plain(SHORT)
    assert isinstance(tree, Mapping)
    seen = []
    for _ in range(2):
        for step in (normalize.canonical, normalize.defaults, normalize.resolve_paths, normalize.names):
            step(tree, context())
        seen.append(plain(tree))
    assert seen[0] == seen[1]
    made = seen[0]
    assert made["networks"] == {"n": {"external": True, "name": "foo"}, "default": {"name": "p_default"}}
    assert made["services"]["a"]["env_file"] == [{"path": "/srv/p/e", "required": True}]
    assert made["services"]["a"]["secrets"] == [{"source": "s", "target": "/run/secrets/s"}]
    assert made["secrets"]["s"] == {"file": "/srv/p/f", "name": "p_s"}


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=4), lambda inner: st.lists(
    inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.sampled_from(["source", "target", "type", "path"]), inner,
                                         max_size=3), max_leaves=8), st.sampled_from(sorted(SHORT["services"]["a"])))
def test_unknown_shapes_are_left_alone(value: object, key: str) -> None:
    tree = from_plain({"services": {"a": {key: value}, "b": value}, "networks": value, "volumes": {"v": value}})
    assert isinstance(tree, Mapping)
    for step in (normalize.canonical, normalize.defaults, normalize.resolve_paths, normalize.names):
        step(tree, context())


@pytest.mark.parametrize(("context", "remote"), [
    ("https://x/y.git", True), ("git@github.com:x/y", True), ("github.com/x/y", True), ("ssh://x", True), (".", False),
    ("./https", False), ("/a", False)])
def test_is_remote(context: str, remote: bool) -> None:
    assert normalize.is_remote(context) is remote


def test_home() -> None:
    found = project("services: {a: {image: x, volumes: ['~/x:/x', '~:/y']}}")
    assert [mount.source for mount in found.services["a"].volumes] == ["/home/u/x", "/home/u"]


def test_problems_stand_at_the_short_text() -> None:
    from support.compose_text import problems

    place = problems("services:\n  a:\n    image: x\n    ports:\n      - 80\n      - 'x'\n")[0].location
    assert place is not None and (place.line, place.column) == (6, 9)


def test_derived_values_stand_where_the_text_stood() -> None:
    from orchestra.compose.tree import get

    tree = loaded("services:\n  a:\n    image: x\n    ports: ['80:81']\n").tree
    node = get(tree, ("services", "a", "ports", 0, "target"))
    assert node is not None and (node.location.line, node.location.column) == (4, 13)
