"""A container as the engine holds it: its spec, its changing state, its lock.

``state`` is written to the store after each change (``Engine`` parts call ``registry.save``). Whoever
changes a container's state or its processes holds ``lock``; readers take a consistent copy through
``info()``.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from orchestra import labels
from orchestra.backend import ContainerInfo, ContainerSpec, Publisher
from orchestra.engine.health import HealthTracker, Probe
from orchestra.engine.mounts import Record, public
from orchestra.engine.restart import RestartTracker


@dataclass(frozen=True, slots=True)
class Joined:
    """A container's place on one network."""

    network_id: str
    ipv4: str = ""
    ipv6: str = ""
    mac: str = ""
    interface: str = ""


@dataclass(slots=True)
class State:
    """What is stored of a container besides its spec; see ContainerInfo for the meanings."""

    status: str = "created"
    created: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    pid: int = 0
    restart_count: int = 0
    stopped_by_hand: bool = False
    health: str = ""
    networks: dict[str, Joined] = field(default_factory=dict)  # by network name
    ports: tuple[Publisher, ...] = ()
    mounts: tuple[Record, ...] = ()
    warnings: tuple[str, ...] = ()
    starts: int = 0
    ids: tuple[int, ...] = ()  # while it runs in a user namespace: first uid, first gid, how many


class Container:
    """See the module's docstring."""

    def __init__(self, container_id: str, spec: ContainerSpec, state: State, image: dict[str, Any]) -> None:
        self.id = container_id
        self.spec = spec
        self.state = state
        self.image = image  # the "config" object of the image's config
        self.lock = threading.RLock()
        self.changed = threading.Condition()
        self.removed = False
        self.probe: Probe | None = None
        self.health: HealthTracker | None = None
        self.restarts = RestartTracker(spec.restart)
        self.process: dict[str, Any] | None = None  # the OCI process of the last start
        self.extra_endpoints: tuple[
            Any, ...
        ] = ()  # endpoints of a start under way, before the state has them
        self.run = 0  # counts starts in this daemon's life: a late event of an older run is dropped

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def group(self) -> str:
        """The shim that holds it."""
        return self.spec.project or "_single"

    @property
    def image_name(self) -> str:
        return self.spec.image_name or self.spec.service.image or self.spec.image_id

    @property
    def running(self) -> bool:
        return self.state.status in ("running", "paused")

    def notify(self) -> None:
        """Wakes everybody who waits for a change."""
        with self.changed:
            self.changed.notify_all()

    def info(self) -> ContainerInfo:
        state, spec = self.state, self.spec
        number = spec.labels.get(labels.NUMBER, "")
        return ContainerInfo(
            id=self.id,
            name=spec.name,
            image=self.image_name,
            image_id=spec.image_id,
            state=state.status,
            labels=spec.labels,
            project=spec.labels.get(labels.PROJECT, spec.project),
            service=spec.labels.get(labels.SERVICE, ""),
            number=int(number) if number.isdigit() else 0,
            oneoff=spec.labels.get(labels.ONEOFF, "").lower() == "true",
            command=tuple(self.command()),
            created=state.created,
            started=state.started,
            finished=state.finished,
            exit_code=state.exit_code,
            oom_killed=state.oom_killed,
            error=state.error,
            pid=state.pid,
            health=state.health,
            has_healthcheck=self.probe is not None,
            restart_count=state.restart_count,
            publishers=state.ports,
            networks={use.network: self._address(use.network) for use in spec.networks},
            mounts=tuple(public(record) for record in state.mounts),
            warnings=state.warnings,
        )

    def command(self) -> list[str]:
        from orchestra.engine.process import arguments
        from orchestra.errors import OrchestraError

        try:
            return arguments(self.spec.service, self.image)
        except OrchestraError:
            return []

    def _address(self, network: str) -> str:
        place = self.state.networks.get(network)
        return (place.ipv4 or place.ipv6) if place else ""

    def event_attributes(self) -> dict[str, str]:
        return {**self.spec.labels, "name": self.spec.name, "image": self.image_name}
