"""A service of a project as a ContainerSpec: names of the file become names of the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from orchestra.backend import ContainerInfo, ContainerSpec, FileContent, NetworkUse, RestartSpec
from orchestra.compose.model import FileGrant, FileSource, Mount, NetworkAttachment, Project, Service
from orchestra.controller.naming import container_labels, container_name, image_name
from orchestra.errors import NotFoundError, OrchestraError

Lookup = Callable[[str], str]
"""From ``service name`` or ``container:ref`` to a container id; raises NotFoundError."""


def service_spec(
    project: Project,
    service: Service,
    number: int,
    image_id: str,
    lookup: Lookup,
    *,
    carried: Mapping[str, str] | None = None,
) -> ContainerSpec:
    """The container ``number`` of ``service``. ``carried`` are anonymous volumes of the container it
    replaces (target → volume name)."""
    name = container_name(project.name, service, number)
    return ContainerSpec(
        name=name,
        service=service,
        image_id=image_id,
        image_name=image_name(project, service),
        labels=container_labels(project, service, number, image_id),
        project=project.name,
        networks=network_uses(project, service, aliases=(service.name,)),
        mounts=mounts(project, service),
        carried=dict(carried or {}),
        volumes_from=volumes_from(service, lookup),
        namespaces=namespaces(service, lookup),
        files=files(project, service),
        restart=restart_spec(service),
    )


def network_uses(project: Project, service: Service, *, aliases: tuple[str, ...]) -> tuple[NetworkUse, ...]:
    """The networks by priority (highest first), with every name the container answers to."""
    links = {}
    for link in service.links:
        target, _, alias = link.partition(":")
        links[alias or target] = target
    for link in service.external_links:
        target, _, alias = link.partition(":")
        links[alias or target] = target
    items = sorted(service.networks.items(), key=lambda item: -(item[1] or NetworkAttachment()).priority)
    uses = []
    for key, attachment in items:
        attachment = attachment or NetworkAttachment()
        names = tuple(dict.fromkeys((*aliases, *attachment.aliases)))
        uses.append(NetworkUse(project.networks[key].name, attachment, names, links))
    return tuple(uses)


def mounts(project: Project, service: Service) -> tuple[Mount, ...]:
    """``service.volumes`` with real volume names as sources."""
    found = []
    for mount in service.volumes:
        if mount.type == "volume" and mount.source in project.volumes:
            mount = replace(mount, source=project.volumes[mount.source].name)
        found.append(mount)
    return tuple(found)


def volumes_from(service: Service, lookup: Lookup) -> tuple[tuple[str, str], ...]:
    found = []
    for entry in service.volumes_from:
        if entry.startswith("container:"):
            _, ref, *mode = entry.split(":")
            found.append((lookup(f"container:{ref}"), mode[0] if mode else "rw"))
        else:
            name, _, mode_text = entry.partition(":")
            found.append((lookup(name), mode_text or "rw"))
    return tuple(found)


def namespaces(service: Service, lookup: Lookup) -> dict[str, str]:
    """Namespace modes with services replaced by container ids."""
    modes = {
        "network": service.network_mode,
        "pid": service.pid,
        "ipc": service.ipc,
        "uts": service.uts,
        "cgroup": service.cgroup,
        "userns": service.userns_mode,
    }
    found = {key: _joined(mode, lookup) for key, mode in modes.items() if mode}
    return {**found, "userns": service.userns_mode} if service.userns_mode else found


def _joined(mode: str, lookup: Lookup) -> str:
    if mode.startswith("service:"):
        return f"container:{lookup(mode.removeprefix('service:'))}"
    if mode.startswith("container:"):
        return f"container:{lookup(mode)}"
    return "" if mode in ("private", "shareable", "bridge", "default") else mode


def files(project: Project, service: Service) -> tuple[FileContent, ...]:
    """Secrets and configs granted to the service."""
    found = [_content(grant, project.secrets.get(grant.source), "secret") for grant in service.secrets]
    found += [_content(grant, project.configs.get(grant.source), "config") for grant in service.configs]
    return tuple(found)


def _content(grant: FileGrant, source: FileSource | None, what: str) -> FileContent:
    if source is None:
        raise NotFoundError(f"{what} {grant.source} is not defined")
    if source.external:
        raise OrchestraError(
            f"unsupported external {what} {source.name}: there is no {what} store outside a swarm",
            hint=f"use `file:` or `environment:` for the {what}",
        )
    if source.driver or source.template_driver:
        raise OrchestraError(f"{what} {source.key}: drivers are not supported")
    data = source.content if source.content is not None else source.value
    if not source.file and data is None:
        raise OrchestraError(
            f'environment variable "{source.environment}" required by {what} "{source.key}" is not set',
            hint="set it in the environment or in .env",
        )
    return FileContent(grant.target, source.file, data, grant.uid, grant.gid, grant.mode, grant.source)


def restart_spec(service: Service) -> RestartSpec:
    """``restart``, else ``deploy.restart_policy``."""
    policy = service.deploy.restart_policy if service.deploy else None
    if service.restart:
        name, _, count = service.restart.partition(":")
        return RestartSpec(name, int(count) if count.isdigit() else 0)
    if policy is None:
        return RestartSpec()
    names = {"": "always", "any": "always", "none": "no", "on-failure": "on-failure"}
    return RestartSpec(
        names.get(policy.condition, "no"), policy.max_attempts or 0, policy.delay, policy.window
    )


def carried_volumes(old: ContainerInfo) -> dict[str, str]:
    """The anonymous volumes of a container, by target."""
    return {
        m["Destination"]: m["Name"] for m in old.mounts if m.get("Type") == "volume" and m.get("Anonymous")
    }
