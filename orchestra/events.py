"""Progress of one operation, as data: the core emits it, the cli draws it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Status(Enum):
    WORKING = "Working"
    DONE = "Done"
    WARNING = "Warning"
    ERROR = "Error"


@dataclass(frozen=True, slots=True)
class Progress:
    """``resource`` as docker compose prints it (``Container x-web-1``, ``Network x_default``,
    ``Image redis``), ``text`` the state word (``Creating``, ``Started``), sizes in bytes."""

    resource: str
    text: str
    status: Status = Status.WORKING
    details: str = ""
    current: int = 0
    total: int = 0

    def to_dict(self) -> dict[str, object]:
        return {
            "resource": self.resource,
            "text": self.text,
            "status": self.status.value,
            "details": self.details,
            "current": self.current,
            "total": self.total,
        }


Sink = Callable[[Progress], None]


def nowhere(_progress: Progress) -> None:
    """The sink that drops everything."""
