"""Cgroups for real: limits bite, device rules hold, whole trees freeze and die, nothing is left."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from orchestra.runtime.cgroups import CgroupManager, Mode, manager, probe

pytestmark = pytest.mark.root

MODE = probe()


@pytest.fixture
def group() -> Iterator[CgroupManager]:
    if MODE.kind == "none":
        pytest.skip("no cgroup hierarchy is mounted")
    found = manager(f"/orchestra-test-{os.getpid()}/project/c", MODE)
    yield found
    found.kill()
    found.destroy(timeout=20)
    assert not found.exists()
    top = f"orchestra-test-{os.getpid()}"
    places = [*MODE.hierarchies(), *([MODE.v2] if MODE.v2 else [])]
    assert not [place for place in places if os.path.exists(f"{place}/{top}")]


def inside(group: CgroupManager, code: str) -> subprocess.Popen[bytes]:
    """A Python that waits until it is in the cgroup, then runs ``code``."""
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", f"input()\n{code}"], stdin=subprocess.PIPE)
    group.attach(child.pid)
    assert child.stdin
    child.stdin.write(b"\n")
    child.stdin.close()
    return child


def eventually(check: object, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not check():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_memory_limit_kills_and_is_noticed(group: CgroupManager) -> None:
    group.create({"memory": {"limit": 48 << 20, "swap": 48 << 20}})
    watch = group.oom_watch()
    assert watch
    child = inside(group, "x = bytearray(200 << 20)")
    assert child.wait(30) == -9
    poll = select.epoll()
    poll.register(watch[0], watch[1])
    assert poll.poll(20)
    eventually(lambda: group.oom_kills() >= 1)
    poll.close()
    os.close(watch[0])


def test_memory_limits_can_be_raised_and_lowered(group: CgroupManager) -> None:
    group.create({"memory": {"limit": 64 << 20, "swap": 64 << 20}})
    for size in (256, 32, 128):
        group.update({"memory": {"limit": size << 20, "swap": size << 20}})
        assert group.stats()["memory"]["limit"] == size << 20


def test_pids_limit(group: CgroupManager) -> None:
    group.create({"pids": {"limit": 3}})
    child = inside(group, "import os, sys, time\ntry:\n for _ in range(9):\n"
                          "  if os.fork() == 0: time.sleep(60)\n"
                          "except BlockingIOError: sys.exit(7)")
    assert child.wait(30) == 7
    group.kill()
    eventually(lambda: not group.pids())


def test_cpu_limits_arrive(group: CgroupManager) -> None:
    warnings = group.create({"cpu": {"shares": 512, "quota": 20000, "period": 100000, "cpus": "0"}})
    assert warnings == []
    child = inside(group, "import time\nend = time.monotonic() + 0.5\nwhile time.monotonic() < end: pass")
    assert child.wait(30) == 0
    assert group.stats()["cpu"]["throttled_periods"] > 0


def test_freeze_kill_and_forks(group: CgroupManager) -> None:
    group.create({})
    child = inside(group, "import os, time\nfor _ in range(3): os.fork()\ntime.sleep(60)")
    eventually(lambda: len(group.pids()) == 8)
    group.freeze()
    assert group.frozen()
    group.kill()
    assert child.wait(30) == -9
    assert not group.frozen()
    eventually(lambda: not group.pids())


def test_devices(group: CgroupManager) -> None:
    group.create({"devices": [{"allow": False, "access": "rwm"}]})
    code = ("import os, sys, tempfile\nd = tempfile.mkdtemp()\n"
            "os.mknod(d + '/d', 0o20600, os.makedev(1, 1))\n"
            "open('/dev/null', 'r+b', 0)\n"
            "try: open(d + '/d', 'rb')\nexcept PermissionError: sys.exit(7)\n"
            "finally: os.unlink(d + '/d'); os.rmdir(d)")
    assert inside(group, code).wait(30) == 7


def test_device_program_of_version_2(group: CgroupManager) -> None:
    """The BPF program needs the unified tree only, no controller: also a hybrid machine runs it."""
    if not MODE.v2:
        pytest.skip("no unified tree")
    unified = manager(group.path, Mode("v2", {}, MODE.v2, ()))
    code = "import os, sys\ntry: open('/dev/full', 'rb')\nexcept PermissionError: sys.exit(7)"
    every = {"allow": True, "access": "rwm"}
    unified.create({"devices": [{"allow": False, "access": "rwm"}]})
    assert inside(unified, code).wait(30) == 0
    unified.update({"devices": [every, {"allow": False, "type": "c", "major": 1, "access": "w"}]})
    assert inside(unified, code).wait(30) == 0
    writing = code.replace("'rb'", "'wb', 0")
    unified.update({"devices": [every, {"allow": False, "type": "c", "major": 1, "access": "w"}]})
    assert inside(unified, writing).wait(30) == 7
    unified.update({"devices": [every]})
    assert inside(unified, writing).wait(30) == 0


def test_many_share_a_parent(group: CgroupManager) -> None:
    others = [manager(f"{os.path.dirname(group.path)}/n{index}", MODE) for index in range(5)]
    group.create({})
    for other in others:
        other.create({})
    for other in others:
        other.destroy()
    assert group.exists()
