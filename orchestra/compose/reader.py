"""YAML text → located nodes, with the rules of YAML 1.2 as compose files are read elsewhere.

The C parser of PyYAML gives events; resolving scalars, anchors, aliases, merge keys and tags happens
here: ``yes``, ``on`` and ``12:30`` are text; ``017`` and ``0o17`` are 15; ``1_000`` is 1000; a bare
date is refused (outside ``x-``); keys must be text; duplicate keys are errors that name both places;
``<<`` takes a map, an alias or a list of them, and own keys win. ``!reset`` and ``!override`` stay on
the node as ``tag``. Hostile input is bounded by :data:`MAX_DEPTH`, :data:`MAX_NODES` and
:data:`MAX_ALIASED`.
"""

from __future__ import annotations

import base64
import math
import re

from orchestra.compose.diagnostics import ComposeError, Problems
from orchestra.compose.tree import Mapping, Node, Origin, Scalar, Sequence, Value, clone
from orchestra.errors import Location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_DEPTH = 100
MAX_NODES = 500_000
MAX_ALIASED = 100_000

_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_INT = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|0[oO]?[0-7]+|0[bB][01]+|0|[1-9][0-9]*)\Z")
_DATE = (  # compiled when first needed
    r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
    r"(([Tt]|[ \t]+)[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(\.[0-9]*)?[ \t]*(Z|[-+][0-9]{1,2}(:?[0-9]{2})?)?)?\Z"
)
_WORDS: dict[str, Value] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
    ".inf": float("inf"),
    ".Inf": float("inf"),
    ".INF": float("inf"),
    "+.inf": float("inf"),
    "+.Inf": float("inf"),
    "+.INF": float("inf"),
    "-.inf": float("-inf"),
    "-.Inf": float("-inf"),
    "-.INF": float("-inf"),
    ".nan": float("nan"),
    ".NaN": float("nan"),
    ".NAN": float("nan"),
}
_NUMERIC = frozenset("0123456789+-.")
_CORE = "tag:yaml.org,2002:"


def resolve(text: str) -> Value:
    """What an unquoted scalar means."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMERIC:
        return text
    return _number(text)


def _number(text: str) -> Value:
    digits = text.replace("_", "") if "_" in text else text
    if len(digits) > 400:
        return text
    if _INT.match(digits):
        return _integer(digits)
    if _FLOAT.match(digits):
        value = float(digits)
        return value if value not in (float("inf"), float("-inf")) else text
    return text


def _integer(digits: str) -> int | float:
    sign = -1 if digits[0] == "-" else 1
    body = digits.lstrip("+-")
    if len(body) > 1 and body[0] == "0" and body[1] in "01234567":
        value = sign * int(body, 8)
    else:
        value = sign * int(body, 0)
    return value if -(2**63) <= value < 2**64 else float(value)


def is_date(text: str) -> bool:
    """Whether an unquoted scalar would be a timestamp."""
    return len(text) > 7 and text[4] == "-" and re.match(_DATE, text) is not None


def parse(text: str, file: str, problems: Problems, origin: Origin | None = None) -> list[Node]:
    """The documents of ``text``; raises :class:`ComposeError` (after recording the problem)."""
    problems.sources.setdefault(file, text)
    return _Reader(text, file, problems, origin or Origin("file", file)).documents()


class _Reader:
    """One run over one text."""

    def __init__(self, text: str, file: str, problems: Problems, origin: Origin) -> None:
        self.text = text
        self.file = file
        self.problems = problems
        self.origin = origin
        self.anchors: dict[str, Node | None] = {}
        self.sizes: dict[str, int] = {}
        self.nodes = 0
        self.aliased = 0
        self.next: Any = None
        self.path: list[str | int] = []
        self.free = 0  # > 0 below an x- key, where dates are allowed

    def documents(self) -> list[Node]:
        import yaml

        found: list[Node] = []
        try:
            self.next = getattr(yaml, "CLoader", yaml.Loader)(self.text).get_event
            while True:
                event = self.next()
                if isinstance(event, yaml.DocumentStartEvent):
                    self.anchors, self.sizes, self.path = {}, {}, []
                    found.append(self.node(self.next(), 0))
                elif isinstance(event, yaml.StreamEndEvent):
                    return found
        except yaml.MarkedYAMLError as error:
            raise self.broken(error) from None
        except (yaml.YAMLError, UnicodeError, ValueError) as error:
            raise self.unreadable(error) from None

    def broken(self, error: Any) -> ComposeError:
        mark = error.problem_mark or error.context_mark
        place = Location(self.file, mark.line + 1, mark.column + 1) if mark else Location(self.file)
        message = error.problem or "cannot read this"
        if error.context:
            message = f"{message} ({error.context})"
        return self.problems.fail(f"invalid YAML: {message}", place, hint=_yaml_hint(self.text, place))

    def unreadable(self, error: Exception) -> ComposeError:
        position = getattr(error, "position", None)
        place = Location(self.file)
        if isinstance(position, int) and 0 <= position <= len(self.text):
            before = self.text[:position]
            place = Location(self.file, before.count("\n") + 1, position - before.rfind("\n"))
        reason = getattr(error, "reason", None) or str(error)
        return self.problems.fail(f"invalid YAML: {reason}", place)

    def place(self, event: Any) -> Location:
        mark = event.start_mark
        return Location(self.file, mark.line + 1, mark.column + 1)

    def node(self, event: Any, depth: int) -> Node:
        kind = event.__class__.__name__
        if kind == "ScalarEvent":
            made: Node = self.scalar(event)
            if event.anchor:
                self.anchors[event.anchor], self.sizes[event.anchor] = made, 1
            return made
        if kind == "AliasEvent":
            return self.alias(event)
        if depth >= MAX_DEPTH:
            raise self.problems.fail(
                f"nested more than {MAX_DEPTH} levels deep", self.place(event), tuple(self.path[:6])
            )
        before = self.nodes + self.aliased
        if event.anchor:
            self.anchors[event.anchor] = None
        made = self.sequence(event, depth) if kind == "SequenceStartEvent" else self.mapping(event, depth)
        if event.tag:
            made.tag = self.collection_tag(event)
        if event.anchor:
            self.anchors[event.anchor] = made
            self.sizes[event.anchor] = self.nodes + self.aliased - before + 1
        self.count(event)
        return made

    def count(self, event: Any) -> None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.problems.fail(f"more than {MAX_NODES:,} values in one file", self.place(event))

    def scalar(self, event: Any) -> Scalar:
        self.count(event)
        text = event.value
        plain = not event.style
        mark = event.start_mark
        made = Scalar(
            text, Location(self.file, mark.line + 1, mark.column + 1), self.origin, raw=text, plain=plain
        )
        tag = event.tag
        if tag in ("!reset", "!override"):
            made.tag = tag[1:]
            tag = None
        if tag and tag != "!":
            made.value = self.tagged(tag, event)
        elif plain and not tag and (text in _WORDS or text[0] in _NUMERIC):
            made.value = value = resolve(text)
            if value.__class__ is str and is_date(text) and not self.free:
                self.problems.error(
                    f"{text} is a date for YAML, not text",
                    made.location,
                    tuple(self.path),
                    hint=f'put it in quotes: "{text}"',
                )
            elif isinstance(value, float) and not math.isfinite(value):
                self.problems.error(
                    f"{text} is no finite number",
                    made.location,
                    tuple(self.path),
                    hint=f'put it in quotes if text is meant: "{text}"',
                )
        return made

    def tagged(self, tag: str, event: Any) -> Value:
        """The value of a scalar with an explicit tag."""
        text = str(event.value)
        name = tag.removeprefix(_CORE) if tag.startswith(_CORE) else ""
        if name == "str":
            return text
        if name == "binary":
            try:
                return base64.b64decode("".join(text.split()), validate=True).decode("utf-8", "replace")
            except ValueError:
                raise self.problems.fail(
                    "!!binary value is no base64", self.place(event), tuple(self.path)
                ) from None
        if name in ("int", "float", "bool", "null"):
            value = resolve(text)
            wanted = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}[name]
            if isinstance(value, bool) != (name == "bool") or not isinstance(value, wanted):  # type: ignore[arg-type]
                raise self.problems.fail(
                    f"cannot read {text!r} as !!{name}", self.place(event), tuple(self.path)
                )
            return float(value) if name == "float" else value  # type: ignore[arg-type]
        if name != "timestamp":
            self.problems.warn(
                f"the YAML tag {tag} means nothing here and is ignored", self.place(event), tuple(self.path)
            )
        return text

    def collection_tag(self, event: Any) -> str:
        tag = event.tag
        if tag in ("!reset", "!override"):
            return str(tag[1:])
        if tag and tag != "!" and tag not in (_CORE + "map", _CORE + "seq"):
            self.problems.warn(
                f"the YAML tag {tag} means nothing here and is ignored", self.place(event), tuple(self.path)
            )
        return ""

    def alias(self, event: Any) -> Node:
        name = event.anchor
        if name not in self.anchors:
            raise self.problems.fail(
                f"unknown anchor {name!r} referenced", self.place(event), tuple(self.path)
            )
        target = self.anchors[name]
        if target is None:
            raise self.problems.fail(f"anchor {name!r} contains itself", self.place(event), tuple(self.path))
        self.aliased += self.sizes[name]
        if self.aliased > MAX_ALIASED:
            raise self.problems.fail(
                f"aliases expand to more than {MAX_ALIASED:,} values",
                self.place(event),
                tuple(self.path[:6]),
                hint="files in which aliases of aliases multiply like this are refused",
            )
        return clone(target)

    def sequence(self, event: Any, depth: int) -> Sequence:
        made = Sequence([], self.place(event), self.origin)
        items, path = made.items, self.path
        path.append(0)
        while True:
            item = self.next()
            if item.__class__.__name__ == "SequenceEndEvent":
                path.pop()
                return made
            items.append(self.node(item, depth + 1))
            path[-1] = len(items)

    def mapping(self, event: Any, depth: int) -> Mapping:
        made = Mapping({}, self.place(event), self.origin)
        merges: Node | None = None
        path = self.path
        while True:
            item = self.next()
            if item.__class__.__name__ == "MappingEndEvent":
                break
            key, place, merging = self.key(item, depth)
            event = self.next()
            if merging:
                if merges is not None:
                    raise self.problems.fail("a second << in the same mapping", place, tuple(path))
                merges = self.node(event, depth + 1)
                continue
            path.append(key)
            known = key in made.items
            if known:
                first = made.key_locations[key]
                self.problems.error(
                    f"key {key!r} is already defined at line {first.line}",
                    place,
                    tuple(path),
                    notes=(f"first defined at {first}",),
                )
            loose = key.startswith("x-")
            self.free += loose
            simple = event.__class__.__name__ == "ScalarEvent" and not event.anchor
            child: Node = self.scalar(event) if simple else self.node(event, depth + 1)
            self.free -= loose
            path.pop()
            if not known:  # the first one stays, so that its own problems are found too
                made.items[key] = child
                made.key_locations[key] = place
        if merges is not None:
            self.merge(made, merges)
        return made

    def key(self, event: Any, depth: int) -> tuple[str, Location, bool]:
        """The text of a key, its place, and whether it is the merge key."""
        place = self.place(event)
        if event.__class__.__name__ == "ScalarEvent" and event.tag is None and not event.anchor:
            text = event.value
            if event.style:
                return text, place, False
            if text == "<<":
                return text, place, True
            if text and (text[0] not in _NUMERIC) and text not in _WORDS:
                return text, place, False
        node = self.node(event, depth + 1)
        if isinstance(node, Scalar) and isinstance(node.value, str):
            return node.value, place, False
        shown = node.raw if isinstance(node, Scalar) else "a list or mapping"
        where = ".".join(str(part) for part in self.path) or "top level"
        self.problems.error(
            f"non-text key at {where}: {shown}",
            place,
            tuple(self.path),
            hint=f'put it in quotes: "{shown}"' if isinstance(node, Scalar) else None,
        )
        return str(shown), place, False

    def merge(self, made: Mapping, merges: Node) -> None:
        """``<<``: own keys win, then the first map of the list that has the key."""
        sources = merges.items if isinstance(merges, Sequence) else [merges]
        for source in sources:
            if not isinstance(source, Mapping):
                raise self.problems.fail(
                    "<< wants a mapping or a list of mappings", source.location, tuple(self.path)
                )
            for key, child in source.items.items():
                if key not in made.items:
                    made.items[key] = child
                    made.key_locations[key] = source.key_location(key)


def _yaml_hint(text: str, place: Location) -> str | None:
    lines = text.split("\n")
    line = lines[place.line - 1] if 0 < place.line <= len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "YAML forbids tabs for indentation: use blanks"
    if line[place.column - 1 : place.column + 1] in (":,", ":}", ":]"):
        return "write a blank after the colon, or quotes around the text"
    return None
