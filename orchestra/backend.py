"""What a controller may ask of containers, networks, volumes and images: the Backend protocol.

Every call is synchronous, safe to make from any thread, and raises :class:`OrchestraError` (the
subclasses NotFoundError, ConflictError, UnsupportedError where they fit). ``orchestra.engine`` is the
built-in implementation. Times are unix seconds, durations seconds, sizes bytes. Containers, networks
and volumes are named by id, unique id prefix or name wherever ``ref`` stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestra.compose.model import Mount, Network, NetworkAttachment, Service, Volume


@dataclass(frozen=True, slots=True)
class FileContent:
    """A secret or config to be put into a container: from ``path`` of the host, or ``data``."""

    target: str
    path: str = ""
    data: str | None = None
    uid: str = ""
    gid: str = ""
    mode: int | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class RestartSpec:
    """``name``: no, always, on-failure or unless-stopped. ``maximum`` consecutive restarts (0: no
    limit), ``delay`` before each (None: 100 ms doubling to 1 min), ``window`` after which a start
    counts as good (None: 10 s)."""

    name: str = "no"
    maximum: int = 0
    delay: float | None = None
    window: float | None = None


@dataclass(frozen=True, slots=True)
class NetworkUse:
    """One network a container is attached to, by its real name, in connect order."""

    network: str
    attachment: NetworkAttachment = field(default_factory=NetworkAttachment)
    aliases: tuple[str, ...] = ()  # service name, container name's aliases, attachment.aliases …
    links: Mapping[str, str] = field(
        default_factory=dict
    )  # alias → container or service name, seen by this container only


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """A container to create. ``service`` carries all settings (a single container has one made from
    its flags); the other fields are what only the controller knows. ``mounts`` replace
    ``service.volumes`` (volume sources are real volume names; '' makes an anonymous volume unless
    ``carried`` names one for the target). ``namespaces`` maps network/pid/ipc/uts/cgroup/userns to
    '' (private), 'host', 'none' or 'container:<id>'."""

    name: str
    service: Service
    image_id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    project: str = ""
    networks: tuple[NetworkUse, ...] = ()
    mounts: tuple[Mount, ...] = ()
    carried: Mapping[str, str] = field(default_factory=dict)
    volumes_from: tuple[tuple[str, str], ...] = ()  # (container id, "rw" | "ro")
    namespaces: Mapping[str, str] = field(default_factory=dict)
    files: tuple[FileContent, ...] = ()
    restart: RestartSpec = field(default_factory=RestartSpec)
    auto_remove: bool = False
    image_name: str = ""  # as the user wrote it


@dataclass(frozen=True, slots=True)
class Publisher:
    """A published port as it is on the host."""

    url: str
    target_port: int
    published_port: int
    protocol: str = "tcp"


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """A container as it is. ``state``: created, running, paused, restarting, removing, exited or
    dead. ``health``: '' (no check), starting, healthy or unhealthy. ``networks``: name → address.
    ``mounts``: dicts with Type, Name, Source, Destination, RW."""

    id: str
    name: str
    image: str
    image_id: str
    state: str
    labels: Mapping[str, str] = field(default_factory=dict)
    project: str = ""
    service: str = ""
    number: int = 0
    oneoff: bool = False
    command: tuple[str, ...] = ()
    created: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    pid: int = 0
    health: str = ""
    has_healthcheck: bool = False
    restart_count: int = 0
    publishers: tuple[Publisher, ...] = ()
    networks: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mapping[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkInfo:
    id: str
    name: str
    driver: str = "bridge"
    internal: bool = False
    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    created: float = 0.0
    containers: Mapping[str, str] = field(default_factory=dict)  # container id → address


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    name: str
    driver: str = "local"
    mountpoint: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    created: float = 0.0
    anonymous: bool = False
    used_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecSpec:
    """A command in a running container. ``size`` is (rows, columns) of its terminal."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    working_dir: str = ""
    privileged: bool = False
    tty: bool = False
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line (without its newline) or partial line of a container's output."""

    time: float
    stream: str  # stdout or stderr
    text: bytes
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """``type``: container, network, volume or image; ``action`` as docker events names it (create,
    start, die, stop, kill, restart, pause, unpause, destroy, oom, health_status: healthy …)."""

    time: float
    type: str
    action: str
    id: str
    attributes: Mapping[str, str] = field(default_factory=dict)  # labels, name, image, exitCode …


class Backend(Protocol):
    """See the module's docstring for the common rules."""

    # what is there
    def containers(self, *, project: str | None = None) -> list[ContainerInfo]: ...
    def container(self, ref: str) -> ContainerInfo: ...
    def inspect(self, ref: str) -> dict[str, Any]: ...
    def networks(self, *, project: str | None = None) -> list[NetworkInfo]: ...
    def volumes(self, *, project: str | None = None) -> list[VolumeInfo]: ...
    def image(self, text: str) -> tuple[str, dict[str, Any]] | None:
        """(image id, OCI image config) of a local image, or None."""
        ...

    # networks and volumes
    def create_network(self, network: Network, labels: Mapping[str, str]) -> NetworkInfo: ...
    def remove_network(self, ref: str) -> None: ...
    def connect(self, ref: str, use: NetworkUse) -> None: ...
    def disconnect(self, ref: str, network: str, *, force: bool = False) -> None: ...
    def create_volume(self, volume: Volume, labels: Mapping[str, str]) -> VolumeInfo: ...
    def remove_volume(self, name: str, *, force: bool = False) -> None: ...

    # containers
    def create(self, spec: ContainerSpec) -> ContainerInfo: ...
    def start(self, ref: str) -> None:
        """Returns when the program runs; raises with its reason when it cannot be started (no such
        command → exit code 127 recorded, not executable → 126, host port taken → ConflictError)."""
        ...

    def stop(self, ref: str, *, timeout: float | None = None, signal: str = "") -> None: ...
    def restart(self, ref: str, *, timeout: float | None = None) -> None: ...
    def kill(self, ref: str, *, signal: str = "SIGKILL") -> None: ...
    def pause(self, ref: str) -> None: ...
    def unpause(self, ref: str) -> None: ...
    def rename(self, ref: str, name: str) -> None: ...
    def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None: ...
    def update(self, ref: str, resources: Mapping[str, Any]) -> list[str]: ...
    def wait(self, ref: str, *, until: str = "not-running", stop: Callable[[], bool] | None = None) -> int:
        """The exit code, once the container has stopped (``not-running``), has stopped after a start yet to
        come (``next-exit``) or is removed (``removed``). ``stop`` is asked now and then: true ends it."""
        ...

    # inside
    def exec(self, ref: str, spec: ExecSpec, fds: tuple[int, int, int] | None) -> str: ...
    def exec_terminal(self, exec_id: str) -> int:
        """A descriptor (the caller's) of the master side of an exec's terminal (``spec.tty``)."""
        ...

    def exec_wait(self, exec_id: str) -> int: ...
    def exec_resize(self, exec_id: str, rows: int, columns: int) -> None: ...
    def exec_signal(self, exec_id: str, signal: str) -> None: ...
    def attach(self, ref: str, fds: tuple[int, int, int], *, stdin: bool = False) -> Callable[[], None]:
        """Copies output to fds[1]/fds[2] (and input from fds[0]) until the container stops; returns at
        once with a function that ends it."""
        ...

    def resize(self, ref: str, rows: int, columns: int) -> None: ...
    def logs(
        self,
        ref: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float | None = None,
        until: float | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Iterator[LogLine]:
        """Past lines, then live ones with ``follow`` until the container stops for good; ``stop`` is asked
        at least every 200 ms and ends it."""
        ...

    def top(self, ref: str) -> tuple[list[str], list[list[str]]]: ...
    def stats(self, ref: str) -> dict[str, Any]: ...
    def archive_get(
        self, ref: str, path: str, fd: int, *, follow_links: bool = False, stat_only: bool = False
    ) -> dict[str, Any]:
        """Writes a tar of ``path`` to ``fd``; returns {name, size, mode, is_dir, link_target}."""
        ...

    def archive_put(self, ref: str, path: str, fd: int, *, archive: bool = False) -> None: ...
    def export(self, ref: str, fd: int) -> None: ...
    def changes(self, ref: str) -> list[tuple[str, str]]: ...
    def commit(
        self,
        ref: str,
        name: str,
        *,
        author: str = "",
        message: str = "",
        changes: tuple[str, ...] = (),
        pause: bool = True,
    ) -> str: ...

    def events(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Iterator[Event]:
        """Past events since ``since`` (when given), then live ones until ``until`` or ``stop`` says so
        (asked at least every 200 ms)."""
        ...

    # what the daemon needs besides (see controller/api.py)
    def recover(self) -> None:
        """At daemon start: adopt what runs, record what ended meanwhile, finish or undo half-made things."""
        ...

    def close(self) -> None: ...
    def busy(self) -> bool:
        """Whether anything runs or waits for a restart."""
        ...

    def info(self) -> dict[str, Any]:
        """cgroup mode and controllers, kernel, storage, counts … for ``orchestra info``."""
        ...

    def pulled_at(self, text: str) -> float: ...
    def note_pull(self, text: str) -> None: ...
    def remove_image(self, text: str, *, force: bool = False) -> None: ...
    def export_volume(self, name: str, fd: int) -> None: ...
    def import_volume(self, name: str, fd: int) -> None: ...
