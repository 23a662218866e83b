"""Frozen dataclasses ⇄ JSON objects, driven by their type hints, for the store.

Fields that hold their default are left out, so records stay small and old records decode after a field
was added. Unknown keys of a record are ignored (a newer program wrote them). ``canonical`` texts are
not kept: they are the loader's affair.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar, Union

Value = TypeVar("Value")
_SKIPPED = frozenset({"canonical"})


def encode(value: Any) -> Any:
    """A dataclass as a JSON object (tuples as lists), without the fields that hold their default."""
    if value is None or isinstance(value, str | int | float):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            name: encode(content)
            for name, default in _defaults(type(value))
            if (content := getattr(value, name)) != default
        }
    if isinstance(value, Mapping):
        return {str(key): encode(content) for key, content in value.items()}
    if isinstance(value, list | tuple):
        return [encode(content) for content in value]
    return value


def decode(kind: type[Value], data: Mapping[str, Any]) -> Value:
    """The dataclass that :func:`encode` was given."""
    decoder: Callable[[Any], Any] = _decoder(typing.cast(Any, kind))
    return typing.cast(Value, decoder(data))


@cache
def _defaults(kind: type) -> tuple[tuple[str, Any], ...]:
    found: list[tuple[str, Any]] = []
    for field in dataclasses.fields(kind):
        if field.name in _SKIPPED:
            continue
        if field.default_factory is not dataclasses.MISSING:
            found.append((field.name, field.default_factory()))
        else:
            found.append((field.name, field.default))
    return tuple(found)


@cache
def _decoder(kind: Any) -> Callable[[Any], Any]:
    if dataclasses.is_dataclass(kind):
        return _dataclass_decoder(typing.cast(type, kind))
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        inner = [_decoder(one) for one in arguments if one is not type(None)]
        return lambda value: None if value is None else inner[0](value)
    if origin is tuple:
        return _tuple_decoder(arguments)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        content = _decoder(arguments[1])
        return lambda value: {key: content(one) for key, one in value.items()}
    return lambda value: value


def _tuple_decoder(arguments: tuple[Any, ...]) -> Callable[[Any], Any]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        item = _decoder(arguments[0])
        return lambda value: tuple(item(one) for one in value)
    items = [_decoder(one) for one in arguments]
    return lambda value: tuple(item(one) for item, one in zip(items, value, strict=False))


def _dataclass_decoder(kind: type) -> Callable[[Any], Any]:
    hints = typing.get_type_hints(kind)
    decoders = {
        field.name: _decoder(hints[field.name])
        for field in dataclasses.fields(kind)
        if field.name not in _SKIPPED
    }
    return lambda data: kind(**{name: decoders[name](data[name]) for name in data if name in decoders})
