"""Desired and observed state in, plan out. Pure: no clock, no files, no backend.

The rules are docker compose's (see docs/architecture.md): what diverges is recreated, and with it
what shares its namespaces or volumes; what is as wanted is left alone, in whatever way it runs.
Every action carries its cause.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from orchestra import graph, labels
from orchestra.backend import ContainerInfo
from orchestra.compose.hash import aspects, network_hash, service_hash, volume_hash
from orchestra.compose.model import Project, Service
from orchestra.controller.naming import ASPECTS, container_name
from orchestra.controller.observed import Observed
from orchestra.controller.options import ReconcileOptions
from orchestra.controller.plan import Action, Kind, Plan, ordered
from orchestra.controller.unheeded import unheeded
from orchestra.errors import ConflictError, NotFoundError
from orchestra.graph import shared_with

RUNNING = ("running", "restarting")
NEEDS_START = ("created", "exited", "dead")


def reconcile(project: Project, observed: Observed, options: ReconcileOptions) -> Plan:
    """The plan that turns ``observed`` into what ``project`` and ``options`` ask for.

    Raises NotFoundError (external network or volume missing, unknown service) and ConflictError (a
    container name that two replicas would share).
    """
    return _Reconciler(project, observed, options).plan()


def closure(project: Project, names: tuple[str, ...], *, deps: bool = True) -> list[str]:
    """The named services (all, when none is named) and what they depend on, dependencies first."""
    for name in names:
        if name not in project.services:
            raise NotFoundError(f"no such service: {name}", hint=_did_you_mean(name, project))
    return graph.in_order(project, names or tuple(project.services), deps=deps)


def _did_you_mean(name: str, project: Project) -> str | None:
    from difflib import get_close_matches

    close = get_close_matches(name, list(project.services) + list(project.disabled), 1)
    return f"did you mean {close[0]}?" if close else None


class _Reconciler:
    """One round. Builds the list of actions service by service, dependencies first."""

    def __init__(self, project: Project, observed: Observed, options: ReconcileOptions) -> None:
        self.project, self.observed, self.options = project, observed, options
        self.actions: list[Action] = []
        self.warnings: list[str] = []
        self.recreated: set[str] = set()
        self.stale_networks: dict[str, str] = {}
        self.ready: dict[str, list[str]] = {}  # service → keys after which its containers are there
        self.started: dict[str, list[str]] = {}  # service → keys after which they run
        self.graph = graph.graph(project)
        self.targets = closure(project, options.services, deps=not options.no_deps)

    def plan(self) -> Plan:
        orphans = self._orphans()
        self._networks()
        self._volumes()
        for name in self.targets:
            self._service(self.project.services[name])
        if self.options.wait:
            self._final_waits()
        made = [
            name
            for name in self.targets
            if any(a.kind is Kind.CREATE and a.service == name for a in self.actions)
        ]
        used = graph.resources(self.graph, self.project, made, "network")
        self.warnings += unheeded(self.project, made, used)
        return Plan(self.project.name, ordered(self.actions), tuple(self.warnings), orphans)

    def add(self, action: Action) -> str:
        self.actions.append(action)
        return action.key

    # networks and volumes

    def _networks(self) -> None:
        for key in graph.resources(self.graph, self.project, self.targets, "network"):
            network = self.project.networks[key]
            found = self.observed.networks.get(network.name)
            if network.external:
                if found is None and network.name not in ("host", "none"):
                    raise NotFoundError(
                        f"network {network.name} declared as external, but could not be found",
                        hint=f"create it: orchestra network create {network.name}",
                    )
                continue
            if found is None:
                self.add(Action(f"network {key}", Kind.CREATE_NETWORK, network.name, "missing", resource=key))
                continue
            owner = found.labels.get(labels.PROJECT)
            if owner != self.project.name:
                self.warnings.append(
                    f'a network with name {network.name} exists but was not created for project "{self.project.name}"'
                    " (set `external: true` to use an existing network)"
                )
                continue
            old = found.labels.get(labels.CONFIG_HASH)
            if old and old != network_hash(network):
                self.stale_networks[network.name] = key

    def _volumes(self) -> None:
        for key in graph.resources(self.graph, self.project, self.targets, "volume"):
            volume = self.project.volumes[key]
            found = self.observed.volumes.get(volume.name)
            if volume.external:
                if found is None:
                    raise NotFoundError(
                        f'external volume "{volume.name}" not found',
                        hint=f"create it: orchestra volume create {volume.name}",
                    )
                continue
            if found is None:
                self.add(Action(f"volume {key}", Kind.CREATE_VOLUME, volume.name, "missing", resource=key))
                continue
            if found.labels.get(labels.PROJECT) != self.project.name:
                self.warnings.append(
                    f'volume "{volume.name}" already exists but was not created for project "{self.project.name}"'
                    " (use `external: true` to use an existing volume)"
                )
                continue
            old = found.labels.get(labels.CONFIG_HASH)
            if old and old != volume_hash(volume):
                self._changed_volume(key, volume.name)

    def _changed_volume(self, key: str, name: str) -> None:
        if not self.options.recreate_volumes:
            self.warnings.append(
                f'volume "{name}" exists but does not match its configuration in the compose file; it is used as it'
                " is (answer with --yes to recreate it: its data will be lost)"
            )
            return
        users = [c for c in self.observed.containers if any(m.get("Name") == name for m in c.mounts)]
        stops = []
        for container in users:
            stop = self.add(
                Action(
                    f"stop {container.id}",
                    Kind.STOP,
                    container.name,
                    f"volume {name} changed",
                    service=container.service,
                    container=container.id,
                )
            )
            stops.append(
                self.add(
                    Action(
                        f"remove {container.id}",
                        Kind.REMOVE,
                        container.name,
                        f"volume {name} changed",
                        (stop,),
                        service=container.service,
                        container=container.id,
                    )
                )
            )
        gone = self.add(
            Action(
                f"remove volume {key}",
                Kind.REMOVE_VOLUME,
                name,
                "configuration changed",
                tuple(stops),
                resource=name,
            )
        )
        self.add(
            Action(f"volume {key}", Kind.CREATE_VOLUME, name, "configuration changed", (gone,), resource=key)
        )

    # orphans

    def _orphans(self) -> tuple[str, ...]:
        known = {*self.project.services, *self.project.disabled}
        found = [
            c
            for c in self.observed.containers
            if (c.service not in known and not c.oneoff)
            or (c.oneoff and c.state in ("exited", "dead", "created"))
        ]
        found = [c for c in found if c.labels.get(labels.PROJECT) == self.project.name]
        if not found:
            return ()
        names = tuple(sorted(c.name for c in found))
        if self.options.remove_orphans:
            for container in found:
                stop = self.add(
                    Action(
                        f"stop {container.id}", Kind.STOP, container.name, "orphan", container=container.id
                    )
                )
                self.add(
                    Action(
                        f"remove {container.id}",
                        Kind.REMOVE,
                        container.name,
                        "orphan",
                        (stop,),
                        container=container.id,
                    )
                )
        elif not self.options.ignore_orphans and any(not c.oneoff for c in found):
            shown = sorted(c.name for c in found if not c.oneoff)
            self.warnings.append(
                f"Found orphan containers ([{' '.join(shown)}]) for this project. If you removed or renamed this service"
                " in your compose file, you can run this command with the --remove-orphans flag to clean it up."
            )
        return names

    # services

    def _service(self, service: Service) -> None:
        wanted = self.options.scale.get(service.name, service.replicas)
        if wanted > 1 and service.container_name:
            raise ConflictError(
                f'service {service.name} has the fixed container name "{service.container_name}", so it cannot have'
                f" {wanted} replicas",
                hint="take container_name away, or scale to 1",
            )
        existing = self.observed.of_service(service.name)
        causes = {c.id: self._cause(service, c) for c in existing}
        existing = sorted(existing, key=lambda c: (causes[c.id] == "", -c.number))
        surplus = existing[: max(0, len(existing) - wanted)]
        kept = sorted((c for c in existing if c not in surplus), key=lambda c: c.number)
        for container in surplus:
            self._drop(service, container, f"scaled to {wanted}")
        gates = self._gates(service)
        self.ready[service.name], self.started[service.name] = [], []
        running_before = any(c.state in RUNNING for c in kept if not causes[c.id])
        pre = (
            self._pre_start(service, gates)
            if service.pre_start and self.options.start and not running_before
            else []
        )
        for container in kept:
            if causes[container.id]:
                self._recreate(service, container, causes[container.id], [*gates, *pre])
            else:
                self._keep(service, container, [*gates, *pre])
        highest = max((c.number for c in existing), default=0) if kept else 0
        for offset in range(wanted - len(kept)):
            self._create(service, highest + 1 + offset, [*gates, *pre])

    def _gates(self, service: Service) -> list[str]:
        """The waits for the service's dependencies; one action for a dependency and condition."""
        keys: list[str] = []
        if not self.options.start:
            return keys
        for name, dependency in service.depends_on.items():
            if name not in self.targets:
                continue
            other = self.project.services[name]
            if self.options.scale.get(name, other.replicas) == 0 or other.provider:
                continue
            started = tuple(self.started.get(name, ()))
            if dependency.condition == "service_started":
                keys.extend(started)
                continue
            key = f"wait {name} {dependency.condition} {'required' if dependency.required else 'optional'}"
            if not any(action.key == key for action in self.actions):
                self.add(
                    Action(
                        key,
                        Kind.WAIT,
                        name,
                        f"{service.name} depends on it",
                        started,
                        service=name,
                        condition=dependency.condition,
                        required=dependency.required,
                    )
                )
            keys.append(key)
        return keys

    def _cause(self, service: Service, container: ContainerInfo) -> str:
        """Why the container must be recreated, or ''."""
        options = self.options
        if options.no_recreate:
            return ""
        named = not options.services or service.name in options.services
        if options.force_recreate and named:
            return "forced"
        if options.always_recreate_deps and options.services and not named:
            return "forced as a dependency"
        shared = sorted(shared_with(service) & self.recreated)
        if shared:
            return f"{shared[0]} is recreated and shares its namespace or volumes"
        if options.renew_anon_volumes and any(m.get("Anonymous") for m in container.mounts):
            return "anonymous volumes are renewed"
        return self._difference(service, container)

    def _difference(self, service: Service, container: ContainerInfo) -> str:
        if container.labels.get(labels.CONFIG_HASH) != service_hash(service):
            return _explain(service, container, self.project)
        image = self.observed.images.get(service.name)
        if image and container.image_id and image != container.image_id:
            return f"image {service.image or service.name} is now {image.removeprefix('sha256:')[:12]}"
        for key in service.networks:
            network = self.project.networks.get(key)
            if network is None:
                continue
            if network.name in self.stale_networks:
                return f"network {network.name} changed"
            if container.networks and network.name not in container.networks:
                return f"not on network {network.name}"
        mounted = {m.get("Name") for m in container.mounts if m.get("Type") == "volume"}
        for mount in service.volumes:
            volume = self.project.volumes.get(mount.source) if mount.type == "volume" else None
            if volume is not None and volume.name not in mounted:
                return f"volume {volume.name} is not mounted"
        return ""

    # single containers

    def _create(
        self,
        service: Service,
        number: int,
        gates: list[str],
        cause: str = "missing",
        *,
        before: tuple[str, ...] = (),
        replaces: str = "",
    ) -> None:
        name = container_name(self.project.name, service, number)
        resources = [f"network {key}" for key in service.networks]
        resources += [f"volume {m.source}" for m in service.volumes if m.type == "volume" and m.source]
        shared = [key for other in sorted(shared_with(service)) for key in self.started.get(other, ())]
        made = self.add(
            Action(
                f"create {name}",
                Kind.CREATE,
                name,
                cause,
                (*before, *resources, *shared),
                service=service.name,
                number=number,
                replaces=replaces,
            )
        )
        self.recreated.add(service.name)
        self.ready[service.name].append(made)
        if self.options.start:
            key = self.add(
                Action(
                    f"start {name}",
                    Kind.START,
                    name,
                    cause if replaces else "created",
                    (made, *gates),
                    service=service.name,
                    number=number,
                )
            )
            self.started[service.name].append(key)

    def _recreate(self, service: Service, container: ContainerInfo, cause: str, gates: list[str]) -> None:
        stop = self.add(
            Action(
                f"stop {container.id}",
                Kind.STOP,
                container.name,
                cause,
                tuple(self._dependents(service)),
                service=service.name,
                container=container.id,
            )
        )
        gone = self.add(
            Action(
                f"remove {container.id}",
                Kind.REMOVE,
                container.name,
                cause,
                (stop,),
                service=service.name,
                number=container.number,
                container=container.id,
                replaces=container.id,
            )
        )
        self._stale(service, gone)
        self._create(service, container.number, gates, cause, before=(gone,), replaces=container.id)

    def _stale(self, service: Service, gone: str) -> None:
        """A changed network goes once nothing of the project hangs on it, and is made anew."""
        for key in service.networks:
            network = self.project.networks.get(key)
            if network is None or network.name not in self.stale_networks:
                continue
            removal, creation = f"remove network {key}", f"network {key}"
            found = next((a for a in self.actions if a.key == removal), None)
            if found is not None:
                self.actions.remove(found)
                self.actions.append(
                    Action(
                        removal,
                        found.kind,
                        found.target,
                        found.cause,
                        (*found.after, gone),
                        resource=found.resource,
                    )
                )
                continue
            self.add(
                Action(
                    removal,
                    Kind.REMOVE_NETWORK,
                    network.name,
                    "configuration changed",
                    (gone,),
                    resource=network.name,
                )
            )
            self.add(
                Action(
                    creation,
                    Kind.CREATE_NETWORK,
                    network.name,
                    "configuration changed",
                    (removal,),
                    resource=key,
                )
            )

    def _dependents(self, service: Service) -> list[str]:
        """Stops of running services that ask to be restarted with this one (depends_on.restart)."""
        keys: list[str] = []
        for other in self.project.services.values():
            dependency = other.depends_on.get(service.name)
            if dependency is None or not dependency.restart or other.name in self.recreated:
                continue
            for container in self.observed.of_service(other.name):
                key = f"stop {container.id}"
                if container.state in RUNNING and not any(a.key == key for a in self.actions):
                    keys.append(
                        self.add(
                            Action(
                                key,
                                Kind.STOP,
                                container.name,
                                f"{service.name} is recreated",
                                service=other.name,
                                container=container.id,
                            )
                        )
                    )
        return keys

    def _keep(self, service: Service, container: ContainerInfo, gates: list[str]) -> None:
        stopped = f"stop {container.id}"
        was_stopped = any(action.key == stopped for action in self.actions)
        if self.options.start and container.state == "paused":
            key = self.add(
                Action(
                    f"unpause {container.id}",
                    Kind.UNPAUSE,
                    container.name,
                    "paused",
                    service=service.name,
                    container=container.id,
                )
            )
            self.started[service.name].append(key)
        elif self.options.start and (was_stopped or container.state in NEEDS_START):
            cause = f"it is {container.state}" if not was_stopped else "a dependency is recreated"
            after = (stopped, *gates) if was_stopped else tuple(gates)
            key = self.add(
                Action(
                    f"start {container.name}",
                    Kind.START,
                    container.name,
                    cause,
                    after,
                    service=service.name,
                    number=container.number,
                    container=container.id,
                )
            )
            self.started[service.name].append(key)
        else:
            self.add(
                Action(
                    f"keep {container.name}",
                    Kind.KEEP,
                    container.name,
                    f"{container.state}, as wanted",
                    service=service.name,
                    number=container.number,
                    container=container.id,
                )
            )

    def _drop(self, service: Service, container: ContainerInfo, cause: str) -> None:
        stop = self.add(
            Action(
                f"stop {container.id}",
                Kind.STOP,
                container.name,
                cause,
                service=service.name,
                container=container.id,
            )
        )
        self.add(
            Action(
                f"remove {container.id}",
                Kind.REMOVE,
                container.name,
                cause,
                (stop,),
                service=service.name,
                container=container.id,
            )
        )

    def _pre_start(self, service: Service, gates: list[str]) -> list[str]:
        resources = [f"network {key}" for key in service.networks]
        resources += [f"volume {m.source}" for m in service.volumes if m.type == "volume" and m.source]
        key = self.add(
            Action(
                f"pre_start {service.name}",
                Kind.PRE_START,
                service.name,
                "before its first start",
                (*resources, *gates),
                service=service.name,
            )
        )
        return [key]

    def _final_waits(self) -> None:
        completed = {
            name
            for service in self.project.services.values()
            for name, dependency in service.depends_on.items()
            if dependency.condition == "service_completed_successfully"
        }
        for name in self.targets:
            service = self.project.services[name]
            if self.options.scale.get(name, service.replicas) == 0 or service.provider:
                continue
            condition = "completed" if name in completed else "running_or_healthy"
            self.add(
                Action(
                    f"wait {name} {condition}",
                    Kind.WAIT,
                    name,
                    "--wait",
                    tuple(self.started.get(name, ())),
                    service=name,
                    condition=condition,
                )
            )


def _explain(service: Service, container: ContainerInfo, project: Project) -> str:
    """Which attributes differ from those the container was made with, and where they stand."""
    try:
        before: Mapping[str, str] = json.loads(container.labels.get(ASPECTS, "null")) or {}
    except ValueError:
        before = {}
    now = aspects(service)
    if not before:
        return "configuration changed"
    changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    parts = []
    for key in changed[:3]:
        word = "added" if key not in before else "removed" if key not in now else "changed"
        place = project.locations.get(f"services.{service.name}.{key}")
        where = f" ({place[0].rsplit('/', 1)[-1]}:{place[1]})" if place else ""
        parts.append(f"{key} {word}{where}")
    if len(changed) > 3:
        parts.append(f"and {len(changed) - 3} more")
    return ", ".join(parts) or "configuration changed"
