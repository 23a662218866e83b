"""IP forwarding of the host: switched on when the first network that leads out is made, and put back as it
was when the last one is gone.

What we changed is noted in ``/run/orchestra-forwarding.<namespace>.json``, shared by all engines of the
machine and guarded by a lock on the directory ``/run`` (no file is left behind). While it is on by our
doing, the links that were there before are *guarded*: the firewall forwards no new connection between two
of them, so that the host does not become a router by accident.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_IPV4 = "net/ipv4/ip_forward"
_IPV6 = "net/ipv6/conf/all/forwarding"


@contextmanager
def host_lock(folder: Path = Path("/run")) -> Iterator[None]:
    """One engine at a time: for choosing subnets and for forwarding."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def read_sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""


def write_sysctl(name: str, value: str) -> None:
    """Writes through the calling thread's network namespace; leaves alone what has the value already."""
    if read_sysctl(name) != value:
        with open(f"/proc/sys/{name}", "w", encoding="ascii") as file:
            file.write(value)


class Forwarding:
    """The switch. Call with the host lock held."""

    def __init__(self, folder: Path = Path("/run")) -> None:
        self._folder = folder

    @property
    def note(self) -> Path:
        return self._folder / f"orchestra-forwarding.{os.stat('/proc/thread-self/ns/net').st_ino}.json"

    def guarded(self) -> list[str]:
        """Links between which our switching it on must not make the host a router."""
        links = self._read().get("guarded", [])
        return [str(link) for link in links] if isinstance(links, list) else []

    def enable(self, links: list[str], *, ipv6: bool) -> None:
        """``links`` are the links of the host that are not ours."""
        note = self._read()
        before = note.get("before", {})
        assert isinstance(before, dict)
        wanted = {_IPV4: "1"}
        if ipv6:
            wanted.update(self._ipv6(links))
        changes = {name: value for name, value in wanted.items() if read_sysctl(name) not in (value, "")}
        if not changes:
            return
        if _IPV4 in changes or _IPV6 in changes:
            note["guarded"] = sorted({*self.guarded(), *links})
        for name in changes:
            before.setdefault(name, read_sysctl(name))
        note["before"] = before
        self._write(note)
        for name, value in changes.items():
            write_sysctl(name, value)

    def restore(self) -> None:
        """Puts everything back; for when no bridge of any engine is left."""
        before = self._read().get("before", {})
        assert isinstance(before, dict)
        for name, value in reversed(before.items()):
            try:
                write_sysctl(name, str(value))
            except OSError:
                continue  # a link that is gone
        self.note.unlink(missing_ok=True)

    def _ipv6(self, links: list[str]) -> dict[str, str]:
        """A forwarding host ignores router advertisements unless accept_ra is 2: keep them working."""
        wanted = {}
        for link in links:
            name = f"net/ipv6/conf/{link}/accept_ra"
            if read_sysctl(name) == "1":
                wanted[name] = "2"
        wanted[_IPV6] = "1"
        return wanted

    def _read(self) -> dict[str, object]:
        try:
            data = json.loads(self.note.read_text())
        except (OSError, ValueError):
            return {}
        return data if isinstance(data, dict) else {}

    def _write(self, note: dict[str, object]) -> None:
        draft = self.note.with_suffix(".new")
        draft.write_text(json.dumps(note))
        os.rename(draft, self.note)
