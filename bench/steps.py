"""Our own steps of a start, in µs: those of the engine and those of a container's init."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from orchestra.engine import life, nets, ports
from orchestra.linux.program import CHANNEL, NR, ROOM, Program
from orchestra.network import manager as networks
from orchestra.network.dns import server as dns
from orchestra.runtime import channel, create, quick, quick_covers, quick_mounts, quick_process
from orchestra.runtime.cgroups import manager
from orchestra.runtime.shimclient import ShimClient


class Steps:
    """Our own steps in µs: the engine's by wrapping its functions, the init's by marks in its program."""

    ENGINE = (
        ("addresses, ports", (ports.PortBook, "claim"), (nets.Nets, "claim")),
        ("files of /etc", (life.Life, "_etc")),
        ("bundle", (life.bundle, "write")),
        ("shim: create", (ShimClient, "create_with_warnings")),
        ("cable, addresses", (networks.Networks, "attach")),
        ("name server", (dns.DnsServer, "serve")),
        ("shim: start", (ShimClient, "start")),
    )

    def __init__(self) -> None:
        self.found: dict[str, list[float]] = {}

    def add(self, name: str, seconds: float) -> None:
        self.found.setdefault(name, []).append(seconds * 1e6)

    def medians(self) -> dict[str, float]:
        return {name: statistics.median(values) for name, values in self.found.items()}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        with contextlib.ExitStack() as undo:
            for name, *places in self.ENGINE:
                for owner, function in places:
                    undo.callback(setattr, owner, function, getattr(owner, function))
                    setattr(owner, function, self._timed(name, getattr(owner, function)))
            yield

    def _timed(self, name: str, function: Callable[..., object]) -> Callable[..., object]:
        def timed(*args: object, **words: object) -> object:
            begin = time.perf_counter()
            try:
                return function(*args, **words)
            finally:
                self.add(name, time.perf_counter() - begin)

        return timed

    MARKS = (  # what ends with this function's calls, or begins them
        ("namespaces", quick, "_begin", False), ("root and mounts", quick_mounts, "write", False), ("cgroup, joined", quick_covers, "cover", True),
        ("masked and read-only paths", quick_covers, "cover", False), ("pivot_root", quick, "_pivot", False),
        ("user, capabilities, program", quick_process, "settle", False),
    )  # fmt: skip

    def inits(self, config: dict[str, Any], work: Path, rounds: int) -> None:
        """Starts of the same configuration from this process."""
        with contextlib.ExitStack() as undo:
            for _name, owner, function, before in reversed(self.MARKS):
                undo.callback(setattr, owner, function, getattr(owner, function))
                setattr(owner, function, self._marked(getattr(owner, function), before))
            for number in range(rounds):
                self._init(config, work, number)

    @staticmethod
    def _marked(function: Callable[..., object], before: bool) -> Callable[..., object]:
        def marked(program: Program, *args: object) -> None:
            if not before:
                function(program, *args)
            program.call(228, 1, ROOM)  # clock_gettime(CLOCK_MONOTONIC)
            program.call(NR.write, CHANNEL, ROOM, 16)
            if before:
                function(program, *args)

        return marked

    def _init(self, config: dict[str, Any], work: Path, number: int) -> None:
        folders = {name: work / f"{name}{number}" for name in ("upper", "workdir")}
        for folder in folders.values():
            folder.mkdir()
        mine = json.loads(json.dumps(config))
        options = [word for word in mine["mounts"][0]["options"] if not word.startswith(("upperdir=", "workdir="))]
        mine["mounts"][0]["options"] = [*options, f"upperdir={folders['upper']}", f"workdir={folders['workdir']}"]
        null = os.open(os.devnull, os.O_RDWR)
        begin = time.perf_counter()
        group = manager(f"/orchestra-bench-own/{number}")
        group.create(mine["linux"]["resources"])
        self.add("cgroup, made", time.perf_counter() - begin)
        begin = time.perf_counter()
        prepared = create.prepare(mine, container_id="x", bundle=str(work), stdio=(null, null, null), cgroups=group)
        self.add("plan", time.perf_counter() - begin)
        begin = time.perf_counter()
        pending = prepared.launch()
        last = time.perf_counter()
        self.add("program, clone, execve of it", last - begin)
        pending.attach()
        end = pending._end
        for name, *_ in self.MARKS:
            seconds, nanoseconds = struct.unpack("=qq", end.recv(64))
            moment = seconds + nanoseconds / 1e9
            self.add(name, moment - (begin if name == "namespaces" else last))
            last = moment
        assert end.recv(64).startswith(b'{"ready"')
        begin = time.perf_counter()
        channel.tell(end, "start")
        end.recv(64)
        self.add("filter, execve", time.perf_counter() - begin)
        pending.abort()
        os.close(null)
        group.kill()
        group.destroy()
