"""What cgroup hierarchies this machine has, read from mountinfo (not from /proc/cgroups, which also
lists controllers that are mounted nowhere)."""

from __future__ import annotations

import os

from orchestra.runtime.cgroups import files


class Mode:
    """``kind`` is ``v1``, ``v2``, ``hybrid`` (version 1 controllers and a version 2 tree besides) or
    ``none``. ``v1`` maps each controller (also ``name=…`` hierarchies) to its mount point, ``v2`` is
    the mount point of the unified tree, ``controllers`` are those usable in the unified tree."""

    __slots__ = ("_roots", "controllers", "kind", "v1", "v2")

    def __init__(self, kind: str, v1: dict[str, str], v2: str | None, controllers: tuple[str, ...]) -> None:
        self.kind = kind
        self.v1 = v1
        self.v2 = v2
        self.controllers = controllers
        self._roots: dict[str, list[str]] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mode) and self.describe() == other.describe()

    def __hash__(self) -> int:
        return hash(self.describe())

    def __repr__(self) -> str:
        return f"Mode({self.describe()})"

    def describe(self) -> str:
        """One line for people: ``hybrid: cpu memory (version 1), unified at /sys/fs/cgroup/unified``."""
        if self.kind == "none":
            return "none: no cgroup hierarchy is mounted"
        parts = []
        if self.v1:
            parts.append(f"{' '.join(sorted(self.v1))} (version 1)")
        if self.v2:
            parts.append(f"unified at {self.v2} with {' '.join(self.controllers) or 'no controllers'}")
        return f"{self.kind}: {', '.join(parts)}"

    def to_dict(self) -> dict[str, object]:
        return {"kind": self.kind, "v1": dict(self.v1), "v2": self.v2, "controllers": list(self.controllers)}

    def hierarchies(self) -> dict[str, list[str]]:
        """Mount point → its version 1 controllers (joined ones such as ``cpu,cpuacct`` share one)."""
        if not self._roots:
            for name, place in self.v1.items():
                self._roots.setdefault(place, []).append(name)
        return self._roots


_FLAGS = {
    "rw",
    "ro",
    "xattr",
    "noprefix",
    "clone_children",
    "cpuset_v2_mode",
    "none",
    "all",
    "favordynmods",
    "nsdelegate",
    "memory_localevents",
    "memory_recursiveprot",
    "memory_hugetlb_accounting",
    "pids_localevents",
}


def parse(mountinfo: str) -> tuple[dict[str, str], str | None]:
    """(controller → mount point, unified mount point) from the text of ``/proc/self/mountinfo``.
    The first mount of a hierarchy wins; a mount of a sub-directory loses against one of the root."""
    v1: dict[str, tuple[bool, str]] = {}
    v2: tuple[bool, str] | None = None
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields, tail = left.split(), right.split()
        if len(fields) < 5 or len(tail) < 3 or tail[0] not in ("cgroup", "cgroup2"):
            continue
        place, below = _unescape(fields[4]), fields[3] != "/"
        if tail[0] == "cgroup2":
            if v2 is None or (v2[0] and not below):
                v2 = (below, place)
            continue
        for option in tail[2].split(","):
            if option in _FLAGS or option.startswith("release_agent="):
                continue
            if option not in v1 or (v1[option][0] and not below):
                v1[option] = (below, place)
    return {name: found[1] for name, found in v1.items()}, v2[1] if v2 else None


def probe(mountinfo: str = "/proc/self/mountinfo") -> Mode:
    v1, v2 = parse(files.read_or(mountinfo))
    controllers: tuple[str, ...] = ()
    if v2:
        controllers = tuple(files.read_or(os.path.join(v2, "cgroup.controllers")).split())
    real = [name for name in v1 if not name.startswith("name=")]
    if real:
        return Mode("hybrid" if v2 else "v1", v1, v2, controllers)
    if v2:
        return Mode("v2", {}, v2, controllers)
    return Mode("v1" if v1 else "none", v1, None, ())


def _unescape(text: str) -> str:
    """mountinfo writes blank, tab, newline and backslash as ``\\040`` and so on."""
    if "\\" not in text:
        return text
    head, *rest = text.split("\\")
    return head + "".join(chr(int(piece[:3], 8)) + piece[3:] for piece in rest)
