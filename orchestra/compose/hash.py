"""Digests that tell whether a container, network or volume still is what the file asks for.

Left out of a service's digest is what does not shape its containers: how the image is built or pulled,
how many replicas there are, and in which order things start.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from orchestra.compose.model import Network, Service, Volume

EXCLUDED = frozenset(
    {"build", "pull_policy", "pull_refresh_after", "scale", "depends_on", "profiles", "attach", "develop"}
)
_SPLIT = frozenset({"environment", "labels", "annotations", "sysctls", "ulimits", "networks"})


def service_hash(service: Service) -> str:
    """The digest that lands in the config-hash label."""
    return _digest(_shape(service))


def network_hash(network: Network) -> str:
    return _digest(
        {key: value for key, value in network.canonical.items() if key != "external" and value != {}}
    )


def volume_hash(volume: Volume) -> str:
    return _digest({key: value for key, value in volume.canonical.items() if key != "external"})


def aspects(service: Service) -> dict[str, str]:
    """Attribute → short digest; maps of the user's keys entry by entry (``environment.DEBUG``)."""
    found: dict[str, str] = {}
    for key, value in _shape(service).items():
        if key in _SPLIT and isinstance(value, Mapping):
            for inner, item in value.items():
                found[f"{key}.{inner}"] = _digest(item)[:12]
        else:
            found[key] = _digest(value)[:12]
    return found


def _shape(service: Service) -> dict[str, Any]:
    found = {
        key: value
        for key, value in service.canonical.items()
        if key not in EXCLUDED and value is not None and not key.startswith("x-")
    }
    mapped = [mount.target for mount in service.volumes if mount.bind and mount.bind.idmap]
    if mapped:
        found["volumes idmap"] = mapped  # extensions are not in the canonical form
    deploy = found.get("deploy")
    if isinstance(deploy, Mapping):
        rest = {
            key: value
            for key, value in deploy.items()
            if key not in ("replicas", "update_config", "rollback_config") and value != {}
        }
        if rest:
            found["deploy"] = rest
        else:
            del found["deploy"]
    return found


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
