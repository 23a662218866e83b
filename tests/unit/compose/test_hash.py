"""What changes a digest, and what does not."""

from __future__ import annotations

import pytest
from support.compose_text import project

from orchestra.compose.hash import aspects, network_hash, service_hash, volume_hash
from orchestra.compose.model import Service


def service(body: str) -> Service:
    return project(f"services: {{a: {{image: x, {body}}}, b: {{image: y}}}}\n", profiles=("p",)).services["a"]


@pytest.mark.parametrize("body", [
    "scale: 3", "pull_policy: always", "depends_on: [b]", "profiles: [p]", "build: .", "deploy: {replicas: 2}",
    "deploy: {update_config: {parallelism: 2}}", "x-foo: 1"])
def test_does_not_matter(body: str) -> None:
    assert service_hash(service(body)) == service_hash(service(""))


@pytest.mark.parametrize("body", [
    "command: a", "environment: {A: 1}", "ports: [80]", "user: u", "deploy: {resources: {limits: {memory: 1g}}}",
    "labels: {a: b}", "volumes: [/x]", "entrypoint: []"])
def test_matters(body: str) -> None:
    assert service_hash(service(body)) != service_hash(service(""))


def test_the_form_does_not_matter() -> None:
    assert service_hash(service("environment: [B=2, A=1], ports: ['80:80']")) == service_hash(
        service("ports: [{published: '80', target: 80}], environment: {A: 1, B: 2}"))


def test_aspects_tell_what_changed() -> None:
    before, after = aspects(service("environment: {A: 1, B: 2}, command: a")), aspects(service("environment: {A: 1, B: 3}"))
    changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    assert changed == {"environment.B", "command"}


def test_resources() -> None:
    first = project("services: {a: {image: x, networks: [n], volumes: ['vv:/v']}}\nnetworks: {n: {}}\nvolumes: {vv: {}}")
    second = project("services: {a: {image: x, networks: [n], volumes: ['vv:/v']}}\n"
                     "networks: {n: {internal: true}}\nvolumes: {vv: {labels: [a=1]}}")
    assert network_hash(first.networks["n"]) != network_hash(second.networks["n"])
    assert volume_hash(first.volumes["vv"]) != volume_hash(second.volumes["vv"])
