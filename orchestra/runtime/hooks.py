"""OCI hooks: programs that get the container's state on their standard input.

They run one after the other by fork and exec, in whatever namespaces the caller is in; the caller is
single-threaded. A failing hook is a ``StepError``, except poststart and poststop, which only warn.
"""

from __future__ import annotations

import json
import os
import select
import signal
from collections.abc import Callable
from typing import Any

from orchestra.errors import OrchestraError
from orchestra.linux import calls, signals
from orchestra.record import record
from orchestra.runtime.problems import StepError

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


@record
class Hook:
    kind: str
    path: str
    args: tuple[str, ...]
    env: tuple[str, ...]
    timeout: int | None


def parse(data: dict[str, Any] | None) -> dict[str, list[Hook]]:
    found: dict[str, list[Hook]] = {}
    for kind in KINDS:
        for entry in (data or {}).get(kind) or ():
            path = str(entry.get("path") or "")
            if not path.startswith("/"):
                raise OrchestraError(f"hooks.{kind}: the path {path!r} must be absolute")
            timeout = entry.get("timeout")
            if timeout is not None and int(timeout) <= 0:
                raise OrchestraError(f"hooks.{kind}: the timeout must be above zero")
            found.setdefault(kind, []).append(
                Hook(
                    kind,
                    path,
                    tuple(entry.get("args") or (path,)),
                    tuple(entry.get("env") or ()),
                    int(timeout) if timeout is not None else None,
                )
            )
    return found


def run(hooks: list[Hook], state: dict[str, Any], *, directory: str | None = None) -> None:
    """All of them; the first failure raises."""
    data = json.dumps(state).encode()
    for hook in hooks:
        _run(hook, data, directory)


def run_leniently(
    hooks: list[Hook], state: dict[str, Any], warn: Callable[[str], None], *, directory: str | None = None
) -> None:
    """All of them, whatever happens."""
    data = json.dumps(state).encode()
    for hook in hooks:
        try:
            _run(hook, data, directory)
        except StepError as problem:
            warn(str(problem))


def _run(hook: Hook, data: bytes, directory: str | None) -> None:
    step = f"{hook.kind} hook {hook.path}"
    # a file, not a pipe: a hook that never reads must not block us
    source = os.memfd_create("state", os.MFD_CLOEXEC)
    error_read, error_write = os.pipe2(os.O_CLOEXEC)
    try:
        os.write(source, data)
        os.lseek(source, 0, os.SEEK_SET)
        pid = os.fork()
        if pid == 0:
            _child(hook, source, error_write, directory)
        os.close(error_write)
        error_write = -1
        try:
            failure = os.read(error_read, 64)
            status = 0 if failure else _wait(pid, hook.timeout, step)
        except StepError:
            raise
        except BaseException:  # a signal to us
            _end(pid)
            raise
        if failure:
            os.waitpid(pid, 0)
            number = int(failure)
            raise StepError(step, number, hook.path, os.strerror(number))
    finally:
        for fd in (source, error_read, error_write):
            if fd >= 0:
                os.close(fd)
    if status:
        word = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
        raise StepError(step, 0, hook.path, word)


def _child(hook: Hook, source: int, error_write: int, directory: str | None) -> None:
    try:
        signals.reset_all()
        os.setsid()
        os.dup2(source, 0)
        keep = os.dup2(error_write, 3, inheritable=False)
        calls.close_range(keep + 1)
        if directory:
            os.chdir(directory)
        environment = dict(line.split("=", 1) for line in hook.env if "=" in line)
        os.execve(hook.path, list(hook.args), environment)
    except OSError as problem:
        os.write(3, str(problem.errno or 1).encode())
    finally:
        os._exit(127)


def _wait(pid: int, timeout: int | None, step: str) -> int:
    if timeout is not None:
        pidfd = os.pidfd_open(pid)
        try:
            poller = select.poll()
            poller.register(pidfd, select.POLLIN)
            if not poller.poll(timeout * 1000):
                _end(pid)
                raise StepError(step, 0, None, f"no end after {timeout} seconds")
        finally:
            os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _end(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
