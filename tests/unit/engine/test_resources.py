"""Limits of a service as OCI resources."""

from __future__ import annotations

from typing import Any

import pytest

from orchestra.compose.model import BlkioConfig, Deploy, DeviceRate, ResourceSet, Service
from orchestra.engine.resources import refused, resources, resources_from_update, updated, warning
from orchestra.errors import OrchestraError

MIB = 1 << 20


def made(**settings: object) -> dict[str, object]:
    return resources(Service("s", **settings), cpus=4, swap=False, warnings=[])  # type: ignore[arg-type]


def test_nothing_set_is_nothing_limited() -> None:
    assert made() == {}


def test_cpu() -> None:
    assert made(cpus=0.5)["cpu"] == {"quota": 50_000, "period": 100_000}
    assert made(cpus=0.5, cpu_period=20_000)["cpu"] == {"quota": 10_000, "period": 20_000}
    assert made(cpu_percent=50.0)["cpu"] == {"quota": 200_000, "period": 100_000}
    assert made(cpu_shares=10, cpuset="0-1")["cpu"] == {"shares": 10, "cpus": "0-1"}
    with pytest.raises(OrchestraError, match="range of cpus"):
        made(cpus=5.0)


def test_memory() -> None:
    assert made(mem_limit=64 * MIB)["memory"] == {"limit": 64 * MIB}
    assert made(mem_limit=64 * MIB, memswap_limit=-1)["memory"] == {"limit": 64 * MIB, "swap": -1}
    both = resources(Service("s", mem_limit=64 * MIB), cpus=1, swap=True, warnings=[])
    assert both["memory"]["swap"] == 128 * MIB
    for bad in ({"mem_limit": MIB}, {"memswap_limit": 64 * MIB}, {"mem_limit": 9 * MIB, "memswap_limit": 8 * MIB},
                {"mem_limit": 8 * MIB, "mem_reservation": 9 * MIB}):
        with pytest.raises(OrchestraError):
            made(**bad)


def test_deploy_and_pids() -> None:
    deploy = Deploy(
        limits=ResourceSet(cpus=1.0, memory=32 * MIB, pids=7), reservations=ResourceSet(memory=16 * MIB, cpus=2.0)
    )
    assert made(deploy=deploy) == {
        "cpu": {"shares": 2048, "quota": 100_000, "period": 100_000},
        "memory": {"limit": 32 * MIB, "reservation": 16 * MIB},
        "pids": {"limit": 7},
    }
    assert made(pids_limit=-1) == {}
    assert made(blkio_config=BlkioConfig(weight=300))["blockIO"] == {"weight": 300}


def changed(service: Service, **changes: Any) -> dict[str, Any]:
    return resources_from_update(updated(service, changes), changes)


def test_update_changes_what_it_names_only() -> None:
    service = Service("x", mem_limit=64 * MIB, cpus=0.5, pids_limit=5, blkio_config=BlkioConfig(weight=500, device_read_bps=(DeviceRate("/none", 1),)))
    assert changed(Service("x"), mem_limit=64 * MIB) == {"memory": {"limit": 64 * MIB}}
    assert changed(service, memswap_limit=128 * MIB) == {"memory": {"limit": 64 * MIB, "swap": 128 * MIB}}
    assert changed(service, memswap_limit=-1, mem_limit=32 * MIB) == {"memory": {"limit": 32 * MIB, "swap": -1}}
    assert changed(service, pids_limit=-1) == changed(service, pids_limit=0) == {"pids": {"limit": -1}}
    assert changed(service, cpu_quota=20_000) == {"cpu": {"quota": 20_000}}
    assert changed(service, cpu_period=50_000) == {"cpu": {"quota": 25_000, "period": 50_000}}
    assert changed(Service("x", cpu_quota=5000, cpu_period=10_000), cpus=0.5) == {"cpu": {"quota": 50_000, "period": 100_000}}
    with pytest.raises(OrchestraError, match="at least mem_limit"):
        changed(service, memswap_limit=1 * MIB)


def test_update_of_a_weight_keeps_the_rest() -> None:
    service = Service("x", blkio_config=BlkioConfig(weight=500, weight_device=(DeviceRate("/dev/x", 20),)))
    assert updated(service, {"blkio_config": {"weight": 20}}).blkio_config == BlkioConfig(20, (DeviceRate("/dev/x", 20),))
    assert changed(Service("x"), blkio_config={"weight": 20}) == {"blockIO": {"weight": 20}}
    for weight in (5, 1001):
        with pytest.raises(OrchestraError, match=r"blkio_config\.weight: .* is not within 10 and 1000"):
            changed(Service("x"), blkio_config={"weight": weight})


def test_update_knows_its_keys() -> None:
    with pytest.raises(OrchestraError, match="cannot update image"):
        updated(Service("x"), {"image": "x"})
    with pytest.raises(OrchestraError, match=r"cannot update blkio_config\.device_read_bps"):
        updated(Service("x"), {"blkio_config": {"device_read_bps": []}})


@pytest.mark.parametrize(
    ("settings", "text", "said"),
    [
        ({"mem_swappiness": 0}, "memory swappiness: cgroup version 2 has no such control", "mem_swappiness has no effect: cgroup"),
        ({"oom_kill_disable": True}, "oom killer switch: none", "oom_kill_disable has no effect: none"),
        ({"cpu_rt_runtime": 5}, "realtime runtime: none", "cpu_rt_runtime has no effect: none"),
        ({"cpu_rt_period": 5}, "realtime period: none", "cpu_rt_period has no effect: none"),
        ({"blkio_config": BlkioConfig(weight=5)}, "io weight: none", "blkio_config.weight has no effect: none"),
        ({"mem_limit": 64 * MIB}, "memory limit: none", "mem_limit has no effect: none"),
        ({"deploy": Deploy(limits=ResourceSet(memory=64 * MIB))}, "memory limit: none", "deploy.resources.limits.memory has no"),
        ({"deploy": Deploy(reservations=ResourceSet(cpus=1.0))}, "cpu shares: none", "deploy.resources.reservations.cpus has no"),
        ({"mem_limit": 64 * MIB}, "swap limit: none", "swap limit: none"),  # nobody asked for it
        ({}, "device rules: none", "device rules: none"),
        ({}, "something else", "something else"),
    ],
)
def test_warnings_name_the_attribute(settings: dict[str, object], text: str, said: str) -> None:
    assert warning(text, Service("s", **settings)).startswith(said)  # type: ignore[arg-type]


def test_refusals_name_the_attribute() -> None:
    error = OrchestraError('cpuset cpus: the kernel refuses "77"')
    refused(error, Service("s", cpuset="77"))
    assert str(error) == 'cpuset: the kernel refuses "77"'
    assert error.attribute == "cpuset"  # type: ignore[attr-defined]
    other = OrchestraError("cannot run x: no such file")
    refused(other, Service("s", cpuset="77"))
    assert str(other) == "cannot run x: no such file" and not hasattr(other, "attribute")


def test_rates_are_for_disks() -> None:
    for path, said in (("/dev/null", "/dev/null is not a disk"), ("/dev/surely-none", "/dev/surely-none cannot be used: no such file")):
        with pytest.raises(OrchestraError, match=f"blkio_config.device_write_bps: {said}"):
            made(blkio_config=BlkioConfig(device_write_bps=(DeviceRate(path, 7),)))
