"""Where a value comes from: its place, how it came in, what it replaced, which variables it used.

Asks a finished load (:class:`~orchestra.compose.loader.Loaded`); nothing is loaded again.
"""

from __future__ import annotations

from typing import Any

from orchestra.compose.loader import Loaded
from orchestra.compose.tree import Mapping, Node, Path, Scalar, Sequence, path_text, plain, scalar_text
from orchestra.errors import Location
from orchestra.record import record


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
    parts: tuple[str, ...] = ()  # where values below a map or list come from, if from elsewhere too
    variables: tuple[Variable, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": self.path,
            **_setting(self.now),
            "replaced": [_setting(item) for item in self.replaced],
            "parts": list(self.parts),
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
        replaced.append(_describe(older, path[-1:]))
        older = older.previous
    now = _describe(node, path[-1:])
    return Explanation(
        path_text(path), now, tuple(replaced), _parts(node, now), _variables(loaded, node, now.location.file)
    )


def variable(loaded: Loaded, name: str, file: str = "") -> Variable:
    """Where a variable was set, in the environment of ``file`` (an included one has its own) or else of
    the project, or else of the first included file that has one."""
    context = loaded.context
    if file:
        context = context.scopes.get(file, context)
    elif name not in context.environment:
        context = next((item for item in context.scopes.values() if name in item.environment), context)
    return Variable(name, context.environment.get(name), context.variable_origins.get(name, ()))


def missing_hint(loaded: Loaded, text: str) -> str:
    """What helps when nothing is at a path and no variable is called like it."""
    from orchestra.compose.suggest import nearest

    parts = _split(text)
    for length in range(len(parts) - 1, -1, -1):
        found = _find(loaded.tree, parts[:length], (), loaded.tree)
        if found is not None:
            break
    else:
        return "a path looks like services.web.environment.DEBUG"
    path, node = found
    where, word = path_text(path), ".".join(parts[length:])
    if isinstance(node, Sequence):
        count = len(node.items)
        return (
            f"{where} is a list: its items are {where}[0] to [{count - 1}]" if count else f"{where} is empty"
        )
    if not isinstance(node, Mapping):
        return f"{where} is a value, nothing is below it"
    applied = _APPLIED.get(parts[length])
    if applied and len(path) in (0, 2):
        return applied.format(where)
    near = nearest(word, node.items) or nearest(parts[length], node.items)
    if near:
        return f"did you mean {path_text((*path, near))}?"
    if not path and word:
        near = nearest(word, loaded.context.environment)
        if near:
            return f"did you mean the variable {near}?"
    return f"there are: {', '.join(sorted(node.items)) or 'no keys'}"


_APPLIED = {
    "env_file": "it has been read: ask for a variable in {}.environment",
    "label_file": "it has been read: ask for a label in {}.labels",
    "extends": "it has been applied: ask for a value of {}",
    "include": "it has been applied: ask for a value",
}


_MADE = ("default", "derived")


def _parts(node: Node, now: Setting) -> tuple[str, ...]:
    """The origins of what is below a map or list, without its own."""
    found: dict[str, None] = {}
    if not isinstance(node, Scalar):
        _origins(node, found)
    for known in (now.origin, *_MADE):
        found.pop(known, None)
    return tuple(found)


def _origins(node: Node, found: dict[str, None]) -> None:
    if isinstance(node, Scalar):
        if node.location.file:
            found[str(node.origin)] = None
        return
    for child in node.items.values() if isinstance(node, Mapping) else node.items:
        _origins(child, found)


def _variables(loaded: Loaded, node: Node, file: str) -> tuple[Variable, ...]:
    names: dict[tuple[str, str], None] = {}
    _collect(node, file, names)
    found = {}
    for name, place in names:
        item = variable(loaded, name, place or "-")
        found[item.name, item.value, item.places] = item
    return tuple(found.values())


def _collect(node: Node, file: str, names: dict[tuple[str, str], None]) -> None:
    file = node.location.file or file
    if isinstance(node, Scalar):
        names.update(((name, file), None) for name in node.variables)
    else:
        for child in node.items.values() if isinstance(node, Mapping) else node.items:
            _collect(child, file, names)


def _describe(node: Node, key: Path) -> Setting:
    """``key`` is the last step to the node: an item ``K=V`` of a list that stood for a map shows V."""
    raw = node.raw if isinstance(node, Scalar) else None
    value, origin, file = plain(node), str(node.origin), node.location.file
    if isinstance(value, str) and key and isinstance(key[0], str) and value.startswith(key[0] + "="):
        value = value[len(key[0]) + 1 :]
    if not isinstance(node, Scalar) and file and file not in origin and origin not in _MADE:
        origin = f"file {file}"  # a merged map keeps the place, but not the origin, of the later one
    return Setting(value, node.location, origin, raw)


def find(root: Mapping, text: str) -> tuple[Path, Node] | None:
    """The node a dotted path means; keys may hold dots themselves (the longest key is tried first)."""
    return _find(root, _split(text), (), root)


def _split(text: str) -> list[str]:
    """The steps of a path; ``["a.b"]`` and ``[0]`` are steps too."""
    if '"' not in text and "'" not in text:
        return text.replace("[", ".").replace("]", "").split(".")
    import re

    steps = re.findall(r"""\[(?:"([^"]*)"|'([^']*)'|([^\]]*))\]|([^.\[]+)""", text)
    return ["".join(step) for step in steps]


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
