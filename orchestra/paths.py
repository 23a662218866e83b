"""Where orchestra keeps its files, as one frozen value.

``ORCHESTRA_ROOT`` (or ``--root``) moves everything below one directory, so that several
independent engines run side by side (tests do); ``ORCHESTRA_RUN`` then names a place of its own for what
need not outlive a reboot, best on a tmpfs as /run is. All directories are private to their owner (0700).

    <lib>/                     /var/lib/orchestra        <root>/lib
        state.sqlite           the daemon's database (one writer)
        images/                content store (see images/store.py)
        containers/<id>/       upper/ work/ hosts hostname resolv.conf logs/
        volumes/<name>/_data   named and anonymous volumes
        builds/                scratch of the builder
    <run>/                     /run/orchestra            <root>/run
        daemon.sock daemon.lock daemon.log
        shims/<project>.sock
        containers/<id>/       bundle: config.json state.json
        mnt/                   the one mount point for container roots (in their own namespaces)
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # pathlib and typing are loaded by those who need more than names
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Paths:
    """``lib`` survives a reboot, ``run`` does not (``lib_text`` and ``run_text`` are the same as text);
    ``name`` tells engines of one machine apart (used in cgroup, link and nft table names; empty for the
    default engine)."""

    __slots__ = ("_bundles", "_containers", "_lib", "_name", "_run", "lib_text", "run_text")

    def __init__(self, lib: Path | str, run: Path | str, name: str | None = "") -> None:
        """``name`` None: made of the folder that ``lib`` lies in."""
        self.lib_text, self.run_text = os.fspath(lib), os.fspath(run)
        self._name = name
        self._lib: Path | None = None
        self._run: Path | None = None
        self._containers: Path | None = None
        self._bundles: Path | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, root: str | None = None) -> Paths:
        """``root`` wins over ``ORCHESTRA_ROOT``; without both, the system directories for root and
        the XDG directories for a user."""
        chosen = root or environ.get("ORCHESTRA_ROOT")
        if chosen:
            base = os.path.abspath(chosen)
            run = environ.get("ORCHESTRA_RUN")
            return cls(f"{base}/lib", os.path.abspath(run) if run else f"{base}/run", None)
        if os.geteuid() == 0:
            return cls("/var/lib/orchestra", "/run/orchestra")
        home = environ.get("HOME", "/")
        data = environ.get("XDG_DATA_HOME") or f"{home}/.local/share"
        runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
        return cls(f"{data}/orchestra", f"{runtime}/orchestra", f"u{os.geteuid()}")

    @property
    def lib(self) -> Path:
        if self._lib is None:
            from pathlib import Path

            self._lib = Path(self.lib_text)
        return self._lib

    @property
    def run(self) -> Path:
        if self._run is None:
            from pathlib import Path

            self._run = Path(self.run_text)
        return self._run

    @property
    def name(self) -> str:
        if self._name is None:
            self._name = _short_name(os.path.dirname(self.lib_text))
        return self._name

    @property
    def database(self) -> Path:
        return self.lib / "state.sqlite"

    @property
    def images(self) -> Path:
        return self.lib / "images"

    @property
    def containers(self) -> Path:
        if self._containers is None:
            self._containers = self.lib / "containers"
        return self._containers

    @property
    def volumes(self) -> Path:
        return self.lib / "volumes"

    @property
    def builds(self) -> Path:
        return self.lib / "builds"

    @property
    def socket(self) -> Path:
        return self.run / "daemon.sock"

    @property
    def shims(self) -> Path:
        return self.run / "shims"

    @property
    def bundles(self) -> Path:
        if self._bundles is None:
            self._bundles = self.run / "containers"
        return self._bundles

    @property
    def mountpoint(self) -> Path:
        return self.run / "mnt"

    @property
    def scope(self) -> str:
        """The word that marks this engine's kernel objects: ``orchestra`` or ``orchestra-<name>``."""
        return f"orchestra-{self.name}" if self.name else "orchestra"

    def make(self) -> None:
        """Create the directories, private to their owner."""
        for folder in (
            self.lib,
            self.run,
            self.images,
            self.containers,
            self.volumes,
            self.builds,
            self.shims,
            self.bundles,
            self.mountpoint,
        ):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.lib, self.run):  # made by ``parents`` with the usual mode
            if folder.stat().st_mode & 0o077:
                folder.chmod(0o700)


def _short_name(base: str) -> str:
    """Six hex digits of the path: stable, and short enough for a link name (15 bytes)."""
    import hashlib

    return hashlib.sha256(os.fsencode(base)).hexdigest()[:6]
