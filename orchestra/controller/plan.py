"""A plan: what to do, in which order, and why. Data only; the executor does it.

The canonical text form is one line an action, in an order that respects the dependencies, so that
``--dry-run``, ``orchestra plan``, debug logs and tests all show the same thing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from orchestra.graph import sorted_by_need


class Kind(Enum):
    """What an action does. The value is the verb in the text form."""

    CREATE_NETWORK = "create network"
    REMOVE_NETWORK = "remove network"
    CREATE_VOLUME = "create volume"
    REMOVE_VOLUME = "remove volume"
    CREATE = "create"
    START = "start"
    STOP = "stop"
    REMOVE = "remove"
    WAIT = "wait for"
    PRE_START = "run pre_start of"
    UNPAUSE = "unpause"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Action:
    """``key`` names the action within the plan; ``after`` are keys of actions that must have
    succeeded before. ``container`` is the id of an existing container, ``resource`` a key of the
    project's networks or volumes (or a real name, for removal)."""

    key: str
    kind: Kind
    target: str
    cause: str
    after: tuple[str, ...] = ()
    service: str = ""
    number: int = 0
    container: str = ""
    resource: str = ""
    condition: str = ""
    required: bool = True
    replaces: str = ""

    def describe(self) -> str:
        extra = f" ({self.condition.removeprefix('service_')})" if self.condition else ""
        return f"{self.kind.value} {self.target}{extra}: {self.cause}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "action": self.kind.value,
            "target": self.target,
            "cause": self.cause,
            "after": list(self.after),
            "service": self.service,
            "key": self.key,
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """``warnings`` are for the user; ``actions`` is in a valid order."""

    project: str
    actions: tuple[Action, ...] = ()
    warnings: tuple[str, ...] = ()
    orphans: tuple[str, ...] = field(default=())

    def __iter__(self) -> Iterator[Action]:
        return iter(self.actions)

    @property
    def changes(self) -> tuple[Action, ...]:
        """The actions that change anything."""
        passive = (Kind.KEEP, Kind.WAIT)
        return tuple(action for action in self.actions if action.kind not in passive)

    def text(self) -> str:
        """One line an action; ``nothing to do`` when nothing changes."""
        lines = [action.describe() for action in self.actions]
        if not self.changes:
            lines.append("nothing to do")
        return "\n".join(lines) + "\n"

    def to_dict(self) -> dict[str, Any]:
        return {
            "project": self.project,
            "actions": [action.to_dict() for action in self.actions],
            "warnings": list(self.warnings),
            "orphans": list(self.orphans),
        }


def ordered(actions: Iterable[Action]) -> tuple[Action, ...]:
    """The actions sorted so that each stands behind what it waits for; otherwise in the given
    order. Keys in ``after`` that no action has are dropped."""
    todo = {action.key: action for action in actions}
    known = {key: tuple(k for k in dict.fromkeys(action.after) if k in todo) for key, action in todo.items()}
    found = ((todo[key], known[key]) for key in sorted_by_need(known))
    return tuple(action if after == action.after else _with_after(action, after) for action, after in found)


def _with_after(action: Action, after: tuple[str, ...]) -> Action:
    from dataclasses import replace

    return replace(action, after=after)
