"""Events: published once, kept in the store (bounded), handed to every listener in order.

The store is written by a background thread in batches, so publishing costs the start path nothing; a
``kill -9`` loses at most the last moment's history, never a state.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping

from orchestra.backend import Event
from orchestra.clock import Clock
from orchestra.store.store import Store

_FLUSH_EVERY = 0.25


class EventStream(Iterator[Event]):
    """Past events, then live ones, until ``close()`` (from any thread)."""

    def __init__(self, hub: Hub, past: list[Event], live: queue.SimpleQueue[Event | None]) -> None:
        self._hub = hub
        self._past = iter(past)
        self._live = live
        self._closed = False

    def __next__(self) -> Event:
        for event in self._past:
            return event
        if self._closed:
            raise StopIteration
        fresh = self._live.get()
        if fresh is None:
            self._closed = True
            raise StopIteration
        return fresh

    def close(self) -> None:
        self._hub.forget(self._live)
        self._live.put(None)


class Hub:
    """See the module's docstring."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._listeners: list[queue.SimpleQueue[Event | None]] = []
        self._unsaved: list[Event] = []
        self._wake = threading.Event()
        self._ending = False
        self._thread = threading.Thread(target=self._save_loop, name="events", daemon=True)
        self._thread.start()

    def publish(
        self, kind: str, action: str, subject: str, attributes: Mapping[str, str] | None = None
    ) -> None:
        event = Event(self._clock.now(), kind, action, subject, dict(attributes or {}))
        with self._lock:
            self._unsaved.append(event)
            for listener in self._listeners:
                listener.put(event)
        self._wake.set()

    def events(self, *, since: float | None = None) -> EventStream:
        live: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        with self._lock:
            self._save()
            past = []
            if since is not None:
                past = [
                    Event(one.time, one.type, one.action, one.subject, one.attributes)
                    for one in self._store.events(since=since)
                ]
            self._listeners.append(live)
        return EventStream(self, past, live)

    def forget(self, live: queue.SimpleQueue[Event | None]) -> None:
        with self._lock:
            if live in self._listeners:
                self._listeners.remove(live)

    def close(self) -> None:
        """Saves what is left and ends every stream."""
        self._ending = True
        self._wake.set()
        self._thread.join(timeout=5)
        with self._lock:
            self._save()
            for listener in self._listeners:
                listener.put(None)
            self._listeners.clear()

    def _save(self) -> None:
        """Under the lock."""
        if self._unsaved:
            batch, self._unsaved = self._unsaved, []
            self._store.add_events((one.time, one.type, one.action, one.id, one.attributes) for one in batch)

    def _save_loop(self) -> None:
        pause = threading.Event()
        while not self._ending:
            self._wake.wait()
            self._wake.clear()
            if self._ending:
                return
            pause.wait(_FLUSH_EVERY)
            with self._lock:
                self._save()
