"""Bounds on what short forms may grow to, checked before they are expanded."""

from __future__ import annotations

import re

from orchestra.compose.diagnostics import Problems
from orchestra.compose.tree import Mapping, Scalar, Sequence, mapping

MAX_PORTS = 140_000  # two protocols with all ports, and some
_RANGE = r"([0-9]{1,5})-([0-9]{1,5})(/[a-zA-Z]*)?$"


def check(root: Mapping, problems: Problems) -> None:
    """Record an error when the port ranges of the project expand beyond :data:`MAX_PORTS`."""
    services = mapping(root, "services")
    total = 0
    for name, service in services.items.items() if services else ():
        ports = service.items.get("ports") if isinstance(service, Mapping) else None
        for item in ports.items if isinstance(ports, Sequence) else ():
            if not isinstance(item, Scalar) or not isinstance(item.value, str) or "-" not in item.value:
                total += 1
                continue
            match = re.search(_RANGE, item.value)
            if match is not None:
                total += max(1, int(match[2]) - int(match[1]) + 1)
            if total > MAX_PORTS:
                raise problems.fail(
                    f"more than {MAX_PORTS:,} ports", item.location, ("services", name, "ports")
                )
