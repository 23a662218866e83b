"""Plans for what exists: down, stop, start, restart, rm. Pure.

They work from labels alone, so that ``orchestra -p name down`` needs no compose file. Stops go
against the direction of the dependencies, starts along it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from orchestra import labels
from orchestra.backend import ContainerInfo
from orchestra.compose.model import Project
from orchestra.controller.observed import Observed
from orchestra.controller.plan import Action, Kind, Plan, ordered
from orchestra.errors import NotFoundError
from orchestra.graph import affected


@dataclass(frozen=True, slots=True)
class DownOptions:
    """``services`` limits down to those and what depends on them."""

    services: tuple[str, ...] = ()
    volumes: bool = False
    remove_orphans: bool = False


def dependencies(container: ContainerInfo) -> dict[str, tuple[str, bool]]:
    """service → (condition, restart), read from the container's label."""
    found = {}
    for entry in filter(None, container.labels.get(labels.DEPENDS_ON, "").split(",")):
        name, _, rest = entry.partition(":")
        condition, _, restart = rest.partition(":")
        found[name] = (condition or "service_started", restart == "true")
    return found


def service_dependencies(containers: Iterable[ContainerInfo], project: Project | None) -> dict[str, set[str]]:
    """service → services it depends on: the file's word first, else the labels'."""
    found: dict[str, set[str]] = {}
    for container in containers:
        found.setdefault(container.service, set()).update(dependencies(container))
    if project is not None:
        for name, service in {**project.disabled, **project.services}.items():
            if name in found:
                found[name] = set(service.depends_on)
    return found


def dependents_of(names: Iterable[str], graph: Mapping[str, set[str]]) -> set[str]:
    """The named services and everything that depends on them."""
    return affected(graph, names)


def check_services(
    names: Iterable[str], project: Project | None, containers: Iterable[ContainerInfo]
) -> None:
    """Raises NotFoundError for a service that neither the file nor a container knows."""
    known = {c.service for c in containers}
    if project is not None:
        known |= {*project.services, *project.disabled}
    for name in names:
        if name not in known:
            raise NotFoundError(f"no such service: {name}")


def down(name: str, observed: Observed, project: Project | None, options: DownOptions) -> Plan:
    """Stops and removes containers, networks and (if asked) volumes of project ``name``."""
    containers = [c for c in observed.containers if c.labels.get(labels.PROJECT) == name]
    graph = service_dependencies(containers, project)
    if options.services:
        check_services(options.services, project, containers)
        wanted = dependents_of(options.services, graph)
        containers = [c for c in containers if c.service in wanted]
    elif project is not None and not options.remove_orphans:
        known = {*project.services, *project.disabled}
        containers = [c for c in containers if c.service in known or c.oneoff]
    actions = _stops(containers, graph, "down")
    removed = []
    for c in containers:
        key = f"remove {c.id}"
        actions.append(
            Action(key, Kind.REMOVE, c.name, "down", (f"stop {c.id}",), service=c.service, container=c.id)
        )
        removed.append(key)
    if not options.services:
        actions += _networks(name, observed, tuple(removed), {c.id for c in containers})
        if options.volumes:
            actions += _volumes(name, observed, tuple(removed), project)
    return Plan(name, ordered(actions))


def _networks(name: str, observed: Observed, after: tuple[str, ...], going: set[str]) -> list[Action]:
    found = []
    for network in observed.networks.values():
        if network.labels.get(labels.PROJECT) != name:
            continue
        others = set(network.containers) - going
        cause = "Resource is still in use" if others else "down"
        kind = Kind.KEEP if others else Kind.REMOVE_NETWORK
        found.append(
            Action(f"network {network.name}", kind, network.name, cause, after, resource=network.name)
        )
    return found


def _volumes(name: str, observed: Observed, after: tuple[str, ...], project: Project | None) -> list[Action]:
    external = {v.name for v in project.volumes.values() if v.external} if project else set()
    return [
        Action(
            f"volume {volume.name}", Kind.REMOVE_VOLUME, volume.name, "down -v", after, resource=volume.name
        )
        for volume in observed.volumes.values()
        if volume.labels.get(labels.PROJECT) == name and volume.name not in external
    ]


def _stops(containers: Iterable[ContainerInfo], graph: Mapping[str, set[str]], cause: str) -> list[Action]:
    """Stop each container after those of the services that depend on its service."""
    containers = list(containers)
    by_service: dict[str, list[str]] = {}
    for c in containers:
        by_service.setdefault(c.service, []).append(f"stop {c.id}")
    actions = []
    for c in containers:
        users = [name for name, needs in graph.items() if c.service in needs and name != c.service]
        after = tuple(key for name in users for key in by_service.get(name, ()))
        actions.append(
            Action(f"stop {c.id}", Kind.STOP, c.name, cause, after, service=c.service, container=c.id)
        )
    return actions


def _select(
    name: str, observed: Observed, project: Project | None, services: tuple[str, ...], *, oneoff: bool = False
) -> list[ContainerInfo]:
    containers = [
        c for c in observed.containers if c.labels.get(labels.PROJECT) == name and (oneoff or not c.oneoff)
    ]
    check_services(services, project, containers)
    if services:
        containers = [c for c in containers if c.service in services]
    elif project is not None:
        known = {*project.services, *project.disabled}
        containers = [c for c in containers if c.service in known]
    return sorted(containers, key=lambda c: (c.service, c.number))


def stop(name: str, observed: Observed, project: Project | None, services: tuple[str, ...]) -> Plan:
    """Stops what runs; against the dependencies."""
    containers = _select(name, observed, project, services)
    graph = service_dependencies(containers, project)
    return Plan(name, ordered(_stops(containers, graph, "stop")))


def start(name: str, observed: Observed, project: Project | None, services: tuple[str, ...]) -> Plan:
    """Starts existing containers, along the dependencies and waiting for their conditions."""
    containers = _select(name, observed, project, services)
    if not containers and not services:
        raise NotFoundError(
            f'no container found for project "{name}": not found', hint="create them with `orchestra up`"
        )
    for service in services:
        if not any(c.service == service for c in containers):
            raise NotFoundError(
                f'service "{service}" has no container to start', hint="create it with `orchestra up`"
            )
    return Plan(name, ordered(_starts(containers, {})))


def _starts(containers: list[ContainerInfo], before: Mapping[str, tuple[str, ...]]) -> list[Action]:
    by_service: dict[str, list[ContainerInfo]] = {}
    for c in containers:
        by_service.setdefault(c.service, []).append(c)
    actions: list[Action] = []
    waits: set[str] = set()
    for c in containers:
        after = list(before.get(c.id, ()))
        for other, (condition, _restart) in dependencies(c).items():
            starts = tuple(f"start {o.id}" for o in by_service.get(other, ()))
            if not starts:
                continue
            if condition != "service_healthy":
                after += starts
                continue
            key = f"wait {other}"
            if key not in waits:
                waits.add(key)
                actions.append(
                    Action(
                        key,
                        Kind.WAIT,
                        other,
                        f"{c.service} depends on it",
                        starts,
                        service=other,
                        condition=condition,
                    )
                )
            after.append(key)
        if c.state in ("running", "restarting") and c.id not in before:
            continue
        kind = Kind.UNPAUSE if c.state == "paused" and c.id not in before else Kind.START
        actions.append(
            Action(f"start {c.id}", kind, c.name, "start", tuple(after), service=c.service, container=c.id)
        )
    return actions


def restart(
    name: str, observed: Observed, project: Project | None, services: tuple[str, ...], *, deps: bool = True
) -> Plan:
    """Stops and starts; takes along what asks for it by ``depends_on.*.restart`` unless ``deps`` is false."""
    chosen = services
    if deps and services:
        everything = _select(name, observed, project, ())
        check_services(services, project, everything)
        extra = {
            c.service
            for c in everything
            for other, (_, again) in dependencies(c).items()
            if again and other in services
        }
        chosen = (*services, *sorted(extra - set(services)))
    containers = _select(name, observed, project, chosen)
    graph = service_dependencies(containers, project)
    stops = _stops(containers, graph, "restart")
    before = {c.id: (f"stop {c.id}",) for c in containers}
    return Plan(name, ordered([*stops, *_starts(containers, before)]))


def remove_stopped(
    name: str,
    observed: Observed,
    project: Project | None,
    services: tuple[str, ...],
    *,
    stop_first: bool,
) -> Plan:
    """``rm``: removes stopped containers (all of them, with ``stop_first``), one-offs included."""
    containers = _select(name, observed, project, services, oneoff=True)
    if not stop_first:
        containers = [c for c in containers if c.state in ("created", "exited", "dead")]
    graph = service_dependencies(containers, project)
    actions = _stops(containers, graph, "rm -s") if stop_first else []
    for c in containers:
        actions.append(
            Action(
                f"remove {c.id}",
                Kind.REMOVE,
                c.name,
                "rm",
                (f"stop {c.id}",),
                service=c.service,
                container=c.id,
            )
        )
    return Plan(name, ordered(actions))
