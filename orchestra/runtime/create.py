"""The parent's side of creating a container. The caller is single-threaded and becomes the init's parent.

The simple way is ``create(…)`` and ``created.start()``. Whoever makes many at once overlaps them, as
most of a creation is the kernel's waiting::

    ready = [prepare(…) for …]
    pending = [one.launch() for one in ready]     # clone3 each; the children are mounting already
    for one in pending: one.attach()              # into their cgroups where they cannot go by themselves
    for one in pending: created = one.finish()

``Pending.fileno()`` is for polling: when it is readable, ``step()`` handles one message and is true
once the container is created; a failure raises ``StepError`` after cleaning up. Whatever happens to
the caller, the child notices the closed socket and leaves.
"""

from __future__ import annotations

import errno
import functools
import os
import signal
import socket
from collections.abc import Callable
from typing import Any, NoReturn

from orchestra.linux import constants as C
from orchestra.linux import pidfd as pidfds
from orchestra.linux import userns
from orchestra.linux.clone import clone
from orchestra.record import record
from orchestra.runtime import channel, hooks, init, mounts, namespaces, process, quick, quick_root, rootfs
from orchestra.runtime import plan as plans
from orchestra.runtime.cgroups import CgroupManager
from orchestra.runtime.cgroups.base import Recipe
from orchestra.runtime.plan import Plan
from orchestra.runtime.problems import StepError

__all__ = ["Created", "Options", "Pending", "Prepared", "StepError", "create", "create_begin", "prepare"]

Warn = Callable[[str], None]


@record
class Options:
    """``listener`` is a listening SOCK_SEQPACKET unix socket on which the init waits for its start
    instead of on ours (for a creator that does not stay). ``warn`` gets the named warnings. ``files`` (mode
    0600) may be made by the container's process, as that is the kernel's time; nobody relies on it."""

    pivot: bool = True
    new_keyring: bool = True
    preserve_fds: int = 0
    listener: int = -1
    files: tuple[str, ...] = ()
    warn: Warn = lambda _text: None


class Created:
    """A container whose init waits for its start. ``master`` is the terminal's master or -1; it is the
    caller's, as is ``pidfd``. ``pid`` is our child: the caller waits for it."""

    def __init__(
        self,
        plan: Plan,
        pid: int,
        pidfd: int,
        end: socket.socket,
        master: int,
        warn: Warn,
        steps: list[str] | None = None,
    ) -> None:
        self.plan = plan
        self.steps = steps  # of a quick start
        self.pid = pid
        self.pidfd = pidfd
        self.master = master
        self._end = end
        self._warn = warn

    def fileno(self) -> int:
        """Readable when ``start_finish`` will not wait."""
        return self._end.fileno()

    def start(self) -> None:
        """Let the program run; returns when it was executed. ``StepError`` when it could not be."""
        self.start_begin()
        self.start_finish()

    def start_begin(self) -> None:
        try:
            channel.tell(self._end, "start")
        except OSError:
            pass  # start_finish says what has happened

    def start_finish(self) -> None:
        try:
            message, _ = channel.receive(self._end)
        finally:
            self._end.close()
        if message is not None:
            if "failed" in message:
                number, call = message["failed"]
                raise process.start_error(self.plan.process, number, call, self.steps or [])
            raise StepError.from_step(message.get("error") or {})
        if self.plan.hooks.get("poststart"):
            hooks.run_leniently(
                self.plan.hooks["poststart"],
                self.plan.state("running", self.pid),
                self._warn,
                directory=self.plan.bundle,
            )

    def detach(self) -> None:
        """Leave the init to its listener: its start is somebody else's business."""
        self._end.close()

    def abort(self) -> None:
        """Kill it and wait for its end. The cgroup is the caller's to remove."""
        self._end.close()
        _kill(self.pid, self.pidfd)
        os.close(self.pidfd)
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


class Pending:
    """A container in the making."""

    def __init__(
        self,
        plan: Plan,
        options: Options,
        cgroups: CgroupManager | None,
        end: socket.socket,
        pid: int,
        pidfd: int,
        *,
        inside: bool,
        steps: list[str] | None = None,
        again: Callable[[], Pending] | None = None,
    ) -> None:
        self.plan = plan
        self.pid = pid
        self.pidfd = pidfd
        self.master = -1
        self._options = options
        self._cgroups = cgroups
        self._end = end
        self._attached = False
        self._inside = inside  # clone3 has put it into its cgroup, or it goes by itself
        self._ready = False
        self._steps = steps
        self._again = again
        self._old: socket.socket | None = None

    @property
    def quick(self) -> bool:
        """Whether it is a program of system calls, see ``quick``."""
        return self._steps is not None

    def fileno(self) -> int:
        """Another one after a ``step`` that had to start over."""
        return self._end.fileno()

    def attach(self) -> None:
        """Move the init into its cgroup, and say so; a quick one does not wait for that."""
        if self._attached:
            return
        self._attached = True
        if not self.quick:
            self._attach()

    def _attach(self) -> None:
        try:
            if self._cgroups is not None and not self._inside:
                self._cgroups.attach(self.pid)
            self._protect()
            if not self.quick:
                channel.tell(self._end, "attached")
        except BrokenPipeError:
            return  # it has failed: its message says why
        except OSError as problem:
            if problem.errno == errno.ESRCH:
                return
            self.abort()
            raise StepError.of("join the cgroup", problem) from None

    def _protect(self) -> None:
        """oom_score_adj, from outside: in a user namespace the process may not itself. Not before a quick one has
        executed: whoever shares memory shares this."""
        value = self.plan.process.oom_score_adj
        if value is None or (self.quick and quick.scores(self.plan)):
            return
        try:
            fd = os.open(f"/proc/{self.pid}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, str(value).encode())
            finally:
                os.close(fd)
        except PermissionError:
            self._options.warn(f"oomScoreAdj: this machine does not allow {value}")
        except (ProcessLookupError, FileNotFoundError):
            return

    def step(self) -> bool:
        """Handle one message (waits for it); true when the container is created."""
        if self._ready:
            return True
        message, fds = channel.receive(self._end)
        if self._again and (message is None or "failed" in message):
            self._start_over()
            return False
        if message is None:
            self.abort()
            raise StepError("create the container", 0, None, "its init ended without a word")
        if "error" in message:
            self.abort()
            raise StepError.from_step(message["error"])
        if "warning" in message:
            self._options.warn(str(message["warning"]))
        elif "console" in message:
            self.master = fds[0]
        elif "hooks" in message:
            self._hooks()
        self._ready = "ready" in message
        if self._ready and self.quick:
            self._attach()
        return self._ready

    def _start_over(self) -> None:
        """A quick start has failed: the careful one finds the reason."""
        assert self._again
        _kill(self.pid, self.pidfd)
        os.close(self.pidfd)
        self.pidfd, again, self._again = -1, self._again, None
        quick_root.give_up(self.plan)
        other = again()
        self._old = self._end  # closed later: whoever polls it lets go of it first
        self._end, self.pid, self.pidfd = other._end, other.pid, other.pidfd
        self._inside, self._steps = other._inside, None
        attached, self._attached = self._attached, False
        if attached:
            self.attach()

    def _hooks(self) -> None:
        """prestart and createRuntime: in our namespaces, while the container's are there."""
        self.attach()
        state = self.plan.state("creating", self.pid)
        try:
            for kind in ("prestart", "createRuntime"):
                hooks.run(self.plan.hooks.get(kind, []), state, directory=self.plan.bundle)
        except StepError:
            self.abort()
            raise
        channel.tell(self._end, "hooks")

    def finish(self) -> Created:
        """Wait until it is created."""
        self.attach()
        while not self.step():
            pass
        if self._old:
            self._old.close()
        return Created(
            self.plan, self.pid, self.pidfd, self._end, self.master, self._options.warn, self._steps
        )

    def abort(self) -> None:
        """Kill it and wait for its end."""
        if self._old:
            self._old.close()
        self._end.close()
        if self.pidfd < 0:
            return
        _kill(self.pid, self.pidfd)
        os.close(self.pidfd)
        self.pidfd = -1
        if self.master >= 0:
            os.close(self.master)
            self.master = -1


def _kill(pid: int, pidfd: int) -> None:
    try:
        pidfds.send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass


def create(
    config: dict[str, Any],
    *,
    container_id: str,
    bundle: str,
    stdio: tuple[int, int, int],
    cgroups: CgroupManager | None = None,
    options: Options | None = None,
) -> Created:
    """A container up to the point before its program runs. The cgroup, if any, has been created."""
    pending = create_begin(
        config, container_id=container_id, bundle=bundle, stdio=stdio, cgroups=cgroups, options=options
    )
    try:
        return pending.finish()
    except BaseException:  # of a signal, too
        pending.abort()
        raise


def create_begin(
    config: dict[str, Any],
    *,
    container_id: str,
    bundle: str,
    stdio: tuple[int, int, int],
    cgroups: CgroupManager | None = None,
    options: Options | None = None,
) -> Pending:
    """Make the container's process and return at once."""
    return prepare(
        config, container_id=container_id, bundle=bundle, stdio=stdio, cgroups=cgroups, options=options
    ).launch()


def prepare(
    config: dict[str, Any],
    *,
    container_id: str,
    bundle: str,
    stdio: tuple[int, int, int],
    cgroups: CgroupManager | None = None,
    options: Options | None = None,
    recipe: Recipe | None = None,
) -> Prepared:
    """All that can be done before the container's process exists. With a ``recipe`` the cgroup has not been
    created: that is part of the launch."""
    options = options or Options()
    plan = plans.make(config, container_id=container_id, bundle=os.path.abspath(bundle), cgroups=cgroups)
    plan.pivot, plan.new_keyring, plan.preserve_fds = options.pivot, options.new_keyring, options.preserve_fds
    for warning in plan.warnings:
        options.warn(warning)
    return Prepared(plan, options, cgroups, stdio, recipe)


class Prepared:
    """A container that has no process yet. Whoever makes many prepares all and then launches all: after a
    clone both sides copy each page of memory that they touch, and a burst of clones shares that cost."""

    def __init__(
        self,
        plan: Plan,
        options: Options,
        cgroups: CgroupManager | None,
        stdio: tuple[int, int, int],
        recipe: Recipe | None = None,
    ) -> None:
        self.plan, self.options, self.cgroups, self.stdio, self.recipe = plan, options, cgroups, stdio, recipe

    def launch(self, *, careful: bool = False) -> Pending:
        """Clone; ``stdio`` may be closed when it is created. ``careful``: not by a program of system calls."""
        plan, cgroups = self.plan, self.cgroups
        quickly = not careful and self.options.listener < 0 and quick.fits(plan)
        if quickly and self.recipe is not None:
            plan.joins = self.recipe.folders()
            pending = self._quickly(None)
            if pending:
                return pending
            quickly = False
        self._make_cgroup()
        by_itself = not plan.namespaces.needs_middle and not plan.namespaces.own("user")
        try:
            group = cgroups.fds_for_clone() if cgroups is not None else None
        except OSError as problem:
            raise StepError.of("open the cgroup", problem) from None
        try:
            plan.joins = cgroups.dirs() if cgroups is not None and group is None and by_itself else []
            pending = self._quickly(group) if quickly else None
            return pending or self._carefully(group)
        finally:
            close_all(group)

    def _make_cgroup(self) -> None:
        recipe, self.recipe = self.recipe, None
        if recipe is not None:
            for warning in recipe.make():
                self.options.warn(warning)

    def _quickly(self, group: int | None) -> Pending | None:
        """As a program of system calls; None where that cannot be."""
        plan, options = self.plan, self.options
        made = quick.make(plan, self.stdio, self.recipe, options.files)
        if made is None:
            return None
        program, values = made
        try:
            ours, theirs = channel.pair()
        except BaseException:
            values.close()
            raise
        try:
            flags = plan.namespaces.clone_flags() & C.CLONE_NEWPID
            pid, pidfd = program.run(values, ours.fileno(), theirs.fileno(), flags, cgroup_fd=group)
        except OSError:
            ours.close()
            quick_root.give_up(plan)
            return None
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        again = functools.partial(self.launch, careful=True)
        return self._pending(ours, pid, pidfd, group, program.steps, again)

    def _carefully(self, group: int | None) -> Pending:
        ours, theirs = channel.pair()
        inherited = init.Inherited(theirs, self.stdio, self.options.listener)
        try:
            pid, pidfd = _clone(self.plan, inherited, ours, group)
        except OSError as problem:
            ours.close()
            raise StepError.of("make the container's process", problem) from None
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            close_all(*inherited.joins.values(), *inherited.trees.values())
        return self._pending(ours, pid, pidfd, group, None, None)

    def _pending(
        self,
        ours: socket.socket,
        pid: int,
        pidfd: int,
        group: int | None,
        steps: list[str] | None,
        again: Callable[[], Pending] | None,
    ) -> Pending:
        inside = group is not None or bool(self.plan.joins)
        return Pending(
            self.plan, self.options, self.cgroups, ours, pid, pidfd, inside=inside, steps=steps, again=again
        )


def close_all(*fds: int | None) -> None:
    for fd in fds:
        if fd is not None:
            os.close(fd)


def _clone(plan: Plan, inherited: init.Inherited, ours: socket.socket, group: int | None) -> tuple[int, int]:
    inherited.joins = namespaces.open_all(plan.namespaces.joined)
    if plan.namespaces.needs_middle:
        return _by_middle(plan, inherited, ours, group)
    _open_idmapped(plan, inherited)
    inherited.unshare = True
    pid, pidfd = clone(plan.namespaces.clone_flags() & C.CLONE_NEWPID, cgroup_fd=group)
    if pid == 0:
        init.guarded(inherited.end, lambda: init.run(plan, inherited))
    return pid, pidfd


def _open_idmapped(plan: Plan, inherited: init.Inherited) -> None:
    """Id maps are put on by who still is in the host's namespaces."""
    for index, mount in enumerate(plan.mounts):
        if mount.words.idmap:
            inherited.trees[index] = mounts.open_source(mount)


# The middle process: joins what must be joined before init's pid exists, mounts what a user namespace
# may not, makes the init as its own sibling, and ends.


def _by_middle(
    plan: Plan, inherited: init.Inherited, ours: socket.socket, group: int | None
) -> tuple[int, int]:
    middle, middle_fd = clone()
    if middle == 0:
        init.guarded(inherited.end, lambda: _middle(plan, inherited, group))
    try:
        message, fds = channel.receive(ours)
        os.waitpid(middle, 0)
    finally:
        os.close(middle_fd)
    if message is None:
        raise StepError("make the container's process", 0, None, "the middle process ended without a word")
    if "error" in message:
        raise StepError.from_step(message["error"])
    return int(message["born"]), fds[0]


def _middle(plan: Plan, inherited: init.Inherited, group: int | None) -> NoReturn:
    """Keeps the descriptors of the parent (closing is the init's first act); only the calling process
    changes its namespaces."""
    new_user = "user" in plan.namespaces.new
    joins = dict(inherited.joins)
    mount_join = {"mount": joins.pop("mount")} if "mount" in joins else {}
    if new_user or "user" in joins:
        _mount_for_user(plan, inherited)
    namespaces.enter({kind: os.dup(fd) for kind, fd in joins.items()})
    inherited.joins = mount_join
    flags = plan.namespaces.clone_flags()
    go_read, go_write = os.pipe2(os.O_CLOEXEC)
    inherited.go = go_read
    pid, pidfd = clone(flags | C.CLONE_PARENT, cgroup_fd=group)
    if pid == 0:
        os.close(go_write)
        init.guarded(inherited.end, lambda: init.run(plan, inherited))
    try:
        if new_user:
            userns.write_maps(pid, plan.uids, plan.gids)
    except OSError as problem:
        pidfds.send_signal(pidfd, signal.SIGKILL)
        raise StepError.of("write the id maps", problem) from None
    channel.send(inherited.end, {"born": pid}, (pidfd,))
    os.write(go_write, b"g")  # what the init has to say comes after its birth
    os._exit(0)


def _mount_for_user(plan: Plan, inherited: init.Inherited) -> None:
    """With the host's rights: the root, and the sources of all bind mounts."""
    from orchestra.linux import calls

    if "mount" not in plan.namespaces.new:
        return
    calls.unshare(C.CLONE_NEWNS)
    rootfs.isolate(plan.propagation)
    for index, mount in enumerate(plan.mounts):
        if mount.bind:
            inherited.trees[index] = mounts.open_source(mount)
    root_fd = rootfs.mount_root(plan.root, plan.root_mount, (plan.uids, plan.gids), plan.propagation)
    os.fchdir(root_fd)
    os.close(root_fd)
    inherited.root_ready = True
