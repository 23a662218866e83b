"""The commands of ``orchestra-runtime`` that change something: create, start, run, exec, kill, delete, pause, resume.

Each is a function of the store and its parsed options; the ones that run something in the foreground
return the exit code. What only some of them need is loaded there: a command is a process, and its start
is most of what it costs.
"""

from __future__ import annotations

import json
import os
import signal
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from orchestra.errors import ConflictError, OrchestraError, UnsupportedError, UsageError
from orchestra.linux import fs, procfs
from orchestra.linux import pidfd as pidfds
from orchestra.runtime import cgroups as groups
from orchestra.runtime import state
from orchestra.runtime.report import Warn, warner
from orchestra.runtime.state import Record, Store

if TYPE_CHECKING:
    from orchestra.runtime.cgroups import CgroupManager
    from orchestra.runtime.create import Created

# Birth


class Interrupted(OrchestraError):
    """A signal ended the command."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.exit_code = 128 + number


@contextmanager
def interruptible() -> Iterator[None]:
    """What is half-made is taken away when a signal would end us, also while a hook does not come to an end."""
    ours = [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]

    def interrupt(number: int, _frame: object) -> None:
        for each in ours:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    handlers = {number: signal.signal(number, interrupt) for number in ours}
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, ours)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def do_create(store: Store, options: Namespace) -> int:
    with interruptible():
        created, _record = _create(store, options, waits_at_door=True)
    created.detach()
    return 0


def do_run(store: Store, options: Namespace) -> int:
    from orchestra.runtime.foreground import Foreground

    foreground = None if options.detach else Foreground()
    with interruptible():
        created, record = _create(store, options, waits_at_door=False)
        try:
            created.start()
        except BaseException:
            created.abort()
            _remove(store, record)
            raise
    if options.detach or foreground is None:
        return 0
    try:
        return foreground.wait(created.pid, created.pidfd, created.master)
    finally:
        foreground.close()
        if not options.keep:
            _delete(store, record, warner(options))


def load_config(bundle: str, path: str | None = None, *, process: bool = False) -> dict[str, Any]:
    """A configuration (``process``: a process object), its types checked."""
    from orchestra.runtime import configcheck

    place = path or os.path.join(bundle, "config.json")
    try:
        with open(place, "rb") as file:
            data = file.read(configcheck.MAX_SIZE + 1)
    except (OSError, ValueError) as problem:
        raise OrchestraError(f"cannot read {place}: {getattr(problem, 'strerror', problem)}") from None
    return configcheck.read(data, place, configcheck.PROCESS if process else configcheck.CONFIG)


def cgroup_path(config: dict[str, Any], container_id: str) -> str:
    path = str((config.get("linux") or {}).get("cgroupsPath") or "")
    if not path:
        return f"/orchestra-runtime/{container_id}"
    if path.count(":") == 2 and not path.startswith("/"):
        raise UnsupportedError(
            f"linux.cgroupsPath {path!r} is systemd's form", hint="use the cgroupfs manager"
        )
    return os.path.normpath(f"/{path.lstrip('/')}")


def _create(store: Store, options: Namespace, *, waits_at_door: bool) -> tuple[Created, Record]:
    from orchestra.runtime.create import Options, create

    bundle = os.path.abspath(options.bundle or ".")
    config = load_config(bundle, options.config)
    _add_listen_fds(config, options)
    terminal = bool((config.get("process") or {}).get("terminal"))
    detached = waits_at_door or options.detach
    if terminal and detached and not options.console_socket:
        raise OrchestraError("a container with a terminal needs --console-socket when it is detached")
    if options.console_socket and not terminal:
        raise OrchestraError("--console-socket is for containers with a terminal (process.terminal)")
    with ExitStack() as undo:
        folder = store.reserve(options.id)
        undo.callback(store.remove, options.id)
        fs.write_file(f"{folder}/config.json", json.dumps(config))
        group = _cgroup(config, options, folder, undo)
        door = state.open_door(folder) if waits_at_door else None
        created = create(
            config,
            container_id=options.id,
            bundle=bundle,
            stdio=(0, 1, 2),
            cgroups=group,
            options=Options(
                pivot=not options.no_pivot,
                new_keyring=not options.no_new_keyring,
                preserve_fds=options.preserve_fds,
                listener=door.fileno() if door else -1,
                warn=warner(options),
            ),
        )
        undo.callback(created.abort)
        if door:
            door.close()
        plan = created.plan
        record = Record(
            options.id,
            bundle,
            created.pid,
            procfs.start_time(created.pid) or 0,
            _now(),
            plan.root,
            plan.version,
            group.path if group else "",
            os.geteuid(),
            plan.annotations,
        )
        if options.console_socket:
            send_console(options.console_socket, created.master)
            created.master = -1
        store.save(record)
        if options.pid_file:
            fs.write_file(options.pid_file, str(created.pid), 0o644)
        undo.pop_all()
        return created, record


def _cgroup(config: dict[str, Any], options: Namespace, folder: str, undo: ExitStack) -> CgroupManager | None:
    resources = (config.get("linux") or {}).get("resources") or {}
    if os.geteuid() != 0:
        limits = sorted(key for key in resources if key != "devices" and resources[key])
        if limits:
            warner(options)(f"resources: {', '.join(limits)} cannot be limited without root")
        return None
    mode = groups.probe()
    if mode.kind == "none":
        return None
    group = groups.manager(cgroup_path(config, options.id), mode)
    if group.exists() and group.pids():
        raise ConflictError(f"cgroup {group.path} is in use by other processes")
    fs.write_file(f"{folder}/cgroup", group.path)
    undo.callback(group.destroy, timeout=2.0)
    for text in group.create(resources):
        warner(options)(text)
    return group


def check_preserved(options: Namespace) -> None:
    """The descriptors to pass on must be there before we open any: of a gap among them the container would get
    one of ours. Those of systemd's socket activation come on top."""
    text = os.environ.get("LISTEN_FDS", "") if options.verb != "exec" else ""
    first = 3 + options.preserve_fds
    for number in range(3, first):
        if not _is_open(number):
            raise UsageError(f"--preserve-fds {options.preserve_fds}: descriptor {number} is not open")
    count = int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0
    options.listen_fds = count if all(_is_open(number) for number in range(first, first + count)) else 0
    options.preserve_fds += options.listen_fds


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _add_listen_fds(config: dict[str, Any], options: Namespace) -> None:
    if options.listen_fds and config.get("process"):
        words = [f"LISTEN_FDS={options.listen_fds}", "LISTEN_PID=1"]
        config["process"]["env"] = [*(config["process"].get("env") or ()), *words]


def send_console(path: str, master: int) -> None:
    """Hand the terminal's master to whoever listens at the socket."""
    import socket

    from orchestra.runtime import tty

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
        try:
            end.connect(path)
            socket.send_fds(end, [tty.name(master).encode()], [master])
        except OSError as problem:
            raise OrchestraError(f"cannot send the terminal to {path}: {problem.strerror}") from None
    os.close(master)


def _now() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e9):09d}Z"


# Start, end


def do_start(store: Store, options: Namespace) -> int:
    record = store.load(options.id)
    need(store, record, "created")
    state.knock(store.folder(record.id))
    _run_hooks("poststart", record, store.config(record.id), "running", warner(options))
    return 0


def _run_hooks(kind: str, record: Record, config: dict[str, Any], status: str, warn: Warn) -> None:
    if not config.get("hooks"):
        return
    from orchestra.runtime import hooks

    found = hooks.parse(config["hooks"])
    if found.get(kind):
        hooks.run_leniently(found[kind], _hook_state(record, status), warn, directory=record.bundle)


def _hook_state(record: Record, status: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "ociVersion": record.version,
        "id": record.id,
        "status": status,
        "bundle": record.bundle,
        "annotations": record.annotations,
    }
    if status != "stopped":
        found["pid"] = record.pid
    return found


def need(store: Store, record: Record, *wanted: str) -> None:
    now = state.status(store, record)
    if now not in wanted:
        raise ConflictError(f"container {record.id} is {now}, not {' or '.join(wanted)}")


def signal_number(text: str) -> int:
    """``9``, ``KILL`` or ``SIGKILL``; also ``RTMIN+3``."""
    word = text.upper().removeprefix("SIG")
    if word.isdigit():
        if 0 < int(word) <= 64:
            return int(word)
    elif word in signal.Signals.__members__ or f"SIG{word}" in signal.Signals.__members__:
        return int(signal.Signals[f"SIG{word}"])
    elif word.startswith(("RTMIN+", "RTMAX-")) and word[6:].isdigit() and int(word[6:]) <= 30:
        return 34 + int(word[6:]) if word[3:5] == "IN" else 64 - int(word[6:])
    raise OrchestraError(f"unknown signal {text!r}")


def do_kill(store: Store, options: Namespace) -> int:
    record = store.load(options.id)
    number = signal_number(options.signal)
    group = state.manager(record)
    if options.all and group is not None:
        if number == signal.SIGKILL:
            group.kill()
        else:
            group.signal(number)
        return 0
    _send(record, number)
    if number == signal.SIGKILL and group is not None:
        if not _own_pids(store, record):
            group.kill()
        elif group.frozen():
            group.thaw()
    return 0


def _own_pids(store: Store, record: Record) -> bool:
    """Whether the init's end takes all others along: a pid namespace of its own."""
    entries = (store.config(record.id).get("linux") or {}).get("namespaces") or ()
    return any(entry.get("type") == "pid" and not entry.get("path") for entry in entries)


def _send(record: Record, number: int) -> None:
    """``container not running`` are the words by which containerd knows that it came too late."""
    ended = ConflictError(f"container not running: {record.id} has ended")
    try:
        fd = pidfds.open_pid(record.pid)
    except ProcessLookupError:
        raise ended from None
    try:
        if not procfs.alive(record.pid, record.start_time):
            raise ended
        pidfds.send_signal(fd, number)
    except ProcessLookupError:
        raise ended from None
    finally:
        os.close(fd)


def do_delete(store: Store, options: Namespace) -> int:
    try:
        record = store.load(options.id)
    except OrchestraError:
        if options.force:
            _clear(store, options.id)
            return 0
        raise
    now = state.status(store, record)
    if now in ("running", "paused") and not options.force:
        raise ConflictError(f"container {record.id} is {now}", hint="stop it, or delete it with --force")
    _delete(store, record, warner(options))
    return 0


def _clear(store: Store, container_id: str) -> None:
    """What a create left that was killed half-way. Its init has ended by itself: it lost its creator."""
    path = store.half_made(container_id)
    if path:
        group = groups.manager(path)
        if group.exists():
            group.kill()
            group.destroy()
    store.remove(container_id)


def _delete(store: Store, record: Record, warn: Warn) -> None:
    """Kill what is left, remove the cgroup and the record, run the poststop hooks."""
    if procfs.alive(record.pid, record.start_time):
        _end(record)
    try:
        config = store.config(record.id)
    except OrchestraError as problem:
        config = {}
        warn(f"{problem.brief}: its poststop hooks are not run")
    _remove(store, record)
    _run_hooks("poststop", record, config, "stopped", warn)


def _end(record: Record) -> None:
    try:
        fd = pidfds.open_pid(record.pid)
    except ProcessLookupError:
        return
    try:
        if procfs.start_time(record.pid) != record.start_time:
            return
        pidfds.send_signal(fd, signal.SIGKILL)
        group = state.manager(record)
        if group is not None:
            group.thaw()
        if not pidfds.wait(fd, 10):
            raise OrchestraError(f"container {record.id} does not end")
    except ProcessLookupError:
        return
    finally:
        os.close(fd)


def _remove(store: Store, record: Record) -> None:
    group = state.manager(record)
    if group is not None and group.exists():
        group.kill()
        group.destroy()
    store.remove(record.id)


def do_pause(store: Store, options: Namespace) -> int:
    record = store.load(options.id)
    need(store, record, "running", "created")
    group = state.manager(record)
    if group is None:
        raise UnsupportedError(f"container {record.id} has no cgroup to pause it by")
    group.freeze()
    return 0


def do_resume(store: Store, options: Namespace) -> int:
    record = store.load(options.id)
    need(store, record, "paused")
    group = state.manager(record)
    if group is not None:
        group.thaw()
    return 0


# Further processes


def do_exec(store: Store, options: Namespace) -> int:
    from orchestra.runtime.exec import ExecOptions, exec_in
    from orchestra.runtime.foreground import Foreground

    record = store.load(options.id)
    need(store, record, "running")
    config = store.config(record.id)
    process = exec_process(config, options)
    if process.get("terminal") and options.detach and not options.console_socket:
        raise OrchestraError("a detached process with a terminal needs --console-socket")
    group = state.manager(record)
    fd = group.fds_for_clone() if group is not None else None
    foreground = None if options.detach else Foreground()
    extra = ExecOptions(preserve_fds=options.preserve_fds)
    done = exec_in(
        config,
        record.pid,
        process,
        stdio=(0, 1, 2),
        cgroup_fd=fd,
        cgroup_dirs=group.dirs() if group is not None and fd is None else None,
        options=extra,
    )
    for text in extra.warnings:
        warner(options)(text)
    try:
        if options.pid_file:
            fs.write_file(options.pid_file, str(done.pid), 0o644)
        if options.console_socket and done.master >= 0:
            send_console(options.console_socket, done.master)
            done.master = -1
    except BaseException:
        pidfds.send_signal(done.pidfd, signal.SIGKILL)
        raise
    if foreground is None:
        return 0
    try:
        return foreground.wait(done.pid, done.pidfd, done.master)
    finally:
        foreground.close()


def exec_process(config: dict[str, Any], options: Namespace) -> dict[str, Any]:
    """The process of an exec: from a file, or the container's with the words of the command line."""
    if options.process:
        return load_config("", options.process, process=True)
    if not options.command:
        raise OrchestraError("exec needs a command or --process")
    process = {
        key: value
        for key, value in config["process"].items()
        if key not in ("terminal", "consoleSize", "args", "scheduler")
    }
    process["args"], process["terminal"] = list(options.command), options.tty
    process["env"] = [*process.get("env", ()), *options.env]
    if options.cwd:
        process["cwd"] = options.cwd
    if options.user:
        uid, _, gid = options.user.partition(":")
        if not uid.isdigit() or (gid and not gid.isdigit()):
            raise OrchestraError(f"--user {options.user!r} must be numbers: UID[:GID]")
        process["user"] = {**process.get("user", {}), "uid": int(uid), **({"gid": int(gid)} if gid else {})}
    if options.additional_gids:
        process["user"] = {**process.get("user", {}), "additionalGids": options.additional_gids}
    if options.no_new_privs:
        process["noNewPrivileges"] = True
    if options.cap:
        sets = {key: list(value or ()) for key, value in (process.get("capabilities") or {}).items()}
        for key in ("bounding", "permitted", "effective"):
            sets[key] = sorted({*sets.get(key, ()), *options.cap})
        process["capabilities"] = sets
    return process
