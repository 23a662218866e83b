"""Types of configurations from outside: everything wrong is named by its place, nothing right is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from orchestra.errors import OrchestraError
from orchestra.runtime import configcheck, defaults, inspecting, plan
from orchestra.runtime.commandline import parser

WRONG: tuple[Any, ...] = (None, "", "x", 5, -1, 2**70, 1.5, True, [], ["x"], [[]], [None], [5], {}, {"x": 1}, "a\0b", "\ud800", float("inf"))


def whole(root: str) -> dict[str, Any]:
    """A configuration with nearly every field of the specification."""
    config = defaults.config(["true"])
    config["root"]["path"] = root
    config.update(hostname="h", domainname="d", annotations={"a": "b"})
    config["hooks"] = {"prestart": [{"path": "/bin/true", "args": ["a"], "env": ["A=1"], "timeout": 3}]}
    config["process"].update(
        user={"uid": 0, "gid": 0, "additionalGids": [1], "umask": 18}, oomScoreAdj=10, consoleSize={"height": 1, "width": 2},
        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 2**64 - 1}], scheduler={"policy": "SCHED_OTHER", "nice": 1, "flags": []},
        ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 1}, execCPUAffinity={"initial": "0", "final": "0"},
    )  # fmt: skip
    device = {"major": 8, "minor": 0}
    rule = {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": [{"index": 0, "value": 1, "valueTwo": 1, "op": "SCMP_CMP_EQ"}]}
    config["linux"].update(
        sysctl={"net.ipv4.ip_forward": "1"}, cgroupsPath="/x/y", personality={"domain": "LINUX", "flags": []}, uidMappings=[],
        devices=[{"path": "/dev/foo", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 0}],
        timeOffsets={"monotonic": {"secs": 1, "nanosecs": 1}}, rootfsPropagation="private",
        seccomp={"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": ["SCMP_ARCH_X86_64"], "flags": [], "syscalls": [rule]},
        resources={
            "memory": {"limit": 1 << 28, "swap": -1, "swappiness": 0}, "cpu": {"shares": 100, "quota": -1, "cpus": "0"}, "pids": {"limit": 100},
            "blockIO": {"weight": 10, "weightDevice": [{**device, "weight": 10}], "throttleReadBpsDevice": [{**device, "rate": 1000}]},
            "devices": [{"allow": False, "access": "rwm"}], "hugepageLimits": [{"pageSize": "2MB", "limit": 1}], "unified": {"memory.high": "1"},
        },
    )  # fmt: skip
    config["linux"]["namespaces"].append({"type": "time"})
    return config


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key in value if isinstance(value, dict) else range(min(len(value), 2)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def test_any_wrong_value_anywhere_is_an_error_of_the_user(tmp_path: Any) -> None:
    """Whatever is refused is refused by name; what passes can be made a plan of, or is refused there."""
    config = whole(str(tmp_path))
    configcheck.check(config, configcheck.CONFIG)
    plan.make(config, container_id="x", bundle=str(tmp_path))
    for path in list(places(config))[1:]:
        for value in WRONG:
            changed = copy.deepcopy(config)
            holder = changed
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = value
            try:
                plan.make(configcheck.read(json.dumps(changed).encode(), "config.json", configcheck.CONFIG), container_id="x", bundle=str(tmp_path))
            except OrchestraError as problem:
                assert str(problem)


@pytest.mark.parametrize(("change", "text"), [
    ({"process": "sh"}, 'process must be an object, not "sh"'),
    ({"process": {"user": {"uid": "root"}}}, 'process.user.uid must be a whole number, not "root"'),
    ({"process": {"user": {"uid": -1}}}, "process.user.uid: -1 is not within 0 and 4294967295"),
    ({"process": {"args": "sh"}}, 'process.args must be a list, not "sh"'),
    ({"process": {"env": [None]}}, "process.env[0] must be a value, not null"),
    ({"process": {"terminal": 1}}, "process.terminal must be true or false, not 1"),
    ({"process": {"oomScoreAdj": 5000}}, "process.oomScoreAdj: 5000 is not within -1000 and 1000"),
    ({"root": {"path": "a\0b"}}, 'root.path: a NUL byte in "a\\u0000b"'),
    ({"hostname": "\ud800"}, "no valid Unicode"),
    ({"linux": {"resources": {"blockIO": {"throttleReadBpsDevice": [{"major": 8}]}}}}, "throttleReadBpsDevice[0].minor is missing"),
    ({"linux": {"timeOffsets": {"monotonic": None}}}, "linux.timeOffsets.monotonic must be a value"),
])  # fmt: skip
def test_messages_name_the_place(change: dict[str, Any], text: str) -> None:
    with pytest.raises(OrchestraError) as caught:
        configcheck.read(json.dumps(change).encode(), "config.json", configcheck.CONFIG)
    assert text in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b'{"a":' + b"9" * 5000 + b"}", b" " * (configcheck.MAX_SIZE + 1)])
def test_what_is_no_object(data: bytes) -> None:
    with pytest.raises(OrchestraError):
        configcheck.read(data, "config.json", configcheck.CONFIG)


def test_unknown_keys_and_nulls_are_left_alone() -> None:
    config = {"process": {"user": None, "new": [1, {}]}, "windows": 5, "linux": {"": 1, "intelRdt": {"x": 1}}, "hooks": None}
    assert configcheck.read(json.dumps(config).encode(), "config.json", configcheck.CONFIG) == config


def test_numbers_of_update_are_checked() -> None:
    options = parser("update").parse_args(["update", "--cpu-share", "-5", "x"])
    with pytest.raises(OrchestraError, match=r"cpu\.shares: -5 is not within"):
        inspecting.resources(options)
