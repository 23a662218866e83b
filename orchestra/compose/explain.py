"""Where a value comes from: its place, how it came in, what it replaced, which variables it used.

Asks a finished load (:class:`~orchestra.compose.loader.Loaded`); nothing is loaded again.
"""

from __future__ import annotations

from typing import Any

from orchestra.compose.loader import Loaded
from orchestra.compose.record import record
from orchestra.compose.tree import Mapping, Node, Path, Scalar, Sequence, path_text, plain, scalar_text
from orchestra.errors import Location


@record
class Setting:
    """One value a path had; ``origin`` reads like ``file compose.yaml`` or ``extends base``."""

    value: Any
    location: Location
    origin: str
    raw: str | None = None


@record
class Variable:
    """``places``: where it was set, the winner first (``shell``, ``.env:3``); empty if it is unset."""

    name: str
    value: str | None
    places: tuple[str, ...] = ()


@record
class Explanation:
    path: str
    now: Setting
    replaced: tuple[Setting, ...] = ()
    variables: tuple[Variable, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": self.path,
            **_setting(self.now),
            "replaced": [_setting(item) for item in self.replaced],
            "variables": [
                {"name": item.name, "value": item.value, "places": list(item.places)}
                for item in self.variables
            ],
        }


def _setting(item: Setting) -> dict[str, Any]:
    place = item.location
    return {
        "value": item.value,
        "file": place.file or None,
        "line": place.line or None,
        "column": place.column or None,
        "origin": item.origin,
        "raw": item.raw,
    }


def explain(loaded: Loaded, text: str) -> Explanation | None:
    """The explanation of a path (``services.web.environment.DEBUG``), or None if nothing is there."""
    found = find(loaded.tree, text)
    if found is None:
        return None
    path, node = found
    replaced: list[Setting] = []
    older = node.previous
    while older is not None and len(replaced) < 100:
        replaced.append(_describe(older))
        older = older.previous
    return Explanation(path_text(path), _describe(node), tuple(replaced), _variables(loaded, node))


def variable(loaded: Loaded, name: str) -> Variable:
    """Where a variable of the project's environment was set."""
    context = loaded.context
    return Variable(name, context.environment.get(name), context.variable_origins.get(name, ()))


def _variables(loaded: Loaded, node: Node) -> tuple[Variable, ...]:
    names: dict[str, None] = {}
    _collect(node, names)
    return tuple(variable(loaded, name) for name in names)


def _collect(node: Node, names: dict[str, None]) -> None:
    if isinstance(node, Scalar):
        names.update(dict.fromkeys(node.variables))
    else:
        for child in node.items.values() if isinstance(node, Mapping) else node.items:
            _collect(child, names)


def _describe(node: Node) -> Setting:
    raw = node.raw if isinstance(node, Scalar) else None
    return Setting(plain(node), node.location, str(node.origin), raw)


def find(root: Mapping, text: str) -> tuple[Path, Node] | None:
    """The node a dotted path means; keys may hold dots themselves (the longest key is tried first)."""
    return _find(root, text.replace("[", ".").replace("]", "").split("."), (), root)


def _find(node: Node, parts: list[str], path: Path, root: Mapping) -> tuple[Path, Node] | None:
    if not parts:
        return path, node
    if isinstance(node, Sequence):
        if not parts[0].isdecimal():
            return _item(node, ".".join(parts), path)
        index = int(parts[0])
        if index >= len(node.items):
            return None
        return _find(node.items[index], parts[1:], (*path, index), root)
    if isinstance(node, Mapping):
        for length in range(len(parts), 0, -1):
            key = ".".join(parts[:length])
            if key in node.items:
                found = _find(node.items[key], parts[length:], (*path, key), root)
                if found is not None:
                    return found
    return None


def _item(node: Sequence, key: str, path: Path) -> tuple[Path, Node] | None:
    """The item ``key=…`` of a list that stands for a map."""
    for index, item in enumerate(node.items):
        if isinstance(item, Scalar) and scalar_text(item.value).partition("=")[0] == key:
            return (*path, index), item
    return None
