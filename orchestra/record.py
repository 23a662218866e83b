"""``@record`` and ``@shape``: dataclasses that are cheap to import and to make.

To whoever uses it a record is what ``@dataclass(frozen=True, slots=True)`` gives (``dataclasses.fields``,
``replace``, ``asdict``, equality, hash, pickling). But only ``__init__`` is generated, the other methods are
shared, and the ``dataclasses`` module (which loads ``inspect``, 15 ms of a command that takes 80) is loaded
only when one of its functions looks at a record. A ``@shape`` can be changed and compares by identity.

``replace`` here is ``dataclasses.replace`` for both; ``field`` takes a factory for a default.
``__record_fields__`` of a class are its (name, default, factory), MISSING where there is none.
"""

from __future__ import annotations

from collections.abc import Callable

TYPE_CHECKING = False  # the typing module would cost another 5 ms
if TYPE_CHECKING:
    from typing import Any, TypeVar, dataclass_transform

    T = TypeVar("T")

MISSING = object()


class _Field:
    __slots__ = ("default", "factory")

    def __init__(self, default: object, factory: Any) -> None:
        self.default, self.factory = default, factory


def field(*, default: Any = MISSING, default_factory: Any = None) -> Any:
    """A default, or a function that makes one for each object."""
    return _Field(default, default_factory)


if TYPE_CHECKING:

    @dataclass_transform(frozen_default=True, field_specifiers=(field,))
    def record(cls: type[T]) -> type[T]:
        """Class decorator."""

    @dataclass_transform(field_specifiers=(field,))
    def shape(cls: type[T]) -> type[T]:
        """Class decorator."""

else:

    def record(cls):
        """Class decorator: frozen, compared by value."""
        return _make(cls, {**_SHARED, **_FROZEN})

    def shape(cls):
        """Class decorator: an object with slots and a generated ``__init__``."""
        return _make(cls, _SHARED)


def replace(found: T, **changes: Any) -> T:
    """A copy with other values for some fields."""
    values = {name: getattr(found, name) for name in type(found).__slots__}  # type: ignore[attr-defined]
    return type(found)(**{**values, **changes})


def _make(cls: type, methods: dict[str, Any]) -> type:
    """The class anew, with slots."""
    names = tuple(cls.__annotations__)
    given: dict[str, Any] = {name: cls.__dict__.get(name, MISSING) for name in names}
    space = {
        key: value for key, value in cls.__dict__.items() if key not in (*names, "__dict__", "__weakref__")
    }
    space.update(
        {name: method for name, method in methods.items() if name not in space or name == "__init__"}
    )
    space["__slots__"] = names
    space["__match_args__"] = names
    space["__init__"] = _initializer(cls, given)
    space["__dataclass_fields__"] = _Fields(given)
    space["__record_fields__"] = tuple(
        (name, entry.default, entry.factory or MISSING)
        if isinstance(entry, _Field)
        else (name, entry, MISSING)
        for name, entry in given.items()
    )
    made = type(cls)(cls.__name__, cls.__bases__, space)
    made.__qualname__ = cls.__qualname__
    return made


def _initializer(cls: type, given: dict[str, Any]) -> Callable[..., None]:
    space: dict[str, Any] = {"_set": object.__setattr__, "MISSING": MISSING}
    words, body = ["self"], []
    for name, entry in given.items():
        default, factory = (entry.default, entry.factory) if isinstance(entry, _Field) else (entry, None)
        value = name
        if factory is not None:
            space[f"_new_{name}"] = factory
            words.append(f"{name}=MISSING")
            value = f"_new_{name}() if {name} is MISSING else {name}"
        elif default is not MISSING:
            space[f"_default_{name}"] = default
            words.append(f"{name}=_default_{name}")
        else:
            words.append(name)
        body.append(f" _set(self, {name!r}, {value})")
    exec(f"def __init__({', '.join(words)}):\n" + "\n".join(body or [" pass"]), space)
    made: Callable[..., None] = space["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    return made


class _Fields:
    """``__dataclass_fields__`` of a class, made when somebody looks: as a real dataclass has them."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.made: dict[str, Any] | None = None

    def __get__(self, found: object, cls: type) -> dict[str, Any]:
        if self.made is None:
            import dataclasses

            entries = []
            for name, default in self.given.items():
                if isinstance(default, _Field):
                    one = (
                        dataclasses.field(default_factory=default.factory)
                        if default.factory is not None
                        else dataclasses.field(default=default.default)
                    )
                else:
                    one = dataclasses.field() if default is MISSING else dataclasses.field(default=default)
                entries.append((name, cls.__annotations__[name], one))
            twin: Any = dataclasses.make_dataclass(cls.__name__, entries)
            self.made = twin.__dataclass_fields__
        return self.made


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
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_delete(self: Any, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


_SHARED: dict[str, Any] = {"__repr__": _repr, "__getstate__": _state, "__setstate__": _restore}
_FROZEN: dict[str, Any] = {
    "__eq__": _eq,
    "__hash__": _hash,
    "__setattr__": _refuse_set,
    "__delattr__": _refuse_delete,
}
