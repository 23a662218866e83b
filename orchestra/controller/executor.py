"""Walks a plan: as parallel as its dependencies and the bound allow. Decides nothing.

After the first failure nothing new is started; what runs is finished, then containers made by this
plan that never ran are taken away again, and networks made by it that nothing uses. The first error
is raised.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from queue import SimpleQueue

from orchestra.backend import Backend, ContainerInfo, ExecSpec
from orchestra.compose.model import Hook, Project, Service
from orchestra.controller import naming
from orchestra.controller.observed import Observed
from orchestra.controller.plan import Action, Kind, Plan
from orchestra.controller.specs import carried_volumes, service_spec
from orchestra.errors import Location, NotFoundError, OrchestraError
from orchestra.events import Progress, Sink, Status

PARALLEL = 16  # the kernel makes some of them wait, so more than processors
POLL = 0.05
SETTLED = 0.3  # seconds that a container without health check must have run to count as running


@dataclass(slots=True)
class Round:
    """What one execution knows. ``cancelled`` ends waits early. ``deadline`` is monotonic."""

    project: Project
    observed: Observed
    sink: Sink
    timeout: float | None = None
    deadline: float | None = None
    patience: float = 0.0  # what the deadline was made of, for the message
    renew_anon_volumes: bool = False
    anonymous_volumes: bool = False  # they go with their removed containers, in one step with them
    cancelled: Callable[[], bool] = lambda: False
    told: dict[tuple[str, str], object] = field(default_factory=dict)  # (container, word) said about waits

    def tell(self, container: str, word: str, status: Status = Status.WORKING) -> None:
        """Several actions, in threads, may wait for one container: each word about it is said once."""
        mine = object()
        if self.told.setdefault((container, word), mine) is mine:
            self.sink(Progress(f"Container {container}", word, status))


class Cancelled(OrchestraError):
    """The user interrupted."""

    exit_code = 130


class Executor:
    """Executes plans of one round against a backend."""

    def __init__(self, backend: Backend, round_: Round, *, parallel: int = PARALLEL) -> None:
        self.backend, self.round, self.parallel = backend, round_, max(1, parallel)
        self.failed: Exception | None = None
        self._carried: dict[str, dict[str, str]] = {}
        self._made: dict[str, str] = {}  # container name → id, created here and not yet running
        self._networks: list[str] = []
        self._warned: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._handlers: dict[Kind, Callable[[Action], None]] = {
            Kind.CREATE_NETWORK: self._create_network,
            Kind.REMOVE_NETWORK: self._remove_network,
            Kind.CREATE_VOLUME: self._create_volume,
            Kind.REMOVE_VOLUME: self._remove_volume,
            Kind.CREATE: self._create,
            Kind.START: self._start,
            Kind.STOP: self._stop,
            Kind.REMOVE: self._remove,
            Kind.WAIT: self._wait,
            Kind.PRE_START: self._pre_start,
            Kind.UNPAUSE: self._unpause,
            Kind.KEEP: self._keep,
        }

    def run(self, plan: Plan) -> None:
        """Raises the first error after the rest has settled and half-made things are gone."""
        todo = {action.key: action for action in plan}
        waiting = {key: set(action.after) for key, action in todo.items()}
        running: dict[Future[None], str] = {}
        ended: SimpleQueue[Future[None]] = SimpleQueue()
        waits = sum(1 for action in plan if action.kind in (Kind.WAIT, Kind.PRE_START))
        with ThreadPoolExecutor(self.parallel + waits, thread_name_prefix="act") as pool:
            while todo or running:
                for future in self._submit(pool, todo, waiting, running):
                    future.add_done_callback(ended.put)
                if not running:
                    break
                future = ended.get()
                self._settle(future, running.pop(future), waiting)
        if self.failed is not None:
            self._undo()
            raise self.failed

    def _submit(
        self,
        pool: ThreadPoolExecutor,
        todo: dict[str, Action],
        waiting: dict[str, set[str]],
        running: dict[Future[None], str],
    ) -> list[Future[None]]:
        """Start what waits for nothing any more."""
        if self.round.cancelled() and self.failed is None:
            self.failed = Cancelled("interrupted")
        if self.failed is not None:
            todo.clear()
            return []
        found = []
        for key in [key for key in todo if not waiting[key]]:
            action = todo.pop(key)
            future = pool.submit(self._handlers[action.kind], action)
            running[future] = key
            found.append(future)
        return found

    def _settle(self, future: Future[None], key: str, waiting: dict[str, set[str]]) -> None:
        error = future.exception()
        if error is None:
            for others in waiting.values():
                others.discard(key)
        elif self.failed is None or isinstance(self.failed, Cancelled):
            self.failed = error if isinstance(error, Exception) else RuntimeError(str(error))

    def _undo(self) -> None:
        for container_id in self._made.values():
            try:
                self.backend.remove(container_id, force=True, volumes=True)
            except OrchestraError:
                continue
        used = {name for c in self.backend.containers() for name in c.networks}
        for name in self._networks:
            if name not in used:
                try:
                    self.backend.remove_network(name)
                except OrchestraError:
                    continue

    # networks and volumes

    def _create_network(self, action: Action) -> None:
        network = self.round.project.networks[action.resource]
        self._tell(f"Network {network.name}", "Creating")
        try:
            self.backend.create_network(network, naming.network_labels(self.round.project, network))
        except OrchestraError as error:
            raise self._placed(error, f"networks.{action.resource}") from error
        with self._lock:
            self._networks.append(network.name)
        self._tell(f"Network {network.name}", "Created", Status.DONE)

    def _remove_network(self, action: Action) -> None:
        self._tell(f"Network {action.target}", "Removing")
        self.backend.remove_network(action.resource)
        self._tell(f"Network {action.target}", "Removed", Status.DONE)

    def _create_volume(self, action: Action) -> None:
        volume = self.round.project.volumes[action.resource]
        self._tell(f"Volume {volume.name}", "Creating")
        try:
            self.backend.create_volume(volume, naming.volume_labels(self.round.project, volume))
        except OrchestraError as error:
            raise self._placed(error, f"volumes.{action.resource}") from error
        self._tell(f"Volume {volume.name}", "Created", Status.DONE)

    def _remove_volume(self, action: Action) -> None:
        self._tell(f"Volume {action.target}", "Removing")
        self.backend.remove_volume(action.resource)
        self._tell(f"Volume {action.target}", "Removed", Status.DONE)

    # containers

    def _create(self, action: Action) -> None:
        project, service = self.round.project, self.round.project.services[action.service]
        words = ("Recreate", "Recreated") if action.replaces else ("Creating", "Created")
        self._tell(f"Container {action.target}", words[0])
        carried = {} if self.round.renew_anon_volumes else self._carried.get(action.replaces, {})
        try:
            spec = service_spec(
                project,
                service,
                action.number,
                self.round.observed.images[service.name],
                self._lookup,
                carried=carried,
            )
            info = self.backend.create(spec)
        except OrchestraError as error:
            raise self._placed(error, f"services.{service.name}") from error
        with self._lock:
            self._made[action.target] = info.id
        self._warn(action.target, info)
        self._tell(f"Container {action.target}", words[1], Status.DONE)

    def _start(self, action: Action) -> None:
        service = self.round.project.services[action.service]
        self._tell(f"Container {action.target}", "Starting")
        try:
            self.backend.start(action.container or self._made.get(action.target) or action.target)
        except OrchestraError as error:
            self._tell(f"Container {action.target}", "Error", Status.ERROR, error.brief)
            raise self._placed(error, f"services.{service.name}") from error
        with self._lock:
            self._made.pop(action.target, None)
        info = self._info(action.container or action.target)
        if info is not None:
            self._warn(action.target, info)
        for hook in service.post_start:
            run_hook(self.backend, action.target, hook, service, "post_start")
        self._tell(f"Container {action.target}", "Started", Status.DONE)

    def _warn(self, target: str, info: ContainerInfo) -> None:
        """Each warning of a container once."""
        for warning in info.warnings:
            if (target, warning) not in self._warned:
                self._warned.add((target, warning))
                self._tell("", f"{self._where(info.service, warning)}{target}: {warning}", Status.WARNING)

    def _where(self, service: str, warning: str) -> str:
        """``file:line:column: `` of the attribute that the warning begins with."""
        words = [part for part in re.split(r"[^a-z_.]+", warning)[:1] if part]
        path = f"services.{service}.{words[0]}" if words else ""
        while path.count(".") > 1:
            place = self.round.project.locations.get(path)
            if place and place[1]:
                return f"{place[0]}:{place[1]}:{place[2]}: "
            path = path.rpartition(".")[0]
        return ""

    def _unpause(self, action: Action) -> None:
        self.backend.unpause(action.container)
        self._tell(f"Container {action.target}", "Started", Status.DONE)

    def _keep(self, action: Action) -> None:
        info = next(c for c in self.round.observed.containers if c.id == action.container)
        self._tell(f"Container {action.target}", info.state.capitalize(), Status.DONE)

    def _stop(self, action: Action) -> None:
        info = self._info(action.container)
        if info is None or info.state not in ("running", "paused", "restarting"):
            return
        self._tell(f"Container {action.target}", "Stopping")
        service = self.round.project.services.get(action.service)
        if service is not None:
            for hook in service.pre_stop:
                run_hook(self.backend, action.container, hook, service, "pre_stop")
        self.backend.stop(action.container, timeout=self.round.timeout)
        self._tell(f"Container {action.target}", "Stopped", Status.DONE)

    def _remove(self, action: Action) -> None:
        info = self._info(action.container)
        if info is None:
            return
        if action.replaces:
            self._carried[action.replaces] = carried_volumes(info)
        else:
            self._tell(f"Container {action.target}", "Removing")
        drop = self.round.anonymous_volumes and not action.replaces
        self.backend.remove(action.container, force=True, volumes=drop)
        if not action.replaces:
            self._tell(f"Container {action.target}", "Removed", Status.DONE)

    def _pre_start(self, action: Action) -> None:
        project, service = self.round.project, self.round.project.services[action.service]
        for index, hook in enumerate(service.pre_start):
            run_pre_start(
                self.backend,
                project,
                service,
                hook,
                index,
                self.round.observed.images[service.name],
                self._lookup,
            )

    # waiting for conditions

    def _wait(self, action: Action) -> None:
        try:
            Waiter(self.backend, self.round, action).wait()
        except OrchestraError as error:
            if action.required or isinstance(error, Cancelled):
                raise
            self._tell(
                f"Service {action.service}", "Skipped", Status.WARNING, f"optional dependency: {error.brief}"
            )

    # helpers

    def _info(self, ref: str) -> ContainerInfo | None:
        try:
            return self.backend.container(ref)
        except NotFoundError:
            return None

    def _lookup(self, ref: str) -> str:
        if ref.startswith("container:"):
            return self.backend.container(ref.removeprefix("container:")).id
        found = [
            c
            for c in self.backend.containers(project=self.round.project.name)
            if c.service == ref and not c.oneoff
        ]
        if not found:
            raise NotFoundError(f"no container of service {ref} exists")
        return min(found, key=lambda container: container.number).id

    def _tell(self, resource: str, text: str, status: Status = Status.WORKING, details: str = "") -> None:
        self.round.sink(Progress(resource, text, status, details))

    def _placed(self, error: OrchestraError, path: str) -> OrchestraError:
        """The error with the place in the compose file that it is about, if it has none yet."""
        return placed(error, self.round.project, path)


def placed(error: OrchestraError, project: Project, path: str) -> OrchestraError:
    """``error`` with the location of ``path`` (or of its attribute that the error names)."""
    if error.location is not None:
        return error
    attribute = getattr(error, "attribute", "")
    for candidate in (f"{path}.{attribute}", path):
        place = project.locations.get(candidate)
        if place:
            error.location = Location(*place)
            break
    return error


def run_hook(backend: Backend, ref: str, hook: Hook, service: Service, what: str) -> None:
    """Runs a post_start or pre_stop command; raises OrchestraError when it fails."""
    environment = {key: value for key, value in hook.environment.items() if value is not None}
    spec = ExecSpec(hook.command, environment, hook.user, hook.working_dir, hook.privileged)
    code = backend.exec_wait(backend.exec(ref, spec, None))
    if code:
        raise OrchestraError(
            f"{what} hook of service {service.name} exited with code {code}: {' '.join(hook.command)}"
        )


def run_pre_start(
    backend: Backend,
    project: Project,
    service: Service,
    hook: Hook,
    index: int,
    image_id: str,
    lookup: Callable[[str], str],
) -> None:
    """Runs one init container to its end; raises OrchestraError when it fails."""
    environment = {**service.environment, **hook.environment}
    changed = replace(
        service,
        command=hook.command or service.command,
        environment=environment,
        user=hook.user or service.user,
        working_dir=hook.working_dir or service.working_dir,
        privileged=hook.privileged or service.privileged,
        ports=(),
        healthcheck=None,
        restart="",
        container_name=f"{project.name}-{service.name}-pre_start-{index + 1}",
        entrypoint=() if hook.command else service.entrypoint,
        image=hook.image or service.image,
    )
    if hook.image:
        found = backend.image(hook.image)
        if found is None:
            raise NotFoundError(f"no such image: {hook.image} (pre_start of service {service.name})")
        image_id = found[0]
    spec = service_spec(project, changed, index + 1, image_id, lookup)
    spec = replace(spec, labels=naming.container_labels(project, changed, index + 1, image_id, oneoff=True))
    info = backend.create(spec)
    try:
        backend.start(info.id)
        code = backend.wait(info.id)
        if code:
            tail = [line.text.decode(errors="replace") for line in backend.logs(info.id, tail=5)]
            raise OrchestraError(
                f"pre_start {index + 1} of service {service.name} exited with code {code}",
                details=tuple(tail),
            )
    finally:
        backend.remove(info.id, force=True, volumes=True)


class Waiter:
    """Waits until a service's containers meet an action's condition."""

    def __init__(self, backend: Backend, round_: Round, action: Action) -> None:
        self.backend, self.round, self.action = backend, round_, action
        self.told = False

    def wait(self) -> None:
        check = {
            "service_healthy": self._healthy,
            "service_completed_successfully": self._completed,
            "completed": self._completed,
            "running_or_healthy": self._running_or_healthy,
        }[self.action.condition]
        while True:
            containers = [
                c
                for c in self.backend.containers(project=self.round.project.name)
                if c.service == self.action.service and not c.oneoff
            ]
            if check(containers):
                return
            if self.round.cancelled():
                raise Cancelled("interrupted")
            if self.round.deadline is not None and time.monotonic() > self.round.deadline:
                raise OrchestraError(f"application not healthy after {self.round.patience:g}s")
            if not self.told:
                self.told = True
                for container in containers:
                    self.round.tell(container.name, "Waiting")
            time.sleep(POLL)

    def _healthy(self, containers: list[ContainerInfo]) -> bool:
        for c in containers:
            if not c.has_healthcheck:
                raise OrchestraError(
                    f"dependency failed to start: container {c.name} has no healthcheck configured"
                )
            self._not_failed(c)
        if containers and all(c.health == "healthy" for c in containers):
            return self._done(containers, "Healthy")
        return False

    def _completed(self, containers: list[ContainerInfo]) -> bool:
        for c in containers:
            if c.state == "exited":
                if c.exit_code:
                    raise OrchestraError(
                        f"service {c.service!r} didn't complete successfully: exit {c.exit_code}".replace(
                            "'", '"', 2
                        )
                    )
                return self._done([c], "Exited")
        return False

    def _running_or_healthy(self, containers: list[ContainerInfo]) -> bool:
        for c in containers:
            self._not_failed(c)
        now = time.time()
        settled = [
            c for c in containers if c.health == "healthy" or (c.health == "" and now - c.started > SETTLED)
        ]
        if containers and len(settled) == len(containers) and all(c.state == "running" for c in containers):
            return self._done(containers, "Healthy")
        return False

    def _not_failed(self, c: ContainerInfo) -> None:
        prefix = "dependency failed to start: " if self.action.condition == "service_healthy" else ""
        if c.health == "unhealthy":
            raise OrchestraError(f"{prefix}container {c.name} is unhealthy")
        if c.state in ("exited", "dead"):
            raise OrchestraError(f"{prefix}container {c.name} exited ({c.exit_code})")

    def _done(self, containers: list[ContainerInfo], word: str) -> bool:
        for container in containers:
            self.round.tell(container.name, word, Status.DONE)
        return True
