"""Shims forked from a nursery: like any other, and nothing depends on the nursery."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.shimhelp import World, eventually

from orchestra.linux import procfs, program
from orchestra.runtime import shim_nursery, shim_rehearsal, shimclient

pytestmark = pytest.mark.root


@pytest.fixture
def nursery() -> Iterator[shimclient.Nursery]:
    made = shimclient.Nursery()
    made.start()
    yield made
    made.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.clean()


def nursery_pids() -> set[int]:
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit() and "--nursery" in procfs.command_line(int(name)):
            found.add(int(name))
    return found


def forked(world: World, nursery: shimclient.Nursery, project: str) -> shimclient.ShimClient:
    return shimclient.ensure(world.paths, project, nursery)


def test_a_forked_shim_is_a_shim(world: World, nursery: shimclient.Nursery) -> None:
    client = forked(world, nursery, "other")
    pid = client.hello()["pid"]
    line = procfs.command_line(pid)
    assert line[line.index("--project") + 1] == "other" and "--nursery" not in line
    assert procfs.parent(pid) in nursery_pids()
    assert os.getsid(pid) == pid
    assert os.statvfs(f"/proc/{pid}/exe").f_flag & os.ST_RDONLY
    client.close()
    eventually(lambda: not procfs.alive(pid))


def test_the_nursery_is_killed_between_two_shims(world: World) -> None:
    before = nursery_pids()
    nursery = shimclient.Nursery()
    nursery.start()
    eventually(lambda: len(nursery_pids() - before) == 1)
    client = forked(world, nursery, "first")
    os.kill((nursery_pids() - before).pop(), signal.SIGKILL)
    assert client.hello()["project"] == "first"  # it does not need its parent
    second = forked(world, nursery, "second")
    assert second.hello()["project"] == "second"
    for one in (client, second):
        one.close()
    nursery.close()


def test_it_leaves_with_its_owner_and_its_shims_stay(world: World) -> None:
    before = nursery_pids()
    nursery = shimclient.Nursery()
    nursery.start()
    client = forked(world, nursery, "stays")
    nursery.close()
    eventually(lambda: not nursery_pids() - before)
    assert client.hello()["project"] == "stays"
    client.close()


def test_containers_of_a_forked_shim(tmp_path: Path, nursery: shimclient.Nursery) -> None:
    world = World(tmp_path)
    try:
        world.client.close()
        world.project = "q"
        world.client = forked(world, nursery, "q")
        world.run("one", "sh", "-c", "echo hello; exit 3")
        assert world.client.wait("one")["exit_code"] == 3
        assert b"hello" in world.output("one")
    finally:
        world.clean()


needs_x86_64 = pytest.mark.skipif(not program.available(), reason="made for x86-64, with executable memory")


def settled(pid: int) -> bool:
    """Whether the nursery has put a file in the place of its memory."""
    with contextlib.suppress(OSError):
        return "orchestra-memory" in Path(f"/proc/{pid}/maps").read_text()
    return False


def own_memory(pid: int) -> int:
    """KiB that it shares with nobody."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))


@needs_x86_64
def test_a_rehearsal_succeeds_and_leaves_the_process_as_it_was() -> None:
    """In a process of its own: it changes namespaces, which only one thread may."""
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir("/")
            before = facts()
            asked = iter([False, False, False])
            good = shim_rehearsal.rehearse(3, lambda: next(asked)) and not shim_rehearsal.rehearse(3, lambda: True)
            os._exit(0 if good and facts() == before else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def facts() -> object:
    """Without the files of programs, which stay."""
    links = {name: f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{name}")}
    names = [name for name, link in links.items() if not os.readlink(link).startswith("/memfd:orchestra-init")]
    spaces = [os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return sorted(names), sorted(spaces), os.stat("/").st_ino, os.getcwd(), sorted(mask), Path("/proc/self/mountinfo").read_text()


@needs_x86_64
def test_shims_of_a_settled_nursery_give_memory_back(tmp_path: Path) -> None:
    before = nursery_pids()
    nursery = shimclient.Nursery()
    nursery.start()
    eventually(lambda: [pid for pid in nursery_pids() - before if settled(pid)])
    world = World(tmp_path)
    try:
        world.client.close()
        world.project = "q"
        world.client = forked(world, nursery, "q")
        pid = world.client.hello()["pid"]
        world.run("one", "sh", "-c", "echo hello; sleep 1000")
        busy = own_memory(pid)
        eventually(lambda: own_memory(pid) < busy * 0.85)
        world.run("two", "sh", "-c", "echo again")  # it works on with what it shares again
        assert world.client.wait("two")["exit_code"] == 0
        assert b"again" in world.output("two")
    finally:
        world.clean()
        nursery.close()


def waiting(pids: set[int]) -> set[int]:
    """Those that have left the process that started them and run from their own copy."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            if os.statvfs(f"/proc/{pid}/exe").f_flag & os.ST_RDONLY:
                found.add(pid)
    return found


def children_of(pid: int) -> set[int]:
    return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


@needs_x86_64
def test_it_is_killed_during_its_rehearsal() -> None:
    """At any moment of it: nothing stays, and shims are started without it."""
    before = nursery_pids()
    mounts = Path("/proc/self/mountinfo").read_text()
    space = os.readlink("/proc/self/ns/mnt")
    for number in range(6):
        nursery = shimclient.Nursery()
        nursery.start()
        pid = eventually(lambda: next(iter(waiting(nursery_pids() - before)), 0))
        while os.readlink(f"/proc/{pid}/ns/mnt") == space:  # no pause: it takes a tenth of a second
            pass
        while number % 2 and not children_of(pid) and os.readlink(f"/proc/{pid}/ns/mnt") != space:
            pass
        os.kill(pid, signal.SIGSTOP)
        children = children_of(pid)
        os.kill(pid, signal.SIGKILL)
        nursery.close()
        eventually(lambda: not nursery_pids() - before)
        for child in children:
            eventually(lambda child=child: not procfs.alive(child))  # type: ignore[misc]
    assert Path("/proc/self/mountinfo").read_text() == mounts


def test_who_asks_during_a_rehearsal_does_not_wait_for_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(shim_rehearsal, "rehearse", lambda rounds, stop: not stop())
    monkeypatch.setattr(shim_nursery.pages, "keep", lambda: calls.append("keep"))
    assert not shim_nursery._settle(lambda: True)
    assert not calls
