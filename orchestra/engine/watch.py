"""Health: probes of running containers at their times, in the scheduler's threads."""

from __future__ import annotations

from orchestra.backend import ExecSpec
from orchestra.engine.accounts import Identity
from orchestra.engine.container import Container
from orchestra.engine.health import OUTPUT_LIMIT, HealthTracker, Result
from orchestra.engine.life import Life
from orchestra.engine.parts import Parts
from orchestra.engine.process import exec_process
from orchestra.errors import OrchestraError

TIMED_OUT = -1


class HealthWatch:
    """``begin`` when a container starts to run (also when one is adopted)."""

    def __init__(self, parts: Parts, life: Life) -> None:
        self.parts, self.life = parts, life

    def begin(self, container: Container) -> None:
        if container.probe is None:
            return
        if container.health is None:
            container.health = HealthTracker(
                container.probe, container.state.started, container.state.health or "starting"
            )
        run = container.run
        self.parts.scheduler.at(container.health.first_due(), lambda: self._probe(container, run))

    def _probe(self, container: Container, run: int) -> None:
        tracker = container.health
        if (
            tracker is None
            or container.run != run
            or container.removed
            or container.state.status not in ("running", "paused")
        ):
            return
        if container.state.status == "running":
            result = self._run(container, tracker)
            if container.run != run or not container.running:
                return
            if tracker.record(result):
                self._changed(container, tracker.status)
            due = tracker.due_after(result.end)
        else:
            due = self.parts.clock.now() + 1
        self.parts.scheduler.at(due, lambda: self._probe(container, run))

    def _run(self, container: Container, tracker: HealthTracker) -> Result:
        begun = self.parts.clock.now()
        try:
            base = self.life.load_process(container)
            user = base.get("user", {})
            identity = Identity(
                int(user.get("uid", 0)), int(user.get("gid", 0)), tuple(user.get("additionalGids", ()))
            )
            process = exec_process(
                base, ExecSpec(tracker.probe.command()), identity, capabilities=base.get("capabilities")
            )
            shim = self.parts.shims.client(container.group)
            code, output = shim.exec_run(
                container.id, process, timeout=tracker.probe.timeout, limit=OUTPUT_LIMIT
            )
            text = output.decode(errors="replace")
            if code == TIMED_OUT:
                text = f"health check exceeded its timeout of {tracker.probe.timeout:g}s"
        except (OrchestraError, OSError) as error:
            code, text = TIMED_OUT, str(error)
        return Result(begun, self.parts.clock.now(), code, text)

    def _changed(self, container: Container, status: str) -> None:
        with container.lock:
            if not container.running:
                return
            container.state.health = status
            self.parts.registry.save(container)
        self.parts.hub.publish(
            "container", f"health_status: {status}", container.id, container.event_attributes()
        )
        container.notify()
