"""Attached ``up``: bring up, show the logs, stop everything at Ctrl-C or when a container's end asks for it."""

from __future__ import annotations

import os
import signal
import threading
import time
from argparse import Namespace

from orchestra.cli.projects import project_data, timeout_of
from orchestra.cli.render.logs import printer, short_name
from orchestra.cli.verbs.logs import Followers
from orchestra.errors import NotFoundError, OrchestraError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestra.cli.context import Context
    from orchestra.compose.model import Project


class Attached:
    """One attached run. ``run`` returns the exit code."""

    def __init__(self, context: Context, args: Namespace, project: Project, options: dict[str, Any]) -> None:
        self.context, self.args, self.project, self.options = context, args, project, options
        self.show = printer(context, args)
        self.begun = time.time()
        self.followers = Followers(
            context, self.show, {"follow": True, "tail": None, "since": None, "until": None}
        )
        self.watched = self._watched()
        self.alive: dict[str, str] = {}  # id → name of watched containers that run
        self.changed = threading.Condition()
        self.up_done = False
        self.failure: OrchestraError | None = None
        self.interrupts = 0
        self.detached = self.watching = False
        self.abort_code: int | None = None
        self.codes: dict[str, int] = {}  # service → exit code of its last container that stopped

    def _watched(self) -> set[str]:
        names = set(self.project.services)
        if self.args.attach:
            names = set(self.args.attach)
        elif self.args.services and not self.args.attach_dependencies:
            names = set(self.args.services)
        for name in {*self.args.attach, *self.args.no_attach}:
            if name not in self.project.services:
                raise NotFoundError(f"no such service: {name}")
        names -= set(self.args.no_attach)
        if not self.args.attach:
            names = {name for name in names if self.project.services[name].attach}
        if self.args.exit_code_from and self.args.exit_code_from not in self.project.services:
            raise NotFoundError(f"no such service: {self.args.exit_code_from}")
        return names

    def run(self) -> int:
        before = {n: signal.signal(n, self._interrupt) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            names = ", ".join(sorted(self.watched))
            print(f"Attaching to {names}", file=self.context.stdout, flush=True)
            threading.Thread(target=self._events, daemon=True).start()
            threading.Thread(target=self._up, daemon=True).start()
            if self.args.watch:
                self._watch()
            if self._wants_menu():
                self._with_menu()
            else:
                self._until_over()
            return self._finish()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # bringing up, in a thread

    def _up(self) -> None:
        from orchestra.cli.verbs.up import up_args

        try:
            self.context.call("up", up_args(self.context, self.args, self.project, self.options))
            for info in self.context.client.call("containers", {"project": self.project.name}):
                self._consider(info)
        except OrchestraError as error:
            self.failure = error
        with self.changed:
            self.up_done = True
            self.changed.notify_all()

    def _consider(self, info: dict[str, Any], since: float | None = None) -> None:
        """Follow a watched container that runs or just ran."""
        if info["oneoff"] or info["service"] not in self.watched:
            return
        fresh = info["finished"] >= self.begun
        if info["state"] in ("running", "restarting", "paused") or fresh:
            self.show.register(short_name(info))
            with self.changed:
                if info["state"] in ("running", "restarting", "paused"):
                    self.alive[info["id"]] = info["name"]
            self.followers.follow(info, since=self.begun if since is None else since)

    # events, in a thread

    def _events(self) -> None:
        try:
            for kind, event in self.context.client.stream(
                "events", {"project": self.project.name, "since": self.begun}
            ):
                if kind == "data" and event["type"] == "container":
                    self._event(event)
        except OrchestraError:
            return

    def _event(self, event: dict[str, Any]) -> None:
        attributes = event["attributes"]
        if attributes.get("com.docker.compose.oneoff") == "True":
            return
        service = attributes.get("com.docker.compose.service", "")
        if event["action"] == "start":
            try:
                self._consider(
                    self.context.client.call("container", {"ref": event["id"]}), since=event["time"] - 0.5
                )
            except OrchestraError:
                return
        elif event["action"] == "die":
            self._died(event, service, int(attributes.get("exitCode", "0")))
        elif event["action"] == "destroy":
            self._gone(event["id"])

    def _died(self, event: dict[str, Any], service: str, code: int) -> None:
        name = event["attributes"].get("name", event["id"][:12])
        restarting = False
        try:
            restarting = self.context.client.call("container", {"ref": event["id"]})["state"] == "restarting"
        except OrchestraError:
            pass
        thread = self.followers.threads.get(event["id"])
        if thread is not None and not restarting:
            thread.join(5)
        if service in self.watched:
            shown = name.removeprefix(f"{self.project.name}-")
            self.show.status(shown, f"exited with code {code}" + (" (restarting)" if restarting else ""))
        self.codes[service] = code
        if not restarting:
            self._abort(service, code)
            self._gone(event["id"])

    def _abort(self, service: str, code: int) -> None:
        wanted = self.args.abort_on_container_exit or (self.args.abort_on_container_failure and code != 0)
        if wanted and self.abort_code is None:
            with self.changed:
                self.abort_code = code
                self.changed.notify_all()

    def _gone(self, container: str) -> None:
        with self.changed:
            self.alive.pop(container, None)
            self.changed.notify_all()

    # the main thread

    def _interrupt(self, _number: int, _frame: object) -> None:
        self.interrupts += 1

    def _until_over(self) -> None:
        """Until interrupted, aborted, failed, or nothing watched runs any more."""
        while True:
            with self.changed:
                self.changed.wait(0.1)
                unread = self.show.failed is not None
                over = self.up_done and (
                    not self.alive or self.failure is not None or self.detached or unread
                )
                if self.interrupts or self.abort_code is not None or over:
                    return

    def _finish(self) -> int:
        if self.failure is not None and not self.interrupts:
            raise self.failure
        if not self.interrupts and self.abort_code is None:
            self.show.check()  # nobody reads: the containers run on
            if self.detached:
                print("Detached, the containers run on", file=self.context.stderr)
            else:
                self.followers.join()
            return 0
        if self.interrupts:
            print("Gracefully Stopping... press Ctrl+C again to force", file=self.context.stderr, flush=True)
        else:
            print("Aborting on container exit...", file=self.context.stderr, flush=True)
        self._stop()
        if self.interrupts:
            return 130
        if self.args.exit_code_from:
            return self.codes.get(self.args.exit_code_from, 0)
        return self.abort_code or 0

    def _stop(self) -> None:
        """Stop in reverse order; a second Ctrl-C kills."""
        seen = self.interrupts
        data = {"name": self.project.name, "project": project_data(self.project), "services": []}
        done = threading.Event()
        errors: list[OrchestraError] = []

        def work() -> None:
            try:
                self.context.call("lifecycle", {"verb": "stop", "timeout": timeout_of(self.args), **data})
            except OrchestraError as error:
                errors.append(error)
            done.set()

        threading.Thread(target=work, daemon=True).start()
        while not done.wait(0.05):
            if self.interrupts > seen:
                self.context.client.call("each", {"verb": "kill", **data})
                seen = self.interrupts
        if self.args.exit_code_from and self.args.exit_code_from not in self.codes:
            for info in self.context.client.call("containers", {"project": self.project.name}):
                if info["service"] == self.args.exit_code_from:
                    self.codes[info["service"]] = info["exit_code"]
        self._drain()
        if errors and not self.interrupts:
            raise errors[0]

    def _drain(self) -> None:
        """Let the followers and the events print what came during the stop."""
        deadline = time.monotonic() + 5
        with self.changed:
            while self.alive and time.monotonic() < deadline:
                self.changed.wait(0.1)
        while time.monotonic() < deadline and any(
            thread.is_alive() for thread in self.followers.threads.values()
        ):
            time.sleep(0.02)
        self.show.flush()

    # the menu and watch

    def _wants_menu(self) -> bool:
        """``--menu`` or COMPOSE_MENU, and a terminal to press keys at."""
        asked = self.context.truth("COMPOSE_MENU")
        wanted = asked if self.args.menu is None else self.args.menu
        if not wanted:
            return False
        if os.isatty(0) and os.isatty(1):
            return True
        if self.args.menu:
            self.context.warn("--menu has no effect without a terminal")
        return False

    def _with_menu(self) -> None:
        from orchestra.cli.menu import Menu

        watchable = any(service.develop for service in self.project.services.values())
        keys = {"d": self._detach, **({"w": self._watch_by_key} if watchable else {})}
        words = ["d: detach", *(["w: watch"] if watchable else [])]
        print(f"Keys: {', '.join(words)}", file=self.context.stderr, flush=True)
        with Menu(keys):
            self._until_over()

    def _detach(self) -> None:
        with self.changed:
            self.detached = True
            self.changed.notify_all()

    def _watch_by_key(self) -> None:
        if self.watching:
            return
        try:
            self._watch()
        except OrchestraError as error:
            self.context.report(error)

    def _watch(self) -> None:
        from orchestra.cli.verbs.watch import Watcher

        self.watching = True
        watcher = Watcher(self.context, self.project)
        threading.Thread(target=watcher.run, daemon=True).start()
