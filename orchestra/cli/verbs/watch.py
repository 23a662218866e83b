"""``watch``: files change, services follow: sync, restart, exec, rebuild (``develop.watch``)."""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from orchestra.cli.projects import project_data
from orchestra.errors import OrchestraError, UsageError

if TYPE_CHECKING:
    from orchestra.cli.context import Context
    from orchestra.compose.model import Project, WatchRule

QUIET = 0.5  # seconds without a change before a batch is handled
LATEST = 2.0  # and at the latest so long after the first change of the batch
SCRATCH = ("*.swp", "*.swx", "*~", ".#*", "4913", "*___jb_tmp___", "*___jb_old___", ".DS_Store")


def add_arguments(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--no-up", action="store_true", help="do not bring the services up first")
    add("--quiet", action="store_true", help="build without its steps")
    add(
        "--prune",
        action="store_true",
        default=True,
        help="remove the images that rebuilds replace (--prune=false: do not)",
    )
    add("services", nargs="*", metavar="SERVICE")


def run(context: Context, args: Namespace) -> int:
    context.hush(args)
    project = context.load(args.services)
    watcher = Watcher(context, project, prune=args.prune)
    if not args.no_up:
        options = {"services": args.services}
        context.call("up", {"project": project_data(project), "options": options, "images": {"build": True}})
    watcher.run()
    return 0


@dataclass
class Batch:
    """What changed for one service: path on this machine → rules it matched."""

    changed: dict[str, WatchRule] = field(default_factory=dict)


class Watcher:
    """Watches the rules of every service of a project that has some. Raises UsageError when none has."""

    def __init__(self, context: Context, project: Project, *, prune: bool = True) -> None:
        self.context, self.project, self.prune = context, project, prune
        self.rules = [
            (service.name, rule) for service in project.services.values() for rule in service.develop
        ]
        if not self.rules:
            raise UsageError(
                "none of the selected services is configured for watch, consider setting a 'develop' section"
            )
        self._warn_bind_mounts()

    def _warn_bind_mounts(self) -> None:
        kept = []
        for name, rule in self.rules:
            binds = [m.source for m in self.project.services[name].volumes if m.type == "bind"]
            if rule.action.startswith("sync") and any(_inside(rule.path, source) for source in binds):
                self.context.warn(
                    f"path '{rule.path}' of service {name} is bind mounted already and is not watched"
                )
            else:
                kept.append((name, rule))
        self.rules = kept

    def run(self) -> None:
        """For ever (until interrupted): wait for changes, handle them in batches."""
        from orchestra.linux.inotify import TreeWatch

        for name, rule in self.rules:
            if rule.initial_sync and rule.action.startswith("sync"):
                self._sync(name, rule, [path for path in _files(rule.path) if self._wanted(rule, path)])
        with TreeWatch(sorted({rule.path for _, rule in self.rules}), skip=(".git",)) as tree:
            print("Watch enabled", file=self.context.stderr, flush=True)
            while True:
                pending: set[str] = set(tree.read(None))
                latest = time.monotonic() + LATEST
                while time.monotonic() < latest:
                    more = tree.read(QUIET)
                    if not more:
                        break
                    pending.update(more)
                self.handle(pending)

    def handle(self, paths: set[str]) -> None:
        """One batch: rebuild, sync, restart, exec – in this order."""
        rebuild: dict[str, None] = {}
        restart: dict[str, None] = {}
        hooks: list[tuple[str, Any]] = []
        for name, rule in self.rules:
            touched = sorted(path for path in paths if _inside(path, rule.path) and self._wanted(rule, path))
            if not touched:
                continue
            if rule.action == "rebuild":
                rebuild[name] = None
                continue
            self._sync(name, rule, touched)
            if rule.action in ("restart", "sync+restart"):
                restart[name] = None
            if rule.action == "sync+exec" and rule.exec is not None:
                hooks.append((name, rule.exec))
        for name in rebuild:
            self._guard(lambda name=name: self._rebuild(name))
        for name in restart:
            if name not in rebuild:
                self._guard(lambda name=name: self._restart(name))
        for name, hook in hooks:
            self._guard(lambda name=name, hook=hook: self._exec(name, hook))

    def _guard(self, work: Any) -> None:
        try:
            work()
        except OrchestraError as error:
            self.context.report(error)
        except OSError as error:  # a file that is gone again
            self.context.warn(f"{error.filename or self.project.name}: {error.strerror or error}")

    def _wanted(self, rule: WatchRule, path: str) -> bool:
        from fnmatch import fnmatch

        from orchestra.build.ignore import IgnoreRules

        name = os.path.basename(path)
        relative = os.path.relpath(path, rule.path)
        if any(fnmatch(name, pattern) for pattern in SCRATCH) or ".git" in relative.split("/"):
            return False
        if rule.ignore and IgnoreRules(list(rule.ignore)).matches(relative):
            return False
        return not rule.include or IgnoreRules(list(rule.include)).matches(relative)

    def _containers(self, name: str) -> list[dict[str, Any]]:
        found = self.context.client.call("containers", {"project": self.project.name})
        return [c for c in found if c["service"] == name and not c["oneoff"] and c["state"] == "running"]

    def _sync(self, name: str, rule: WatchRule, paths: list[str]) -> None:
        if rule.action == "restart" or not paths:
            return
        from orchestra.cli.copy import copy_to

        for info in self._containers(name):
            for path in paths:
                target = (
                    rule.target
                    if path == rule.path
                    else os.path.join(rule.target, os.path.relpath(path, rule.path))
                )
                self._guard(
                    lambda info=info, path=path, target=target: self._one(copy_to, info["id"], path, target)
                )
        print(
            f"Syncing service {name!r} after {len(paths)} changes were detected".replace("'", '"'),
            file=self.context.stderr,
            flush=True,
        )

    def _one(self, copy: Any, ref: str, path: str, target: str) -> None:
        """Copy or delete one path; folders are made as needed."""
        if not os.path.lexists(path):
            self._command(ref, ["rm", "-rf", "--", target])
        elif os.path.isdir(path) and not os.path.islink(path):
            self._command(ref, ["mkdir", "-p", "--", target])
        else:
            self._command(ref, ["mkdir", "-p", "--", os.path.dirname(target)])
            copy(self.context, path, ref, target, follow=False, archive=False)

    def _command(self, ref: str, command: list[str]) -> None:
        from orchestra.cli.execution import run_exec

        spec = {
            "command": command,
            "environment": {},
            "user": "0",
            "working_dir": "/",
            "privileged": False,
            "tty": False,
            "size": None,
        }
        run_exec(self.context, ref, spec, detach=False, stdin=False)

    def _rebuild(self, name: str) -> None:
        print(
            f'Rebuilding service "{name}" after changes were detected', file=self.context.stderr, flush=True
        )
        options = {"services": [name], "no_deps": True}
        before = {c["image_id"] for c in self._containers(name)}
        self.context.call(
            "up", {"project": project_data(self.project), "options": options, "images": {"build": True}}
        )
        if self.prune:
            self._remove_replaced(before - {c["image_id"] for c in self._containers(name)})

    def _remove_replaced(self, images: set[str]) -> None:
        """Images of the last build that have no name any more and that nothing else uses."""
        from orchestra.images.store import open_store

        store = open_store(self.context.paths)
        for image_id in images:
            image = store.resolve(image_id)
            if image is None or image.references:
                continue
            try:
                store.remove(image_id)
            except OrchestraError:
                continue  # another container has it

    def _restart(self, name: str) -> None:
        data = project_data(self.project)
        self.context.call(
            "lifecycle", {"verb": "restart", "name": self.project.name, "project": data, "services": [name]}
        )

    def _exec(self, name: str, hook: Any) -> None:
        from orchestra.cli.execution import run_exec

        environment = {key: value for key, value in hook.environment.items() if value is not None}
        spec = {
            "command": list(hook.command),
            "environment": environment,
            "user": hook.user,
            "working_dir": hook.working_dir,
            "privileged": hook.privileged,
            "tty": False,
            "size": None,
        }
        for info in self._containers(name):
            code = run_exec(self.context, info["id"], spec, detach=False, stdin=False)
            if code:
                raise OrchestraError(f"watch command of service {name} exited with code {code}")


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _files(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    return [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
