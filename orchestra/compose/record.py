"""``@record``: a frozen, slotted dataclass whose class is cheap to make.

The same as ``@dataclass(frozen=True, slots=True)`` for whoever uses it (``fields``, ``replace``,
``asdict``, equality, hash, pickling), but only ``__init__`` is generated; the other methods are shared.
The model has some thirty classes, and making them the usual way costs more than loading a project.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def record(cls: type[T]) -> type[T]:
    """Class decorator."""
    names = tuple(inspect.get_annotations(cls))
    methods: dict[str, Any] = {
        "__init__": _initializer(cls, names),
        "__repr__": _repr,
        "__eq__": _eq,
        "__hash__": _hash,
        "__setattr__": _refuse_set,
        "__delattr__": _refuse_delete,
        "__getstate__": _state,
        "__setstate__": _restore,
    }
    for name, method in methods.items():
        setattr(cls, name, method)
    if cls.__doc__ is None:
        cls.__doc__ = cls.__name__  # else the dataclass module computes a signature for it
    made: type[T] = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True)(cls)
    return made


def _initializer(cls: type, names: tuple[str, ...]) -> Callable[..., None]:
    space: dict[str, Any] = {"_set": object.__setattr__, "_MISSING": dataclasses.MISSING}
    words, body = ["self"], []
    for name in names:
        default: Any = cls.__dict__.get(name, dataclasses.MISSING)
        factory: Any = dataclasses.MISSING
        if isinstance(default, dataclasses.Field):
            default, factory = default.default, default.default_factory
        value = name
        if factory is not dataclasses.MISSING:
            space[f"_new_{name}"] = factory
            words.append(f"{name}=_MISSING")
            value = f"_new_{name}() if {name} is _MISSING else {name}"
        elif default is not dataclasses.MISSING:
            space[f"_default_{name}"] = default
            words.append(f"{name}=_default_{name}")
        else:
            words.append(name)
        body.append(f" _set(self, {name!r}, {value})")
    exec(f"def __init__({', '.join(words)}):\n" + "\n".join(body or [" pass"]), space)
    made: Callable[..., None] = space["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


def _state(self: Any) -> tuple[Any, ...]:
    return tuple(getattr(self, name) for name in self.__slots__)


def _restore(self: Any, state: tuple[Any, ...]) -> None:
    for name, value in zip(self.__slots__, state, strict=True):
        object.__setattr__(self, name, value)


def _repr(self: Any) -> str:
    inner = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
    return f"{type(self).__qualname__}({inner})"


def _eq(self: Any, other: object) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    return _state(self) == _state(other)


def _hash(self: Any) -> int:
    return hash(_state(self))


def _refuse_set(self: Any, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
