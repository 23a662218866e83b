"""Version 2 mechanics on any unified tree, also the nearly empty one of a hybrid machine; where it has
the controllers (a pure version 2 machine), their limits too."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestra.errors import OrchestraError
from orchestra.linux.clone import clone
from orchestra.runtime.cgroups import Mode, probe
from orchestra.runtime.cgroups.v2 import Version2

pytestmark = pytest.mark.root

REAL = probe()
MODE = Mode("v2", {}, REAL.v2, REAL.controllers)


@pytest.fixture
def group() -> Iterator[Version2]:
    if not REAL.v2:
        pytest.skip("no unified tree is mounted")
    found = Version2(f"/orchestra-v2-{os.getpid()}/project/c", MODE)
    yield found
    found.kill()
    found.destroy(timeout=20)
    assert not os.path.exists(f"{REAL.v2}/orchestra-v2-{os.getpid()}")


def inside(group: Version2, code: str) -> subprocess.Popen[bytes]:
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", f"input()\n{code}"], stdin=subprocess.PIPE)
    group.attach(child.pid)
    assert child.stdin
    child.stdin.write(b"\n")
    child.stdin.close()
    return child


def eventually(check: object, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not check():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_freeze_and_kill_a_tree(group: Version2) -> None:
    assert group.create({}) == []
    child = inside(group, "import os, time\nfor _ in range(3): os.fork()\ntime.sleep(60)")
    eventually(lambda: len(group.pids()) == 8)
    group.freeze()
    assert group.frozen()
    group.kill()
    assert child.wait(30) == -9
    eventually(lambda: not group.pids())


def test_a_process_can_be_born_inside(group: Version2) -> None:
    group.create({})
    folder = group.fds_for_clone()
    assert folder is not None
    reader, writer = os.pipe()
    pid, pidfd = clone(cgroup_fd=folder)
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    assert group.pids() == [pid]
    for fd in (writer, reader, folder):
        os.close(fd)
    os.waitpid(pid, 0)
    os.close(pidfd)


def test_controllers_reach_the_leaf(group: Version2) -> None:
    group.create({})
    with open(f"{group.folder}/cgroup.controllers") as file:
        assert set(REAL.controllers) <= set(file.read().split())
    assert group.stats()["cpu"]["usage_ns"] >= 0


def test_missing_controllers_are_named(group: Version2) -> None:
    warnings = group.create({"memory": {"limit": 64 << 20}, "pids": {"limit": 10}})
    assert ("pids limit: the pids controller has no pids.max here" in warnings) == ("pids" not in REAL.controllers)
    with pytest.raises(OrchestraError):
        group.update({"unified": {"no.such": "1"}})


def test_a_limit_of_the_unified_map(group: Version2) -> None:
    if "hugetlb" not in REAL.controllers:
        pytest.skip("no hugetlb controller in the unified tree")
    group.create({"unified": {"hugetlb.2MB.max": str(4 << 20)}})
    with open(f"{group.folder}/hugetlb.2MB.max") as file:
        assert file.read().strip() == str(4 << 20)


def test_memory_limit_kills_and_is_noticed(group: Version2) -> None:
    if "memory" not in REAL.controllers:
        pytest.skip("no memory controller in the unified tree")
    group.create({"memory": {"limit": 48 << 20, "swap": 48 << 20}})
    watch = group.oom_watch()
    assert watch
    assert inside(group, "x = bytearray(200 << 20)").wait(60) == -9
    eventually(lambda: group.oom_kills() >= 1)
    os.close(watch[0])


def test_pids_and_cpu_limits(group: Version2) -> None:
    if not {"pids", "cpu"} <= set(REAL.controllers):
        pytest.skip("no pids and cpu controllers in the unified tree")
    group.create({"pids": {"limit": 3}, "cpu": {"shares": 512, "quota": 20000, "period": 100000}})
    with open(f"{group.folder}/cpu.max") as file:
        assert file.read().strip() == "20000 100000"
    code = ("import os, sys, time\ntry:\n for _ in range(9):\n  if os.fork() == 0: time.sleep(60)\n"
            "except BlockingIOError: sys.exit(7)")
    assert inside(group, code).wait(60) == 7


def test_io_limits_and_figures(group: Version2, tmp_path: Path) -> None:
    """A limit of written bytes holds a writer back; what it wrote is counted."""
    disk = _disk(tmp_path)
    if "io" not in REAL.controllers or disk is None:
        pytest.skip("no io controller in the unified tree, or no disk below the temporary directory")
    rate = 1 << 20
    limit = {"major": disk[0], "minor": disk[1], "rate": rate}
    assert group.create({"blockIO": {"throttleWriteBpsDevice": [limit]}}) == []
    with open(f"{group.folder}/io.max") as file:
        assert f"{disk[0]}:{disk[1]} rbps=max wbps={rate}" in file.read()
    code = (f"import os, time\nfd = os.open({str(tmp_path / 'file')!r}, os.O_CREAT | os.O_WRONLY | os.O_DIRECT)\n"
            "import mmap\nbuffer = mmap.mmap(-1, 1 << 20)\nbegun = time.monotonic()\n"
            "for _ in range(4): os.write(fd, buffer)\nos._exit(int(time.monotonic() - begun >= 2))")
    assert inside(group, code).wait(120) == 1
    eventually(lambda: group.stats()["io"]["write_bytes"] >= 4 << 20)


def test_weights_without_a_scheduler_are_warnings(group: Version2, tmp_path: Path) -> None:
    disk = _disk(tmp_path)
    if "io" not in REAL.controllers or disk is None:
        pytest.skip("no io controller in the unified tree, or no disk below the temporary directory")
    scheduler = Path(f"/sys/dev/block/{disk[0]}:{disk[1]}/queue/scheduler").read_text()
    if "[bfq]" in scheduler:
        pytest.skip("the disk uses the scheduler bfq")
    warnings = group.create({"blockIO": {"weight": 500, "weightDevice": [{"major": disk[0], "minor": disk[1], "weight": 200}]}})
    assert any(text.startswith("io device weight: ") for text in warnings), warnings
    with pytest.raises(OrchestraError, match="io read_bps limit: the kernel refuses"):
        group.update({"blockIO": {"throttleReadBpsDevice": [{"major": 511, "minor": 3, "rate": 7}]}})


def _disk(folder: Path) -> tuple[int, int] | None:
    """The whole disk that holds ``folder``."""
    number = os.stat(folder).st_dev
    place = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not place.exists():
        return None
    if (place / "partition").exists():
        place = place.resolve().parent
    major, _, minor = (place / "dev").read_text().strip().partition(":")
    return int(major), int(minor)
