"""One document over another: the merge table, removal of repeated items, ``!reset`` and ``!override``.

Works on trees in place; the node that loses is kept as ``previous`` of the one that wins. Tables are
nested dictionaries walked along with the tree (``*`` stands for any key).
"""

from __future__ import annotations

from collections.abc import Callable

from orchestra.compose.diagnostics import Problems
from orchestra.compose.tree import (
    DERIVED,
    Mapping,
    Node,
    Path,
    Scalar,
    Sequence,
    get,
    kind_name,
    path_text,
    scalar_text,
    supersede,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

Table: TypeAlias = "dict[str, Any]"


def _table(rules: dict[str, str]) -> Table:
    root: Table = {}
    for path, rule in rules.items():
        place = root
        for part in path.split("."):
            place = place.setdefault(part, {})
        place[""] = rule
    return root


_S = "services.*."
_MERGERS = _table(
    {
        "networks.*.ipam.config": "ipam",
        "networks.*.labels": "sequence",
        "volumes.*.labels": "sequence",
        _S + "annotations": "sequence",
        _S + "build": "build",
        _S + "build.additional_contexts": "sequence",
        _S + "build.args": "sequence",
        _S + "build.extra_hosts": "hosts",
        _S + "build.labels": "sequence",
        _S + "command": "replace",
        _S + "depends_on": "depends_on",
        _S + "deploy.labels": "sequence",
        _S + "dns": "sequence",
        _S + "dns_opt": "sequence",
        _S + "dns_search": "sequence",
        _S + "entrypoint": "replace",
        _S + "env_file": "sequence",
        _S + "environment": "sequence",
        _S + "extra_hosts": "hosts",
        _S + "healthcheck.test": "replace",
        _S + "label_file": "sequence",
        _S + "labels": "sequence",
        _S + "logging": "logging",
        _S + "models": "keys",
        _S + "networks": "keys",
        _S + "sysctls": "sequence",
        _S + "tmpfs": "sequence",
        _S + "ulimits.*": "replace",
    }
)

_UNIQUE = _table(
    {
        "networks.*.labels": "key",
        "volumes.*.labels": "key",
        _S + "annotations": "key",
        _S + "build.additional_contexts": "key",
        _S + "build.args": "key",
        _S + "build.labels": "key",
        _S + "build.tags": "key",
        _S + "cap_add": "key",
        _S + "cap_drop": "key",
        _S + "configs": "config",
        _S + "deploy.labels": "key",
        _S + "devices": "target",
        _S + "dns": "key",
        _S + "dns_opt": "key",
        _S + "dns_search": "key",
        _S + "env_file": "path",
        _S + "environment": "key",
        _S + "expose": "key",
        _S + "labels": "key",
        _S + "links": "key",
        _S + "networks.*.aliases": "key",
        _S + "networks.*.link_local_ips": "key",
        _S + "ports": "port",
        _S + "profiles": "key",
        _S + "secrets": "secret",
        _S + "sysctls": "key",
        _S + "tmpfs": "key",
        _S + "volumes": "target",
    }
)

_SERVICE_MERGERS: Table = _MERGERS["services"]["*"]


def merge(base: Mapping, over: Mapping, problems: Problems) -> None:
    """``over`` (a whole document) into ``base``."""
    _Merger(problems).mappings(base, over, (), _MERGERS)


def merge_at(base: Node, over: Node, path: Path, problems: Problems) -> Node:
    """``over`` over ``base``, both at ``path``; the result is one of the two."""
    table: Table | None = _MERGERS
    for part in path:
        table = _below(table, str(part))
    return _Merger(problems).node(base, over, path, table)


def _below(table: Table | None, key: str) -> Table | None:
    if not table or not key:
        return None
    return table.get(key) or table.get("*")


class _Merger:
    def __init__(self, problems: Problems) -> None:
        self.problems = problems

    def mappings(self, base: Mapping, over: Mapping, path: Path, table: Table | None) -> Mapping:
        for key, theirs in over.items.items():
            mine = base.items.get(key)
            if mine is None:
                base.items[key] = theirs
                base.key_locations[key] = over.key_location(key)
                continue
            below = _below(table, key)
            if isinstance(theirs, Scalar) and theirs.value is None and (below or {}).get("") != "replace":
                continue
            merged = self.node(mine, theirs, (*path, key), below)
            base.items[key] = merged
            if merged is theirs:
                base.key_locations[key] = over.key_location(key)
        return base

    def node(self, base: Node, over: Node, path: Path, table: Table | None) -> Node:
        rule = table.get("") if table else None
        if rule is not None:
            return self.special(str(rule), base, over, path, table)
        if isinstance(base, Scalar):
            supersede(over, base)
            return over
        if isinstance(base, Mapping) and isinstance(over, Mapping):
            return self.mappings(base, over, path, table)
        if isinstance(base, Sequence) and isinstance(over, Sequence):
            base.items.extend(over.items)
            return base
        return self.clash(base, over, path)

    def clash(self, base: Node, over: Node, path: Path) -> Node:
        self.problems.error(
            f"cannot override {path_text(path)}: {kind_name(over)} over {kind_name(base)}",
            over.location,
            path,
            notes=(f"set before at {base.location}",),
            hint="tag the new value with !override to replace the old one",
        )
        return over

    def special(self, rule: str, base: Node, over: Node, path: Path, table: Table | None) -> Node:
        if rule == "replace":
            supersede(over, base)
            return over
        if isinstance(base, Scalar) and base.value is None:
            supersede(over, base)
            return over
        if isinstance(over, Scalar) and over.value is None:
            return base
        if rule == "sequence":
            return self.sequences(base, over, drop_equal=False)
        if rule == "hosts":
            return self.sequences(base, over, drop_equal=True)
        if rule == "ipam":
            return self.ipam(base, over, path)
        if rule == "logging":
            return self.logging(base, over, path, table)
        convert = {"build": as_build, "depends_on": as_dependencies, "keys": as_keys}[rule]
        left, right = convert(base), convert(over)
        if not isinstance(left, Mapping) or not isinstance(right, Mapping):
            return self.clash(base, over, path)
        return self.mappings(left, right, path, table)

    def sequences(self, base: Node, over: Node, *, drop_equal: bool) -> Node:
        left, right = as_sequence(base), as_sequence(over)
        known = {_text(item) for item in left.items} if drop_equal else set()
        left.items.extend(item for item in right.items if _text(item) not in known or not drop_equal)
        return left

    def ipam(self, base: Node, over: Node, path: Path) -> Node:
        """The later list, its pools with what earlier ones of the same subnet had."""
        if not isinstance(base, Sequence) or not isinstance(over, Sequence):
            return self.clash(base, over, path)
        made = Sequence([], like=over)
        for item in over.items:
            subnet = _field(item, "subnet")
            twin = next((mine for mine in base.items if subnet and _field(mine, "subnet") == subnet), None)
            if isinstance(twin, Mapping) and isinstance(item, Mapping):
                item = self.mappings(twin, item, (*path, base.items.index(twin)), None)
            made.items.append(item)
        supersede(made, base)
        return made

    def logging(self, base: Node, over: Node, path: Path, table: Table | None) -> Node:
        if not isinstance(base, Mapping) or not isinstance(over, Mapping):
            return self.clash(base, over, path)
        mine, theirs = _field(base, "driver"), _field(over, "driver")
        if mine and theirs and mine != theirs:
            supersede(over, base)
            return over
        return self.mappings(base, over, path, table)


def _text(node: Node) -> str:
    return scalar_text(node.value) if isinstance(node, Scalar) else ""


def _field(node: Node, key: str) -> str:
    child = node.items.get(key) if isinstance(node, Mapping) else None
    return _text(child) if child is not None else ""


def as_sequence(node: Node) -> Sequence:
    """A map as ``K=V`` items sorted by key, a list as itself, anything else as a list of one."""
    if isinstance(node, Sequence):
        return node
    if isinstance(node, Scalar):
        made = Sequence([node], like=node)
        made.previous = None
        return made
    items: list[Node] = []
    for key in sorted(node.items):
        child = node.items[key]
        if isinstance(child, Sequence):
            items += [Scalar(f"{key}={_text(item)}", like=item) for item in child.items]
        elif isinstance(child, Mapping):
            items.append(child)
        else:
            text = key if child.value is None else f"{key}={scalar_text(child.value)}"
            items.append(Scalar(text, like=child))
    return Sequence(items, like=node)


def as_build(node: Node) -> Node:
    if isinstance(node, Scalar) and isinstance(node.value, str):
        return Mapping({"context": node}, node.location, node.origin)
    return node


def as_keys(node: Node) -> Node:
    """A list of names as a map of nulls."""
    if not isinstance(node, Sequence) or not all(isinstance(item, Scalar) for item in node.items):
        return node
    made = Mapping(like=node)
    for item in node.items:
        made.set(_text(item), Scalar(None, item.location, item.origin), item.location)
    return made


def as_dependencies(node: Node) -> Node:
    """A list of names as a map with the condition of the short form."""
    made = as_keys(node)
    if made is not node and isinstance(made, Mapping):
        for key, child in made.items.items():
            made.items[key] = Mapping(
                {
                    "condition": Scalar("service_started", child.location, DERIVED),
                    "required": Scalar(True, child.location, DERIVED),
                },
                child.location,
                child.origin,
            )
    return made


# -- repeated items ----------------------------------------------------------------------------


def unique(root: Mapping) -> None:
    """A repeated item keeps its first position and gets the later content."""
    _unique(root, _UNIQUE)


def unique_service(service: Node) -> None:
    """The same for one service."""
    _unique(service, _UNIQUE["services"]["*"])


def _unique(node: Node, table: Table) -> None:
    rule = table.get("")
    if rule is not None and isinstance(node, Sequence):
        if len(node.items) > 1:
            _dedupe(node, _INDEXERS[str(rule)])
        return
    if not isinstance(node, Mapping):
        return
    star = table.get("*")
    if star is not None:
        for child in node.items.values():
            _unique(child, star)
    for key, below in table.items():
        if key and key != "*":
            found = node.items.get(key)
            if found is not None:
                _unique(found, below)


def _dedupe(node: Sequence, indexer: Callable[[Node], str | None]) -> None:
    places: dict[str, int] = {}
    kept: list[Node] = []
    for item in node.items:
        key = indexer(item)
        if key is None:
            kept.append(item)
        elif key in places:
            supersede(item, kept[places[key]])
            kept[places[key]] = item
        else:
            places[key] = len(kept)
            kept.append(item)
    node.items = kept


def _by_key(node: Node) -> str | None:
    return _text(node).split("=", 1)[0] if isinstance(node, Scalar) else None


def _by_path(node: Node) -> str | None:
    return _field(node, "path") if isinstance(node, Mapping) else _by_key(node) and _text(node)


def _by_target(node: Node) -> str | None:
    """Volumes and devices; a short text counts by what stands between the first and second colon."""
    if isinstance(node, Mapping):
        return _field(node, "target") or None
    if not isinstance(node, Scalar):
        return None
    parts = _text(node).split(":")
    return parts[1] if len(parts) > 1 else parts[0]


def _mounted(folder: str) -> Callable[[Node], str | None]:
    def indexer(node: Node) -> str | None:
        if isinstance(node, Mapping):
            source = _field(node, "source")
            return _field(node, "target") or (f"{folder}/{source}" if source else None)
        return f"{folder}/{_text(node)}" if isinstance(node, Scalar) else None

    return indexer


def _by_port(node: Node) -> str | None:
    if isinstance(node, Scalar):
        return _text(node)
    if not isinstance(node, Mapping):
        return None
    host = _field(node, "host_ip") or "0.0.0.0"
    protocol = _field(node, "protocol") or "tcp"
    return f"{host}:{_field(node, 'published')}:{_field(node, 'target')}/{protocol}"


_INDEXERS: dict[str, Callable[[Node], str | None]] = {
    "key": _by_key,
    "path": _by_path,
    "target": _by_target,
    "port": _by_port,
    "secret": _mounted("/run/secrets"),
    "config": _mounted(""),
}


# -- !reset and !override ----------------------------------------------------------------------


def take_tags(root: Node) -> list[Path]:
    """The places of tagged values. Values tagged ``!reset`` are removed from ``root``, the tag of
    ``!override`` is cleared."""
    paths: list[Path] = []
    _take(root, (), paths)
    return paths


def _take(node: Node, path: Path, paths: list[Path]) -> None:
    if isinstance(node, Mapping):
        for key, child in list(node.items.items()):
            if child.tag:
                paths.append((*path, key))
                if child.tag == "reset":
                    node.pop(key)
                    continue
                child.tag = ""
            _take(child, (*path, key), paths)
    elif isinstance(node, Sequence):
        node.items = [item for item in node.items if item.tag != "reset"]
        for index, child in enumerate(node.items):
            child.tag = ""
            _take(child, (*path, index), paths)


def apply_tags(base: Node, over: Node, paths: list[Path]) -> None:
    """Remove from ``base`` what stands at ``paths``; the value of ``over`` there remembers it."""
    for path in paths:
        parent = get(base, path[:-1])
        key = str(path[-1])
        if isinstance(parent, Mapping) and key in parent.items:
            old = parent.pop(key)
            new = get(over, path)
            if old is not None and new is not None:
                supersede(new, old)
