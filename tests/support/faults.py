"""Blows at counted moments: kill -9 of the daemon or of the shims at the n-th step of a command.

The daemon of a test is started by this file instead of the command line: the real daemon, in which every
step that changes something outside its memory (store, shim, network, files) passes a counted point before
and after. The product itself knows nothing of it. What to do comes from ``<root>/fault``:

    {"kill": "daemon"|"shim"|"", "at": 17}

Points count from the moment that file appears; their names go to ``<root>/points``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from support.engine import Engine

ALL = os.environ.get("ORCHESTRA_FAULTS") == "all"


# the test's side


def start_daemon(engine: Engine) -> None:
    """A daemon with points for ``engine``, in place of the one that may run."""
    from support.engine import eventually

    from orchestra.paths import Paths

    engine.run("system", "shutdown", code=None)
    eventually(lambda: engine.daemon_pid() is None, what="the plain daemon has left")
    disarm(engine)
    paths = Paths.from_environment({"ORCHESTRA_ROOT": str(engine.root)})
    paths.make()
    with open(paths.run / "daemon.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-I", __file__, str(Path(__file__).resolve().parents[2]), "daemon",
             str(paths.lib), str(paths.run), paths.name],
            env={**engine.environ, "ORCHESTRA_DAEMON": "1"}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    threading.Thread(target=process.wait, daemon=True).start()
    eventually(lambda: engine.daemon_pid() == process.pid and _answers(paths.socket), what="daemon with points")


def _answers(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(place)) == 0


def arm(engine: Engine, kill: str, at: int = 0) -> None:
    """From now on points are counted; at the ``at``-th somebody is killed."""
    (engine.root / "points").unlink(missing_ok=True)
    place = engine.root / "fault.new"
    place.write_text(json.dumps({"kill": kill, "at": at}))
    place.rename(engine.root / "fault")


def disarm(engine: Engine) -> None:
    (engine.root / "fault").unlink(missing_ok=True)


def points(engine: Engine) -> list[str]:
    """Names of the points passed since the last ``arm``."""
    place = engine.root / "points"
    return place.read_text().splitlines() if place.exists() else []


def chosen(count: int, few: int, shift: float = 0.5) -> list[int]:
    """Which of ``count`` points to try: ``few`` spread over them (``shift`` from 0 to 1 moves them), or all."""
    if ALL or count <= few:
        return list(range(1, count + 1))
    return sorted({min(count, 1 + int((index + shift) * count / few)) for index in range(few)})


def leftovers(engine: Engine) -> list[str]:
    """What of ``engine``'s containers and networks is on the machine, in its directories and its records."""
    from orchestra.paths import Paths

    paths = Paths.from_environment({"ORCHESTRA_ROOT": str(engine.root)})
    found = []
    with open("/proc/self/mountinfo", errors="replace") as stream:
        found += [f"mount {line.split()[4]}" for line in stream if str(engine.root) in line]
    links = (f"oc{paths.name}", f"ov{paths.name}")
    found += [f"link {name}" for name in os.listdir("/sys/class/net") if name.startswith(links)]
    for folder, folders, _files in os.walk("/sys/fs/cgroup"):
        deep = folder.count("/") > 5
        found += [f"cgroup {folder}/{name}" for name in folders if name == paths.scope]
        if deep:
            folders.clear()
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout
    found += [f"nft {line}" for line in tables.splitlines() if line.endswith(f" {paths.scope}")]
    for base in (paths.containers, paths.bundles, paths.volumes):
        if base.is_dir():
            found += [f"file {base.name}/{name}" for name in os.listdir(base) if name != ".trash"]
    trash = paths.containers / ".trash"
    found += [f"trash {name}" for name in (os.listdir(trash) if trash.is_dir() else ())]
    with contextlib.closing(sqlite3.connect(f"file:{paths.database}?mode=ro", uri=True)) as database:
        for table in ("containers", "networks", "leases", "ports"):
            found += [f"record {table} {row[0]}" for row in database.execute(f"SELECT * FROM {table}")]
    return found


def wait_nothing_left(engine: Engine, seconds: float = 10.0) -> list[str]:
    """The leftovers once there are none or the time is over. The daemon may have to leave for that (the
    firewall's table goes with it), so it is told to."""
    engine.run("system", "shutdown", code=None)
    deadline = time.monotonic() + seconds
    while True:
        left = leftovers(engine) + [f"process {pid}" for pid in engine.processes()]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


# the daemon's side


class Points:
    """Counts and kills."""

    def __init__(self, root: str) -> None:
        self.root, self.count, self.order = root, 0, ""
        self.lock = threading.Lock()

    def pass_(self, name: str) -> None:
        with self.lock:
            try:
                with open(f"{self.root}/fault") as stream:
                    order = stream.read()
            except FileNotFoundError:
                return
            if order != self.order:
                self.order, self.count = order, 0
            self.count += 1
            with open(f"{self.root}/points", "a") as stream:
                stream.write(f"{name}\n")
            told = json.loads(order)
            if self.count == told["at"]:
                if told["kill"] == "daemon":
                    os.kill(os.getpid(), signal.SIGKILL)
                if told["kill"] == "shim":
                    self._kill_shims()

    def _kill_shims(self) -> None:
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                with open(f"/proc/{entry}/cmdline", "rb") as stream:
                    line = stream.read()
                if self.root.encode() in line and b"runtime/shim" in line:
                    os.kill(int(entry), signal.SIGKILL)

    def around(self, owner: Any, name: str, label: str = "") -> None:
        """A point before and one after a function or method."""
        before: Callable[..., Any] = getattr(owner, name)
        label = label or f"{owner.__name__.rpartition('.')[2]}.{name}"

        def wrapped(*words: Any, **more: Any) -> Any:
            shown = f"{label} {words[1]}" if name == "_call" else label
            self.pass_(f"before {shown}")
            try:
                return before(*words, **more)
            finally:
                self.pass_(f"after {shown}")

        setattr(owner, name, wrapped)


def install(root: str) -> None:
    """Points around all that the daemon does to the world."""
    from orchestra.engine import bundle
    from orchestra.engine.sweeper import Sweeper
    from orchestra.network.manager import Networks
    from orchestra.runtime.shimclient import ShimClient
    from orchestra.store.store import Store
    from orchestra.volumes.manager import Volumes

    found = Points(root)
    for name in ("add_container", "set_container_state", "set_container_spec", "set_container_phase", "remove_container", "add_network",
                 "remove_network", "set_leases", "set_ports"):  # fmt: skip
        found.around(Store, name)
    found.around(ShimClient, "_call", "shim")
    for name in ("create", "remove", "attach", "sync_firewall", "hold_ports", "release_ports"):
        found.around(Networks, name)
    for name in ("create", "remove", "fill_from_image"):
        found.around(Volumes, name)
    for name in ("make_upper", "write"):
        found.around(bundle, name)
    found.around(Sweeper, "discard")


def main() -> None:
    package_root, _word, lib, run, name = sys.argv[1:]
    sys.path.insert(0, package_root)
    install(str(Path(run).parent))
    from orchestra.controller.daemon import main as serve

    serve([lib, run, name])


if __name__ == "__main__":
    main()
