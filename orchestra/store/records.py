"""The rows of the store as frozen values. ``spec``, ``state``, ``data`` and ``desired`` are JSON objects
whose shape belongs to the layer that writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """``phase`` is the recorded intent: creating (undo it after a crash), ready, or removing (finish it)."""

    id: str
    name: str
    project: str
    phase: str
    created: float
    spec: Mapping[str, Any]
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NetworkRecord:
    id: str
    name: str
    created: float
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class VolumeRecord:
    name: str
    created: float
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """One address of one network, held by one container."""

    network: str
    address: str
    container: str


@dataclass(frozen=True, slots=True)
class PortRecord:
    """A host port held by a running container."""

    protocol: str
    host_ip: str
    published: int
    target: int
    container: str


@dataclass(frozen=True, slots=True)
class EventRecord:
    number: int
    time: float
    type: str
    action: str
    subject: str
    attributes: Mapping[str, str] = field(default_factory=dict)
