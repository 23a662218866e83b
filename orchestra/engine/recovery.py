"""What a new daemon does first: adopt what runs, record what ended, finish what was half done."""

from __future__ import annotations

import json
import os
from functools import partial
from typing import Any

from orchestra.engine.container import Container
from orchestra.engine.health import HealthTracker, effective_probe
from orchestra.engine.life import LOST, REMOVING_ALL, Life
from orchestra.engine.nets import Nets
from orchestra.engine.parts import Parts
from orchestra.engine.registry import from_record
from orchestra.engine.restart import restart_after_boot
from orchestra.engine.watch import HealthWatch
from orchestra.errors import NotFoundError, OrchestraError
from orchestra.runtime.shim_errors import ShimGone


class Recovery:
    """Idempotent; safe to be killed at any line and begun anew."""

    def __init__(self, parts: Parts, life: Life, nets: Nets, health: HealthWatch) -> None:
        self.parts, self.life, self.nets, self.health = parts, life, nets, health

    def run(self) -> None:
        unfinished: list[tuple[Container, str]] = []
        for record in self.parts.store.containers():
            container = from_record(record, self._settings(str(record.spec.get("image_id", ""))))
            container.probe = effective_probe(container.spec.service.healthcheck, container.image)
            self.parts.registry.adopt(container)
            if record.phase != "ready":
                unfinished.append((container, record.phase))
        self.nets.recover()
        for container, phase in unfinished:
            self._finish(container, phase)
        self._strays()
        for group in sorted({c.group for c in self.parts.registry.all()}):
            try:
                self.group(group)
            except (ShimGone, OSError) as error:
                print(f"shim of {group}: {error}", flush=True)
                self.parts.scheduler.at(self.parts.clock.now() + 1, partial(self.parts.shims.on_lost, group))
        if not self.nets.quiet():
            self.nets.sync()

    def _settings(self, image_id: str) -> dict[str, Any]:
        try:
            return dict(self.parts.images.get(image_id).settings)
        except (NotFoundError, OrchestraError):
            return {}

    def _finish(self, container: Container, phase: str) -> None:
        """Undo a creation, complete a removal: both end with the container gone."""
        try:
            self.life.finish_removal(container, volumes=phase in ("creating", REMOVING_ALL))
        except (OrchestraError, OSError) as error:
            print(f"{container.name}: {error}", flush=True)  # the next daemon tries again

    def _strays(self) -> None:
        """Directories of containers that no record knows."""
        known = {c.id for c in self.parts.registry.all()}
        for base in (self.parts.paths.containers, self.parts.paths.bundles):
            for place in base.iterdir():
                if place.name in known or place.name.startswith("."):
                    continue
                if base == self.parts.paths.bundles:
                    self._stray_bundle(place.name)
                if base == self.parts.paths.containers:
                    self.parts.sweeper.discard(place)

    def _stray_bundle(self, container_id: str) -> None:
        """A container in a shim that the store does not know: it is ended and forgotten."""
        import shutil

        place = self.parts.bundle(container_id)
        try:
            state = json.loads((place / "state.json").read_bytes())
            shim = self.parts.shims.client(str(state.get("project") or "_single"))
            if state.get("status") in ("running", "paused"):
                shim.signal(container_id, 9, all=True)
                shim.wait(container_id)
            shim.delete(container_id)
        except (OSError, ValueError, OrchestraError):
            pass
        shutil.rmtree(place, ignore_errors=True)

    def group(self, group: str) -> None:
        """Bring all containers of one shim up to date with what it says (after its death, too)."""
        mine = [c for c in self.parts.registry.all() if c.group == group]
        if not any(
            (self.parts.bundle(c.id) / "state.json").exists() or c.running or c.state.status == "restarting"
            for c in mine
        ):
            return
        shim = self.parts.shims.client(group)
        for container in mine:
            with container.lock:  # what holds is what the shim says once nobody else works on it
                try:
                    state = shim.state(container.id)
                except NotFoundError:
                    state = None
                self._one(container, state)

    def _one(self, container: Container, state: dict[str, Any] | None) -> None:
        alive = state is not None and state["status"] in ("running", "paused")
        if container.running and alive and state is not None:
            if int(state["pid"]) == container.state.pid:
                container.state.status = state["status"]  # a pause that was not recorded
                self._adopt(container)
            return
        if container.running:
            event = {"at": self.parts.clock.now(), "exit_code": None, "lost": True}
            if state is not None:
                event = {
                    "at": state.get("finished_at"),
                    "exit_code": state.get("exit_code"),
                    "oom": state.get("oom"),
                    "lost": state.get("lost"),
                }
            self._ended(container, event, booted=state is None)
        elif alive and state is not None:  # killed between the start and its record: it was never promised
            self._kill(container)
            self._restart_soon(container)
        elif container.state.status == "restarting":
            self._restart_soon(container)
        elif container.state.status == "created" and state is not None and state["status"] == "created":
            self._kill(container)

    def _restart_soon(self, container: Container) -> None:
        """A restart by policy that an earlier daemon had in mind."""
        if container.state.status == "restarting":
            run = container.run
            self.parts.scheduler.at(self.parts.clock.now() + 0.1, lambda: self.life._again(container, run))

    def _adopt(self, container: Container) -> None:
        endpoints = self.nets.endpoints(container)
        try:
            self.nets.name(container, container.state.pid, endpoints)
        except OrchestraError:
            return  # it has just ended: the shim's event follows
        if container.probe is not None:
            container.health = HealthTracker(
                container.probe, container.state.started, container.state.health or "starting"
            )
            self.health.begin(container)
        container.restarts.started(
            self.parts.clock.monotonic() - max(0.0, self.parts.clock.now() - container.state.started),
            by_hand=True,
        )

    def _ended(self, container: Container, event: dict[str, Any], *, booted: bool) -> None:
        by_hand = container.state.stopped_by_hand
        if by_hand:
            container.restarts.stopping_by_hand()
        self.life.died(container, event)
        if booted and container.state.status == "exited":
            container.state.exit_code = (
                LOST if container.state.exit_code is None else container.state.exit_code
            )
            if restart_after_boot(container.spec.restart, stopped_by_hand=by_hand):
                self.parts.scheduler.now(lambda: self._start(container))

    def _start(self, container: Container) -> None:
        try:
            self.life.start(container)
        except OrchestraError as error:
            print(f"{container.name} could not be started again: {error}", flush=True)

    def _kill(self, container: Container) -> None:
        try:
            shim = self.parts.shims.client(container.group)
            if os.path.exists(self.parts.bundle(container.id) / "state.json"):
                shim.signal(container.id, 9, all=True)
                shim.wait(container.id)
            self.life.clear(container)
        except (OrchestraError, OSError):
            return
        self.life._release(container)
