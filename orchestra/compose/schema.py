"""Our JSON Schema of the Compose Specification, and its compiled form: checks of located nodes.

The compiled checker knows exactly the keywords that the schema uses (an unknown one is a bug and
raises), reports every problem with its place, and picks the alternative of ``oneOf`` that the author
most likely meant. A test holds it equal to jsonschema.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from functools import lru_cache

from orchestra.compose.tree import Mapping, Node, Path, Scalar, Sequence, kind_name, plain
from orchestra.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@record
class Fault:
    """One violation: ``key`` is set when a key of the node at ``path`` is wrong."""

    path: Path
    node: Node
    message: str
    key: str | None = None
    known: tuple[str, ...] = ()


Faults = list[Fault]
Check = Callable[[Node, Path, Faults], None]

_IGNORED = {"title", "description", "default", "deprecated", "$schema", "$id", "$defs"}
_WORDS = {
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "a mapping",
    "array": "a list",
    "null": "null",
}
# The plain text alternative of numbers and booleans exists for interpolation; no need to mention it.
_QUIET = {"integer", "number", "boolean"}


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """The schema itself."""
    here = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    for folder in (here, os.path.dirname(here)):
        try:
            with open(f"{folder}/schemas/compose-spec.json", "rb") as stream:
                found: dict[str, Any] = json.loads(stream.read())
        except FileNotFoundError:
            continue
        return found
    raise FileNotFoundError("schemas/compose-spec.json is missing from the installation")


@lru_cache(maxsize=1)
def checker() -> Check:
    """The whole schema compiled."""
    return _Compiler(document()).compile(document())


def type_of(node: Node) -> str:
    """The JSON type of a node (a whole float is an integer, as in JSON Schema)."""
    if isinstance(node, Mapping):
        return "object"
    if isinstance(node, Sequence):
        return "array"
    value = node.value
    if isinstance(value, str):
        return "string"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) or value.is_integer():
        return "integer"
    return "number"


def _fits(kind: str, types: frozenset[str]) -> bool:
    return kind in types or (kind == "integer" and "number" in types)


def _expected(types: frozenset[str]) -> str:
    shown = sorted(types - {"string"} if types & _QUIET else types)
    words = [_WORDS[name] for name in shown if not (name == "null" and len(shown) > 1)]
    return " or ".join(words)


class _Compiler:
    def __init__(self, root: dict[str, Any]) -> None:
        self.defs: dict[str, Any] = root.get("$defs", {})
        self.made: dict[str, Check] = {}

    def compile(self, schema: dict[str, Any]) -> Check:
        if "$ref" in schema:
            return self._reference(schema["$ref"])
        unknown = (
            schema.keys()
            - _IGNORED
            - {
                "type",
                "properties",
                "patternProperties",
                "additionalProperties",
                "items",
                "uniqueItems",
                "enum",
                "pattern",
                "minimum",
                "maximum",
                "required",
                "oneOf",
            }
        )
        if unknown:
            raise ValueError(f"schema keywords without a check: {sorted(unknown)}")
        if "oneOf" in schema:
            return self._alternatives(schema["oneOf"])
        inner = [
            check for check in (self._object(schema), self._array(schema), self._scalar(schema)) if check
        ]
        return self._typed(schema.get("type"), inner)

    def _reference(self, name: str) -> Check:
        key = name.rsplit("/", 1)[1]
        if key not in self.made:
            made: Check | None = None

            def late(node: Node, path: Path, faults: Faults) -> None:
                nonlocal made
                if made is None:
                    made = self.compile(self.defs[key])
                made(node, path, faults)

            self.made[key] = late
        return self.made[key]

    def _typed(self, kind: Any, inner: list[Check]) -> Check:
        if kind is None:
            only = inner[0] if len(inner) == 1 else None
            if only:
                return only

            def everything(node: Node, path: Path, faults: Faults) -> None:
                for check in inner:
                    check(node, path, faults)

            return everything
        types = frozenset([kind] if isinstance(kind, str) else kind)

        def typed(node: Node, path: Path, faults: Faults) -> None:
            found = type_of(node)
            if not _fits(found, types):
                faults.append(Fault(path, node, f"must be {_expected(types)}, not {kind_name(node)}"))
                return
            for check in inner:
                check(node, path, faults)

        return typed

    def _object(self, schema: dict[str, Any]) -> Check | None:
        properties = {key: self.compile(value) for key, value in schema.get("properties", {}).items()}
        patterns = [
            (_matcher(key), self.compile(value) if value else None)
            for key, value in schema.get("patternProperties", {}).items()
        ]
        closed = schema.get("additionalProperties") is False
        required = tuple(schema.get("required", ()))
        known = tuple(properties)
        if not (properties or patterns or closed or required):
            return None

        def check_object(node: Node, path: Path, faults: Faults) -> None:
            if not isinstance(node, Mapping):
                return
            for key, child in node.items.items():
                below = properties.get(key)
                matched = below is not None
                if below is not None:
                    below(child, (*path, key), faults)
                for matches, check in patterns:
                    if matches(key):
                        matched = True
                        if check is not None:
                            check(child, (*path, key), faults)
                if closed and not matched:
                    faults.append(Fault(path, node, _stranger(key, known), key, known))
            for key in required:
                if key not in node.items:
                    faults.append(Fault(path, node, f"{key} is required"))

        return check_object

    def _array(self, schema: dict[str, Any]) -> Check | None:
        items = self.compile(schema["items"]) if "items" in schema else None
        unique = bool(schema.get("uniqueItems"))
        if items is None and not unique:
            return None

        def check_array(node: Node, path: Path, faults: Faults) -> None:
            if not isinstance(node, Sequence):
                return
            if items is not None:
                for index, child in enumerate(node.items):
                    items(child, (*path, index), faults)
            if unique and len(node.items) > 1:
                _check_unique(node, path, faults)

        return check_array

    def _scalar(self, schema: dict[str, Any]) -> Check | None:
        words = schema.get("enum")
        pattern: str | None = schema.get("pattern")
        low, high = schema.get("minimum"), schema.get("maximum")
        if words is None and pattern is None and low is None and high is None:
            return None
        listed = (
            f"must be {' or '.join([', '.join(words[:-1]), words[-1]] if len(words) > 1 else words)}"
            if words
            else ""
        )

        def check_scalar(node: Node, path: Path, faults: Faults) -> None:
            value = node.value if isinstance(node, Scalar) else None
            if words is not None and value not in words:
                faults.append(Fault(path, node, f"{listed}, not {_shown(node)}", None, tuple(words)))
            if pattern is not None and isinstance(value, str) and not re.search(pattern, value):
                faults.append(
                    Fault(
                        path, node, f"{value!r} has not the form it must have", None, _pattern_words(pattern)
                    )
                )
            if isinstance(value, int | float) and not isinstance(value, bool):
                if (low is not None and value < low) or (high is not None and value > high):
                    faults.append(Fault(path, node, f"must be {_bounds(low, high)}, not {value}"))

        return check_scalar

    def _alternatives(self, schemas: list[dict[str, Any]]) -> Check:
        checks = [self.compile(item) for item in schemas]
        kinds = [self._types(item) for item in schemas]
        types = frozenset().union(*kinds)

        def check_one(node: Node, path: Path, faults: Faults) -> None:
            found = type_of(node)
            good = 0
            best: Faults | None = None
            for check, fitting in zip(checks, kinds, strict=True):
                if not _fits(found, fitting):
                    continue
                mine: Faults = []
                check(node, path, mine)
                if not mine:
                    good += 1
                elif best is None or len(mine) < len(best):
                    best = mine
            if good == 1:
                return
            if good > 1:
                faults.append(Fault(path, node, "matches several alternatives at once"))
            elif best is not None:
                faults.extend(best)
            else:
                faults.append(Fault(path, node, f"must be {_expected(types)}, not {kind_name(node)}"))

        return check_one

    def _types(self, schema: dict[str, Any]) -> frozenset[str]:
        if "$ref" in schema:
            return self._types(self.defs[schema["$ref"].rsplit("/", 1)[1]])
        if "oneOf" in schema:
            return frozenset().union(*(self._types(item) for item in schema["oneOf"]))
        kind = schema.get("type", list(_WORDS))
        return frozenset([kind] if isinstance(kind, str) else kind)


@lru_cache(maxsize=32)
def _matcher(pattern: str) -> Callable[[str], object]:
    """A key pattern as a predicate; the simple ones need no regular expression."""
    if pattern == "^x-":
        return lambda key: key.startswith("x-")
    if pattern == ".+":
        return lambda key: key.strip("\n")
    if pattern == "^.+$":
        return lambda key: (body := key.removesuffix("\n")) and "\n" not in body
    return lambda key: re.search(pattern, key)


def _stranger(key: str, known: tuple[str, ...]) -> str:
    if known:
        return f"unknown attribute {key}"
    return f"{key!r} is no valid name here" if key else "an empty name"


def _shown(node: Node) -> str:
    return repr(node.value) if isinstance(node, Scalar) else kind_name(node)


def _bounds(low: Any, high: Any) -> str:
    if low is not None and high is not None:
        return f"between {low} and {high}"
    return f"at least {low}" if low is not None else f"at most {high}"


def _pattern_words(pattern: str) -> tuple[str, ...]:
    return tuple(word for word in pattern.split("|") if re.fullmatch(r"[a-z_]+", word))


def _check_unique(node: Sequence, path: Path, faults: Faults) -> None:
    seen: set[Any] = set()
    for index, item in enumerate(node.items):
        key = _identity(item)
        if key in seen:
            faults.append(
                Fault((*path, index), item, f"items must be unique, but {_brief(item)} is repeated")
            )
        seen.add(key)


def _identity(node: Node) -> Any:
    if isinstance(node, Scalar):
        value = node.value
        return (isinstance(value, bool), value if not isinstance(value, float) else value + 0)
    return json.dumps(_even(plain(node)), sort_keys=True)


def _even(data: Any) -> Any:
    """Whole floats as integers, as JSON Schema compares them."""
    if isinstance(data, float) and data.is_integer():
        return int(data)
    if isinstance(data, dict):
        return {key: _even(value) for key, value in data.items()}
    return [_even(value) for value in data] if isinstance(data, list) else data


def _brief(node: Node) -> str:
    text = json.dumps(plain(node), ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
