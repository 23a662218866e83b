"""Container specs survive the way into the store and back."""

from __future__ import annotations

import json

from orchestra.backend import ContainerSpec, FileContent, NetworkUse, RestartSpec
from orchestra.compose.model import (
    Deploy,
    HealthCheck,
    Mount,
    NetworkAttachment,
    Port,
    ResourceSet,
    Service,
    Ulimit,
    VolumeOptions,
)
from orchestra.engine.codec import decode, encode


def test_a_full_spec_comes_back_equal() -> None:
    service = Service(
        "web",
        image="x",
        command=("a", "b"),
        entrypoint=(),
        environment={"A": "1", "B": None},
        healthcheck=HealthCheck(("CMD", "true"), interval=1.5),
        ports=(Port(80, "8080"),),
        ulimits={"nofile": Ulimit(1, 2)},
        deploy=Deploy(limits=ResourceSet(cpus=0.5)),
        mem_limit=5,
        extensions={"x-a": {"b": [1, None]}},
        shm_size=0,
    )
    spec = ContainerSpec(
        "p-web-1",
        service,
        "sha256:1",
        labels={"a": "b"},
        project="p",
        networks=(NetworkUse("n", NetworkAttachment(("x",), "10.0.0.9"), ("web",), {"l": "other"}),),
        mounts=(Mount("volume", "/d", volume=VolumeOptions(nocopy=True)),),
        carried={"/d": "v"},
        volumes_from=(("c", "ro"),),
        namespaces={"pid": "host"},
        files=(FileContent("/run/secrets/a", data="x", mode=0o400),),
        restart=RestartSpec("always", delay=1.0),
        auto_remove=True,
    )
    data = json.loads(json.dumps(encode(spec)))
    assert decode(ContainerSpec, data) == spec


def test_defaults_are_left_out_and_unknown_keys_ignored() -> None:
    data = encode(Service("a", canonical={"image": "x"}))
    assert data == {"name": "a"}
    assert decode(Service, {"name": "a", "from_the_future": 1}) == Service("a")
