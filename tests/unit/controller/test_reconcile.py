"""Desired and observed in, plan out: the rules, each with its cause."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestra.backend import ContainerInfo, NetworkInfo, VolumeInfo
from orchestra.compose.model import (
    Dependency,
    Hook,
    Mount,
    Network,
    NetworkAttachment,
    Project,
    Service,
    Volume,
)
from orchestra.controller import naming
from orchestra.controller.observed import Observed
from orchestra.controller.options import ReconcileOptions
from orchestra.controller.plan import Kind
from orchestra.controller.reconcile import closure, reconcile
from orchestra.errors import ConflictError, NotFoundError


def service(name: str, **more: object) -> Service:
    base = Service(name, image="img", networks={"default": NetworkAttachment()}, canonical={"image": "img", **more})
    return replace(base, **more)  # type: ignore[arg-type]


def project(*services: Service, **more: object) -> Project:
    networks = {"default": Network("default", "p_default")}
    base = Project("p", "/w", services={s.name: s for s in services}, networks=networks)
    return replace(base, **more)  # type: ignore[arg-type]


def network(made_for: Project, name: str = "p_default", key: str = "default") -> NetworkInfo:
    return NetworkInfo("n1", name, labels=naming.network_labels(made_for, made_for.networks[key]))


def container(p: Project, name: str, number: int = 1, state: str = "running", **more: object) -> ContainerInfo:
    s = p.services[name]
    info = ContainerInfo(
        f"id-{name}-{number}", f"p-{name}-{number}", "img", "sha256:1", state, service=name, number=number, project="p",
        labels=naming.container_labels(p, s, number, "sha256:1"), networks={"p_default": "10.0.0.2"},
    )
    return replace(info, **more)  # type: ignore[arg-type]


def plan(p: Project, *containers: ContainerInfo, **options: object) -> list[str]:
    images = dict.fromkeys(p.services, "sha256:1")
    networks = {"p_default": network(p)} if containers else {}
    made = reconcile(p, Observed(containers, networks, {}, images), ReconcileOptions(**options))  # type: ignore[arg-type]
    return made.text().splitlines()


def test_everything_is_made_when_there_is_nothing() -> None:
    p = project(service("web", depends_on={"db": Dependency()}), service("db"))
    assert plan(p) == [
        "create network p_default: missing",
        "create p-db-1: missing",
        "start p-db-1: created",
        "create p-web-1: missing",
        "start p-web-1: created",
    ]


def test_nothing_is_done_when_all_is_as_wanted() -> None:
    p = project(service("web"))
    assert plan(p, container(p, "web")) == ["keep p-web-1: running, as wanted", "nothing to do"]


def test_what_is_stopped_is_started() -> None:
    p = project(service("web"))
    assert plan(p, container(p, "web", state="exited")) == ["start p-web-1: it is exited"]


def test_a_difference_recreates_and_says_which() -> None:
    old = project(service("web", environment={"A": "1"}))
    new = project(service("web", environment={"A": "2"}), locations={"services.web.environment.A": ("/w/compose.yaml", 7, 3)})
    lines = plan(new, container(old, "web"))
    assert lines[0] == "stop p-web-1: environment.A changed (compose.yaml:7)"
    assert [line.split(":")[0] for line in lines] == ["stop p-web-1", "remove p-web-1", "create p-web-1", "start p-web-1"]


def test_a_new_image_recreates() -> None:
    p = project(service("web"))
    images = {"web": "sha256:2" + "0" * 63}
    made = reconcile(p, Observed((container(p, "web"),), {"p_default": network(p)}, {}, images), ReconcileOptions())
    assert "image img is now 2000" in made.text()


def test_no_recreate_leaves_it() -> None:
    old, new = project(service("web", user="1")), project(service("web", user="2"))
    assert plan(new, container(old, "web"), no_recreate=True)[-1] == "nothing to do"


def test_force_recreate_means_the_named_services_only() -> None:
    p = project(service("web", depends_on={"db": Dependency()}), service("db"))
    lines = plan(p, container(p, "web"), container(p, "db"), force_recreate=True, services=("web",))
    assert "keep p-db-1: running, as wanted" in lines and "create p-web-1: forced" in lines
    lines = plan(p, container(p, "web"), container(p, "db"), always_recreate_deps=True, services=("web",))
    assert "create p-db-1: forced as a dependency" in lines


def test_who_shares_a_namespace_is_recreated_too() -> None:
    old = project(service("web", user="1"), service("side", network_mode="service:web", networks={}))
    new = project(service("web", user="2"), service("side", network_mode="service:web", networks={}))
    lines = plan(new, container(old, "web"), container(old, "side", networks={}))
    assert "create p-side-1: web is recreated and shares its namespace or volumes" in lines


def test_scale_down_takes_diverged_then_highest_numbers() -> None:
    p = project(service("web", scale=1))
    lines = plan(p, container(p, "web", 1), container(p, "web", 2), container(p, "web", 3))
    assert "remove p-web-3: scaled to 1" in lines and "remove p-web-2: scaled to 1" in lines
    assert "keep p-web-1: running, as wanted" in lines


def test_scale_up_counts_on_from_the_highest() -> None:
    p = project(service("web", scale=3))
    assert [line for line in plan(p, container(p, "web", 2)) if line.startswith("create")] == [
        "create p-web-3: missing", "create p-web-4: missing"]


def test_a_fixed_name_forbids_replicas() -> None:
    with pytest.raises(ConflictError, match="fixed container name"):
        plan(project(service("web", container_name="one", scale=2)))


def test_conditions_become_waits() -> None:
    p = project(service("web", depends_on={"db": Dependency("service_healthy", required=False)}), service("db"))
    made = reconcile(p, Observed(images={"web": "i", "db": "i"}), ReconcileOptions())
    (wait,) = [action for action in made if action.kind is Kind.WAIT]
    assert wait.condition == "service_healthy" and not wait.required and wait.after == ("start p-db-1",)
    start = next(action for action in made if action.key == "start p-web-1")
    assert wait.key in start.after
    create = next(action for action in made if action.key == "create p-web-1")
    assert wait.key not in create.after  # created early, started late


def test_wait_adds_one_for_each_service() -> None:
    p = project(service("web", depends_on={"job": Dependency("service_completed_successfully")}), service("job"))
    made = reconcile(p, Observed(images={"web": "i", "job": "i"}), ReconcileOptions(wait=True))
    assert {a.condition for a in made if a.cause == "--wait"} == {"completed", "running_or_healthy"}


def test_orphans_are_named_or_removed() -> None:
    p = project(service("web"))
    stray = replace(container(p, "web"), id="x", name="p-old-1", service="old")
    made = reconcile(p, Observed((stray,), {}, {}, {"web": "i"}), ReconcileOptions())
    assert made.orphans == ("p-old-1",) and "orphan containers ([p-old-1])" in made.warnings[0]
    lines = plan(p, stray, remove_orphans=True)
    assert "remove p-old-1: orphan" in lines


def test_external_things_must_exist() -> None:
    p = project(service("web"), networks={"default": Network("default", "ext", external=True)})
    with pytest.raises(NotFoundError, match="network ext declared as external"):
        plan(p)
    mount = Mount("volume", "/d", "data")
    q = project(service("web", volumes=(mount,)), volumes={"data": Volume("data", "ext", external=True)})
    with pytest.raises(NotFoundError, match='external volume "ext"'):
        plan(q)


def test_a_changed_network_is_made_anew_around_its_containers() -> None:
    old = project(service("web"))
    new = replace(old, networks={"default": Network("default", "p_default", internal=True, canonical={"internal": True})})
    made = reconcile(new, Observed((container(old, "web"),), {"p_default": network(old)}, {}, {"web": "sha256:1"}), ReconcileOptions())
    order = [action.key for action in made]
    assert order.index("remove id-web-1") < order.index("remove network default") < order.index("network default")
    assert order.index("network default") < order.index("create p-web-1")


def test_a_changed_volume_is_kept_unless_yes() -> None:
    mount = Mount("volume", "/d", "data")
    old = project(service("web", volumes=(mount,)), volumes={"data": Volume("data", "p_data")})
    new = replace(old, volumes={"data": Volume("data", "p_data", canonical={"driver_opts": {"type": "tmpfs"}})})
    found = {"p_data": VolumeInfo("p_data", labels=naming.volume_labels(old, old.volumes["data"]))}
    here = container(old, "web", mounts=({"Type": "volume", "Name": "p_data"},))
    seen = Observed((here,), {"p_default": network(old)}, found, {"web": "sha256:1"})
    kept = reconcile(new, seen, ReconcileOptions())
    assert not kept.changes and "does not match" in kept.warnings[0]
    keys = [action.key for action in reconcile(new, seen, ReconcileOptions(recreate_volumes=True))]
    assert keys.index("remove id-web-1") < keys.index("remove volume data") < keys.index("volume data")


def test_pre_start_runs_only_before_the_first_start() -> None:
    p = project(service("web", pre_start=(Hook(("init",)),)))
    assert any(line.startswith("run pre_start") for line in plan(p))
    assert not any(line.startswith("run pre_start") for line in plan(p, container(p, "web")))


def test_a_dependent_with_restart_is_stopped_and_started_again() -> None:
    old = project(service("web", depends_on={"db": Dependency(restart=True)}), service("db", user="1"))
    new = project(service("web", depends_on={"db": Dependency(restart=True)}), service("db", user="2"))
    lines = plan(new, container(old, "web"), container(old, "db"))
    assert "stop p-web-1: db is recreated" in lines and "start p-web-1: a dependency is recreated" in lines


def test_closure_and_unknown_services() -> None:
    p = project(service("a", depends_on={"b": Dependency()}), service("b"), service("c"))
    assert closure(p, ("a",)) == ["b", "a"]
    assert closure(p, ("a",), deps=False) == ["a"]
    with pytest.raises(NotFoundError, match="no such service: x"):
        closure(p, ("x",))


def test_create_only_starts_nothing() -> None:
    p = project(service("web"))
    assert not any(line.startswith("start") for line in plan(p, start=False))
