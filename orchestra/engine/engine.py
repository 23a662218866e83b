"""The built-in :class:`~orchestra.backend.Backend`: a façade over the parts, nothing decided here."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from orchestra import __version__
from orchestra.backend import (
    ContainerInfo,
    ContainerSpec,
    Event,
    ExecSpec,
    LogLine,
    NetworkInfo,
    NetworkUse,
    RestartSpec,
    VolumeInfo,
)
from orchestra.clock import SystemClock
from orchestra.compose.model import Network, Volume
from orchestra.engine import snapshot, userns
from orchestra.engine.bundle import identity_of
from orchestra.engine.container import Container
from orchestra.engine.hub import Hub
from orchestra.engine.inside import Inside
from orchestra.engine.life import Life
from orchestra.engine.nets import Nets
from orchestra.engine.parts import Parts, Shims
from orchestra.engine.ports import PortBook
from orchestra.engine.process import exec_process
from orchestra.engine.recovery import Recovery
from orchestra.engine.registry import Registry
from orchestra.engine.resources import resources_from_update, updated
from orchestra.engine.resources import warning as limit_warning
from orchestra.engine.restart import RestartTracker
from orchestra.engine.schedule import Scheduler
from orchestra.engine.stop import Stopper, signal_number
from orchestra.engine.streams import Copier
from orchestra.engine.sweeper import Sweeper
from orchestra.engine.watch import HealthWatch
from orchestra.errors import ConflictError, NotFoundError, OrchestraError
from orchestra.images.store import open_store
from orchestra.labels import PROJECT
from orchestra.linux import fs
from orchestra.network.model import PortSpec
from orchestra.paths import Paths
from orchestra.runtime import logfile
from orchestra.runtime.cgroups import probe
from orchestra.store.store import Store
from orchestra.volumes import archive
from orchestra.volumes.manager import StoredVolume, Volumes

STOP_POLL = 0.15


class Engine:
    """One engine below ``paths``. Only one process may have it (the daemon holds the lock)."""

    def __init__(self, paths: Paths) -> None:
        paths.make()
        self.paths = paths
        clock = SystemClock()
        store = Store(paths.database)
        self.images = open_store(paths)
        self.parts = Parts(
            paths,
            clock,
            store,
            Registry(store),
            Hub(store, clock),
            Shims(paths),
            Sweeper(paths.containers, fs.remove_tree),
            self.images,
            Scheduler(),
        )
        self.nets = Nets(self.parts)
        self.ports = PortBook(store, self._free_on_host, self._name_of)
        self.parts.extra["ports"] = self.ports
        self.volumes_ = Volumes(paths.volumes)
        self.life = Life(self.parts, self.nets, self.ports, self.volumes_)
        self.stopper = Stopper(self.parts)
        self.health = HealthWatch(self.parts, self.life)
        self.life.on_running = self.health.begin
        self.life.on_removed = self._note_images
        self.inside = Inside(self.parts, self.life.owners)
        self.recovery = Recovery(self.parts, self.life, self.nets, self.health)
        self.parts.shims.on_event = self._event
        self.parts.shims.on_lost = self._lost
        self._masters: dict[str, int] = {}
        self._noting = threading.Lock()
        self._noted: list[str] | None = None  # what images-in-use.json says
        self._groups: dict[str, str] = {}  # exec id → shim group

    # the daemon

    def recover(self) -> None:
        self.parts.shims.warm()
        self.recovery.run()
        self.parts.sweeper.start()
        for place in self.volumes_.leftovers():  # type: ignore[attr-defined]
            self.parts.scheduler.now(partial(fs.remove_tree, place))
        self._note_images()

    def close(self) -> None:
        self.parts.scheduler.close()
        if not self.parts.registry.all() or not self.busy():
            if not any(c.running for c in self.parts.registry.all()):
                self._quiet_host()
        self.parts.sweeper.close()
        self.parts.shims.close()
        self.nets.close()
        self.parts.hub.close()
        self.parts.store.close()

    def _quiet_host(self) -> None:
        """Nothing runs and nothing is defined: no table is left on the host."""
        if self.nets.quiet():
            self.nets.host.remove_firewall()

    def busy(self) -> bool:
        return any(c.state.status in ("running", "paused", "restarting") for c in self.parts.registry.all())

    def info(self) -> dict[str, Any]:
        from orchestra.network.outside import links

        mode = probe()
        states = [c.state.status for c in self.parts.registry.all()]
        return {
            "version": __version__,
            "root": str(self.paths.lib),
            "run": str(self.paths.run),
            "kernel": platform.release(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "cgroups": mode.describe(),
            "storage": "overlay",
            "firewall": self.nets.host.firewall.name,
            "containers": len(states),
            "running": states.count("running"),
            "paused": states.count("paused"),
            "stopped": sum(1 for s in states if s in ("exited", "created", "dead")),
            "images": len(self.images.list()),
            "networks": len(self.nets.listed()),
            "volumes": len(self.volumes_.list()),
            "links": [f"{link['name']} ({link['kind']}) {' '.join(link['addresses'])}" for link in links()],
        }

    def _event(self, group: str, event: dict[str, Any]) -> None:
        del group
        if event.get("type") != "exit":
            return
        container = self.parts.registry.find(str(event.get("id")))
        if container is not None:
            self.parts.scheduler.now(lambda: self.life.died(container, event))

    def _lost(self, group: str) -> None:
        """A shim was killed: its successor adopts what runs."""
        if any(c.running for c in self.parts.registry.all() if c.group == group):
            try:
                self.recovery.group(group)
            except (OrchestraError, OSError) as error:
                print(f"shim of {group}: {error}", flush=True)
                self.parts.scheduler.at(time.time() + 1, lambda: self._lost(group))

    def _free_on_host(self, host_ip: str, port: int, protocol: str) -> bool:
        return self.nets.host.port_is_free(PortSpec(host_ip, port, 0, protocol))

    def _name_of(self, container_id: str) -> str:
        found = self.parts.registry.find(container_id)
        return found.name if found else container_id[:12]

    def _get(self, ref: str) -> Container:
        return self.parts.registry.get(ref)

    # what is there

    def containers(self, *, project: str | None = None) -> list[ContainerInfo]:
        infos = [c.info() for c in self.parts.registry.all()]
        return [info for info in infos if project is None or info.labels.get(PROJECT) == project]

    def container(self, ref: str) -> ContainerInfo:
        return self._get(ref).info()

    def inspect(self, ref: str) -> dict[str, Any]:
        container = self._get(ref)
        if container.running:
            self._process(container)
        found = snapshot.inspect(container, self.parts)
        for name, place in found["NetworkSettings"]["Networks"].items():
            try:
                gateways = self.nets.find(name).gateways
            except NotFoundError:
                gateways = ()
            place["Gateway"] = (
                next((g for g in gateways if ":" not in g), "") if place.get("IPAddress") else ""
            )
        service = container.spec.service
        found["HostConfig"]["CpuShares"] = service.cpu_shares or 0
        return found

    def _process(self, container: Container) -> dict[str, Any]:
        try:
            return self.life.load_process(container)
        except OSError:
            return {}

    def networks(self, *, project: str | None = None) -> list[NetworkInfo]:
        return self.nets.listed(project)

    def volumes(self, *, project: str | None = None) -> list[VolumeInfo]:
        found = [self._volume_info(v) for v in self.volumes_.list()]
        return [v for v in found if project is None or v.labels.get(PROJECT) == project]

    def _volume_info(self, volume: StoredVolume) -> VolumeInfo:
        return VolumeInfo(
            volume.name,
            volume.driver,
            str(volume.mountpoint),
            dict(volume.labels),
            dict(volume.options),
            volume.created,
            volume.anonymous,
            tuple(self.life.volume_users(volume.name)),
        )

    def image(self, text: str) -> tuple[str, dict[str, Any]] | None:
        found = self.images.resolve(text)
        return (str(found.id), dict(found.config)) if found else None

    def pulled_at(self, text: str) -> float:
        return float(self.parts.store.fact(f"pulled:{text}") or 0)

    def note_pull(self, text: str) -> None:
        self.parts.store.set_fact(f"pulled:{text}", str(self.parts.clock.now()))

    def remove_image(self, text: str, *, force: bool = False) -> None:
        self.images.remove(text, force=force)

    # networks and volumes

    def create_network(self, network: Network, labels: Mapping[str, str]) -> NetworkInfo:
        return self.nets.create(network, labels)

    def remove_network(self, ref: str) -> None:
        self.nets.remove(ref)

    def connect(self, ref: str, use: NetworkUse) -> None:
        self.nets.find(use.network)
        self.nets.connect(self._get(ref), use)

    def disconnect(self, ref: str, network: str, *, force: bool = False) -> None:
        del force
        self.nets.disconnect(self._get(ref), network)

    def create_volume(self, volume: Volume, labels: Mapping[str, str]) -> VolumeInfo:
        made = self.volumes_.create(
            volume.name,
            driver=volume.driver or "local",
            driver_opts=volume.driver_opts,
            labels=labels,
            created=self.parts.clock.now(),
        )
        self.parts.hub.publish("volume", "create", volume.name, {"driver": made.driver})
        return self._volume_info(made)

    def remove_volume(self, name: str, *, force: bool = False) -> None:
        if not self.volumes_.exists(name):
            if force:
                return
            raise NotFoundError(f"no such volume: {name}")
        users = self.life.volume_users(name)
        self.volumes_.remove(name, in_use={name: users} if users else {}, sweep=self.parts.sweeper.discard)
        self.parts.hub.publish("volume", "destroy", name, {"driver": "local"})

    def export_volume(self, name: str, fd: int) -> None:
        self.life.owners.plain_volume(name)
        with os.fdopen(os.dup(fd), "wb") as stream, self.volumes_.contents(name, read_only=True) as place:
            archive.export_tar(place, stream)

    def import_volume(self, name: str, fd: int) -> None:
        if not self.volumes_.exists(name):
            self.volumes_.create(name, created=self.parts.clock.now())
        self.life.owners.plain_volume(name)
        with os.fdopen(os.dup(fd), "rb") as stream, self.volumes_.contents(name) as place:
            archive.import_tar(place, stream)

    # containers

    def create(self, spec: ContainerSpec) -> ContainerInfo:
        container = self.life.create(spec)
        self._note_images()
        return container.info()

    def _note_images(self) -> None:
        """For the tools that work on the image store without this daemon."""
        with self._noting:
            used = sorted({c.spec.image_id for c in self.parts.registry.all()})
            if used != self._noted:
                fs.write_file(self.paths.run / "images-in-use.json", json.dumps(used).encode())
                self._noted = used

    def start(self, ref: str) -> None:
        self.life.start(self._get(ref))

    def stop(self, ref: str, *, timeout: float | None = None, signal: str = "") -> None:
        self.stopper.stop(self._get(ref), timeout=timeout, signal_name=signal)

    def restart(self, ref: str, *, timeout: float | None = None) -> None:
        container = self._get(ref)
        self.stopper.stop(container, timeout=timeout)
        self.life.start(container)
        self.parts.hub.publish("container", "restart", container.id, container.event_attributes())

    def kill(self, ref: str, *, signal: str = "SIGKILL") -> None:
        self.stopper.kill(self._get(ref), signal)

    def pause(self, ref: str) -> None:
        self.stopper.pause(self._get(ref))

    def unpause(self, ref: str) -> None:
        self.stopper.unpause(self._get(ref))

    def rename(self, ref: str, name: str) -> None:
        container = self._get(ref)
        with container.lock:
            self.parts.registry.rename(container, name)
            if container.running:
                self.nets.name(container, container.state.pid, self.nets.endpoints(container))
        self.parts.hub.publish("container", "rename", container.id, container.event_attributes())

    def remove(self, ref: str, *, force: bool = False, volumes: bool = False) -> None:
        self.life.remove(self._get(ref), force=force, volumes=volumes)

    def update(self, ref: str, resources: Mapping[str, Any]) -> list[str]:
        from dataclasses import replace

        container = self._get(ref)
        changes = dict(resources)
        restart = changes.pop("restart", None)
        warnings: list[str] = []
        with container.lock:
            spec = container.spec
            if restart is not None:
                spec = replace(spec, restart=RestartSpec(**restart))
                container.restarts = RestartTracker(spec.restart)
            if changes:
                spec = replace(spec, service=updated(spec.service, changes))
                found = resources_from_update(spec.service, changes)
                if container.running and found:
                    warnings = self.parts.shims.client(container.group).update(container.id, found)
                warnings = [limit_warning(text, spec.service) for text in warnings]
            self.parts.registry.change_spec(container, spec)
        return warnings

    def wait(self, ref: str, *, until: str = "not-running", stop: Callable[[], bool] | None = None) -> int:
        container = self._get(ref)
        begun = container.state.starts
        while True:
            with container.changed:
                state = container.state
                done = state.status not in ("running", "paused", "restarting")
                if until == "next-exit":
                    done = done and (state.starts > begun or bool(state.error and state.finished))
                if until == "removed":
                    done = container.removed
                if done or container.removed:
                    return state.exit_code
                container.changed.wait(STOP_POLL if stop else None)
            if stop is not None and stop():
                return state.exit_code

    # inside

    def exec(self, ref: str, spec: ExecSpec, fds: tuple[int, int, int] | None) -> str:
        container = self._get(ref)
        if container.state.status != "running":
            raise ConflictError(
                f"container {container.name} is not running"
                if container.state.status != "paused"
                else f"container {container.name} is paused, unpause it before exec"
            )
        base = self.life.load_process(container)
        layers = self.images.layers(self.images.get(container.spec.image_id))
        user = base.get("user", {})
        if spec.user:
            identity = identity_of(container, layers, self.parts.folder(container.id) / "upper", spec.user)
            userns.check_user(identity, userns.held(container.state.ids))
        else:
            from orchestra.engine.accounts import Identity

            identity = Identity(
                int(user.get("uid", 0)), int(user.get("gid", 0)), tuple(user.get("additionalGids", ()))
            )
        process = exec_process(
            base, spec, identity, capabilities=self._exec_capabilities(base, spec, identity.uid)
        )
        shim = self.parts.shims.client(container.group)
        exec_id, master = shim.exec(container.id, process, fds=fds, tty=spec.tty, size=spec.size)
        self._groups[exec_id] = container.group
        if master >= 0:
            self._masters[exec_id] = master
        return exec_id

    def _exec_capabilities(self, base: Mapping[str, Any], spec: ExecSpec, uid: int) -> dict[str, list[str]]:
        from orchestra.engine.bundle import _available
        from orchestra.engine.process import effective_capabilities

        names = (
            sorted(_available())
            if spec.privileged
            else list((base.get("capabilities") or {}).get("bounding", ()))
        )
        return effective_capabilities(names, root=uid == 0)

    def _shim_of(self, exec_id: str) -> Any:
        group = self._groups.get(exec_id)
        if group is None:
            raise NotFoundError(f"no such exec: {exec_id}")
        return self.parts.shims.client(group)

    def exec_terminal(self, exec_id: str) -> int:
        return self._masters.pop(exec_id)

    def exec_wait(self, exec_id: str) -> int:
        code = int(self._shim_of(exec_id).exec_wait(exec_id))
        self._groups.pop(exec_id, None)
        return code

    def exec_resize(self, exec_id: str, rows: int, columns: int) -> None:
        self._shim_of(exec_id).exec_resize(exec_id, rows, columns)

    def exec_signal(self, exec_id: str, signal: str) -> None:
        self._shim_of(exec_id).exec_signal(exec_id, signal_number(signal))

    def attach(
        self,
        ref: str,
        fds: tuple[int, int, int],
        *,
        stdin: bool = False,
        size: tuple[int, int] | None = None,
    ) -> Callable[[], None]:
        """Before a start: the container is created in its shim only then, so the copying begins with it.
        ``size`` (rows, columns) is what its terminal gets before the program runs. The end of the client's input
        is the container's only for who starts it (docker's StdinOnce): others come and go."""
        container = self._get(ref)
        starts = not container.running
        client = self.parts.shims.client
        copier = Copier(
            lambda: client(container.group).attach(container.id, wait=True),
            fds,
            stdin=stdin,
            close_stdin=(lambda: client(container.group).close_stdin(container.id)) if starts else None,
        )

        def begin() -> None:
            copier.begin()
            if size and container.spec.service.tty:
                self.resize(container.id, *size)

        if not starts:
            begin()
        else:
            self.life.on_created[container.id] = begin
        return copier.end

    def resize(self, ref: str, rows: int, columns: int) -> None:
        container = self._get(ref)
        self.parts.shims.client(container.group).resize(container.id, rows, columns)

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
        container = self._get(ref)
        logging = container.spec.service.logging
        if logging and logging.driver == "none":
            raise OrchestraError(f'container {container.name} keeps no log: its logging driver is "none"')

        def going_on() -> bool:
            if stop is not None and stop():
                return False
            return container.state.status in ("running", "paused", "restarting") and not container.removed

        names = {1: "stdout", 2: "stderr"}
        lines = logfile.read(
            str(self.parts.log_path(container.id)),
            tail=tail,
            since=since,
            until=until,
            follow=going_on if follow else False,
        )
        for at, stream, text in lines:
            complete = text.endswith(b"\n")
            yield LogLine(
                at, names.get(stream, "stdout"), text.removesuffix(b"\n").removesuffix(b"\r"), not complete
            )

    def top(self, ref: str) -> tuple[list[str], list[list[str]]]:
        from orchestra.engine.figures import processes

        container = self._get(ref)
        if not container.running:
            raise ConflictError(f"container {container.name} is not running")
        return processes(self.parts.shims.client(container.group).pids(container.id))

    def sizes(self, ref: str) -> tuple[int, int]:
        """Bytes of the container's own layer, and of that and its image."""
        from orchestra.images.usage import unpacked_size

        container = self._get(ref)
        own = fs.tree_size(self.parts.folder(container.id) / "upper")
        return own, own + unpacked_size(self.images, self.images.get(container.spec.image_id))

    def stats(self, ref: str) -> dict[str, Any]:
        from orchestra.engine.figures import stats

        container = self._get(ref)
        return stats(self.parts.shims.client(container.group).stats(container.id), container.state.pid)

    def archive_get(
        self, ref: str, path: str, fd: int, *, follow_links: bool = False, stat_only: bool = False
    ) -> dict[str, Any]:
        return self.inside.get(self._get(ref), path, fd, follow_links=follow_links, stat_only=stat_only)

    def archive_put(self, ref: str, path: str, fd: int, *, archive: bool = False) -> None:
        self.inside.put(self._get(ref), path, fd, archive=archive)

    def export(self, ref: str, fd: int) -> None:
        self.inside.export(self._get(ref), fd)

    def changes(self, ref: str) -> list[tuple[str, str]]:
        return self.inside.changes(self._get(ref))

    def commit(
        self,
        ref: str,
        name: str,
        *,
        author: str = "",
        message: str = "",
        changes: tuple[str, ...] = (),
        pause: bool = True,
    ) -> str:
        from orchestra.images.commit import commit

        container = self._get(ref)
        held = pause and container.state.status == "running"
        if held:
            self.pause(container.id)
        try:
            image = commit(self.images, self.parts.folder(container.id) / "upper", self.images.get(container.spec.image_id),
                           created=self.parts.clock.now(), changes=changes, names=[name] if name else [], author=author, message=message,
                           exclude=_mounted(container), shifted=self.life.owners.of(container))  # fmt: skip
        finally:
            if held:
                self.unpause(container.id)
        return str(image.id)

    def events(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Iterator[Event]:
        stream = self.parts.hub.events(since=since)
        ended = threading.Event()
        if until is not None or stop is not None:
            threading.Thread(target=self._ender, args=(stream, until, stop, ended), daemon=True).start()
        try:
            for event in stream:
                if until is not None and event.time > until:
                    return
                yield event
        finally:
            ended.set()
            stream.close()

    def _ender(
        self, stream: Any, until: float | None, stop: Callable[[], bool] | None, ended: threading.Event
    ) -> None:
        """Closes the stream when it is over: nobody else wakes the thread that reads it."""
        while not ended.wait(STOP_POLL):
            if (stop is not None and stop()) or (until is not None and time.time() > until + 0.2):
                stream.close()
                return


def _mounted(container: Container) -> Callable[[bytes], bool]:
    """Whether a path of the upper directory is only a mount's place."""
    own = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev", "/proc", "/sys")
    files = (r["Destination"] for r in container.state.mounts if os.path.isfile(r.get("Source") or ""))
    places = {os.fsencode(path.strip("/")) for path in (*own, *files)}
    return lambda path: path.strip(b"/") in places
