"""Plans for what exists: order of stops and starts, what down takes along."""

from __future__ import annotations

import pytest

from orchestra import labels
from orchestra.backend import ContainerInfo, NetworkInfo, VolumeInfo
from orchestra.controller import lifecycle
from orchestra.controller.observed import Observed
from orchestra.errors import NotFoundError


def container(name: str, depends: str = "", state: str = "running", **more: object) -> ContainerInfo:
    own = {labels.PROJECT: "p", labels.DEPENDS_ON: depends}
    return ContainerInfo(f"id-{name}", f"p-{name}-1", "i", "i", state, own, "p", name, 1, **more)  # type: ignore[arg-type]


WEB = container("web", "db:service_started:true")
DB = container("db")
SEEN = Observed(
    (WEB, DB),
    {"p_default": NetworkInfo("n", "p_default", labels={labels.PROJECT: "p"}, containers={"id-web": "", "id-db": ""}),
     "other": NetworkInfo("m", "other")},
    {"p_data": VolumeInfo("p_data", labels={labels.PROJECT: "p"})},
)


def keys(plan: object) -> list[str]:
    return [action.key for action in plan]  # type: ignore[attr-defined]


def test_down_stops_dependents_first_and_removes_networks_last() -> None:
    found = keys(lifecycle.down("p", SEEN, None, lifecycle.DownOptions()))
    assert found == ["stop id-web", "remove id-web", "stop id-db", "remove id-db", "network p_default"] or (
        found.index("stop id-web") < found.index("stop id-db") and found[-1] == "network p_default")


def test_down_v_takes_volumes_and_a_network_in_use_stays() -> None:
    assert "volume p_data" in keys(lifecycle.down("p", SEEN, None, lifecycle.DownOptions(volumes=True)))
    network = NetworkInfo("n", "p_default", labels={labels.PROJECT: "p"}, containers={"stranger": ""})
    plan = lifecycle.down("p", Observed((WEB,), {"p_default": network}, {}), None, lifecycle.DownOptions())
    assert plan.actions[-1].cause == "Resource is still in use"


def test_down_of_a_service_takes_its_dependents() -> None:
    found = keys(lifecycle.down("p", SEEN, None, lifecycle.DownOptions(services=("db",))))
    assert "remove id-web" in found and "network p_default" not in found


def test_start_goes_along_the_dependencies() -> None:
    seen = Observed((container("web", "db:service_healthy:false", "exited"), container("db", "", "exited")))
    assert keys(lifecycle.start("p", seen, None, ())) == ["start id-db", "wait db", "start id-web"]


def test_restart_takes_along_what_asks_for_it() -> None:
    assert "stop id-web" in keys(lifecycle.restart("p", SEEN, None, ("db",)))
    assert "stop id-web" not in keys(lifecycle.restart("p", SEEN, None, ("db",), deps=False))


def test_rm_takes_stopped_ones_unless_told_to_stop() -> None:
    seen = Observed((WEB, container("db", "", "exited")))
    assert keys(lifecycle.remove_stopped("p", seen, None, (), stop_first=False)) == ["remove id-db"]
    assert "remove id-web" in keys(lifecycle.remove_stopped("p", seen, None, (), stop_first=True))


def test_unknown_services_are_errors() -> None:
    with pytest.raises(NotFoundError, match="no such service: x"):
        lifecycle.stop("p", SEEN, None, ("x",))
    with pytest.raises(NotFoundError):
        lifecycle.start("p", Observed(), None, ())
