"""The located tree: JSON-like data in which every value knows where it was written.

Made by :mod:`orchestra.compose.reader`, merged and rewritten in place by the loader, and turned into
the frozen model at the very end. Invariants: mapping keys are text; the tree is a real tree (no node
has two parents: copy with :func:`clone`); ``previous`` of a node is the node it replaced during
merging, so the history of a value travels with it (also through ``extends`` and ``include``).
The loader owns the tree while loading; afterwards nobody changes it.

Whoever rewrites a node (short form → long form) gives the new node the old one's place with
``from_plain(data, like=node)`` or ``Scalar(value, like=node)`` so that errors still point at the text.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchestra.errors import Location
from orchestra.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

NOWHERE = Location("")

Path = tuple[str | int, ...]
Value = str | int | float | bool | None


@record
class Origin:
    """How a value came in. ``kind`` is ``file``, ``extends``, ``include``, ``default``, ``derived``,
    ``environment`` (a variable) or ``env_file``; ``detail`` is the file, service or variable;
    ``via`` is the origin it was before (a value of a file that came through ``extends``)."""

    kind: str
    detail: str = ""
    via: Origin | None = None

    def __str__(self) -> str:
        own = f"{self.kind} {self.detail}".rstrip()
        return f"{own} of {self.via}" if self.via else own


DERIVED = Origin("derived")
DEFAULT = Origin("default")


class Scalar:
    """Text, number, bool or null. ``raw`` is the text as written, ``plain`` tells that it had no
    quotes; ``variables`` names the variables that took part in its value."""

    __slots__ = ("location", "origin", "plain", "previous", "raw", "tag", "value", "variables")

    def __init__(
        self,
        value: Value,
        location: Location = NOWHERE,
        origin: Origin = DERIVED,
        *,
        raw: str | None = None,
        plain: bool = False,
        like: Node | None = None,
    ) -> None:
        self.value = value
        self.location = location
        self.origin = origin
        self.raw = raw
        self.plain = plain
        self.tag = ""
        self.previous: Node | None = None
        self.variables: tuple[str, ...] = ()
        if like is not None:
            self.location, self.origin, self.previous = like.location, like.origin, like.previous
            if isinstance(like, Scalar):
                self.variables = like.variables
                self.raw = like.raw if raw is None else raw

    def __repr__(self) -> str:
        return f"Scalar({self.value!r}, {self.location})"


class Sequence:
    """A list."""

    __slots__ = ("items", "location", "origin", "previous", "tag")

    def __init__(
        self,
        items: list[Node] | None = None,
        location: Location = NOWHERE,
        origin: Origin = DERIVED,
        *,
        like: Node | None = None,
    ) -> None:
        self.items: list[Node] = [] if items is None else items
        self.location = location
        self.origin = origin
        self.tag = ""
        self.previous: Node | None = None
        if like is not None:
            self.location, self.origin, self.previous = like.location, like.origin, like.previous

    def __repr__(self) -> str:
        return f"Sequence({self.items!r})"


class Mapping:
    """A map with text keys, in the order of writing. ``key_locations`` may lack derived keys."""

    __slots__ = ("items", "key_locations", "location", "origin", "previous", "tag")

    def __init__(
        self,
        items: dict[str, Node] | None = None,
        location: Location = NOWHERE,
        origin: Origin = DERIVED,
        *,
        key_locations: dict[str, Location] | None = None,
        like: Node | None = None,
    ) -> None:
        self.items: dict[str, Node] = {} if items is None else items
        self.key_locations: dict[str, Location] = {} if key_locations is None else key_locations
        self.location = location
        self.origin = origin
        self.tag = ""
        self.previous: Node | None = None
        if like is not None:
            self.location, self.origin, self.previous = like.location, like.origin, like.previous

    def __repr__(self) -> str:
        return f"Mapping({self.items!r})"

    def get(self, key: str) -> Node | None:
        return self.items.get(key)

    def set(self, key: str, node: Node, location: Location | None = None) -> None:
        """Put ``node`` at ``key``; the key's place is ``location``, else the one known, else the node's."""
        self.items[key] = node
        if location is not None:
            self.key_locations[key] = location
        else:
            self.key_locations.setdefault(key, node.location)

    def pop(self, key: str) -> Node | None:
        self.key_locations.pop(key, None)
        return self.items.pop(key, None)

    def key_location(self, key: str) -> Location:
        """Where the key stands, else its value, else the map."""
        found = self.key_locations.get(key)
        if found is None:
            node = self.items.get(key)
            found = node.location if node is not None else self.location
        return found


Node: TypeAlias = "Scalar | Sequence | Mapping"


def plain(node: Node | None) -> Any:
    """The node as JSON data."""
    if isinstance(node, Scalar):
        return node.value
    if isinstance(node, Mapping):
        return {key: plain(child) for key, child in node.items.items()}
    if isinstance(node, Sequence):
        return [plain(child) for child in node.items]
    return None


def from_plain(
    data: Any, location: Location = NOWHERE, origin: Origin = DERIVED, *, like: Node | None = None
) -> Node:
    """JSON data as nodes that all stand at one place: at ``like``'s, or at ``location``."""
    if like is not None:
        location, origin = like.location, like.origin
    node: Node
    if isinstance(data, dict):
        items = {str(key): from_plain(value, location, origin) for key, value in data.items()}
        node = Mapping(items, location, origin)
    elif isinstance(data, list | tuple):
        node = Sequence([from_plain(value, location, origin) for value in data], location, origin)
    else:
        node = Scalar(data, location, origin)
    if like is not None:
        node.previous = like.previous
        if isinstance(node, Scalar) and isinstance(like, Scalar):
            node.variables, node.raw = like.variables, like.raw
    return node


def clone(node: Node, origin: Origin | None = None) -> Node:
    """A deep copy. ``origin`` (kind and detail) is put before each value's own origin."""
    cache: dict[int, Origin] = {}
    return _clone(node, origin, cache)


def _clone(node: Node, origin: Origin | None, cache: dict[int, Origin]) -> Node:
    own = node.origin
    if origin is not None:
        found = cache.get(id(own))
        if found is None:
            found = cache[id(own)] = Origin(origin.kind, origin.detail, own)
        own = found
    copy: Node
    if isinstance(node, Scalar):
        copy = Scalar(node.value, node.location, own, raw=node.raw, plain=node.plain)
        copy.variables = node.variables
    elif isinstance(node, Mapping):
        items = {key: _clone(child, origin, cache) for key, child in node.items.items()}
        copy = Mapping(items, node.location, own, key_locations=dict(node.key_locations))
    else:
        copy = Sequence([_clone(child, origin, cache) for child in node.items], node.location, own)
    copy.tag, copy.previous = node.tag, node.previous
    return copy


def get(node: Node | None, path: Path) -> Node | None:
    """The node below ``node`` at ``path``, or None."""
    for part in path:
        if isinstance(node, Mapping):
            node = node.items.get(str(part))
        elif isinstance(node, Sequence) and isinstance(part, int) and 0 <= part < len(node.items):
            node = node.items[part]
        else:
            return None
    return node


def mapping(node: Node | None, *path: str) -> Mapping | None:
    """The map at ``path``, or None if there is none or it is no map."""
    found = get(node, path)
    return found if isinstance(found, Mapping) else None


def path_text(path: Path) -> str:
    """``services.web.ports[0]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def walk(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Every node with its path, parents first."""
    yield path, node
    if isinstance(node, Mapping):
        for key, child in node.items.items():
            yield from walk(child, (*path, key))
    elif isinstance(node, Sequence):
        for index, child in enumerate(node.items):
            yield from walk(child, (*path, index))


def scalar_text(value: Value) -> str:
    """The value as text, as the reference implementation prints it (``true``, ``1.1``, ``1e+06``)."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float_text(value)
    return str(value)


def _float_text(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        return "NaN" if value != value else ("+Inf" if value > 0 else "-Inf")
    from decimal import Decimal

    number = Decimal(repr(value)).normalize()
    if value == 0 or -4 <= number.adjusted() < 6:
        return format(number, "f")
    digits = "".join(str(digit) for digit in number.as_tuple().digits)
    point = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{'-' if value < 0 else ''}{digits[0]}{point}e{number.adjusted():+03d}"


def supersede(new: Node, old: Node) -> None:
    """Record that ``new`` took the place of ``old``: appended to ``new``'s own history."""
    if new is old:
        return
    if new.previous is None:
        new.previous = old
        return
    chain: list[Node] = []
    node: Node | None = new.previous
    while node is not None and len(chain) < 100:
        chain.append(node)
        node = node.previous
    tail: Node = old
    for link in reversed(chain):
        copy = _shallow(link)
        copy.previous = tail
        tail = copy
    new.previous = tail


def _shallow(node: Node) -> Node:
    if isinstance(node, Scalar):
        return Scalar(node.value, like=node)
    if isinstance(node, Mapping):
        return Mapping(node.items, like=node, key_locations=node.key_locations)
    return Sequence(node.items, like=node)


def kind_name(node: Node) -> str:
    """The word for the node's type in messages."""
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return "a list"
    value = node.value
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    return "a number" if isinstance(value, int | float) else "a string"
