"""What a compose file asks for and nothing comes of it, by name and place: attributes of clusters, mostly.

What the engine cannot honour on the machine at hand it tells itself when a container is made; here stands
what no machine would change. Told when a service's containers are made, not at each ``up``.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestra.compose.model import Deploy, Project, Service

_CLUSTER = "it is for clusters"


def unheeded(project: Project, names: Iterable[str], networks: Iterable[str]) -> list[str]:
    """One line for each attribute of these services and networks that has no effect."""
    found = [
        f"{_place(project, f'services.{name}.{path}')}services.{name}.{path} has no effect: {why}"
        for name in names
        for path, why in _service(project.services[name])
    ]
    for key in networks:
        network = project.networks[key]
        if network.ipam_driver not in ("", "default"):
            found.append(
                f"{_place(project, f'networks.{key}')}networks.{key}.ipam.driver has no effect: "
                "addresses are given by orchestra itself"
            )
        if network.ipam_options:
            found.append(
                f"{_place(project, f'networks.{key}')}networks.{key}.ipam.options has no effect: "
                "the built-in address management has none"
            )
    return found


def _service(service: Service) -> list[tuple[str, str]]:
    found = _deploy(service.deploy) if service.deploy else []
    if service.pull_refresh_after and service.pull_policy != "refresh":
        found.append(("pull_refresh_after", "it needs pull_policy: refresh"))
    for index, hook in enumerate(service.pre_start):
        if hook.per_replica:
            found.append((f"pre_start[{index}].per_replica", "hooks before the start run once for a service"))
    return found


def _deploy(deploy: Deploy) -> list[tuple[str, str]]:
    found = []
    if deploy.mode not in ("", "replicated"):
        found.append(("deploy.mode", f"{deploy.mode} means one replica on one machine"))
    for name, value in (
        ("endpoint_mode", deploy.endpoint_mode),
        ("labels", deploy.labels),
        ("update_config", deploy.update_config),
        ("rollback_config", deploy.rollback_config),
        ("placement", deploy.placement),
    ):
        if value:
            found.append((f"deploy.{name}", _CLUSTER))
    reserved = deploy.reservations
    if reserved and reserved.cpus:
        found.append(
            ("deploy.resources.reservations.cpus", "processors are not reserved; limits and shares are")
        )
    if reserved and reserved.pids:
        found.append(("deploy.resources.reservations.pids", "process ids are not reserved"))
    return found


def _place(project: Project, path: str) -> str:
    """``file:line:column: `` of the attribute, or of the nearest one above it."""
    while path:
        place = project.locations.get(path)
        if place and place[1]:
            return f"{place[0]}:{place[1]}:{place[2]}: "
        path = path.rpartition(".")[0]
    return ""
