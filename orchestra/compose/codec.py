"""Frozen dataclasses as JSON data and back, for the daemon's socket.

:func:`to_dict` writes only the fields that differ from their defaults. Decoders are made once a class,
when first used, from the annotations; importing this module imports neither typing's machinery nor the
model. Unknown fields are ignored, so that a newer client may talk to an older daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orchestra.record import MISSING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias, TypeVar

    from orchestra.compose.model import Project

    Made = TypeVar("Made")

Decoder: TypeAlias = "Callable[[Any], Any]"

_plans: dict[type, tuple[tuple[str, Any, Any], ...]] = {}
_decoders: dict[type, Decoder] = {}


def to_dict(value: Any) -> Any:
    """A dataclass (deeply) as JSON data."""
    kind = type(value)
    if kind is str or kind is int or kind is float or kind is bool or value is None:
        return value
    if kind is dict:
        return {key: to_dict(item) for key, item in value.items()}
    if kind is tuple or kind is list:
        return [to_dict(item) for item in value]
    plan = _plans.get(kind)
    if plan is None:
        plan = _plan(kind, value)
    found = {}
    for name, default, factory in plan:
        item = getattr(value, name)
        if item is default or (default is not MISSING and item == default and type(item) is type(default)):
            continue
        if factory is not MISSING and not item:
            continue
        found[name] = to_dict(item)
    return found


def _plan(kind: type, value: Any) -> tuple[tuple[str, Any, Any], ...]:
    plan: tuple[tuple[str, Any, Any], ...] | None = getattr(kind, "__record_fields__", None)
    if plan is None:
        plan = _plan_of_dataclass(kind, value)
    _plans[kind] = plan
    return plan


def _plan_of_dataclass(kind: type, value: Any) -> tuple[tuple[str, Any, Any], ...]:
    import dataclasses
    import enum

    if isinstance(value, Mapping):
        raise TypeError(f"cannot encode the mapping type {kind.__name__}")
    if isinstance(value, enum.Enum) or not dataclasses.is_dataclass(value):
        raise TypeError(f"cannot encode {kind.__name__}")
    given = ((item.name, item.default, item.default_factory) for item in dataclasses.fields(value))
    return tuple(
        tuple(MISSING if part is dataclasses.MISSING else part for part in entry)  # type: ignore[misc]
        for entry in given
    )


def project_from_dict(data: Mapping[str, Any]) -> Project:
    """The project that :func:`to_dict` wrote."""
    from orchestra.compose.model import Project

    return value_from_dict(Project, data)


def value_from_dict(kind: type[Made], data: Any) -> Made:
    """A dataclass of type ``kind`` from what :func:`to_dict` wrote."""
    made: Made = _decoder(kind)(data)
    return made


def _decoder(kind: type) -> Decoder:
    found = _decoders.get(kind)
    if found is None:
        found = _decoders[kind] = _make(kind)
    return found


def _make(kind: type) -> Decoder:
    import dataclasses
    import typing

    hints = typing.get_type_hints(kind)
    table: dict[str, Decoder | None] = {}
    for item in dataclasses.fields(kind):
        if item.init:
            table[item.name] = _for_type(hints[item.name])

    def decode(data: Any) -> Any:
        if not isinstance(data, Mapping):
            raise ValueError(f"{kind.__name__} must be an object")
        found = {}
        for name, value in data.items():
            if name in table:
                convert = table[name]
                found[name] = value if convert is None or value is None else convert(value)
        return kind(**found)

    return decode


def _for_type(hint: Any) -> Decoder | None:
    """How to decode a value of the annotated type; None when JSON data is good as it is."""
    import dataclasses
    import types
    import typing

    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        real = [item for item in arguments if item is not type(None)]
        return _for_type(real[0]) if len(real) == 1 else None
    if origin is tuple:
        return _for_tuple(arguments)
    if origin is list:
        inner = _for_type(arguments[0])
        return None if inner is None else lambda value: [inner(item) for item in value]
    if origin in (frozenset, set):
        return lambda value: origin(value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _for_mapping(_for_type(arguments[1]))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return lambda value: _decoder(hint)(value)
    if hint is float:
        return float
    return None


def _for_mapping(inner: Decoder | None) -> Decoder:
    if inner is None:
        return dict
    convert = inner
    return lambda value: {key: None if item is None else convert(item) for key, item in value.items()}


def _for_tuple(arguments: tuple[Any, ...]) -> Decoder:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        inner = _for_type(arguments[0])
        return tuple if inner is None else lambda value: tuple(inner(item) for item in value)
    each = [_for_type(item) for item in arguments]
    return lambda value: tuple(
        item if convert is None or item is None else convert(item)
        for convert, item in zip(each, value, strict=False)
    )
