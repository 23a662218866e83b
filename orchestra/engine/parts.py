"""What the parts of the engine share: places, the store, the registry, events, shims. Constructed once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestra.clock import Clock
from orchestra.engine.namespaces import mode_of, shared_with
from orchestra.paths import Paths
from orchestra.runtime import shimclient

if TYPE_CHECKING:
    from orchestra.engine.container import Container
    from orchestra.engine.hub import Hub
    from orchestra.engine.registry import Registry
    from orchestra.engine.schedule import Scheduler
    from orchestra.engine.sweeper import Sweeper
    from orchestra.images.store import ImageStore
    from orchestra.store.store import Store


class Shims:
    """One client a project. ``on_event(group, event)`` hears of exits, ``on_lost(group)`` that a
    shim has died; both in a thread of the group's own."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.on_event: Callable[[str, dict[str, Any]], None] = lambda _group, _event: None
        self.on_lost: Callable[[str], None] = lambda _group: None
        self._clients: dict[str, shimclient.ShimClient] = {}
        self._lock = threading.Lock()
        self._group_locks: dict[str, threading.Lock] = {}
        self._closing = False
        self._nursery = shimclient.Nursery()

    def warm(self) -> None:
        """Be ready to start shims quickly; in the background."""
        threading.Thread(target=self._nursery.start, daemon=True, name="nursery").start()

    def client(self, group: str) -> shimclient.ShimClient:
        """The group's shim, started when there is none."""
        with self._lock:
            found = self._clients.get(group)
            lock = self._group_locks.setdefault(group, threading.Lock())
        if found is not None:
            return found
        with lock:
            with self._lock:
                found = self._clients.get(group)
            if found is not None:
                return found
            made = shimclient.ensure(self.paths, group, self._nursery)
            events = made.events(("exit",))
            with self._lock:
                self._clients[group] = made
            threading.Thread(
                target=self._listen, args=(group, made, events), daemon=True, name=f"shim-{group}"
            ).start()
            return made

    def _listen(self, group: str, client: shimclient.ShimClient, events: Any) -> None:
        try:
            for event in events:
                self.on_event(group, event)
        except (shimclient.ShimGone, OSError):
            pass
        if self.drop(group, client):  # else it was let go, or its end has been noticed already
            self.on_lost(group)

    def drop(self, group: str, client: shimclient.ShimClient) -> bool:
        """The client of a shim that has ended is forgotten; whether it was still the group's."""
        with self._lock:
            mine = self._clients.get(group) is client and not self._closing
            if mine:
                del self._clients[group]
        client.close()
        return mine

    def again(self, group: str, client: shimclient.ShimClient) -> shimclient.ShimClient:
        """The successor of a shim that turned out to have ended; what ran in it is adopted."""
        if self.drop(group, client):
            threading.Thread(target=self.on_lost, args=(group,), daemon=True, name=f"shim-{group}").start()
        return self.client(group)

    def release(self, group: str) -> None:
        """Let a shim without containers leave."""
        with self._lock:
            client = self._clients.pop(group, None)
        if client is not None:
            client.close()

    def close(self) -> None:
        with self._lock:
            self._closing = True
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()
        self._nursery.close()


@lru_cache(maxsize=4096)
def _below(folder: Path, name: str) -> Path:
    """A start asks a dozen times."""
    return folder / name


@dataclass(slots=True)
class Parts:
    """See the module's docstring."""

    paths: Paths
    clock: Clock
    store: Store
    registry: Registry
    hub: Hub
    shims: Shims
    sweeper: Sweeper
    images: ImageStore
    scheduler: Scheduler
    extra: dict[str, Any] = field(default_factory=dict)

    def folder(self, container_id: str) -> Path:
        """What of a container outlives a reboot."""
        return _below(self.paths.containers, container_id)

    def folder_text(self, container_id: str) -> str:
        """``folder`` as text."""
        return f"{self.paths.containers}/{container_id}"

    def bundle_text(self, container_id: str) -> str:
        return f"{self.paths.bundles}/{container_id}"

    def bundle(self, container_id: str) -> Path:
        return _below(self.paths.bundles, container_id)

    def etc(self, container_id: str) -> Path:
        """Where its hosts, hostname and resolv.conf lie: each start writes them anew."""
        return self.bundle(container_id)

    def log_path(self, container_id: str) -> Path:
        return self.folder(container_id) / "logs" / "output"

    def hostname(self, container: Container) -> str:
        """The UTS host name: given, another container's, the host's, or the short id."""
        import os

        spec = container.spec
        other = shared_with(spec.namespaces, "uts")
        if other:
            return self.hostname(self.registry.get(other))
        if mode_of(spec.namespaces, "uts") == "host":
            return os.uname().nodename
        if spec.service.hostname:
            return spec.service.hostname
        joined = shared_with(spec.namespaces, "network")
        if joined:
            return self.hostname(self.registry.get(joined))
        if mode_of(spec.namespaces, "network") == "host":
            return os.uname().nodename
        return container.id[:12]
