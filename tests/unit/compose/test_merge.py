"""The merge table, unique items, !reset and !override, and the history of values."""

from __future__ import annotations

from typing import Any

import pytest

from orchestra.compose import merge, reader
from orchestra.compose.diagnostics import Problems
from orchestra.compose.tree import Mapping, get, plain


def document(text: str, problems: Problems) -> Mapping:
    (root,) = reader.parse(text, "c.yaml", problems)
    assert isinstance(root, Mapping)
    return root


def merged(base: str, over: str) -> tuple[Mapping, Problems]:
    problems = Problems()
    left, right = document(base, problems), document(over, problems)
    tags = merge.take_tags(right)
    merge.apply_tags(left, right, tags)
    merge.merge(left, right, problems)
    merge.unique(left)
    return left, problems


def service(base: str, over: str) -> Any:
    root, problems = merged(f"services: {{a: {{{base}}}}}\n", f"services: {{a: {{{over}}}}}\n")
    assert not problems.errors
    return plain(get(root, ("services", "a")))


@pytest.mark.parametrize(("base", "over", "result"), [
    ("user: a", "user: b", {"user": "b"}), ("user: a", "user: ", {"user": "a"}), ("user: ", "user: b", {"user": "b"}),
    ("command: a b", "command: [c]", {"command": ["c"]}), ("command: [a, b]", "command: ", {"command": None}),
    ("entrypoint: [a]", "entrypoint: []", {"entrypoint": []}),
    ("healthcheck: {test: [CMD, a], interval: 5s}", "healthcheck: {test: b}", {"healthcheck": {"test": "b", "interval": "5s"}}),
    ("environment: {B: 1, A: true, C: }", "environment: [A=2, D]", {"environment": ["A=2", "B=1", "C", "D"]}),
    ("environment: {F: 1000000.0, G: 0.00001, H: 1.10, I: 123456.5}", "environment: []",
     {"environment": ["F=1e+06", "G=1e-05", "H=1.1", "I=123456.5"]}),
    ("labels: [a=1, b]", "labels: {a: 2}", {"labels": ["a=2", "b"]}),
    ("build: .", "build: {dockerfile: D}", {"build": {"context": ".", "dockerfile": "D"}}),
    ("build: {context: a, args: {A: 1}}", "build: {args: [A=2]}", {"build": {"context": "a", "args": ["A=2"]}}),
    ("cap_add: [A, B]", "cap_add: [B, C]", {"cap_add": ["A", "B", "C"]}),
    ("security_opt: [a]", "security_opt: [a]", {"security_opt": ["a", "a"]}),
    ("dns: 1.1.1.1", "dns: [1.1.1.1, 2.2.2.2]", {"dns": ["1.1.1.1", "2.2.2.2"]}),
    ("volumes: ['/a:/x', '/b:/y']", "volumes: ['/c:/x']", {"volumes": ["/c:/x", "/b:/y"]}),
    ("secrets: [s]", "secrets: [{source: s, uid: '1'}]", {"secrets": [{"source": "s", "uid": "1"}]}),
    ("configs: [s]", "configs: [{source: s, target: /q}]", {"configs": ["s", {"source": "s", "target": "/q"}]}),
    ("extra_hosts: ['h=1']", "extra_hosts: {h: 2, k: [3, 4]}", {"extra_hosts": ["h=1", "h=2", "k=3", "k=4"]}),
    ("extra_hosts: ['h=1']", "extra_hosts: ['h=1']", {"extra_hosts": ["h=1"]}),
    ("depends_on: [b]", "depends_on: {b: {condition: service_healthy}}",
     {"depends_on": {"b": {"condition": "service_healthy", "required": True}}}),
    ("networks: [n]", "networks: {n: {aliases: [q]}, m: }", {"networks": {"n": {"aliases": ["q"]}, "m": None}}),
    ("logging: {driver: a, options: {x: 1}}", "logging: {options: {y: 2}}",
     {"logging": {"driver": "a", "options": {"x": 1, "y": 2}}}),
    ("logging: {driver: a, options: {x: 1}}", "logging: {driver: b}", {"logging": {"driver": "b"}}),
    ("ulimits: {n: {soft: 1, hard: 2}}", "ulimits: {n: 5}", {"ulimits": {"n": 5}}),
    ("ports: [{target: 80, published: '1'}]", "ports: [{target: 80, published: '1', host_ip: 0.0.0.0, protocol: tcp}]",
     {"ports": [{"target": 80, "published": "1", "host_ip": "0.0.0.0", "protocol": "tcp"}]}),
    ("env_file: e", "env_file: [{path: e, required: false}]", {"env_file": [{"path": "e", "required": False}]}),
    ("post_start: [{command: a}]", "post_start: [{command: a}]", {"post_start": [{"command": "a"}, {"command": "a"}]}),
    ("ports: ['1', '2']", "ports: !reset ['3']", {}), ("ports: ['1', '2']", "ports: !override ['3']", {"ports": ["3"]}),
    ("environment: {A: 1, B: 2}", "environment: {A: !reset }", {"environment": ["B=2"]}),
    ("user: a", "hostname: !reset x", {"user": "a"}), ("build: {context: a}", "build: !override b", {"build": "b"}),
    ("ports: ['1', '2']", "ports: [!reset '1', '3']", {"ports": ["1", "2", "3"]}),
])
def test_table(base: str, over: str, result: Any) -> None:
    assert service(base, over) == result


def test_ipam_pools_merge_by_subnet() -> None:
    root, _ = merged("networks: {n: {ipam: {config: [{subnet: a}]}}}\n",
                     "networks: {n: {ipam: {config: [{subnet: a, gateway: g}, {subnet: b}]}}}\n")
    assert plain(get(root, ("networks", "n", "ipam", "config"))) == [{"subnet": "a", "gateway": "g"}, {"subnet": "b"}]


def test_ipam_pools_that_are_not_named_again_go() -> None:
    root, _ = merged("networks: {n: {ipam: {config: [{subnet: a, gateway: g}, {subnet: c}]}}}\n",
                     "networks: {n: {ipam: {config: [{subnet: b}, {subnet: a}]}}}\n")
    assert plain(get(root, ("networks", "n", "ipam", "config"))) == [{"subnet": "b"}, {"subnet": "a", "gateway": "g"}]


@pytest.mark.parametrize(("base", "over", "path"), [
    ("ports: ['80']", "ports: {a: 1}", "services.a.ports"), ("cap_add: [A]", "cap_add: A", "services.a.cap_add"),
    ("networks: [n]", "networks: x", "services.a.networks"), ("build: .", "build: [a]", "services.a.build"),
    ("logging: {driver: a}", "logging: [a]", "services.a.logging"),
])
def test_clashes_name_path_and_both_places(base: str, over: str, path: str) -> None:
    _, problems = merged(f"services: {{a: {{{base}}}}}\n", f"services: {{a: {{{over}}}}}\n")
    (problem,) = problems.errors
    assert problem.message.startswith(f"cannot override {path}:")
    assert problem.notes[0].startswith("set before at c.yaml:1:")


def test_reset_removes_whole_services() -> None:
    root, _ = merged("services: {a: {image: x}, b: {image: y}}\n", "services: {b: !reset }\n")
    assert plain(root) == {"services": {"a": {"image": "x"}}}


def test_history_of_a_value() -> None:
    problems = Problems()
    root = document("services: {a: {environment: [A=1], user: u}}\n", problems)
    for text in ("services: {a: {environment: {A: 2}, user: v}}\n", "services: {a: {environment: [A=3], user: !override w}}\n"):
        over = document(text, problems)
        merge.apply_tags(root, over, merge.take_tags(over))
        merge.merge(root, over, problems)
        merge.unique(root)
    for path, history in ((("services", "a", "environment", 0), ["A=3", "A=2", "A=1"]), (("services", "a", "user"), ["w", "v", "u"])):
        node, values = get(root, path), []
        while node is not None:
            values.append(plain(node))
            node = node.previous
        assert values == history
