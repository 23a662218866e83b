"""Whose user namespace a container gets that shares namespaces of others."""

from __future__ import annotations

import pytest

from orchestra.engine.sharing import Peer, Placement, place
from orchestra.engine.userns import Range
from orchestra.errors import ConflictError

X, Y, SAME = (100000, 100000, 65536), (200000, 200000, 65536), (100000, 100000, 65536)


def peer(ref: str, kind: str, space: str = "", ids: tuple[int, ...] = ()) -> Peer:
    return Peer(ref, f"c-{ref}", kind, space, ids)


def test_nothing_shared() -> None:
    assert place("me", Range(), []) == Placement()


@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts", "cgroup"])
def test_one_is_joined(kind: str) -> None:
    assert place("me", Range(), [peer("a", kind, "x", X)]) == Placement("a")


def test_two_in_one_user_namespace() -> None:
    assert place("me", Range(), [peer("a", "ipc", "x", X), peer("b", "network", "x", X)]) == Placement("b")


def test_processes_come_first() -> None:
    found = place("me", Range(), [peer("a", "network", "x", X), peer("b", "pid", "y", Y)])
    assert (found.user_of, found.foreign) == ("b", {"network"})
    assert len(found.warnings) == 1 and "c-a" in found.warnings[0]


def test_a_network_without_a_user_namespace() -> None:
    found = place("me", Range(), [peer("a", "network")])
    assert (found.user_of, found.foreign) == ("", {"network"})
    found = place("me", Range(), [peer("a", "network"), peer("b", "pid", "y", Y)])
    assert (found.user_of, found.foreign) == ("b", {"network"})


def test_ipc_of_the_same_ids() -> None:
    found = place("me", Range(), [peer("a", "network", "x", X), peer("b", "ipc", "y", SAME)])
    assert (found.user_of, found.foreign, found.warnings) == ("a", {"ipc"}, ())
    with pytest.raises(ConflictError, match=r"share the ipc namespace of c-b.*than that of c-a, whose network"):
        place("me", Range(), [peer("a", "network", "x", X), peer("b", "ipc", "y", Y)])


@pytest.mark.parametrize("kind", ["pid", "ipc", "cgroup"])
def test_refused_where_the_other_has_none(kind: str) -> None:
    with pytest.raises(ConflictError, match="me wants a user namespace, and c-a") as caught:
        place("me", Range(), [peer("a", kind)])
    assert caught.value.hint and "host" in caught.value.hint
    with pytest.raises(ConflictError, match="has none"):
        place("me", Range(), [peer("a", kind), peer("b", "network", "x", X)])


def test_cgroups_of_another() -> None:
    with pytest.raises(ConflictError, match="cgroup namespace of c-b"):
        place("me", Range(), [peer("a", "pid", "x", X), peer("b", "cgroup", "y", Y)])
    assert place("me", Range(), [peer("a", "pid", "x", X), peer("b", "uts", "y", Y)]).foreign == {"uts"}


def test_more_ids_than_the_other_has() -> None:
    small = peer("a", "network", "x", (1000, 1000, 500))
    assert place("me", Range(500), [small], sized=True).user_of == "a"
    assert place("me", Range(), [small]).user_of == "a"
    with pytest.raises(ConflictError, match=r"wants 501 ids.*has 500"):
        place("me", Range(501), [small], sized=True)
