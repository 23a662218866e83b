"""Events: past ones from the store, then live ones in order."""

from __future__ import annotations

from pathlib import Path

from orchestra.clock import SystemClock
from orchestra.engine.hub import Hub
from orchestra.store.store import Store


def test_past_then_live_then_the_end(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    hub = Hub(store, SystemClock())
    hub.publish("container", "create", "c", {"name": "x"})
    stream = hub.events(since=0.0)
    hub.publish("container", "start", "c")
    assert [next(stream).action, next(stream).action] == ["create", "start"]
    hub.close()
    assert list(stream) == []
    assert [one.action for one in store.events()] == ["create", "start"]
    store.close()
