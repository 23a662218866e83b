"""The helper process of a RUN step: creates one container and waits for it. Single-threaded.

``python -I -S runner_process.py RESULT_FD``: one line of JSON on standard input (config, container_id,
bundle); the container's output goes to our own; the end as JSON to RESULT_FD: ``{"exit": n}`` or
``{"error": {"step", "message", "path"}}``. When standard input ends, the container is killed.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys


def main() -> int:
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    result_fd = int(sys.argv[1])
    os.set_inheritable(result_fd, False)
    request = json.loads(_read_line())
    try:
        result: dict[str, object] = {"exit": _run(request)}
    except Exception as error:  # crosses to the builder as data: it makes the message
        result = {"error": _described(error)}
    os.write(result_fd, json.dumps(result).encode())
    return 0


def _read_line() -> bytes:
    """One line of standard input and nothing behind it."""
    data = bytearray()
    while not data.endswith(b"\n"):
        piece = os.read(0, 1 << 16)
        if not piece:
            raise SystemExit(1)
        data += piece
    return bytes(data)


def _run(request: dict[str, object]) -> int:
    from orchestra.runtime.create import create

    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    created = create(
        request["config"],  # type: ignore[arg-type]
        container_id=str(request["container_id"]),
        bundle=str(request["bundle"]),
        stdio=(null, 1, 2),
        cgroups=None,
    )
    try:
        created.start()
    except BaseException:
        created.abort()
        raise
    # the pipe's end is then held by the container alone: the builder sees the end of its output
    for fd in (1, 2):
        os.dup2(null, fd)
    return _wait(created.pid, created.pidfd)


def _wait(pid: int, pidfd: int) -> int:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(0, select.POLLIN | select.POLLHUP)
    while True:
        events = {fd for fd, _ in poll.poll()}
        if pidfd in events:
            break
        if 0 in events and not os.read(0, 4096):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            poll.unregister(0)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def _described(error: Exception) -> dict[str, str]:
    step = str(getattr(error, "step", "") or type(error).__name__)
    message = str(getattr(error, "message", "") or getattr(error, "strerror", "") or error)
    return {"step": step, "message": message, "path": str(getattr(error, "path", "") or "")}


if __name__ == "__main__":
    sys.exit(main())
