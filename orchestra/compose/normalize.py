"""Short forms to long forms, defaults, absolute paths and resource names, on the located tree.

:func:`canonical` runs many times over the tree merged so far and is idempotent; it leaves alone every
shape it does not know (files reached by ``extends`` are not validated). A new node stands where the
short text stood. Bad texts are recorded as problems at their place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator

from orchestra.compose import normalize_ports, normalize_volumes
from orchestra.compose.merge import as_build, as_dependencies, as_keys
from orchestra.compose.options import LoadContext
from orchestra.compose.source import join
from orchestra.compose.tree import (
    DEFAULT,
    DERIVED,
    Mapping,
    Node,
    Path,
    Scalar,
    Sequence,
    from_plain,
    mapping,
    scalar_text,
)

Rewriter = Callable[[Node, Path, LoadContext], Node]

RESOURCES = ("networks", "volumes", "secrets", "configs")
_REMOTE = r"[a-zA-Z][a-zA-Z0-9+.-]*://|git@|github\.com/"
_NAMESPACES = ("network_mode", "ipc", "pid", "uts", "cgroup")


def services(tree: Mapping) -> Iterator[tuple[str, Mapping]]:
    """The services that are maps."""
    found = mapping(tree, "services")
    for name, service in found.items.items() if found else ():
        if isinstance(service, Mapping):
            yield name, service


# -- long forms --------------------------------------------------------------------------------


def canonical(tree: Mapping, ctx: LoadContext) -> None:
    """Every short form as its long form, in place."""
    for name, service in services(tree):
        for key in _REWRITERS.keys() & service.items.keys():
            node = service.items[key]
            made = _REWRITERS[key](node, ("services", name, key), ctx)
            if made is not node:
                service.items[key] = made
    for section in RESOURCES:
        found = mapping(tree, section)
        for item in found.items.values() if found else ():
            if isinstance(item, Mapping) and "external" in item.items:
                _external(item)


def _each(rewrite: Callable[[Scalar], Node | list[Node] | None]) -> Rewriter:
    """A rewriter of a list whose scalar items have a short form."""

    def rewriter(node: Node, path: Path, ctx: LoadContext) -> Node:
        if not isinstance(node, Sequence) or not any(isinstance(item, Scalar) for item in node.items):
            return node
        items: list[Node] = []
        for index, item in enumerate(node.items):
            if not isinstance(item, Scalar) or item.value is None or _unresolved(item, ctx):
                items.append(item)
                continue
            try:
                made = rewrite(item)
            except ValueError as error:
                ctx.problems.error(str(error), item.location, (*path, index))
                items.append(item)
                continue
            items += made if isinstance(made, list) else [item if made is None else made]
        node.items = items
        return node

    return rewriter


def _unresolved(item: Scalar, ctx: LoadContext) -> bool:
    return ctx.no_interpolate and isinstance(item.value, str) and "$" in item.value


def _port(item: Scalar) -> Node | list[Node] | None:
    return [_long(entry, item) for entry in normalize_ports.parse(scalar_text(item.value))]


def _volume(item: Scalar) -> Node | list[Node] | None:
    return _long(normalize_volumes.parse(scalar_text(item.value)), item)


def _long(entry: dict[str, object], item: Scalar) -> Mapping:
    """A map of a few plain values at the place of ``item`` (faster than ``from_plain``)."""
    made = Mapping({}, item.location, item.origin)
    made.previous = item.previous
    for key, value in entry.items():
        if isinstance(value, dict):
            made.items[key] = _long(value, item)
            made.items[key].previous = None
        else:
            scalar = Scalar(value, item.location, item.origin, raw=item.raw)  # type: ignore[arg-type]
            scalar.variables = item.variables
            made.items[key] = scalar
    return made


def _device(item: Scalar) -> Node | list[Node] | None:
    text = scalar_text(item.value)
    parts = text.split(":")
    if len(parts) > 3:
        raise ValueError(f"device {text!r} has more than three parts")
    source, permissions = parts[0], "rwm"
    target = source
    if len(parts) == 3:
        target, permissions = parts[1], parts[2]
    elif len(parts) == 2:
        if parts[1] and set(parts[1]) <= set("rwm"):
            permissions = parts[1]
        else:
            target = parts[1]
    if not source:
        raise ValueError(f"device {text!r} names no device")
    return _long({"source": source, "target": target, "permissions": permissions}, item)


def _grant(item: Scalar) -> Node | list[Node] | None:
    return _long({"source": scalar_text(item.value)}, item)


def _env_file(item: Scalar) -> Node | list[Node] | None:
    return _long({"path": scalar_text(item.value), "required": True}, item)


def _list(node: Node, path: Path, ctx: LoadContext) -> Node:
    """A single text as a list of one."""
    if isinstance(node, Scalar) and node.value is not None:
        made = Sequence([Scalar(node.value, like=node)], like=node)
        return made
    return node


def _env_files(node: Node, path: Path, ctx: LoadContext) -> Node:
    return _each(_env_file)(_list(node, path, ctx), path, ctx)


def _gpus(node: Node, path: Path, ctx: LoadContext) -> Node:
    if isinstance(node, Scalar) and node.value == "all":
        return from_plain([{"count": "all"}], like=node)
    return node


def _depends_on(node: Node, path: Path, ctx: LoadContext) -> Node:
    made = as_dependencies(node)
    if isinstance(made, Mapping):
        for child in made.items.values():
            if isinstance(child, Mapping) and "required" not in child.items:
                child.items["required"] = Scalar(True, child.location, DEFAULT)
    return made


def _keys(node: Node, path: Path, ctx: LoadContext) -> Node:
    return as_keys(node)


_secrets = _each(_grant)


def _build(node: Node, path: Path, ctx: LoadContext) -> Node:
    made = as_build(node)
    if isinstance(made, Mapping):
        if "secrets" in made.items:
            made.items["secrets"] = _secrets(made.items["secrets"], (*path, "secrets"), ctx)
        if "additional_contexts" in made.items:
            made.items["additional_contexts"] = pairs(made.items["additional_contexts"])
    return made


def pairs(node: Node) -> Node:
    """A list of ``K=V`` as a map (a key without value gets null)."""
    if not isinstance(node, Sequence) or not all(isinstance(item, Scalar) for item in node.items):
        return node
    made = Mapping(like=node)
    for item in node.items:
        if isinstance(item, Scalar):
            key, equals, value = scalar_text(item.value).partition("=")
            made.set(key, Scalar(value if equals else None, like=item), item.location)
    return made


def _external(item: Mapping) -> None:
    """``external: {name: x}`` is the old way to write ``external: true`` and ``name: x``."""
    node = item.items["external"]
    if isinstance(node, Mapping):
        name = node.items.get("name")
        item.items["external"] = Scalar(True, node.location, node.origin)
        if name is not None:
            item.set("name", name)


_REWRITERS: dict[str, Rewriter] = {
    "build": _build,
    "configs": _each(_grant),
    "depends_on": _depends_on,
    "devices": _each(_device),
    "dns": _list,
    "dns_search": _list,
    "env_file": _env_files,
    "gpus": _gpus,
    "label_file": _list,
    "models": _keys,
    "networks": _keys,
    "ports": _each(_port),
    "secrets": _secrets,
    "tmpfs": _list,
    "volumes": _each(_volume),
}


# -- defaults ----------------------------------------------------------------------------------


def defaults(tree: Mapping, ctx: LoadContext) -> None:
    """What the specification fills in when it is left out."""
    for _name, service in services(tree):
        for port in _maps(service, "ports"):
            _default(port, "mode", "ingress")
            _default(port, "protocol", "tcp")
        for secret in _maps(service, "secrets"):
            source = secret.items.get("source")
            if isinstance(source, Scalar) and source.value:
                _default(secret, "target", f"/run/secrets/{source.value}")
        for request in (
            *_maps(service, "gpus"),
            *_maps(service, "deploy", "resources", "reservations", "devices"),
        ):
            if "count" not in request.items and "device_ids" not in request.items:
                _default(request, "count", "all")
        build = service.items.get("build")
        if isinstance(build, Mapping):
            _default(build, "context", ".")


def _maps(service: Mapping, *path: str) -> Iterator[Mapping]:
    node: Node | None = service
    for part in path:
        node = node.items.get(part) if isinstance(node, Mapping) else None
    if isinstance(node, Sequence):
        for item in node.items:
            if isinstance(item, Mapping):
                yield item


def _default(node: Mapping, key: str, value: str) -> None:
    if key not in node.items:
        node.items[key] = Scalar(value, node.location, DEFAULT)


# -- paths -------------------------------------------------------------------------------------


def resolve_paths(tree: Mapping, ctx: LoadContext) -> None:
    """Host paths joined to the directory of their application."""
    for _name, service in services(tree):
        _service_paths(service, ctx)
    for section in ("secrets", "configs"):
        found = mapping(tree, section)
        for item in found.items.values() if found else ():
            if isinstance(item, Mapping):
                _path(item, "file", ctx)
    volumes = mapping(tree, "volumes")
    for item in volumes.items.values() if volumes else ():
        if isinstance(item, Mapping):
            _volume_path(item, ctx)


def _service_paths(service: Mapping, ctx: LoadContext) -> None:
    for mount in _maps(service, "volumes"):
        if _text(mount, "type") == "bind":
            _path(mount, "source", ctx)
    build = service.items.get("build")
    if isinstance(build, Mapping):
        _build_paths(build, ctx)
    for entry in _maps(service, "env_file"):
        _path(entry, "path", ctx)
    for key in ("env_file", "label_file"):
        entries = service.items.get(key)
        if isinstance(entries, Sequence):
            for item in entries.items:
                _join(item, ctx)
    for rule in _maps(service, "develop", "watch"):
        _path(rule, "path", ctx)
        path = rule.items.get("path")
        if isinstance(path, Scalar) and isinstance(path.value, str) and os.path.isabs(path.value):
            path.value = os.path.realpath(path.value)
    extends = service.items.get("extends")
    if isinstance(extends, Mapping):
        _path(extends, "file", ctx)


def _build_paths(build: Mapping, ctx: LoadContext) -> None:
    context = build.items.get("context")
    if isinstance(context, Scalar) and not is_remote(scalar_text(context.value)):
        _join(context, ctx)
    contexts = build.items.get("additional_contexts")
    if isinstance(contexts, Mapping):
        for node in contexts.items.values():
            text = scalar_text(node.value) if isinstance(node, Scalar) else ""
            if text and not is_remote(text) and not text.startswith("service:"):
                _join(node, ctx)
    ssh = build.items.get("ssh")
    if isinstance(ssh, Mapping):
        for node in ssh.items.values():
            _join(node, ctx)
    elif isinstance(ssh, Sequence):
        for node in ssh.items:
            if isinstance(node, Scalar) and isinstance(node.value, str) and "=" in node.value:
                key, _, path = node.value.partition("=")
                node.value = f"{key}={join(ctx.working_dir, path, ctx.home)}"


def is_remote(context: str) -> bool:
    """Whether a build context is no directory: a git or web address."""
    return re.match(_REMOTE, context) is not None


def _volume_path(item: Mapping, ctx: LoadContext) -> None:
    if _text(item, "driver") not in ("", "local"):
        return
    options = item.items.get("driver_opts")
    if isinstance(options, Mapping) and "bind" in _text(options, "o").split(","):
        _path(options, "device", ctx)


def _text(node: Mapping, key: str) -> str:
    found = node.items.get(key)
    return scalar_text(found.value) if isinstance(found, Scalar) else ""


def _path(node: Mapping, key: str, ctx: LoadContext) -> None:
    found = node.items.get(key)
    if found is not None:
        _join(found, ctx)


def _join(node: Node, ctx: LoadContext) -> None:
    if isinstance(node, Scalar) and isinstance(node.value, str) and node.value:
        text = node.value
        if len(text) > 2 and text[1] == ":" and text[2] in "\\/" and text[0].isalpha():
            return  # a path of Windows
        if text.startswith("~") and ctx.home:
            text = os.path.join(ctx.home, text[1:].lstrip("/")).rstrip("/")
        elif text.startswith("/"):
            return  # absolute paths stay as written
        node.value = join(ctx.working_dir, text, ctx.home)


# -- names -------------------------------------------------------------------------------------


def names(tree: Mapping, ctx: LoadContext) -> None:
    """The project's name, the default network, implied dependencies and the real names of resources."""
    tree.set("name", _named(tree, ctx), tree.location)
    uses_default = False
    for _name, service in services(tree):
        uses_default |= _default_network(service)
        _implied(service)
        _build_names(service)
        policy = service.items.get("pull_policy")
        if isinstance(policy, Scalar) and policy.value == "if_not_present":
            policy.value = "missing"
    if uses_default:
        networks = tree.items.get("networks")
        if not isinstance(networks, Mapping):
            networks = Mapping({}, tree.location, DEFAULT)
            tree.set("networks", networks)
        if "default" not in networks.items:
            networks.set("default", Mapping({}, networks.location, DEFAULT))
    for section in RESOURCES:
        found = mapping(tree, section)
        for key, item in list(found.items.items() if found else ()):
            if isinstance(item, Scalar) and item.value is None:
                item = Mapping({}, item.location, item.origin)
                if found is not None:
                    found.items[key] = item
            if isinstance(item, Mapping) and not _text(item, "name"):
                name = key if _text(item, "external") == "true" else f"{ctx.project_name}_{key}"
                item.set("name", Scalar(name, item.location, DERIVED))


def _named(tree: Mapping, ctx: LoadContext) -> Scalar:
    old = tree.items.get("name")
    if isinstance(old, Scalar):
        old.value = ctx.project_name
        return old
    return Scalar(ctx.project_name, tree.location, DERIVED)


def _default_network(service: Mapping) -> bool:
    """Join the default network where none is named; whether the service is on it."""
    if _text(service, "network_mode"):
        return False
    found = service.items.get("networks")
    if isinstance(found, Mapping) and found.items:
        return "default" in found.items
    if "provider" in service.items and found is None:
        return False
    made = Mapping({}, service.location, DEFAULT)
    made.items["default"] = Scalar(None, service.location, DEFAULT)
    service.set("networks", made)
    return True


def _build_names(service: Mapping) -> None:
    build = service.items.get("build")
    if isinstance(build, Mapping):
        _default(build, "context", ".")
        if not _text(build, "dockerfile_inline"):
            if not _text(build, "dockerfile"):
                build.items["dockerfile"] = Scalar("Dockerfile", build.location, DEFAULT)


def _implied(service: Mapping) -> None:
    """Links, shared namespaces and volumes_from bring a dependency with them."""
    wanted: list[tuple[str, bool, Node]] = []
    links = service.items.get("links")
    for item in links.items if isinstance(links, Sequence) else ():
        if isinstance(item, Scalar):
            wanted.append((scalar_text(item.value).split(":")[0], True, item))
    for key in _NAMESPACES:
        node = service.items.get(key)
        if isinstance(node, Scalar) and isinstance(node.value, str) and node.value.startswith("service:"):
            wanted.append((node.value[len("service:") :], True, node))
    sources = service.items.get("volumes_from")
    for item in sources.items if isinstance(sources, Sequence) else ():
        text = scalar_text(item.value) if isinstance(item, Scalar) else ""
        if isinstance(item, Scalar) and not text.startswith("container:"):
            wanted.append((text.split(":")[0], False, item))
    if not wanted:
        return
    depends = service.items.get("depends_on")
    if not isinstance(depends, Mapping):
        depends = Mapping({}, service.location, DERIVED)
        service.set("depends_on", depends)
    for name, restart, node in wanted:
        if name in depends.items:
            continue
        entry: dict[str, Node] = {"condition": Scalar("service_started", node.location, DERIVED)}
        if restart:
            entry["restart"] = Scalar(True, node.location, DERIVED)
        entry["required"] = Scalar(True, node.location, DERIVED)
        depends.set(name, Mapping(entry, node.location, DERIVED), node.location)
