"""A process that has everything a shim needs loaded, and forks one the moment it is wanted.

Starting Python twice (see ``shim.main``) is most of what the first container of a project waits for. So
the daemon keeps one nursery: single-threaded, out of the containers' reach like a shim, holding no
container. A shim forked from it shares its memory. It leaves when the daemon does, however that ends,
and its shims stay.

    one SOCK_SEQPACKET message: the shim's options; with it the fds ``ready`` and the shim's log
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Callable

from orchestra.linux import pages, title
from orchestra.runtime import shim_rehearsal
from orchestra.runtime import shim_wire as wire

_QUIET = 2.0  # seconds without a request after which it settles
_ROUNDS = 12  # code is rewritten at its eighth run


def wait_for_work(number: int) -> dict[str, str]:
    """In the nursery: returns in each new shim with its options, and once with none at the end."""
    _warm()
    link = socket.socket(fileno=number)
    link.set_inheritable(False)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for shims
    _freeze()
    settled = False
    while True:
        if not settled and not _asked(link, _QUIET):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            settled = _settle(lambda: _asked(link, 0.0))
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for shims
            _reap()
        try:
            found = wire.receive(link)
        except ConnectionError:
            return {}
        if found is None:
            return {}
        options, fds = found
        if len(fds) == 2 and os.fork() == 0:
            link.close()
            return _become_shim(options, fds)
        wire.close(fds)


def _asked(link: socket.socket, seconds: float) -> bool:
    return bool(select.select([link], [], [], seconds)[0])


def _freeze() -> None:
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _settle(asked: Callable[[], bool]) -> bool:
    """Have all behind it that shims do, and share its memory with them. False when somebody ``asked``
    meanwhile: then it is for another time. Where a rehearsal is not possible, memory is shared all the same."""
    if not shim_rehearsal.rehearse(_ROUNDS, asked) and asked():
        return False
    _freeze()
    pages.keep()
    return True


def _reap() -> None:
    """Shims that ended while children were waited for."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _warm() -> None:
    """Load what shims use, and do what each would do for itself: what is there at the fork is shared."""
    import json

    from orchestra.runtime import defaults, seccomp, shim_server  # noqa: F401
    from orchestra.runtime.cgroups import base, v1, v2  # noqa: F401

    usual = seccomp.default_profile(defaults.CAPABILITIES)
    seccomp.compile_profile(json.loads(json.dumps(usual)))


def _become_shim(options: dict[str, str], fds: list[int]) -> dict[str, str]:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    ready, log = fds
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    title.set_command_line([sys.executable, os.path.join(os.path.dirname(__file__), "shim.py"), *words])
    return {**options, "ready": str(ready)}
