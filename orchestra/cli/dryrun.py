"""``--dry-run``: which verbs heed it, and how a plan is shown.

A verb that changes something either shows what it would do (HEEDED) or refuses the option; those that
only look (LOOKING) do what they always do. None changes anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from orchestra.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestra.cli.context import Context

HEEDED = frozenset(
    [
        "up",
        "create",
        "down",
        "stop",
        "start",
        "restart",
        "rm",
        "kill",
        "pause",
        "unpause",
        "scale",
        "run",
        "build",
        "pull",
        "push",
    ]
) | {"image prune"}
LOOKING = frozenset(
    [
        "ps",
        "logs",
        "config",
        "convert",
        "images",
        "port",
        "top",
        "events",
        "wait",
        "stats",
        "version",
        "volumes",
        "ls",
        "plan",
        "graph",
        "info",
        "completion",
    ]
) | {
    *(f"image {word}" for word in ("ls", "inspect", "history")),
    *(f"container {word}" for word in ("ls", "inspect", "logs", "diff", "stats", "top", "port", "wait")),
    *(f"{group} {word}" for group in ("network", "volume") for word in ("ls", "inspect")),
    *(f"system {word}" for word in ("df", "info", "events")),
}


def check(name: str) -> None:
    """Raises UsageError for a verb that would change something all the same."""
    if name not in HEEDED and name not in LOOKING:
        raise UsageError(f"{name} has no dry run", hint=f"--dry-run works with {', '.join(sorted(HEEDED))}")


def show(context: Context, plan: dict[str, Any]) -> int:
    """A plan of the daemon's, with its causes."""
    for warning in plan["warnings"]:
        context.warn(warning)
    return lines(context, plan["text"].splitlines())


def lines(context: Context, words: Iterable[str]) -> int:
    """One line an action; ``nothing to do`` without any. An object each with ``--progress json``."""
    as_json = context.progress_kind() == "json"
    for line in list(words) or ["nothing to do"]:
        text = json.dumps({"dry-run": True, "text": line}) if as_json else f"DRY-RUN MODE - {line}"
        print(text, file=context.stdout)
    return 0
