"""A container's life: create, start, its end, remove. Everything of it is undone where a step fails."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL
from typing import Any

from orchestra.backend import ContainerSpec, Publisher
from orchestra.compose.model import Port
from orchestra.engine import bundle, nul, quota, userns
from orchestra.engine import ports as port_rules
from orchestra.engine import resources as limits
from orchestra.engine.borrow import borrowed
from orchestra.engine.container import Container, Joined, State
from orchestra.engine.health import HealthTracker, effective_probe
from orchestra.engine.hostfiles import host_resolver, write_all
from orchestra.engine.mounts import Record, prepare_bind, records
from orchestra.engine.namespaces import joined, mode_of, shared_kinds, shared_with
from orchestra.engine.nets import Nets
from orchestra.engine.owners import Owners
from orchestra.engine.parts import Parts
from orchestra.engine.ports import PortBook
from orchestra.engine.process import arguments, user_of
from orchestra.engine.sharing import Peer, Placement, place
from orchestra.engine.userns import Range
from orchestra.errors import ConflictError, NotFoundError, OrchestraError
from orchestra.images import shifted
from orchestra.network import hosts
from orchestra.network.model import EndpointSpec
from orchestra.runtime.problems import EXEC, StepError
from orchestra.runtime.shim_errors import ShimGone, StateError
from orchestra.runtime.shimclient import ShimClient
from orchestra.volumes.manager import Volumes
from orchestra.volumes.secrets import GrantedFile, Secrets

LOST = 255
REMOVING_ALL = "removing-all"  # a phase in the store: removal with the anonymous volumes


class Life:
    """See the module's docstring. ``watch`` is called when a container runs (health), ``ended`` when it
    has stopped."""

    def __init__(self, parts: Parts, nets: Nets, ports: PortBook, volumes: Volumes) -> None:
        self.parts, self.nets, self.ports, self.volumes = parts, nets, ports, volumes
        self.files = Secrets(parts.paths)
        self.owners = Owners(parts, volumes)
        self.on_running: Callable[[Container], None] = lambda _container: None
        self.on_removed: Callable[[], None] = lambda: None
        self._ids_lock = threading.Lock()
        self.on_created: dict[str, Callable[[], None]] = {}  # to be called once, before the program runs

    # create

    def create(self, spec: ContainerSpec) -> Container:
        image = self.parts.images.get(spec.image_id)
        warnings: list[str] = []
        container = Container(
            secrets.token_hex(32), spec, State(created=self.parts.clock.now()), dict(image.settings)
        )
        self._check(container, warnings)
        others = {ref: list(self.parts.registry.get(ref).state.mounts) for ref, _mode in spec.volumes_from}
        wanted, _ = self._ids(container)
        found = records(spec, container.image, others, warnings)
        if not wanted:
            warnings += [
                f"volumes: idmap at {record['Destination']} has no effect without a user namespace (userns_mode)"
                for record in found
                if record.get("IdMap")
            ]
        container.probe = effective_probe(spec.service.healthcheck, container.image)
        container.state.health = "starting" if container.probe else ""
        # recorded first: what an undone creation takes along (carried volumes are older and stay)
        container.state.mounts = tuple(r for r in found if r["Type"] == "volume" and self._own(r))
        with ExitStack() as undo:
            self.parts.registry.add(container, "creating")
            undo.callback(self._forget, container)
            folder = self.parts.folder(container.id)
            folder.mkdir(mode=0o700, parents=True)
            undo.callback(shutil.rmtree, folder, True)
            (folder / "logs").mkdir(mode=0o700)
            layers = self.parts.images.layers(image)
            bundle.make_upper(self.parts, container, layers)
            self._volumes(container, found, layers, undo)
            container.state.mounts = tuple(found)
            container.state.warnings = tuple(dict.fromkeys(warnings))
            container.state.ports = tuple(
                Publisher(p.host_ip, p.target, 0, p.protocol) for p in self._wanted_ports(container)
            )
            self.parts.registry.save(container, phase="ready")
            undo.pop_all()
        self.parts.hub.publish("container", "create", container.id, container.event_attributes())
        return container

    def _forget(self, container: Container) -> None:
        self.parts.registry.remove(container)

    def _check(self, container: Container, warnings: list[str]) -> None:
        """What can be known to be wrong before anything is made."""
        spec = container.spec
        nul.check(spec)
        arguments(spec.service, container.image)
        quota.check(self.parts.paths, spec.service.storage_opt)
        port_rules.check(self._wanted_ports(container))
        if mode_of(spec.namespaces, "network") and spec.service.ports:
            warnings.append("ports: published ports are discarded when another network namespace is used")
        for ref in joined(spec.namespaces):
            self.parts.registry.get(ref)
        if not mode_of(spec.namespaces, "network"):
            for use in spec.networks:
                if use.network not in ("host", "none", "bridge"):
                    self.nets.find(use.network)
                if use.attachment.driver_opts:
                    warnings.append(f"networks.{use.network}.driver_opts is not supported and has no effect")

    def _wanted_ports(self, container: Container) -> list[Port]:
        service = container.spec.service
        if mode_of(container.spec.namespaces, "network"):
            return []
        found = list(service.ports)
        if service.extensions.get("x-publish-all"):
            exposed = [*service.expose, *(container.image.get("ExposedPorts") or ())]
            for text in dict.fromkeys(exposed):
                number, _, protocol = str(text).partition("/")
                if number.isdigit():
                    found.append(Port(int(number), protocol=protocol or "tcp"))
        return found

    def _volumes(
        self, container: Container, found: list[Record], layers: list[Path], undo: ExitStack
    ) -> None:
        """Volumes exist from now on, filled from the image where they are new and empty."""
        for record in found:
            if record["Type"] != "volume":
                continue
            name = record["Name"]
            if not self.volumes.exists(name):
                labels = {}
                for mount in container.spec.mounts:
                    if mount.volume and mount.target == record["Destination"]:
                        labels = dict(mount.volume.labels)
                self.volumes.create(name, labels=labels, anonymous=bool(record["Anonymous"]))
                if record["Anonymous"]:
                    undo.callback(self._drop_volume, name)
            if not record.get("NoCopy") and not record.get("Subpath") and self.owners.may_fill(name):
                self.volumes.fill_from_image(name, layers, record["Destination"])
            record["Source"] = str(self.volumes.path(name))

    def _own(self, record: Record) -> bool:
        return bool(record.get("Anonymous")) and not self.volumes.exists(record["Name"])

    def _drop_volume(self, name: str) -> None:
        try:
            self.volumes.remove(name)
        except OrchestraError:
            return

    # start

    def start(self, container: Container, *, by_hand: bool = True) -> None:
        """Returns when the program runs."""
        with container.lock:
            state = container.state
            if container.removed:
                raise NotFoundError(f"no such container: {container.name}")
            if state.status == "paused":
                raise ConflictError(f"cannot start the paused container {container.name}", hint="unpause it")
            if state.status == "running":
                return
            container.run += 1
            try:
                now = self._start_in_shim(container)
            except BaseException as error:
                self._failed(container, error)
                raise
            state.started, state.status, state.error = now, "running", ""
            state.exit_code, state.oom_killed, state.finished = 0, False, 0.0
            state.stopped_by_hand = False
            state.starts += 1
            state.health = "starting" if container.probe else ""
            container.restarts.started(self.parts.clock.monotonic(), by_hand=by_hand)
            container.health = HealthTracker(container.probe, now) if container.probe else None
            self.parts.registry.save(container)
        self.parts.hub.publish("container", "start", container.id, container.event_attributes())
        container.notify()
        self.on_running(container)

    def _start_in_shim(self, container: Container) -> float:
        """Once more with a new shim when the old one is killed meanwhile; when the program began."""
        shim = self.parts.shims.client(container.group)
        try:
            return self._start(container, shim)
        except ShimGone:
            return self._start(container, self.parts.shims.again(container.group, shim))

    def _start(self, container: Container, shim: ShimClient) -> float:
        parts, state = self.parts, container.state
        with ExitStack() as lent, ExitStack() as undo:
            self.clear(container)
            undo.callback(self._release, container)
            held = self.ports.claim(container.id, self._wanted_ports(container))
            endpoints = self.nets.claim(container)
            container.extra_endpoints = tuple(endpoints)
            self.nets.host.hold_ports(container.id, held)
            image = parts.images.get(container.spec.image_id)
            layers = parts.images.layers(image)
            bundle.make_upper(parts, container, layers)
            warnings = list(state.warnings)
            ids, placed = self._claim_ids(container)
            warnings += placed.warnings
            given = self.owners.for_start(container, ids.triple if ids else None)
            pieces = bundle.Pieces(
                shifted.layers(parts.images, image, given) if given else layers,
                self._etc(container, endpoints, ids),
                self._mounts(container, layers, ids, lent),
                self._pid_of,
                ids,
                {
                    path: lent.enter_context(borrowed(parts.paths.volumes, self._pid_of(ref), path))
                    for ref, path in bundle.borrowings(container, placed)
                },
                given is None,
                placed,
            )
            config = bundle.write(parts, container, pieces, warnings)
            container.process = config["process"]
            state.pid, more = self._create(container, shim)
            undo.callback(self._abort, container, shim)
            state.warnings = tuple(dict.fromkeys([*warnings, *more]))
            if mode_of(container.spec.namespaces, "network") in ("", "none"):
                state.networks = self.nets.attach(container, state.pid, endpoints)
                self._hosts(container, state.networks)
            state.ports = tuple(Publisher(p.host_ip, p.target, p.published, p.protocol) for p in held)
            if held:
                self.nets.sync()
            attach = self.on_created.pop(container.id, None)
            if attach is not None:
                attach()
            began = parts.clock.now()
            shim.start(container.id)
            undo.pop_all()
        container.extra_endpoints = ()
        return began

    def _create(self, container: Container, shim: ShimClient) -> tuple[int, list[str]]:
        log = container.spec.service.logging
        options = dict(log.options) if log else {}
        driver = log.driver if log else ""
        settings = {
            "path": f"{self.parts.folder_text(container.id)}/logs/output",
            "driver": "none" if driver == "none" else "local",
            "max_size": _log_size(options.get("max-size", "")),
            "max_file": _log_files(options.get("max-file", "")),
        }
        service = container.spec.service
        try:
            pid, warnings = shim.create_with_warnings(
                container.id,
                self.parts.bundle_text(container.id),
                settings,
                stdin_open=service.stdin_open,
                cgroup_path=bundle.cgroup_path(self.parts, container),
            )
        except OrchestraError as error:
            limits.refused(error, service)
            raise
        return pid, [limits.warning(text, service) for text in warnings]

    def _ids(self, container: Container, *, starting: bool = False) -> tuple[Range | None, Placement]:
        """What ids it is to get, and whose user namespace it joins: that of a container whose namespaces it
        shares. Before the start only those that run already can be judged."""
        spec = container.spec
        mode = spec.namespaces.get("userns", "")
        found = userns.wanted(mode, privileged=spec.service.privileged, modes=spec.namespaces)
        if found is None:
            return None, Placement()
        peers = []
        for kind, ref in shared_kinds(spec.namespaces):
            other = self.parts.registry.get(ref)
            if starting or (other.running and other.state.pid):
                pid = self._pid_of(ref)
                space = userns.space_of(pid) if other.state.ids else ""
                peers.append(Peer(ref, other.name, kind, space, other.state.ids))
        return found, place(container.name, found, peers, sized="size=" in mode)

    def _claim_ids(self, container: Container) -> tuple[Range | None, Placement]:
        found, placed = self._ids(container, starting=True)
        if found is None:
            container.state.ids = ()
            return None, placed
        if placed.user_of:
            uid, gid, size = self.parts.registry.get(placed.user_of).state.ids
            container.state.ids = (uid, gid, size)
            return Range(size, False, uid, gid), placed
        with self._ids_lock:
            if found.own:
                held = [c.state.ids for c in self.parts.registry.all() if c.state.ids]
                used = [(first, size) for uid, gid, size in held for first in (uid, gid)]
                before = self.owners.of(container)
                found = found.at(userns.free_start(used, before=before[0] if before else 0))
            container.state.ids = (found.uid, found.gid, found.size)
        return found, placed

    def _pid_of(self, ref: str) -> int:
        other = self.parts.registry.get(ref)
        if not other.running or not other.state.pid:
            raise ConflictError(f"cannot join a namespace of container {other.name}: it is not running")
        return other.state.pid

    def _abort(self, container: Container, shim: ShimClient) -> None:
        try:
            shim.delete(container.id)
        except ShimGone:
            self._end(container, self.parts.shims.again(container.group, shim))
        except (OrchestraError, OSError):
            self.clear(container)

    def _end(self, container: Container, shim: ShimClient) -> None:
        """Nothing of it runs any more and the shim has forgotten it, even if its program had begun."""
        try:
            if shim.state(container.id)["status"] != "stopped":
                shim.signal(container.id, SIGKILL, all=True)
                shim.wait(container.id)
        except (NotFoundError, StateError, OSError):
            pass  # it has ended by itself
        self.clear(container)

    def clear(self, container: Container) -> None:
        """What the last run left in the shim: its record and its cgroup."""
        if not os.path.exists(f"{self.parts.bundle_text(container.id)}/state.json"):
            return
        shim = self.parts.shims.client(container.group)
        try:
            self._delete(container, shim)
        except ShimGone:
            self._delete(container, self.parts.shims.again(container.group, shim))

    def _delete(self, container: Container, shim: ShimClient) -> None:
        try:
            shim.delete(container.id)
        except NotFoundError:
            (self.parts.bundle(container.id) / "state.json").unlink(missing_ok=True)

    def _release(self, container: Container) -> None:
        """Ports, addresses, names and secrets of a container that does not run (any more)."""
        container.extra_endpoints = ()
        had_ports = self.ports.release(container.id)
        self.nets.host.release_ports(container.id)
        self.nets.release(container)
        self.files.remove(container.id)
        container.state.pid = 0
        if container.state.ids:
            container.state.ids = ()
            self.owners.ended(container)
        container.state.ports = tuple(replace(p, published_port=0) for p in container.state.ports)
        if had_ports:
            self.nets.sync()

    def _failed(self, container: Container, error: BaseException) -> None:
        state = container.state
        state.status = "created" if not state.starts else "exited"
        state.error = error.brief if isinstance(error, OrchestraError) else str(error)
        state.finished = self.parts.clock.now()
        code = getattr(error, "exit_code", 0)
        state.exit_code = code if code in (126, 127) else 128
        state.networks = {}
        self.parts.registry.save(container)
        container.notify()
        if isinstance(error, StepError) and (error.step == EXEC or error.step.startswith(f"{EXEC} ")):
            error.attribute = "command"  # type: ignore[attr-defined]  # where the compose file says it
            program = (container.process or {}).get("args") or [""]
            error.brief = f'cannot run {container.name}: "{program[0]}": {error.message}'
            error.args = (error.brief,)

    # files and mounts of a start

    def _etc(self, container: Container, endpoints: list[EndpointSpec], ids: Range | None) -> dict[str, str]:
        """/etc/hosts, hostname and resolv.conf; another container's when its network is shared."""
        other = shared_with(container.spec.namespaces, "network")
        folder = self.parts.bundle_text(self.parts.registry.get(other).id if other else container.id)
        if not other:
            self._write_etc(container, folder, endpoints, ids)
        return {f"/etc/{name}": f"{folder}/{name}" for name in ("hosts", "hostname", "resolv.conf")}

    def _write_etc(
        self, container: Container, folder: str, endpoints: list[EndpointSpec], ids: Range | None
    ) -> None:
        service = container.spec.service
        hostname = self.parts.hostname(container)
        resolver = hosts.container_resolver(
            host_resolver(),
            embedded=bool(endpoints),
            dns=service.dns,
            search=service.dns_search,
            options=service.dns_opt,
        )
        bundle.make_folder(folder)
        write_all(
            folder,
            {
                "hosts": self._hosts_text(container, [a for e in endpoints for a in e.addresses], endpoints),
                "hostname": hosts.hostname_file(hostname),
                "resolv.conf": hosts.resolv_conf(resolver),
            },
            owner=(ids.uid, ids.gid) if ids else None,
        )

    def _hosts_text(self, container: Container, addresses: list[str], endpoints: list[EndpointSpec]) -> str:
        service = container.spec.service
        gateway = self.nets.host.host_gateway(endpoints)
        if mode_of(container.spec.namespaces, "network") == "host":
            gateway = ["127.0.0.1"]
        return hosts.hosts_file(
            self.parts.hostname(container),
            addresses,
            domainname=service.domainname,
            extra_hosts=service.extra_hosts,
            host_gateway=gateway,
        )

    def _hosts(self, container: Container, places: dict[str, Joined]) -> None:
        del places  # the addresses were known when the file was written

    def _mounts(
        self, container: Container, layers: list[Path], ids: Range | None, lent: ExitStack
    ) -> list[dict[str, Any]]:
        """OCI mounts of binds, volumes and granted files; ``lent`` ends those that the host makes for the start."""
        from orchestra.engine.mounts import oci_mount

        found = []
        for record in container.state.mounts:
            if record["Type"] == "bind":
                prepare_bind(record)
                bind = oci_mount(record, lambda _target: [])
                if ids and record.get("IdMap"):
                    self.owners.need_mapping(record["Destination"])
                    (bind,) = userns.map_mounts([bind])
                found.append(bind)
            elif record["Type"] == "volume":
                mount = self._volume_mount(container, record, layers)
                given = self.owners.give_volume(container, record["Name"], ids.triple if ids else None)
                mounts = userns.map_mounts([mount], mapped=given is None) if ids else [mount]
                subpath = record.get("Subpath") or ""
                found += [
                    lent.enter_context(self.volumes.lent(record["Name"], m, subpath=subpath)) for m in mounts
                ]
        granted = [
            GrantedFile(
                f.target,
                f.data.encode() if f.data is not None else None,
                f.path,
                f.uid,
                f.gid,
                f.mode,
                f.name,
            )
            for f in container.spec.files
        ]
        if not granted:
            return found
        return found + self.files.prepare(
            container.id, granted, ids=(ids.uid, ids.gid, ids.size) if ids else None
        )

    def _volume_mount(self, container: Container, record: Record, layers: list[Path]) -> dict[str, Any]:
        name = record["Name"]
        if not self.volumes.exists(name):
            self.volumes.create(name, anonymous=bool(record["Anonymous"]))
            if not record.get("NoCopy"):
                self.volumes.fill_from_image(name, layers, record["Destination"])
        return self.volumes.mount(
            name, record["Destination"], read_only=not record["RW"], subpath=record.get("Subpath") or ""
        )

    # the end

    def died(self, container: Container, event: dict[str, Any]) -> None:
        """The shim says that it has stopped."""
        with container.lock:
            state = container.state
            if not container.running or float(event.get("at") or state.started) < state.started:
                return
            state.status = "exited"
            state.exit_code = LOST if event.get("exit_code") is None else int(event["exit_code"])
            state.oom_killed = bool(event.get("oom"))
            state.finished = float(event.get("at") or self.parts.clock.now())
            state.health = (
                "unhealthy" if state.health == "unhealthy" else ("" if not container.probe else state.health)
            )
            if event.get("lost"):
                state.error = "its exit status was lost together with the process that watched it"
            self._release(container)
            delay = container.restarts.exited(state.exit_code, self.parts.clock.monotonic())
            if state.stopped_by_hand:
                delay = None
            if delay is not None:
                state.status = "restarting"
                run = container.run
                self.parts.scheduler.at(self.parts.clock.now() + delay, lambda: self._again(container, run))
            self.parts.registry.save(container)
            attributes = {**container.event_attributes(), "exitCode": str(state.exit_code)}
        if state.oom_killed:
            self.parts.hub.publish("container", "oom", container.id, container.event_attributes())
        self.parts.hub.publish("container", "die", container.id, attributes)
        container.notify()
        if delay is None and container.spec.auto_remove:
            self.parts.scheduler.now(lambda: self._auto_remove(container))

    def _auto_remove(self, container: Container) -> None:
        try:
            self.remove(container, force=True, volumes=True)
        except NotFoundError:
            return

    def _again(self, container: Container, run: int) -> None:
        """A restart by policy, if nothing else happened to the container meanwhile."""
        with container.lock:
            if container.state.status != "restarting" or container.run != run or container.removed:
                return
            container.state.restart_count += 1
            try:
                self.start(container, by_hand=False)
            except OrchestraError as error:
                delay = container.restarts.exited(
                    container.state.exit_code or 1, self.parts.clock.monotonic()
                )
                if delay is None:
                    return
                container.state.status, container.state.error = "restarting", error.brief
                run = container.run
                self.parts.registry.save(container)
                self.parts.scheduler.at(self.parts.clock.now() + delay, lambda: self._again(container, run))

    # remove

    def remove(self, container: Container, *, force: bool = False, volumes: bool = False) -> None:
        """The container, its layer, its log and (``volumes``) its anonymous volumes."""
        with container.lock:
            if container.removed:
                raise NotFoundError(f"no such container: {container.name}")
            if container.running and not force:
                raise ConflictError(
                    f"cannot remove container {container.name}: it is {container.state.status}",
                    hint="stop it first, or force its removal",
                )
            container.restarts.stopping_by_hand()
            container.state.stopped_by_hand = True
            container.run += 1
            if container.state.status == "restarting":
                container.state.status = "exited"
        if container.running:
            from orchestra.engine.stop import Stopper

            Stopper(self.parts).kill(container, "SIGKILL")
        with container.lock:
            if container.removed:
                return
            self.parts.store.set_container_phase(container.id, REMOVING_ALL if volumes else "removing")
            self.finish_removal(container, volumes=volumes)
        self.parts.hub.publish("container", "destroy", container.id, container.event_attributes())
        container.notify()

    def finish_removal(self, container: Container, *, volumes: bool) -> None:
        """All of it, from whatever state it is in; ``volumes``: its anonymous ones, too."""
        self.clear(container)
        self._release(container)
        if container.spec.service.storage_opt:
            quota.release(self.parts.folder(container.id))
        self.parts.sweeper.discard(self.parts.folder(container.id))
        shutil.rmtree(self.parts.bundle(container.id), ignore_errors=True)
        if volumes:
            for record in container.state.mounts:
                if record["Type"] == "volume" and record.get("Anonymous"):
                    if self.volume_users(record["Name"]) in ([], [container.name]):
                        self._drop_volume(record["Name"])
        self.parts.registry.remove(container)
        self.on_removed()
        if not any(other.group == container.group for other in self.parts.registry.all()):
            self.parts.shims.release(container.group)

    def volume_users(self, name: str) -> list[str]:
        """Names of the containers that use a volume, whatever their state."""
        return sorted(
            c.name
            for c in self.parts.registry.all()
            if any(r["Type"] == "volume" and r["Name"] == name for r in c.state.mounts)
        )

    def load_process(self, container: Container) -> dict[str, Any]:
        """The OCI process of the running container (from its bundle, after a restart of the daemon)."""
        if container.process is None:
            with open(self.parts.bundle(container.id) / "config.json", "rb") as stream:
                container.process = json.load(stream)["process"]
        return container.process or {}

    def user(self, container: Container) -> str:
        return user_of(container.spec.service, container.image)


def _log_size(text: str) -> int:
    from orchestra.compose.units import size

    if not text or text == "-1":
        return 0
    try:
        return size(text)
    except ValueError:
        raise OrchestraError(f"invalid log option max-size={text}", hint="write for example 10m") from None


def _log_files(text: str) -> int:
    if text and not (text.isdigit() and int(text) > 0):
        raise OrchestraError(f"invalid log option max-file={text}", hint="write a number of files from 1 on")
    return int(text or 1)


__all__ = ["LOST", "REMOVING_ALL", "Life"]
