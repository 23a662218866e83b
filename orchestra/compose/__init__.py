"""The Compose language: text in, a frozen :class:`~orchestra.compose.model.Project` out.

Names are imported when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestra.compose.diagnostics import ComposeError, Problem
    from orchestra.compose.loader import Loaded, load, load_full
    from orchestra.compose.model import Project
    from orchestra.compose.options import LoadOptions

__all__ = ["ComposeError", "LoadOptions", "Loaded", "Problem", "Project", "load", "load_full"]

_HOMES = {
    "ComposeError": "diagnostics",
    "LoadOptions": "options",
    "Loaded": "loader",
    "Problem": "diagnostics",
    "Project": "model",
    "load": "loader",
    "load_full": "loader",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
