"""Values with a NUL byte, which YAML can spell and the kernel cannot take: told by attribute before anything is
made. Names and paths only; what a program is given is the runtime's to check, labels and contents may be anything.
"""

from __future__ import annotations

from orchestra.backend import ContainerSpec
from orchestra.compose.model import BlkioConfig
from orchestra.errors import OrchestraError


def check(spec: ContainerSpec) -> None:
    service = spec.service
    mounts = [text for mount in spec.mounts for text in (mount.source, mount.target)]
    devices = [text for device in service.devices for text in (device.source, device.target)]
    block = service.blkio_config or BlkioConfig()
    rates = [
        rate.path
        for rates in (
            block.weight_device,
            block.device_read_bps,
            block.device_write_bps,
            block.device_read_iops,
            block.device_write_iops,
        )
        for rate in rates
    ]
    for name, texts in (
        ("volumes", mounts),
        ("devices", devices),
        ("tmpfs", service.tmpfs),
        ("blkio_config", rates),
        ("hostname", (service.hostname,)),
        ("domainname", (service.domainname,)),
        ("security_opt", service.security_opt),
        ("cgroup_parent", (service.cgroup_parent,)),
        ("user", (service.user,)),
        ("group_add", service.group_add),
        ("extra_hosts", service.extra_hosts),
    ):
        if any(text and "\0" in text for text in texts):
            problem = OrchestraError(f"{name}: a NUL byte cannot be part of a name or path")
            problem.attribute = name  # type: ignore[attr-defined]
            raise problem
