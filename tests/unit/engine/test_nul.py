"""NUL bytes in names and paths."""

from __future__ import annotations

from typing import Any

import pytest

from orchestra.backend import ContainerSpec
from orchestra.compose.model import BlkioConfig, Device, DeviceRate, Mount, Service
from orchestra.engine import nul
from orchestra.errors import OrchestraError


@pytest.mark.parametrize(("name", "value"), [
    ("devices", (Device("/dev/\0", "/dev/x"),)), ("devices", (Device("/dev/x", "/dev/\0"),)), ("hostname", "a\0"), ("user", "\0"),
    ("blkio_config", BlkioConfig(device_read_iops=(DeviceRate("/dev/\0", 1),))), ("tmpfs", ("/a\0",)), ("group_add", ("\0",)),
])  # fmt: skip
def test_named_by_attribute(name: str, value: Any) -> None:
    with pytest.raises(OrchestraError, match=f"{name}: a NUL byte"):
        nul.check(ContainerSpec("x", Service("x", **{name: value}), "i"))


def test_mounts_and_what_may_have_them() -> None:
    for mount in (Mount("bind", source="/a\0", target="/b"), Mount("bind", source="/a", target="/b\0")):
        with pytest.raises(OrchestraError, match="volumes: a NUL byte"):
            nul.check(ContainerSpec("x", Service("x"), "i", mounts=(mount,)))
    nul.check(ContainerSpec("x", Service("x", labels={"a": "\0"}, blkio_config=BlkioConfig(weight=10)), "i"))
