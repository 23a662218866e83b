"""The one door to what the daemon remembers: records in, records out, no cursor leaves.

Only the daemon opens it. Every method is one transaction; ``transaction()`` groups several. A taken
container, network or volume name raises ConflictError.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from orchestra.errors import ConflictError
from orchestra.store.database import Database
from orchestra.store.records import (
    ContainerRecord,
    EventRecord,
    LeaseRecord,
    NetworkRecord,
    PortRecord,
    VolumeRecord,
)

EVENT_LIMIT = 10_000  # kept events; trimmed in steps of a tenth
_CONTAINER = "id, name, project, phase, created, spec, state"
_PORT = "protocol, host_ip, published, target, container"
_EVENT = "number, time, type, action, subject, attributes"


class Store:
    """See the module's docstring."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path)
        row = self._database.query("SELECT coalesce(max(number), 0) FROM events")
        self._last_event = int(row[0][0])

    def transaction(self) -> AbstractContextManager[None]:
        return self._database.transaction()

    def close(self) -> None:
        self._database.close()

    # containers

    def add_container(self, record: ContainerRecord) -> None:
        try:
            self._database.execute(
                f"INSERT INTO containers ({_CONTAINER}) VALUES (?,?,?,?,?,?,?)",
                (
                    record.id,
                    record.name,
                    record.project,
                    record.phase,
                    record.created,
                    _pack(record.spec),
                    _pack(record.state),
                ),
            )
        except sqlite3.IntegrityError:
            raise _taken("container", record.name) from None

    def containers(self) -> list[ContainerRecord]:
        rows = self._database.query(f"SELECT {_CONTAINER} FROM containers ORDER BY created, id")
        return [
            ContainerRecord(row[0], row[1], row[2], row[3], row[4], json.loads(row[5]), json.loads(row[6]))
            for row in rows
        ]

    def set_container_state(self, container_id: str, state: Mapping[str, Any]) -> None:
        self._database.execute("UPDATE containers SET state=? WHERE id=?", (_pack(state), container_id))

    def set_container_spec(self, container_id: str, spec: Mapping[str, Any]) -> None:
        self._database.execute("UPDATE containers SET spec=? WHERE id=?", (_pack(spec), container_id))

    def set_container_phase(self, container_id: str, phase: str) -> None:
        self._database.execute("UPDATE containers SET phase=? WHERE id=?", (phase, container_id))

    def rename_container(self, container_id: str, name: str) -> None:
        try:
            self._database.execute("UPDATE containers SET name=? WHERE id=?", (name, container_id))
        except sqlite3.IntegrityError:
            raise _taken("container", name) from None

    def remove_container(self, container_id: str) -> None:
        """The record with all its leases and ports."""
        with self.transaction():
            for statement in (
                "DELETE FROM leases WHERE container=?",
                "DELETE FROM ports WHERE container=?",
                "DELETE FROM containers WHERE id=?",
            ):
                self._database.execute(statement, (container_id,))

    # networks

    def add_network(self, record: NetworkRecord) -> None:
        try:
            self._database.execute(
                "INSERT INTO networks (id, name, created, data) VALUES (?,?,?,?)",
                (record.id, record.name, record.created, _pack(record.data)),
            )
        except sqlite3.IntegrityError:
            raise _taken("network", record.name) from None

    def networks(self) -> list[NetworkRecord]:
        rows = self._database.query("SELECT id, name, created, data FROM networks ORDER BY created, id")
        return [NetworkRecord(row[0], row[1], row[2], json.loads(row[3])) for row in rows]

    def set_network_data(self, network_id: str, data: Mapping[str, Any]) -> None:
        self._database.execute("UPDATE networks SET data=? WHERE id=?", (_pack(data), network_id))

    def remove_network(self, network_id: str) -> None:
        with self.transaction():
            self._database.execute("DELETE FROM leases WHERE network=?", (network_id,))
            self._database.execute("DELETE FROM networks WHERE id=?", (network_id,))

    # volumes

    def add_volume(self, record: VolumeRecord) -> None:
        try:
            self._database.execute(
                "INSERT INTO volumes (name, created, data) VALUES (?,?,?)",
                (record.name, record.created, _pack(record.data)),
            )
        except sqlite3.IntegrityError:
            raise _taken("volume", record.name) from None

    def volumes(self) -> list[VolumeRecord]:
        rows = self._database.query("SELECT name, created, data FROM volumes ORDER BY name")
        return [VolumeRecord(row[0], row[1], json.loads(row[2])) for row in rows]

    def remove_volume(self, name: str) -> None:
        self._database.execute("DELETE FROM volumes WHERE name=?", (name,))

    # address leases and host ports

    def leases(self) -> list[LeaseRecord]:
        rows = self._database.query("SELECT network, address, container FROM leases")
        return [LeaseRecord(*row) for row in rows]

    def set_leases(self, container_id: str, leases: Iterable[LeaseRecord], *, none_yet: bool = False) -> None:
        """Replaces the container's leases, taking over addresses that another one holds. ``none_yet``: it is
        known to have none here, so there is nothing to delete."""
        rows = [(lease.network, lease.address, lease.container) for lease in leases]
        statement = "INSERT OR REPLACE INTO leases (network, address, container) VALUES (?,?,?)"
        if none_yet:
            if rows:  # one statement: a transaction of its own
                values = [value for row in rows for value in row]
                self._database.execute(statement + ",(?,?,?)" * (len(rows) - 1), values)
            return
        with self.transaction():
            self._database.execute("DELETE FROM leases WHERE container=?", (container_id,))
            self._database.execute_many(statement, rows)

    def ports(self) -> list[PortRecord]:
        rows = self._database.query(f"SELECT {_PORT} FROM ports")
        return [PortRecord(*row) for row in rows]

    def set_ports(self, container_id: str, ports: Iterable[PortRecord]) -> None:
        with self.transaction():
            self._database.execute("DELETE FROM ports WHERE container=?", (container_id,))
            self._database.execute_many(
                f"INSERT OR REPLACE INTO ports ({_PORT}) VALUES (?,?,?,?,?)",
                [(one.protocol, one.host_ip, one.published, one.target, one.container) for one in ports],
            )

    # events

    def add_events(self, events: Iterable[tuple[float, str, str, str, Mapping[str, str]]]) -> None:
        """Appends (time, type, action, subject, attributes) rows; the oldest beyond the limit go."""
        rows = []
        for time, kind, action, subject, attributes in events:
            self._last_event += 1
            rows.append((self._last_event, time, kind, action, subject, _pack(attributes)))
        with self.transaction():
            self._database.execute_many(f"INSERT INTO events ({_EVENT}) VALUES (?,?,?,?,?,?)", rows)
            if self._last_event % (EVENT_LIMIT // 10) < len(rows):
                oldest = self._last_event - EVENT_LIMIT
                self._database.execute("DELETE FROM events WHERE number <= ?", (oldest,))

    def events(self, *, since: float = 0.0) -> Iterator[EventRecord]:
        rows = self._database.query(f"SELECT {_EVENT} FROM events WHERE time >= ? ORDER BY number", (since,))
        return (EventRecord(row[0], row[1], row[2], row[3], row[4], json.loads(row[5])) for row in rows)

    # facts (small things such as the boot the run directory belongs to)

    def fact(self, name: str) -> str:
        rows = self._database.query("SELECT value FROM facts WHERE name=?", (name,))
        return str(rows[0][0]) if rows else ""

    def set_fact(self, name: str, value: str) -> None:
        self._database.execute("INSERT OR REPLACE INTO facts (name, value) VALUES (?,?)", (name, value))


_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def _pack(data: Mapping[str, Any]) -> str:
    return _ENCODER.encode(data)


def _taken(kind: str, name: str) -> ConflictError:
    return ConflictError(f'the {kind} name "{name}" is already in use')
