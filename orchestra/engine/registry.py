"""All containers of the engine in memory, by id, name and id prefix; every change goes to the store."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchestra.backend import ContainerSpec
from orchestra.engine.codec import decode, encode
from orchestra.engine.container import Container, State
from orchestra.errors import ConflictError, NotFoundError
from orchestra.store.records import ContainerRecord
from orchestra.store.store import Store


class Registry:
    """Reads need no lock held by the caller. Lock order: a container's lock before the registry's."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._by_id: dict[str, Container] = {}
        self._by_name: dict[str, Container] = {}

    def all(self) -> list[Container]:
        with self._lock:
            return list(self._by_id.values())

    def get(self, ref: str) -> Container:
        """By id, name, or unique prefix of an id."""
        with self._lock:
            found = self._by_id.get(ref) or self._by_name.get(ref.removeprefix("/"))
            if found:
                return found
            near = [one for key, one in self._by_id.items() if key.startswith(ref)] if ref else []
        if len(near) > 1:
            raise ConflictError(f"container id {ref} is ambiguous")
        if not near:
            raise NotFoundError(f"no such container: {ref}")
        return near[0]

    def find(self, container_id: str) -> Container | None:
        with self._lock:
            return self._by_id.get(container_id)

    def add(self, container: Container, phase: str) -> None:
        """Takes the name; raises ConflictError when another container has it."""
        with self._lock:
            other = self._by_name.get(container.name)
            if other is not None:
                raise ConflictError(
                    f'the container name "{container.name}" is already in use by {other.id[:12]}',
                    hint="remove or rename that container first",
                )
            self._by_id[container.id] = self._by_name[container.name] = container
        try:
            self.store.add_container(self._record(container, phase))
        except BaseException:
            self._drop(container)
            raise

    def adopt(self, container: Container) -> None:
        """A container read from the store."""
        with self._lock:
            self._by_id[container.id] = self._by_name[container.name] = container

    def save(self, container: Container, *, phase: str = "") -> None:
        """Writes the state (and the phase, when given)."""
        state = encode(container.state)
        if phase:
            with self.store.transaction():
                self.store.set_container_state(container.id, state)
                self.store.set_container_phase(container.id, phase)
        else:
            self.store.set_container_state(container.id, state)

    def change_spec(self, container: Container, spec: ContainerSpec) -> None:
        container.spec = spec
        self.store.set_container_spec(container.id, encode(spec))

    def rename(self, container: Container, name: str) -> None:
        with self._lock:
            other = self._by_name.get(name)
            if other is not None and other is not container:
                raise ConflictError(f'the container name "{name}" is already in use by {other.id[:12]}')
            old = container.spec
            self._by_name[name] = container
        try:
            with self.store.transaction():
                self.store.rename_container(container.id, name)
                self.change_spec(container, replace(old, name=name))
        except BaseException:
            container.spec = old
            with self._lock:
                if name != old.name:
                    del self._by_name[name]
            raise
        with self._lock:
            if name != old.name:
                del self._by_name[old.name]

    def remove(self, container: Container) -> None:
        self.store.remove_container(container.id)
        container.removed = True
        self._drop(container)

    def _drop(self, container: Container) -> None:
        with self._lock:
            self._by_id.pop(container.id, None)
            if self._by_name.get(container.name) is container:
                del self._by_name[container.name]

    def _record(self, container: Container, phase: str) -> ContainerRecord:
        spec = container.spec
        return ContainerRecord(
            container.id,
            spec.name,
            spec.project,
            phase,
            container.state.created,
            encode(spec),
            encode(container.state),
        )


def from_record(record: ContainerRecord, image: Mapping[str, Any]) -> Container:
    spec = decode(ContainerSpec, record.spec)
    return Container(record.id, replace(spec, name=record.name), decode(State, record.state), dict(image))
