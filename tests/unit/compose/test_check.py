"""Every consistency rule refuses at its place; what is only odd is a warning."""

from __future__ import annotations

import pytest
from support.compose_text import loaded, problems

X = "image: x"


@pytest.mark.parametrize(("service", "words", "path"), [
    ("command: x", "neither an image nor a build context", "services.a"),
    (f"{X}, network_mode: host, networks: [default]", "both network_mode and networks", "services.a.network_mode"),
    (f"{X}, networks: [zz]", "undefined network 'zz'", "services.a.networks.zz"),
    (f"{X}, volumes: ['vv:/x']", "undefined volume 'vv'", "services.a.volumes[0]"),
    (f"{X}, secrets: [zz]", "undefined secret 'zz'", "services.a.secrets[0]"),
    (f"{X}, configs: [zz]", "undefined config 'zz'", "services.a.configs[0]"),
    (f"{X}, models: [zz]", "undefined model 'zz'", "services.a.models.zz"),
    (f"{X}, depends_on: [zz]", "undefined service 'zz'", "services.a.depends_on.zz"),
    (f"{X}, links: [zz]", "undefined service 'zz'", "services.a.depends_on.zz"),
    (f"{X}, depends_on: [a]", "dependency cycle: a -> a", "services.a.depends_on"),
    (f"{X}, container_name: foo, scale: 2", "cannot have 2 containers", "services.a.container_name"),
    (f"{X}, scale: 1, deploy: {{replicas: 2}}", "scale 1 and deploy.replicas 2", "services.a.scale"),
    (f"{X}, mem_limit: 1g, deploy: {{resources: {{limits: {{memory: 2g}}}}}}", "mem_limit and deploy", "services.a.mem_limit"),
    (f"{X}, cpus: 1, deploy: {{resources: {{limits: {{cpus: '2'}}}}}}", "cpus and deploy", "services.a.cpus"),
    (f"{X}, pids_limit: 1, deploy: {{resources: {{limits: {{pids: 2}}}}}}", "pids_limit and deploy", "services.a.pids_limit"),
    (f"{X}, mem_reservation: 1g, deploy: {{resources: {{reservations: {{memory: 2g}}}}}}", "mem_reservation and deploy",
     "services.a.mem_reservation"),
    (f"{X}, volumes: ['/a:/x', '/b:/x']", "", ""),
    (f"{X}, volumes: ['/a:/x'], tmpfs: [/x]", "have the target /x", "services.a.tmpfs[0]"),
    ("build: {dockerfile: a, dockerfile_inline: b}", "both dockerfile and dockerfile_inline", "services.a.build.dockerfile_inline"),
    ("build: {platforms: [linux/amd64]}, platform: linux/arm64", "lacks its platform", "services.a.build.platforms"),
    (f"{X}, gpus: [{{count: 1, device_ids: [a]}}]", "exclude each other", "services.a.gpus[0]"),
    (f"{X}, healthcheck: {{test: [foo]}}", "must begin with CMD", "services.a.healthcheck.test[0]"),
    (f"{X}, develop: {{watch: [{{path: ., action: sync}}]}}", "needs a target", "services.a.develop.watch[0]"),
    (f"{X}, deploy: {{replicas: -1}}", "-1 is negative", "services.a.deploy.replicas"),
    (f"{X}, ports: [{{target: 80, host_ip: foo}}]", "no IP address", "services.a.ports[0].host_ip"),
    (f"{X}, ports: ['80:x']", "invalid container port 'x'", "services.a.ports[0]"),
    (f"{X}, ports: ['70000']", "go from 0 to 65535", "services.a.ports[0]"),
    (f"{X}, ports: ['80-81:80-82']", "differ in length", "services.a.ports[0]"),
    (f"{X}, ports: ['80/foo']", "unknown protocol 'foo'", "services.a.ports[0]"),
    (f"{X}, ports: [{{published: 80}}]", "lacks its target", "services.a.ports[0]"),
    (f"{X}, volumes: [':/x']", "an empty section", "services.a.volumes[0]"),
    (f"{X}, volumes: [{{type: bind, target: /x}}]", "lacks its source", "services.a.volumes[0]"),
    (f"{X}, environment: ['A = 1']", "blank before", "services.a.environment[0]"),
    (f"{X}, mem_limit: 1x", "invalid mem_limit", "services.a.mem_limit"),
    (f"{X}, stop_grace_period: '10'", "missing unit", "services.a.stop_grace_period"),
    (f"{X}, command: \"a 'b\"", "closing", "services.a.command"),
    (f"{X}, extra_hosts: [a]", "has no address", "services.a.extra_hosts[0]"),
    (f"{X}, devices: ['a:b:c:d']", "more than three parts", "services.a.devices[0]"),
])
def test_refused(service: str, words: str, path: str) -> None:
    if not words:
        assert loaded(f"services: {{a: {{{service}}}}}").project.services["a"].volumes[0].source == "/b"
        return
    found = problems(f"services: {{a: {{{service}}}}}")
    assert any(words in item.message and item.path == path for item in found), [(i.message, i.path) for i in found]
    assert all(item.location is not None and item.location.line for item in found)


@pytest.mark.parametrize(("text", "words"), [
    ("secrets: {s: {}}", "the secret s has no source"),
    ("secrets: {s: {file: a, environment: b}}", "more than one source"),
    ("configs: {c: {file: a, content: b}}", "more than one source"),
    ("volumes: {v: {external: true, driver: local}}", "cannot have driver too"),
    ("networks: {n: {ipam: {config: [{subnet: foo}]}}}", "no subnet"),
])
def test_refused_resources(text: str, words: str) -> None:
    assert words in problems(f"services: {{a: {{image: x}}}}\n{text}")[0].message


def test_cycle_names_the_chain() -> None:
    found = problems("services: {a: {image: x, depends_on: [b]}, b: {image: x, links: [c]}, c: {image: x, pid: 'service:a'}}")
    assert found[0].message == "dependency cycle: a -> b -> c -> a"


def test_container_name_once() -> None:
    found = problems("services: {a: {image: x, container_name: foo}, b: {image: x, container_name: foo}}")
    assert "used by service a already" in found[0].message


def test_near_names_are_suggested() -> None:
    assert problems("services: {a: {image: x, networks: [frnt]}}\nnetworks: {front: {}}")[0].hint == "did you mean front?"
    assert problems("services: {a: {image: x, depends_on: [bd]}, db: {image: x}}")[0].hint == "did you mean db?"


def test_a_folder_without_dot_is_explained() -> None:
    hint = problems("services: {a: {image: x, volumes: ['src/app:/app']}}")[0].hint
    assert hint == "a folder beside the compose file is written ./src/app"


@pytest.mark.parametrize(("service", "words"), [
    ("image: x, cap_add: [NET_ADMN]", "unknown capability NET_ADMN"),
    ("image: x, stop_signal: SIGFOO", "unknown signal SIGFOO"),
    ("image: x, restart: sometimes", "unknown restart policy sometimes"),
    ("image: 'x/UPPER'", "no valid image reference"),
    ("image: x, hostname: 'a b'", "no valid host name"),
    ("image: x, mac_address: foo", "no MAC address"),
    ("image: x, network_mode: foo", "unknown network_mode"),
    ("image: x, labels: {com.docker.compose.project: y}", "reserved prefix"),
    ("image: x, ports: [{target: 80, protocol: foo}]", "unknown protocol foo"),
    ("image: x, ports: [{target: 70000}]", "does not exist"),
    ("image: x, depends_on: {zz: {condition: service_started, required: false}}", "optional dependency zz"),
])
def test_warned(service: str, words: str) -> None:
    warnings = loaded(f"services: {{a: {{{service}}}}}").warnings
    assert any(words in item.message for item in warnings), [item.message for item in warnings]


@pytest.mark.parametrize("service", [
    "image: 'registry.example:5000/a/b_c:1.2@sha256:" + "a" * 64 + "', cap_add: [CAP_NET_ADMIN, all], stop_signal: SIGRTMIN+3",
    "image: busybox, restart: 'on-failure:3', hostname: web-1.example, network_mode: none, stop_signal: '9'",
])
def test_not_warned(service: str) -> None:
    assert loaded(f"services: {{a: {{{service}}}}}").warnings == ()
