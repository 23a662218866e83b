"""The executor against a backend of records: order, failure, undo."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from orchestra.backend import ContainerInfo
from orchestra.compose.model import Dependency, HealthCheck, Project, Service
from orchestra.controller.executor import Cancelled, Executor, Round
from orchestra.controller.observed import Observed
from orchestra.controller.options import ReconcileOptions
from orchestra.controller.reconcile import reconcile
from orchestra.errors import NotFoundError, OrchestraError
from orchestra.events import Progress


class Records:
    """The parts of a Backend that the executor uses; remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.found: dict[str, ContainerInfo] = {}
        self.fail: dict[str, OrchestraError] = {}
        self.health = "healthy"
        self.lock = threading.Lock()

    def _note(self, word: str) -> None:
        with self.lock:
            self.calls.append(word)
        if word in self.fail:
            raise self.fail[word]

    def containers(self, *, project: str | None = None) -> list[ContainerInfo]:
        del project
        with self.lock:
            return list(self.found.values())

    def container(self, ref: str) -> ContainerInfo:
        for info in self.containers():
            if ref in (info.id, info.name):
                return info
        raise NotFoundError(f"no such container: {ref}")

    def create(self, spec: Any) -> ContainerInfo:
        self._note(f"create {spec.name}")
        checked = spec.service.healthcheck is not None
        info = ContainerInfo(f"id-{spec.name}", spec.name, "img", "i", "created", service=spec.service.name, number=1,
                             labels=spec.labels, has_healthcheck=checked)
        with self.lock:
            self.found[info.id] = info
        return info

    def start(self, ref: str) -> None:
        info = self.container(ref)
        self._note(f"start {info.name}")
        health = self.health if info.has_healthcheck else ""
        with self.lock:
            self.found[info.id] = replace(info, state="running", health=health)

    def remove(self, ref: str, **_: Any) -> None:
        info = self.container(ref)
        self._note(f"remove {info.name}")
        with self.lock:
            del self.found[info.id]


def project(**depends: dict[str, Dependency]) -> Project:
    checks = {"db": HealthCheck(("CMD", "true"))}
    return Project("p", "/", services={name: Service(name, image="img", depends_on=needs, healthcheck=checks.get(name))
                                       for name, needs in depends.items()})


def execute(p: Project, backend: Records, options: ReconcileOptions | None = None, **more: Any) -> list[Progress]:
    observed = Observed(images=dict.fromkeys(p.services, "i"))
    told: list[Progress] = []
    made = reconcile(p, observed, options or ReconcileOptions())
    Executor(backend, Round(p, observed, told.append, **more)).run(made)  # type: ignore[arg-type]
    return told


def test_dependencies_start_first() -> None:
    backend = Records()
    told = execute(project(web={"db": Dependency("service_healthy")}, db={}), backend)
    assert backend.calls.index("start p-db-1") < backend.calls.index("start p-web-1")
    assert [t.text for t in told if t.resource == "Container p-web-1"] == ["Creating", "Created", "Starting", "Started"]
    assert "Healthy" in [t.text for t in told if t.resource == "Container p-db-1"]


def test_a_failure_stops_the_rest_and_takes_back_what_never_ran() -> None:
    backend = Records()
    backend.fail["start p-db-1"] = OrchestraError("no")
    with pytest.raises(OrchestraError, match="no"):
        execute(project(web={"db": Dependency()}, db={}), backend)
    assert "start p-web-1" not in backend.calls
    assert backend.found == {}


def test_an_unhealthy_dependency_is_an_error_unless_it_is_optional() -> None:
    backend = Records()
    backend.health = "unhealthy"
    with pytest.raises(OrchestraError, match="dependency failed to start: container p-db-1 is unhealthy"):
        execute(project(web={"db": Dependency("service_healthy")}, db={}), backend)
    optional = Records()
    optional.health = "unhealthy"
    told = execute(project(web={"db": Dependency("service_healthy", required=False)}, db={}), optional)
    assert "start p-web-1" in optional.calls
    assert any(t.text == "Skipped" for t in told)


def test_no_healthcheck_is_an_error() -> None:
    with pytest.raises(OrchestraError, match="no healthcheck configured"):
        execute(project(web={"other": Dependency("service_healthy")}, other={}), Records())


def test_a_wait_ends_at_its_deadline_and_when_cancelled() -> None:
    backend = Records()
    backend.health = "starting"
    with pytest.raises(OrchestraError, match="application not healthy after 5s"):
        execute(project(web={"db": Dependency("service_healthy")}, db={}), backend, deadline=0.0, patience=5.0)
    with pytest.raises(Cancelled):
        execute(project(web={"db": Dependency("service_healthy")}, db={}), Records(), cancelled=lambda: True)


class Slow(Records):
    """Containers with a health check become healthy after some looks."""

    def containers(self, *, project: str | None = None) -> list[ContainerInfo]:
        found = super().containers(project=project)
        self.looks = getattr(self, "looks", 0) + 1
        return [replace(c, health="starting") if c.has_healthcheck and self.looks < 12 else c for c in found]


def test_several_waits_for_one_container_are_told_once() -> None:
    needs = {"db": Dependency("service_healthy")}
    told = execute(project(web=needs, worker=needs, db={}), Slow(), ReconcileOptions(wait=True))
    assert [t.text for t in told if t.resource == "Container p-db-1"] == ["Creating", "Created", "Starting", "Started", "Waiting", "Healthy"]
    assert [t.text for t in told if t.resource == "Container p-web-1"].count("Healthy") == 1


def test_errors_carry_the_place_in_the_file() -> None:
    backend = Records()
    backend.fail["create p-db-1"] = OrchestraError("bad")
    p = replace(project(db={}), locations={"services.db": ("compose.yaml", 3, 5)})
    with pytest.raises(OrchestraError) as caught:
        execute(p, backend)
    assert str(caught.value).startswith("compose.yaml:3:5: bad")
