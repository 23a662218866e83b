"""Values of the frozen model."""

from __future__ import annotations

from support.compose_text import project

from orchestra.compose.model import Dependency, HealthCheck, Port, Ulimit

FULL = """
services:
  web:
    image: nginx
    command: run "a b"
    entrypoint: []
    environment: [A=1, B]
    ports: ["127.0.0.1:8080:80/udp", 90]
    volumes: ["./src:/src:ro", "data:/data", /anon, {type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0700}}]
    secrets: [key, {source: key, target: other, mode: 0400}]
    configs: [conf]
    healthcheck: {test: curl, interval: 1m30s, retries: 3}
    depends_on: {db: {condition: service_healthy, restart: true}}
    deploy: {replicas: 2, resources: {limits: {cpus: "0.5", memory: 1g}}, restart_policy: {condition: any, delay: 5s}}
    ulimits: {nofile: 5, nproc: {soft: 1, hard: 2}}
    stop_grace_period: 1m
    mem_limit: 1g
    networks: {front: {aliases: [www], priority: 3}}
    blkio_config: {weight: 10, device_read_bps: [{path: /dev/a, rate: 1k}]}
    devices: [/dev/null]
    x-own: {a: 1}
    build: {context: ., args: {V: 1}, x-b: 2}
    post_start: [{command: echo hi, user: root}]
    develop: {watch: [{path: ./src, action: sync, target: /src}]}
  db: {image: db, profiles: [p], init: true}
networks: {front: {ipam: {config: [{subnet: 10.1.0.0/24}]}}}
volumes: {data: {labels: [a=b]}}
secrets: {key: {environment: KEY}}
configs: {conf: {content: hello}}
x-top: [1]
"""


def test_service() -> None:
    found = project(FULL, environ={"KEY": "value"}, profiles=("p",))
    web = found.services["web"]
    assert (web.command, web.entrypoint) == (("run", "a b"), ())
    assert web.environment == {"A": "1", "B": None}
    assert web.ports == (Port(80, "8080", "127.0.0.1", "udp"), Port(90))
    assert [(m.type, m.source, m.target, m.read_only) for m in web.volumes] == [
        ("bind", "/srv/p/src", "/src", True), ("volume", "data", "/data", False), ("volume", "", "/anon", False),
        ("tmpfs", "", "/t", False)]
    tmpfs = web.volumes[3].tmpfs
    assert tmpfs is not None and (tmpfs.size, tmpfs.mode) == (1 << 20, 0o700)
    assert [(s.target, s.mode) for s in web.secrets] == [("/run/secrets/key", None), ("/run/secrets/other", 0o400)]
    assert web.configs[0].target == "/conf"
    assert web.healthcheck == HealthCheck(test=("CMD-SHELL", "curl"), interval=90.0, retries=3)
    assert web.depends_on == {"db": Dependency("service_healthy", True, True)}
    assert web.replicas == 2 and web.mem_limit == 1 << 30 and web.stop_grace_period == 60.0
    assert web.deploy is not None and web.deploy.limits is not None and web.deploy.limits.cpus == 0.5
    assert web.ulimits == {"nofile": Ulimit(5, 5, True), "nproc": Ulimit(1, 2)}
    assert web.networks["front"].aliases == ("www",)
    assert web.blkio_config is not None and web.blkio_config.device_read_bps[0].rate == 1024
    assert web.extensions == {"x-own": {"a": 1}} and "x-own" not in web.canonical
    assert web.build is not None and web.build.extensions == {"x-b": 2} and web.build.args == {"V": "1"}
    assert web.post_start[0].command == ("echo", "hi")
    assert web.develop[0].path == "/srv/p/src"


def test_resources() -> None:
    found = project(FULL, environ={"KEY": "value"}, profiles=("p",))
    assert found.networks["front"].name == "p_front" and found.networks["front"].ipam[0].subnet == "10.1.0.0/24"
    assert found.volumes["data"].labels == {"a": "b"}
    assert found.secrets["key"].value == "value" and "value" not in found.secrets["key"].canonical
    assert found.configs["conf"].content == "hello"
    assert found.extensions == {"x-top": [1]}
    assert found.services["db"].init is True


def test_disabled_services_are_known() -> None:
    found = project("services: {a: {image: x}, b: {image: x, profiles: [p]}}")
    assert (list(found.services), list(found.disabled)) == (["a"], ["b"])


def test_locations() -> None:
    found = project("services:\n  a:\n    image: x\n    environment:\n      DEBUG: 1\n")
    assert found.locations["services.a.image"][1:] == (3, 5)
    assert found.locations["services.a.environment.DEBUG"][1:] == (5, 14)
