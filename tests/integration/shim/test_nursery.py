"""Shims forked from a nursery: like any other, and nothing depends on the nursery."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.shimhelp import World, eventually

from orchestra.linux import procfs
from orchestra.runtime import shimclient

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
