"""Cgroup logic without a kernel: probing, device rules, and version 2 on a directory of plain files."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

from orchestra.errors import OrchestraError, UnsupportedError
from orchestra.runtime.cgroups import Mode, devices, files, limits, manager, v1
from orchestra.runtime.cgroups.probe import parse, probe
from orchestra.runtime.cgroups.v1 import Version1
from orchestra.runtime.cgroups.v2 import Version2, io_weight, swap_max, weight_of_shares

HYBRID = """\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/mem\\040ory rw shared:4 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
"""


def test_mountinfo_of_a_hybrid_machine() -> None:
    one, two = parse(HYBRID)
    assert one == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct", "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "memory": "/sys/fs/cgroup/mem ory", "name=systemd": "/sys/fs/cgroup/systemd",
    }
    assert two == "/sys/fs/cgroup/unified"


def test_the_kind_of_the_machine(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(HYBRID)
    assert probe(str(table)).kind == "hybrid"
    table.write_text("41 31 0:38 / /nowhere/cg rw - cgroup2 cgroup2 rw\n")
    assert probe(str(table)).kind == "v2"
    table.write_text(HYBRID.splitlines()[1])
    assert probe(str(table)).kind == "v1"
    table.write_text("")
    assert probe(str(table)).describe().startswith("none")


def test_joined_controllers_share_a_hierarchy() -> None:
    one, two = parse(HYBRID)
    assert Mode("hybrid", one, two, ()).hierarchies()["/sys/fs/cgroup/cpu,cpuacct"] == ["cpu", "cpuacct"]


@pytest.mark.parametrize("path", ["x", "/", "/a/../b", "/a/", "/a\0b", "/a/b\nc"])
def test_bad_paths_are_refused(path: str) -> None:
    with pytest.raises(OrchestraError):
        manager(path, Mode("v2", {}, "/nowhere", ()))


def test_the_version_is_chosen_by_the_mode() -> None:
    assert isinstance(manager("/a", Mode("v2", {}, "/nowhere", ())), Version2)
    assert isinstance(manager("/a", Mode("hybrid", {}, "/nowhere", ())), Version1)


# Device rules

DENY = {"allow": False, "access": "rwm"}


def test_default_devices_are_always_allowed() -> None:
    rules = devices.normalise([DENY])
    assert not rules.allow
    assert rules.permits("c", 1, 3, "rw")
    assert rules.permits("c", 136, 7, "rw")
    assert rules.permits("b", 8, 0, "m")
    assert not rules.permits("b", 8, 0, "r")


def test_no_list_means_deny() -> None:
    assert devices.normalise(None).exceptions == devices.normalise([DENY]).exceptions


def test_rules_of_one_device_are_merged_and_taken_back() -> None:
    disk = {"type": "b", "major": 8, "minor": 0}
    read, write = {"allow": True, "access": "r", **disk}, {"allow": True, "access": "w", **disk}
    rules = devices.normalise([DENY, read, write])
    assert rules.permits("b", 8, 0, "rw")
    rules = devices.normalise([DENY, read, write, {"allow": False, "access": "w", **disk}])
    assert rules.permits("b", 8, 0, "r")
    assert not rules.permits("b", 8, 0, "rw")


def test_denying_a_part_of_a_wider_rule_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="takes away part"):
        devices.normalise([DENY, {"allow": True, "type": "c", "major": 10, "access": "rwm"},
                           {"allow": False, "type": "c", "major": 10, "minor": 200, "access": "rwm"}])


def run(code: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    """An interpreter for the few instructions the device program uses."""
    bits = sum({"m": 1, "r": 2, "w": 4}[letter] for letter in access)
    context = struct.pack("<III", bits << 16 | {"b": 1, "c": 2}[kind], major, minor)
    registers, place = [0] * 11, 0
    while True:
        op, pair, offset, value = struct.unpack_from("<BBhi", code, place * 8)
        target, source = pair & 15, pair >> 4
        place += 1
        if op == 0x61:
            registers[target] = struct.unpack_from("<I", context, offset)[0]
        elif op == 0x54:
            registers[target] &= value
        elif op == 0x74:
            registers[target] >>= value
        elif op == 0xBF:
            registers[target] = registers[source]
        elif op == 0xB7:
            registers[target] = value
        elif op == 0x55:
            place += offset if registers[target] != value else 0
        elif op == 0x5D:
            place += offset if registers[target] != registers[source] else 0
        elif op == 0x15:
            place += offset if registers[target] == value else 0
        else:
            assert op == 0x95
            return bool(registers[0])


LISTS = [
    [DENY],
    [{"allow": True, "access": "rwm"}],
    [{"allow": True, "access": "rwm"}, {"allow": False, "type": "b", "major": 8, "access": "w"}],
    [DENY, {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "r"},
     {"allow": True, "type": "c", "major": 10, "access": "rw"}],
]


@pytest.mark.parametrize("rules", LISTS)
def test_the_program_decides_as_the_rules(rules: list[dict[str, object]]) -> None:
    state = devices.normalise(rules)
    code = devices.program(state)
    for kind in "bc":
        for major in (1, 8, 10, 136):
            for minor in (0, 3, 200):
                for access in ("r", "w", "m", "rw", "rwm"):
                    assert run(code, kind, major, minor, access) == state.permits(kind, major, minor, access)


# Version 2 on plain files

FILES = [
    "memory.max", "memory.low", "memory.high", "memory.swap.max", "memory.current", "cpu.weight", "cpu.max",
    "cpu.max.burst", "cpu.idle", "cpuset.cpus", "pids.max", "io.max", "io.weight", "cgroup.freeze", "cgroup.kill",
]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Version2, list[tuple[str, str]]]:
    folder = tmp_path / "orchestra-x/p/c"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_text("0\n")
    for place in (tmp_path, folder.parent.parent, folder.parent):
        (place / "cgroup.controllers").write_text("cpu memory pids\n")
        (place / "cgroup.subtree_control").write_text("cpu\n")
    written: list[tuple[str, str]] = []

    def write(path: str, text: str) -> None:
        if not os.path.exists(path):
            raise FileNotFoundError(errno.ENOENT, "none", path)
        written.append((os.path.relpath(path, tmp_path), text))

    monkeypatch.setattr(files, "write", write)
    monkeypatch.setattr("orchestra.linux.bpf.replace_device_program", lambda group, code: None)
    return Version2("/orchestra-x/p/c", Mode("v2", {}, str(tmp_path), ("cpu", "memory", "pids"))), written


def test_v2_controllers_are_enabled_from_the_root_down(fake: tuple[Version2, list[tuple[str, str]]]) -> None:
    group, written = fake
    assert group.create({}) == []
    assert written == [(f"{place}cgroup.subtree_control", "+memory +pids")
                       for place in ("", "orchestra-x/", "orchestra-x/p/")]


def test_v2_limits(fake: tuple[Version2, list[tuple[str, str]]]) -> None:
    group, written = fake
    warnings = group.update({
        "memory": {"limit": 100, "swap": 150, "reservation": 50, "swappiness": 5},
        "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "burst": 10, "cpus": "0-1"},
        "pids": {"limit": 0},
        "blockIO": {"weight": 10, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 7}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
        "unified": {"memory.high": "99"},
    })
    assert [(name.rpartition("/")[2], text) for name, text in written] == [
        ("memory.swap.max", "50"), ("memory.max", "100"), ("memory.low", "50"),
        ("cpu.weight", "100"), ("cpu.max", "50000 100000"), ("cpu.max.burst", "10"), ("cpuset.cpus", "0-1"),
        ("pids.max", "max"), ("io.max", "8:0 rbps=7"), ("io.weight", "default 1"), ("memory.high", "99"),
    ]
    assert [text.partition(":")[0] for text in warnings if "io weight" not in text] == ["memory swappiness", "hugepage limit 2MB"]


def test_v2_names_what_it_does_not_have(fake: tuple[Version2, list[tuple[str, str]]]) -> None:
    group, written = fake
    (Path(group.folder) / "io.weight").unlink()
    disk = {"major": 8, "minor": 0, "weight": 500, "leafWeight": 5}
    warnings = group.update({
        "memory": {"swappiness": 0, "disableOOMKiller": True, "kernel": 1, "kernelTCP": 1},
        "cpu": {"realtimeRuntime": 950, "realtimePeriod": 1000},
        "blockIO": {"weight": 10, "leafWeight": 5, "weightDevice": [disk]},
        "network": {"classID": 1},
        "rdma": {"mlx": {"hcaHandles": 1}},
    })
    assert {text.partition(":")[0] for text in warnings} == {
        "memory swappiness", "oom killer switch", "kernel memory limit", "kernel tcp memory", "realtime runtime", "realtime period",
        "io weight", "io device weight", "io leaf weight", "network class and priorities", "rdma limit",
    }  # fmt: skip
    assert written == []
    assert group.update({"memory": {"disableOOMKiller": False}}) == []


def refuse(monkeypatch: pytest.MonkeyPatch, number: int, name: str) -> None:
    def write(path: str, text: str) -> None:
        if os.path.basename(path) == name:
            raise OSError(number, f"{os.strerror(number)} (writing {text!r})", path)

    monkeypatch.setattr(files, "write", write)


@pytest.mark.parametrize(
    ("number", "name", "resources", "said"),
    [
        (errno.ERANGE, "cpuset.cpus", {"cpu": {"cpus": "77"}}, r'cpuset cpus: the kernel refuses "77" \(numerical result out of range\)'),
        (errno.ENODEV, "io.max", {"blockIO": {"throttleWriteBpsDevice": [{"major": 1, "minor": 3, "rate": 7}]}},
         r'io write_bps limit: the kernel refuses "1:3 wbps=7" \(no such device\)'),
        (errno.EINVAL, "memory.high", {"unified": {"memory.high": "x"}}, r'memory.high: the kernel refuses "x"'),
    ],
)  # fmt: skip
def test_a_refused_value_is_named(
    fake: tuple[Version2, list[tuple[str, str]]], monkeypatch: pytest.MonkeyPatch, number: int, name: str,
    resources: dict[str, object], said: str,
) -> None:  # fmt: skip
    refuse(monkeypatch, number, name)
    with pytest.raises(OrchestraError, match=said):
        fake[0].update(resources)
    refuse(monkeypatch, errno.EIO, name)  # not the value's fault
    with pytest.raises(OSError):
        fake[0].update(resources)


def test_device_weights_need_a_scheduler(
    fake: tuple[Version2, list[tuple[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 500}]}}
    refuse(monkeypatch, errno.EOPNOTSUPP, "io.weight")
    assert fake[0].update(disk) == [
        "io device weight: device 8:0 does not use the scheduler bfq, nor is iocost switched on for it"
    ]
    (Path(fake[0].folder) / "io.bfq.weight").write_text("")
    assert fake[0].update(disk) == []  # one of the two is enough
    refuse(monkeypatch, errno.ENODEV, "io.weight")
    with pytest.raises(OrchestraError, match="io device weight"):
        fake[0].update(disk)


def test_weights_that_no_disk_heeds_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "tree/c"
    folder.mkdir(parents=True)
    for disk, text in (("a", "[none] bfq"), ("b", "mq-deadline [none]")):
        (tmp_path / f"sys/{disk}/queue").mkdir(parents=True)
        (tmp_path / f"sys/{disk}/queue/scheduler").write_text(text)

    def told() -> list[str]:
        warnings: list[str] = []
        limits.weight(str(folder), [("io.bfq.weight", "5"), ("io.weight", "default 6")], "io weight", warnings, disks=str(tmp_path / "sys"))
        return warnings

    assert told() == ["io weight: the kernel has no io.bfq.weight and no io.weight here"]
    (folder / "io.weight").write_text("")
    assert told() == ["io weight: no disk uses the scheduler bfq, nor is iocost switched on for one"]
    assert (folder / "io.weight").read_text() == "default 6"
    (tmp_path / "tree/io.cost.qos").write_text("8:0 enable=1 ctrl=auto\n")
    assert told() == []
    (tmp_path / "tree/io.cost.qos").unlink()
    (tmp_path / "sys/a/queue/scheduler").write_text("none [bfq]")
    assert told() == []


@pytest.mark.parametrize("name", ["cgroup.procs", "../x.y", "memory", "nothing.here"])
def test_v2_unified_names_are_checked(fake: tuple[Version2, list[tuple[str, str]]], name: str) -> None:
    with pytest.raises(OrchestraError):
        fake[0].update({"unified": {name: "1"}})


def test_conversions() -> None:
    assert [weight_of_shares(number) for number in (2, 1024, 262144)] == [1, 100, 10000]
    assert [io_weight(number) for number in (10, 1000)] == [1, 10000]
    assert [swap_max(*pair) for pair in ((-1, 5), (5, 5), (7, 5))] == ["max", "0", "2"]
    with pytest.raises(OrchestraError):
        swap_max(3, 5)


def test_v1_refuses_unified() -> None:
    with pytest.raises(UnsupportedError):
        Version1("/x", Mode("v1", {}, None, ())).update({"unified": {"memory.high": "1"}})


def test_v1_names_missing_controllers() -> None:
    nothing = Version1("/x", Mode("none", {}, None, ()))
    warnings = nothing.create({"memory": {"limit": 1}, "pids": {"limit": 1}})
    assert warnings == [
        "memory limit: this machine has no memory cgroup controller",
        "pids limit: this machine has no pids cgroup controller",
        "device rules: this machine has no devices cgroup controller",
    ]


CONTROLS = {
    "memory": ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes"],
    "cpu": ["cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us"],
    "cpuset": ["cpuset.cpus", "cpuset.mems"],
    "devices": ["devices.allow", "devices.deny"],
    "pids": ["pids.max"],
    "name=other": [],
}


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Version1:
    """Hierarchies of plain files."""
    monkeypatch.setattr(v1, "_SYSTEMD", "/no/such/folder")
    monkeypatch.setattr(v1, "_parents", set())
    monkeypatch.setattr(v1, "_writes", {})
    for name, controls in CONTROLS.items():
        (tmp_path / name / "o").mkdir(parents=True)
        for control in controls:
            (tmp_path / name / "o" / control).write_text("1\n")
            (tmp_path / name / control).write_text("1\n")
    return Version1("/o/x", Mode("v1", {name: str(tmp_path / name) for name in CONTROLS}, None, ()))


def test_a_recipe_names_what_is_written(plain: Version1, tmp_path: Path) -> None:
    wanted = {
        "memory": {"limit": 1024, "swap": 2048}, "cpu": {"quota": 5, "period": 10, "cpus": "0"}, "pids": {"limit": -1},
        "devices": [{"allow": False, "access": "rwm"}],
    }  # fmt: skip
    found = plain.recipe(wanted)
    assert found
    assert sorted(found.folders()) == sorted(f"{tmp_path}/{name}/o/x" for name in CONTROLS if name != "name=other")
    assert found.inherited == f"{tmp_path}/cpuset"
    written = [(os.path.basename(root), name, words[:1]) for root, name, words in found.writes]
    assert written == [
        ("memory", "memory.limit_in_bytes", ("1024",)), ("memory", "memory.memsw.limit_in_bytes", ("2048",)),
        ("cpu", "cpu.cfs_period_us", ("10",)), ("cpu", "cpu.cfs_quota_us", ("5",)), ("cpuset", "cpuset.cpus", ("0",)),
        ("pids", "pids.max", ("max",)), ("devices", "devices.deny", ("a",)), ("devices", "devices.allow", ("c *:* m",)),
    ]  # fmt: skip
    assert not (tmp_path / "memory/o/x").exists()


@pytest.mark.parametrize(
    "wanted",
    [
        {"cpu": {"idle": 1}},  # no such control
        {"memory": {"kernel": 1}},  # a warning
        {"blockIO": {"weight": 10}},
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 1}]},
        {"unified": {"a": "b"}},
        {"rdma": {}},
    ],
)
def test_where_there_is_something_to_say_there_is_no_recipe(plain: Version1, wanted: dict[str, object]) -> None:
    assert plain.recipe(wanted) is None


def test_no_recipe_beside_a_service_manager(plain: Version1, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v1, "_SYSTEMD", str(tmp_path))
    assert plain.recipe({}) is None


def test_a_recipe_has_the_parents_made(plain: Version1, tmp_path: Path) -> None:
    other = Version1("/p/q/x", plain.mode)
    assert other.recipe({})
    assert (tmp_path / "pids/p/q").is_dir()
    (tmp_path / "pids/p/q").rmdir()
    plain._prune(f"{tmp_path}/pids/o/x")  # parents may be gone now
    assert other.recipe({})
    assert (tmp_path / "pids/p/q").is_dir()
