"""The shim: parent of one project's containers.

It makes them, holds their stdio and pidfds, writes their exit to disk before anyone is told, and
answers on a socket. It has no policy: it starts, stops and restarts nothing by itself. It is started
by ``shimclient.ensure`` as ``python -I -S shim.py``, or forked from a nursery, which was started so and
waits. It imports the standard library, ``orchestra.linux`` and ``orchestra.runtime`` only, is
single-threaded, and leaves when it holds no living container and nobody is connected.

    <run>/shims/<project>.sock   SOCK_SEQPACKET, see shim_wire
    <run>/shims/<project>.lock   held by flock as long as the shim lives: never two for one project
    <run>/shims/<project>.log    what went wrong in the shim itself

When a shim is killed, its containers run on; the next one finds them by their state.json.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":  # python -I -S: nothing is on the path yet, and our folder must not be
    sys.path[:] = [place for place in sys.path if place != os.path.dirname(os.path.abspath(__file__))]
    # last: what lies beside our package must not hide the standard library
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from orchestra.linux import selfexe
from orchestra.linux.calls import prctl

_SET_CHILD_SUBREAPER = 36


def _detach() -> None:
    """Out of the caller's session and tree; nothing inherited but the three standard fds and ``ready``."""
    if os.fork():
        os._exit(0)
    os.chdir("/")
    os.umask(0o022)


def main(words: list[str]) -> int:
    """Twice: first to leave the caller and start over from a read-only copy of the interpreter (all but
    ``selfexe`` is imported after that), then to serve."""
    options = dict(zip((word.removeprefix("--") for word in words[::2]), words[1::2], strict=True))
    if "detached" not in options:
        _detach()
        words = [*words, "--detached", "yes"]
        os.set_inheritable(int(options.get("ready") or options["nursery"]), True)
        selfexe.reexec([sys.executable, "-I", "-S", "-X", "utf8", os.path.abspath(__file__), *words])
    if "nursery" in options:
        from orchestra.runtime.shim_nursery import wait_for_work

        options = wait_for_work(int(options["nursery"]))
        if not options:
            return 0
    prctl(_SET_CHILD_SUBREAPER, 1)
    from orchestra.runtime.shim_server import serve

    return serve(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
