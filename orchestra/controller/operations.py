"""The verbs on a project, as the daemon runs them: observe, plan, execute."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from orchestra import labels
from orchestra.backend import Backend, ContainerInfo
from orchestra.compose.model import Mount, Port, Project, Service
from orchestra.controller import lifecycle, naming
from orchestra.controller.executor import PARALLEL, Executor, Round, placed
from orchestra.controller.observed import Observed, collect
from orchestra.controller.options import ReconcileOptions
from orchestra.controller.plan import Plan
from orchestra.controller.prepare import ImageOptions, Images
from orchestra.controller.reconcile import closure, reconcile
from orchestra.controller.specs import network_uses, service_spec
from orchestra.errors import NotFoundError, OrchestraError
from orchestra.events import Progress, Sink, Status

Cancel = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Of ``run``: what a one-off container changes about its service."""

    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    environment: Mapping[str, str] | None = None
    user: str = ""
    working_dir: str = ""
    volumes: tuple[Mount, ...] = ()
    publish: tuple[Port, ...] = ()
    service_ports: bool = False
    use_aliases: bool = False
    name: str = ""
    labels: Mapping[str, str] | None = None
    remove: bool = False
    tty: bool = False
    stdin_open: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    no_deps: bool = False
    remove_orphans: bool = False


class Operations:
    """One per daemon. Operations on one project follow one another; different projects run side by
    side."""

    def __init__(self, backend: Backend, images: Images, *, parallel: int = PARALLEL) -> None:
        self.backend, self.images, self.parallel = backend, images, parallel
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    @contextmanager
    def _alone(self, project: str) -> Iterator[None]:
        with self._guard:
            lock = self._locks.setdefault(project, threading.Lock())
        with lock:
            yield

    # up and what is like it

    def plan(self, project: Project, options: ReconcileOptions, images: ImageOptions) -> Plan:
        """What ``up`` would do; touches nothing. Images that are not there count as unknown."""
        ids = {}
        for name in closure(project, options.services, deps=not options.no_deps):
            found = self.backend.image(naming.image_name(project, project.services[name]))
            if found:
                ids[name] = found[0]
        return reconcile(project, collect(self.backend, project.name, ids), options)

    def up(
        self,
        project: Project,
        options: ReconcileOptions,
        images: ImageOptions,
        sink: Sink,
        cancelled: Cancel,
        *,
        wait_timeout: float | None = None,
        parallel: int = 0,
    ) -> Plan:
        """Converges; returns the plan that was executed."""
        with self._alone(project.name):
            names = closure(project, options.services, deps=not options.no_deps)
            ids = self.images.prepare(project, names, images, sink)
            observed = collect(self.backend, project.name, ids)
            plan = reconcile(project, observed, options)
            for warning in plan.warnings:
                sink(Progress("", warning, Status.WARNING))
            round_ = Round(
                project,
                observed,
                sink,
                options.timeout,
                renew_anon_volumes=options.renew_anon_volumes,
                cancelled=cancelled,
            )
            if wait_timeout:
                round_.deadline, round_.patience = time.monotonic() + wait_timeout, wait_timeout
            Executor(self.backend, round_, parallel=parallel or self.parallel).run(plan)
            return plan

    # what exists

    def execute(
        self,
        plan: Plan,
        project: Project | None,
        observed: Observed,
        sink: Sink,
        cancelled: Cancel,
        timeout: float | None = None,
        *,
        volumes: bool = False,
        parallel: int = 0,
    ) -> Plan:
        """``volumes``: removed containers take their anonymous volumes along."""
        known = project or Project(name=plan.project, working_dir="")
        round_ = Round(known, observed, sink, timeout, anonymous_volumes=volumes, cancelled=cancelled)
        Executor(self.backend, round_, parallel=parallel or self.parallel).run(plan)
        return plan

    def down(
        self,
        name: str,
        project: Project | None,
        options: lifecycle.DownOptions,
        sink: Sink,
        cancelled: Cancel,
        timeout: float | None,
        *,
        dry_run: bool = False,
        parallel: int = 0,
    ) -> Plan:
        """``dry_run``: only the plan."""
        with self._alone(name):
            observed = collect(self.backend, name)
            plan = lifecycle.down(name, observed, project, options)
            if dry_run:
                return plan
            for action in plan:
                if action.cause == "Resource is still in use":
                    sink(Progress(f"Network {action.target}", action.cause, Status.WARNING))
            plan = replace(plan, actions=tuple(a for a in plan if a.cause != "Resource is still in use"))
            if not plan.actions:
                sink(Progress("", f'No resource found to remove for project "{name}".', Status.WARNING))
            return self.execute(
                plan, project, observed, sink, cancelled, timeout, volumes=options.volumes, parallel=parallel
            )

    def simple(
        self,
        verb: str,
        name: str,
        project: Project | None,
        args: Mapping[str, Any],
        sink: Sink,
        cancelled: Cancel,
    ) -> Plan:
        """stop, start, restart and rm. With ``dry_run`` in ``args`` only the plan."""
        with self._alone(name):
            observed = collect(self.backend, name)
            services = tuple(args.get("services") or ())
            if verb == "stop":
                plan = lifecycle.stop(name, observed, project, services)
            elif verb == "start":
                plan = lifecycle.start(name, observed, project, services)
            elif verb == "restart":
                plan = lifecycle.restart(name, observed, project, services, deps=not args.get("no_deps"))
            else:
                plan = lifecycle.remove_stopped(
                    name, observed, project, services, stop_first=bool(args.get("stop"))
                )
            if args.get("dry_run"):
                return plan
            volumes = verb == "rm" and bool(args.get("volumes"))
            parallel, timeout = args.get("parallel") or 0, args.get("timeout")
            return self.execute(
                plan, project, observed, sink, cancelled, timeout, volumes=volumes, parallel=parallel
            )

    def each(
        self,
        verb: str,
        name: str,
        project: Project | None,
        services: tuple[str, ...],
        sink: Sink,
        signal: str = "SIGKILL",
        *,
        dry_run: bool = False,
    ) -> list[str]:
        """kill, pause and unpause: on every container that is in the state for it; their names."""
        observed = collect(self.backend, name)
        lifecycle.check_services(services, project, observed.containers)
        wanted = {"kill": ("running", "paused", "restarting"), "pause": ("running",), "unpause": ("paused",)}[
            verb
        ]
        words = {
            "kill": ("Killing", "Killed"),
            "pause": ("Pausing", "Paused"),
            "unpause": ("Unpausing", "Unpaused"),
        }[verb]
        chosen = [
            c for c in observed.containers if (not services or c.service in services) and c.state in wanted
        ]
        if not chosen and services and verb == "kill":
            raise NotFoundError(f"no container to kill for service {' '.join(services)}")
        for container in () if dry_run else chosen:
            sink(Progress(f"Container {container.name}", words[0]))
            if verb == "kill":
                self.backend.kill(container.id, signal=signal)
            elif verb == "pause":
                self.backend.pause(container.id)
            else:
                self.backend.unpause(container.id)
            sink(Progress(f"Container {container.name}", words[1], Status.DONE))
        return [container.name for container in chosen]

    # one-off containers

    def run_create(
        self,
        project: Project,
        service_name: str,
        options: RunOptions,
        images: ImageOptions,
        sink: Sink,
        cancelled: Cancel,
    ) -> ContainerInfo:
        """Starts the dependencies and creates the one-off container (not started)."""
        service = project.services.get(service_name)
        if service is None:
            raise NotFoundError(f"no such service: {service_name}")
        deps = () if options.no_deps else tuple(service.depends_on)
        with self._alone(project.name):
            ids = self.images.prepare(project, [service_name], images, sink)
            self._dependencies(project, service_name, deps, images, options, sink, cancelled)
            changed = oneoff_service(service, options)
            slug = secrets.token_hex(6)
            name = options.name or f"{project.name}-{service.name}-run-{slug}"
            spec = service_spec(project, changed, 1, ids[service_name], self._lookup(project.name))
            aliases = (service.name,) if options.use_aliases else ()
            extra = {labels.SLUG: slug, **(options.labels or {})}
            spec = replace(
                spec,
                name=name,
                auto_remove=options.remove,
                labels={
                    **naming.container_labels(project, changed, 1, ids[service_name], oneoff=True),
                    **extra,
                },
                networks=network_uses(project, changed, aliases=aliases),
                restart=replace(spec.restart, name="no"),
                mounts=(
                    *(m for m in spec.mounts if m.target not in {v.target for v in options.volumes}),
                    *options.volumes,
                ),
            )
            try:
                return self.backend.create(spec)
            except OrchestraError as error:
                raise placed(error, project, f"services.{service_name}") from error

    def _dependencies(
        self,
        project: Project,
        name: str,
        deps: tuple[str, ...],
        images: ImageOptions,
        options: RunOptions,
        sink: Sink,
        cancelled: Cancel,
    ) -> None:
        """Networks and volumes of the service itself, and its dependencies running."""
        wanted = ReconcileOptions(services=deps, remove_orphans=options.remove_orphans, ignore_orphans=True)
        if deps:
            ids = self.images.prepare(project, closure(project, deps), images, sink)
        else:
            ids = {}
        observed = collect(self.backend, project.name, ids)
        if deps:
            plan = reconcile(project, observed, wanted)
            Executor(
                self.backend, Round(project, observed, sink, cancelled=cancelled), parallel=self.parallel
            ).run(plan)
            self._conditions(project, name, deps, sink, cancelled)
        self._resources(project, name, sink)

    def _conditions(
        self, project: Project, name: str, deps: tuple[str, ...], sink: Sink, cancelled: Cancel
    ) -> None:
        from orchestra.controller.executor import Waiter
        from orchestra.controller.plan import Action, Kind

        for other in deps:
            dependency = project.services[name].depends_on[other]
            if dependency.condition == "service_started" or other not in project.services:
                continue
            action = Action(
                f"wait {other}", Kind.WAIT, other, "run", service=other, condition=dependency.condition
            )
            round_ = Round(project, Observed(), sink, cancelled=cancelled)
            try:
                Waiter(self.backend, round_, action).wait()
            except OrchestraError:
                if dependency.required:
                    raise

    def _resources(self, project: Project, name: str, sink: Sink) -> None:
        """The networks and volumes that the one-off container needs itself."""
        service = project.services[name]
        alone = replace(project, services={name: replace(service, depends_on={}, links=(), volumes_from=())})
        observed = collect(self.backend, project.name)
        plan = reconcile(
            alone,
            observed,
            ReconcileOptions(services=(name,), scale={name: 0}, ignore_orphans=True, no_deps=True),
        )
        wanted = tuple(a for a in plan if a.kind.value.startswith("create ") and a.resource)
        Executor(self.backend, Round(project, observed, sink)).run(replace(plan, actions=wanted))

    def _lookup(self, project: str) -> Callable[[str], str]:
        def look(ref: str) -> str:
            if ref.startswith("container:"):
                return self.backend.container(ref.removeprefix("container:")).id
            found = [c for c in self.backend.containers(project=project) if c.service == ref and not c.oneoff]
            if not found:
                raise NotFoundError(f"no container of service {ref} exists")
            return found[0].id

        return look


def oneoff_service(service: Service, options: RunOptions) -> Service:
    """The service as ``run`` starts it: no ports unless asked, no health check loss, own command."""
    command, entrypoint = service.command, service.entrypoint
    if options.entrypoint is not None:
        entrypoint, command = options.entrypoint, ()
    if options.command is not None:
        command = options.command
    ports = (*(service.ports if options.service_ports else ()), *options.publish)
    return replace(
        service,
        command=command,
        entrypoint=entrypoint,
        ports=ports,
        container_name="",
        restart="",
        environment={**service.environment, **(options.environment or {})},
        user=options.user or service.user,
        working_dir=options.working_dir or service.working_dir,
        tty=options.tty,
        stdin_open=options.stdin_open,
        scale=1,
        cap_add=(*service.cap_add, *options.cap_add),
        cap_drop=(*service.cap_drop, *options.cap_drop),
    )


__all__ = ["Operations", "RunOptions", "oneoff_service"]
