"""``@record`` does what a frozen slotted dataclass does."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from orchestra.compose.model import HealthCheck, Port, Service


def test_like_a_frozen_dataclass() -> None:
    port = Port(80, host_ip="::1")
    assert port == Port(target=80, host_ip="::1") and port != Port(81) and port != 80
    assert [field.name for field in dataclasses.fields(port)][:3] == ["target", "published", "host_ip"]
    assert dataclasses.replace(port, target=81) == Port(81, host_ip="::1")
    assert dataclasses.asdict(HealthCheck(("CMD", "a")))["test"] == ("CMD", "a")
    assert repr(HealthCheck(retries=2)).startswith("HealthCheck(test=(), interval=None, timeout=None, retries=2")
    assert hash(HealthCheck()) == hash(HealthCheck())
    assert pickle.loads(pickle.dumps(port)) == port and copy.deepcopy(port) == port
    assert not hasattr(port, "__dict__")


def test_nothing_can_be_changed() -> None:
    port = Port(80)
    with pytest.raises(dataclasses.FrozenInstanceError):
        port.target = 81  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del port.target
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
        port.other = 1  # type: ignore[attr-defined]


def test_defaults_are_fresh_and_arguments_are_checked() -> None:
    assert Port(80).extensions is not Port(80).extensions
    with pytest.raises(TypeError):
        Port()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Port(80, nope=1)  # type: ignore[call-arg]
    assert Service("a").replicas == 1
