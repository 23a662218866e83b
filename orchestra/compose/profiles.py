"""Which services are active, which are selected, and which resources they use.

Pure questions to the merged tree: profiles, the names on the command line with their dependencies,
and the networks, volumes, secrets, configs and models that nobody active uses.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestra.compose.diagnostics import Problems
from orchestra.compose.tree import Mapping, Node, Scalar, Sequence, mapping


def services_of(root: Mapping) -> Mapping:
    return mapping(root, "services") or Mapping()


def profiles_of(service: Node) -> list[str]:
    found = service.items.get("profiles") if isinstance(service, Mapping) else None
    if not isinstance(found, Sequence):
        return []
    return [str(item.value) for item in found.items if isinstance(item, Scalar)]


def is_active(service: Node, profiles: Iterable[str]) -> bool:
    own = profiles_of(service)
    return not own or "*" in profiles or any(name in profiles for name in own)


def inactive(root: Mapping, profiles: Iterable[str], named: Iterable[str]) -> list[str]:
    """The services no active profile calls; naming a service activates its profiles."""
    services = services_of(root)
    wanted = set(profiles)
    for name in named:
        if name in services.items:
            wanted.update(profiles_of(services.items[name]))
    return [name for name, service in services.items.items() if not is_active(service, wanted)]


def dependencies(service: Node) -> dict[str, bool]:
    """Name → required."""
    found = service.items.get("depends_on") if isinstance(service, Mapping) else None
    if isinstance(found, Sequence):
        return {str(item.value): True for item in found.items if isinstance(item, Scalar)}
    if not isinstance(found, Mapping):
        return {}
    result: dict[str, bool] = {}
    for name, details in found.items.items():
        required = details.items.get("required") if isinstance(details, Mapping) else None
        result[name] = not (isinstance(required, Scalar) and required.value is False)
    return result


def select(
    root: Mapping,
    active: set[str],
    names: Iterable[str],
    problems: Problems,
    *,
    with_dependencies: bool = True,
) -> set[str]:
    """The named services, and what they depend on."""
    services = services_of(root)
    queue, chosen = list(names), set[str]()
    for name in queue:
        if name not in services.items:
            raise problems.fail(f"no such service: {name}", hint=_near(name, services.items))
    while queue:
        name = queue.pop()
        if name in chosen:
            continue
        chosen.add(name)
        if with_dependencies:
            queue += [other for other in dependencies(services.items[name]) if other in active]
    return chosen


def _near(name: str, known: Iterable[str]) -> str | None:
    import difflib

    close = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean {close[0]!r}?" if close else None


def drop_dependencies(root: Mapping, remaining: set[str]) -> None:
    """Forget optional dependencies on services that are not there."""
    for name in remaining:
        service = services_of(root).items[name]
        found = service.items.get("depends_on") if isinstance(service, Mapping) else None
        if not isinstance(found, Mapping):
            continue
        for other, required in dependencies(service).items():
            if other not in remaining and not required:
                found.pop(other)
        if not found.items and isinstance(service, Mapping):
            service.pop("depends_on")


# -- unused resources --------------------------------------------------------------------------


def drop_unused(root: Mapping, active: set[str]) -> None:
    """Remove networks, volumes, secrets, configs and models that no active service uses."""
    used = used_resources(root, active)
    for section, names in used.items():
        found = root.items.get(section)
        if not isinstance(found, Mapping):
            continue
        for name in list(found.items):
            if name not in names:
                found.pop(name)
        if not found.items:
            root.pop(section)


def used_resources(root: Mapping, active: set[str]) -> dict[str, set[str]]:
    used: dict[str, set[str]] = {
        section: set() for section in ("networks", "volumes", "secrets", "configs", "models")
    }
    for name, service in services_of(root).items.items():
        if name not in active or not isinstance(service, Mapping):
            continue
        for section in ("networks", "models"):
            used[section].update(_keys(service.items.get(section)))
        used["volumes"].update(_volumes(service.items.get("volumes")))
        for section in ("secrets", "configs"):
            used[section].update(_sources(service.items.get(section)))
        build = service.items.get("build")
        if isinstance(build, Mapping):
            used["secrets"].update(_sources(build.items.get("secrets")))
        spec = service.items.get("credential_spec")
        if isinstance(spec, Mapping):
            used["configs"].update(_keys(spec.items.get("config")))
    return used


def _keys(node: Node | None) -> list[str]:
    if isinstance(node, Mapping):
        return list(node.items)
    items = node.items if isinstance(node, Sequence) else [node]
    return [str(item.value) for item in items if isinstance(item, Scalar) and item.value is not None]


def _sources(node: Node | None) -> list[str]:
    if not isinstance(node, Sequence):
        return []
    found: list[str] = []
    for item in node.items:
        source = item.items.get("source") if isinstance(item, Mapping) else item
        if isinstance(source, Scalar):
            found.append(str(source.value))
    return found


def _volumes(node: Node | None) -> list[str]:
    if not isinstance(node, Sequence):
        return []
    found: list[str] = []
    for item in node.items:
        if not isinstance(item, Mapping):
            continue
        kind, source = item.items.get("type"), item.items.get("source")
        if isinstance(kind, Scalar) and kind.value in ("volume", "cluster") and isinstance(source, Scalar):
            found.append(str(source.value))
    return found
