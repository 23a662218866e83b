"""Generated documents: refused with problems, or a model that dumps, hashes, crosses the socket and loads back."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.compose_text import loaded

from orchestra.compose import dump
from orchestra.compose.codec import project_from_dict, to_dict
from orchestra.compose.diagnostics import ComposeError
from orchestra.compose.hash import aspects, service_hash

WORD = st.sampled_from(["a", "b", "x", "$$v", "a b", "y", "1", "~"])
NUMBER = st.integers(0, 70000)
PAIRS = st.dictionaries(WORD, st.none() | WORD | NUMBER | st.booleans(), max_size=3) | st.lists(
    st.tuples(WORD, WORD).map("=".join), max_size=3, unique=True)
SIZE = NUMBER | st.sampled_from(["1g", "1.5m", "64KiB", "-1", "5x"])
TIME = st.sampled_from(["1s", "90s", "1h30m", "2d", "250ms", "0s", "10"])
PORT = st.sampled_from(["80", "8080:80", "127.0.0.1::80", "1-2:3-4/udp", "[::1]:80:80", "x", "8000-8009:80"]) | st.integers(1, 65535)
MOUNT = st.sampled_from(["/x", "./a:/b", "vv:/v:ro", "~/h:/h", "/a:/b:z,rshared", ":/x", "vv:/n:nocopy"])
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "image": st.sampled_from(["x", "a/b:1"]), "build": st.sampled_from([".", {}, {"context": "./d", "args": {"A": 1}}]),
    "command": st.none() | WORD | st.lists(WORD, max_size=3), "entrypoint": st.none() | st.lists(WORD, max_size=2),
    "environment": PAIRS, "labels": PAIRS, "annotations": PAIRS, "sysctls": PAIRS, "mem_limit": SIZE, "shm_size": SIZE,
    "memswap_limit": SIZE, "stop_grace_period": TIME, "ports": st.lists(PORT, max_size=3, unique_by=str),
    "volumes": st.lists(MOUNT, max_size=3, unique=True), "depends_on": st.sampled_from([["b"], [], {"b": {"condition": "service_healthy"}}]),
    "healthcheck": st.fixed_dictionaries({}, optional={"test": WORD, "interval": TIME, "retries": NUMBER}),
    "networks": st.sampled_from([["n"], {"n": None}, {"default": {"aliases": ["q"]}}, []]), "init": st.booleans(),
    "scale": st.integers(-1, 3), "ulimits": st.dictionaries(st.just("nofile"), NUMBER, max_size=1),
    "deploy": st.fixed_dictionaries({}, optional={"replicas": st.integers(0, 3), "labels": PAIRS, "resources": st.fixed_dictionaries(
        {}, optional={"limits": st.fixed_dictionaries({}, optional={"cpus": st.sampled_from(["0.5", 1]), "memory": st.just("1g")})})}),
    "tmpfs": st.sampled_from(["/t", ["/t", "/u:size=1m"]]), "post_start": st.lists(st.fixed_dictionaries({"command": WORD}), max_size=1),
    "secrets": st.sampled_from([["s"], [{"source": "s", "target": "t", "mode": 256}], []]), "x-own": WORD,
    "extra_hosts": st.sampled_from([["a:1.1.1.1"], {"b": ["::1", "1.1.1.2"]}]), "user": WORD, "privileged": st.booleans(),
}


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.fixed_dictionaries({}, optional=FIELDS))
def test_any_service(service: dict[str, Any]) -> None:
    document = {"services": {"a": {"image": "x", **service}, "b": {"image": "y"}}, "networks": {"n": {}}, "volumes": {"vv": None},
                "secrets": {"s": {"file": "s"}}, "x-top": service.get("x-own")}
    try:
        first = loaded(json.dumps(document))
    except ComposeError as error:
        assert all(item.message and item.location and item.location.line for item in error.problems)
        return
    project = first.project
    assert project_from_dict(json.loads(json.dumps(to_dict(project)))) == project
    for item in project.services.values():
        assert len(service_hash(item)) == 64 and aspects(item)
    for text in (dump.to_yaml(first), dump.to_json(first)):
        again = loaded(text)
        assert {name: item.canonical for name, item in again.project.services.items()} == {
            name: item.canonical for name, item in project.services.items()}
        assert {name: service_hash(item) for name, item in again.project.services.items()} == {
            name: service_hash(item) for name, item in project.services.items()}
    assert dump.to_yaml(loaded(dump.to_yaml(first))) == dump.to_yaml(first)
