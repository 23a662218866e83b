"""What a user may ask of a round of reconciliation, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class ReconcileOptions:
    """Defaults are those of ``up``. ``services`` empty means all; ``scale`` overrides replicas;
    ``wait`` adds a wait for every service at the end."""

    services: tuple[str, ...] = ()
    no_deps: bool = False
    force_recreate: bool = False
    always_recreate_deps: bool = False
    no_recreate: bool = False
    scale: Mapping[str, int] = field(default_factory=dict)
    remove_orphans: bool = False
    ignore_orphans: bool = False
    renew_anon_volumes: bool = False
    start: bool = True
    recreate_volumes: bool = False
    wait: bool = False
    timeout: float | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ReconcileOptions:
        """Unknown keys are ignored: an older daemon serves a newer client."""
        known = {item.name for item in fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        if "services" in values:
            values["services"] = tuple(values["services"])
        return cls(**values)
