"""The store keeps what it was told over a close, one name once, and a bounded event history."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from orchestra.errors import ConflictError, OrchestraError
from orchestra.store import store as store_module
from orchestra.store.database import Database
from orchestra.store.migrations import ALL
from orchestra.store.records import (
    ContainerRecord,
    LeaseRecord,
    NetworkRecord,
    PortRecord,
    VolumeRecord,
)
from orchestra.store.store import Store


def container(number: int, **changes: object) -> ContainerRecord:
    values: dict[str, object] = {
        "id": f"{number:064x}",
        "name": f"c{number}",
        "project": "p",
        "phase": "ready",
        "created": float(number),
        "spec": {"name": f"c{number}", "text": "äö"},
        "state": {"state": "created"},
    }
    return ContainerRecord(**{**values, **changes})  # type: ignore[arg-type]


def test_everything_survives_a_close(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    store = Store(path)
    store.add_container(container(1))
    store.set_container_state(container(1).id, {"state": "exited", "exit_code": 3})
    store.add_network(NetworkRecord("n1", "net", 1.0, {"driver": "bridge"}))
    store.add_volume(VolumeRecord("v", 2.0, {"labels": {"a": "b"}}))
    store.set_leases("c", [LeaseRecord("n1", "10.0.0.2", "c")])
    store.set_ports("c", [PortRecord("tcp", "0.0.0.0", 8080, 80, "c")])
    store.add_events([(1.0, "container", "create", "c", {"name": "x"})])
    store.set_fact("boot", "b1")
    store.close()

    again = Store(path)
    assert again.containers() == [container(1, state={"state": "exited", "exit_code": 3})]
    assert [record.name for record in again.networks()] == ["net"]
    assert again.volumes() == [VolumeRecord("v", 2.0, {"labels": {"a": "b"}})]
    assert again.leases() == [LeaseRecord("n1", "10.0.0.2", "c")]
    assert again.ports() == [PortRecord("tcp", "0.0.0.0", 8080, 80, "c")]
    assert [event.action for event in again.events()] == ["create"]
    assert again.fact("boot") == "b1"
    assert again.fact("nothing") == ""
    again.close()


def test_what_is_removed_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    store = Store(path)
    store.add_container(container(1, spec={"files": [{"data": "the-first-secret " * 2000}]}))
    store.add_container(container(2, spec={"files": [{"data": "the-second-secret"}]}))
    store.set_container_spec(container(2).id, {"files": []})
    store.remove_container(container(1).id)
    store.close()
    for place in tmp_path.iterdir():
        assert b"-secret" not in place.read_bytes(), place.name


def test_a_name_is_given_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    store.add_container(container(1))
    store.add_container(container(2))
    with pytest.raises(ConflictError, match='"c1" is already in use'):
        store.add_container(container(3, name="c1"))
    with pytest.raises(ConflictError):
        store.rename_container(container(2).id, "c1")
    store.rename_container(container(2).id, "free")
    assert {record.name for record in store.containers()} == {"c1", "free"}
    store.close()


def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    with pytest.raises(RuntimeError), store.transaction():
        store.add_container(container(1))
        with store.transaction():
            store.add_volume(VolumeRecord("v", 1.0, {}))
        raise RuntimeError
    assert store.containers() == []
    assert store.volumes() == []
    store.close()


def test_removing_a_container_frees_its_leases_and_ports(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    record = container(1)
    store.add_container(record)
    store.set_leases(record.id, [LeaseRecord("n", "10.0.0.2", record.id)])
    store.set_ports(record.id, [PortRecord("tcp", "", 80, 80, record.id)])
    store.remove_container(record.id)
    assert (store.containers(), store.leases(), store.ports()) == ([], [], [])
    store.close()


def test_event_history_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "EVENT_LIMIT", 50)
    store = Store(tmp_path / "s")
    for number in range(200):
        store.add_events([(float(number), "container", "start", "c", {})])
    kept = list(store.events())
    assert 50 <= len(kept) <= 56
    assert kept[-1].time == 199.0
    assert [event.time for event in store.events(since=198.0)] == [198.0, 199.0]
    store.close()


def test_many_threads_write_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")

    def write(start: int) -> None:
        for number in range(start, start + 20):
            with store.transaction():
                store.add_container(container(number))
                store.set_container_phase(container(number).id, "removing")

    threads = [threading.Thread(target=write, args=(100 * index,)) for index in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [record.phase for record in store.containers()] == ["removing"] * 120
    store.close()


def test_each_older_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    for version in range(len(ALL) + 1):
        path = tmp_path / f"v{version}"
        Database(path, migrations=ALL[:version]).close()
        database = Database(path)
        assert database.version == len(ALL)
        database.close()
        Store(path).close()


def test_a_newer_schema_and_a_broken_file_are_refused(tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version=999")
    connection.close()
    with pytest.raises(OrchestraError, match="schema version 999"):
        Store(newer)
    broken = tmp_path / "broken"
    broken.write_bytes(b"not a database" * 100)
    with pytest.raises(OrchestraError, match="cannot open the database"):
        Store(broken)


def test_leases_of_a_container_without_any_are_added_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.sqlite")
    store.set_leases("a", [LeaseRecord("n1", "10.0.0.2", "a"), LeaseRecord("n2", "10.1.0.2", "a")], none_yet=True)
    store.set_leases("b", [LeaseRecord("n1", "10.0.0.2", "b")], none_yet=True)  # taken over
    store.set_leases("c", [], none_yet=True)
    assert sorted((lease.network, lease.container) for lease in store.leases()) == [("n1", "b"), ("n2", "a")]
    store.set_leases("a", [LeaseRecord("n3", "10.2.0.2", "a")])
    assert sorted((lease.network, lease.container) for lease in store.leases()) == [("n1", "b"), ("n3", "a")]
    store.close()
