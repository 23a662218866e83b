"""The canonical tree as the frozen :class:`~orchestra.compose.model.Project`.

Everything was checked before: texts that do not convert (only possible in an uninterpolated load)
become "not set" in the typed fields and stay as written in ``canonical``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orchestra.compose import bind_service, canon
from orchestra.compose.model import (
    FileSource,
    IpamPool,
    Model,
    Network,
    Project,
    Service,
    Volume,
)
from orchestra.compose.options import LoadContext
from orchestra.compose.tree import Mapping as MappingNode
from orchestra.compose.tree import Node, Sequence, mapping, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    Made = TypeVar("Made")


def bind(tree: MappingNode, ctx: LoadContext) -> Project:
    """The project of a finished tree; services in ``ctx.disabled`` are bound as disabled."""
    active: dict[str, Service] = {}
    disabled: dict[str, Service] = {}
    found = mapping(tree, "services")
    for name in sorted(found.items) if found else ():
        node = found.items[name] if found else None
        if not isinstance(node, MappingNode):
            continue
        reason = ctx.disabled.get(name)
        if reason is None:
            active[name] = service(name, plain(node), ctx)
        elif reason == "profile" or reason == "selection":
            disabled[name] = service(name, plain(node), ctx)
    environment = dict(ctx.environment)
    return Project(
        name=ctx.project_name,
        working_dir=ctx.working_dir,
        files=tuple(ctx.files),
        env_files=tuple(ctx.env_files),
        profiles=tuple(ctx.profiles),
        services=active,
        disabled=disabled,
        networks=_section(tree, "networks", _network, ctx),
        volumes=_section(tree, "volumes", _volume, ctx),
        secrets=_section(tree, "secrets", _file_source, ctx),
        configs=_section(tree, "configs", _file_source, ctx),
        models=_section(tree, "models", _model, ctx),
        extensions={key: plain(node) for key, node in tree.items.items() if key.startswith("x-")},
        environment=environment,
        locations=_locations(tree, active),
    )


def service(name: str, data: dict[str, Any], ctx: LoadContext) -> Service:
    """One service of plain data in long form."""
    full, shown = canon.both(data)
    if ctx.no_interpolate:
        shown = {key: data[key] for key in sorted(data)}
    return bind_service.service(name, full, shown)


def _section(
    tree: MappingNode,
    section: str,
    make: Callable[[str, str, dict[str, Any], dict[str, Any], LoadContext], Made],
    ctx: LoadContext,
) -> Mapping[str, Made]:
    found = mapping(tree, section)
    made: dict[str, Made] = {}
    for key in sorted(found.items) if found else ():
        data = plain(found.items[key]) if found else None
        full = canon.resource(section, data, strict=False)
        strict = canon.resource(section, data, strict=True)
        if ctx.no_interpolate:
            strict = dict(sorted((data or {}).items()))
        made[key] = make(section, key, full, strict, ctx)
    return made


def extensions(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key.startswith("x-")}


def _network(
    section: str, key: str, data: dict[str, Any], shown: dict[str, Any], ctx: LoadContext
) -> Network:
    ipam = data.get("ipam") or {}
    pools = tuple(
        IpamPool(
            subnet=pool.get("subnet", ""),
            ip_range=pool.get("ip_range", ""),
            gateway=pool.get("gateway", ""),
            aux_addresses=pool.get("aux_addresses", {}),
        )
        for pool in ipam.get("config", ())
    )
    return Network(
        key=key,
        name=data.get("name") or key,
        driver=data.get("driver", ""),
        driver_opts=data.get("driver_opts", {}),
        ipam_driver=ipam.get("driver", ""),
        ipam=pools,
        ipam_options=ipam.get("options", {}),
        external=data.get("external") is True,
        internal=data.get("internal") is True,
        attachable=data.get("attachable") is True,
        enable_ipv4=_maybe(data.get("enable_ipv4")),
        enable_ipv6=_maybe(data.get("enable_ipv6")),
        labels=data.get("labels", {}),
        extensions=extensions(data),
        canonical=shown,
    )


def _maybe(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _volume(section: str, key: str, data: dict[str, Any], shown: dict[str, Any], ctx: LoadContext) -> Volume:
    return Volume(
        key=key,
        name=data.get("name") or key,
        driver=data.get("driver", ""),
        driver_opts=data.get("driver_opts", {}),
        external=data.get("external") is True,
        labels=data.get("labels", {}),
        extensions=extensions(data),
        canonical=shown,
    )


def _file_source(
    section: str, key: str, data: dict[str, Any], shown: dict[str, Any], ctx: LoadContext
) -> FileSource:
    variable = data.get("environment", "")
    value = ctx.file_values.get((section, key))
    if value is None and variable:
        value = ctx.environment.get(variable)
    return FileSource(
        key=key,
        name=data.get("name") or key,
        file=data.get("file", ""),
        environment=variable,
        content=data.get("content"),
        value=value,
        external=data.get("external") is True,
        labels=data.get("labels", {}),
        driver=data.get("driver", ""),
        driver_opts=data.get("driver_opts", {}),
        template_driver=data.get("template_driver", ""),
        extensions=extensions(data),
        canonical=shown,
    )


def _model(section: str, key: str, data: dict[str, Any], shown: dict[str, Any], ctx: LoadContext) -> Model:
    size = data.get("context_size")
    return Model(
        key=key,
        name=data.get("name") or key,
        model=data.get("model", ""),
        context_size=size if isinstance(size, int) else None,
        runtime_flags=tuple(data.get("runtime_flags", ())),
        canonical=shown,
    )


def _locations(tree: MappingNode, active: Mapping[str, Service]) -> dict[str, tuple[str, int, int]]:
    """Places of every attribute of active services and of what stands directly below it."""
    found: dict[str, tuple[str, int, int]] = {}
    services = mapping(tree, "services")
    for name in active:
        node = services.items.get(name) if services else None
        if not isinstance(node, MappingNode):
            continue
        _note(found, f"services.{name}", node)
        for key, child in node.items.items():
            path = f"services.{name}.{key}"
            place = node.key_locations.get(key) or child.location
            if place.line:
                found[path] = (place.file, place.line, place.column)
            if isinstance(child, MappingNode):
                for inner, item in child.items.items():
                    _note(found, f"{path}.{inner}", item)
            elif isinstance(child, Sequence):
                for index, item in enumerate(child.items):
                    _note(found, f"{path}[{index}]", item)
    for section in ("networks", "volumes", "secrets", "configs"):
        items = mapping(tree, section)
        for key, item in items.items.items() if items else ():
            _note(found, f"{section}.{key}", item)
    return found


def _note(found: dict[str, tuple[str, int, int]], path: str, node: Node) -> None:
    place = node.location
    if place.line:
        found[path] = (place.file, place.line, place.column)
