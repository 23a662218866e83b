"""Run a credential helper (``docker-credential-<name> get|store|erase``): bounded in time and in what it says."""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress

from orchestra.images.registry.problems import AuthenticationError

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_SECONDS = 60.0
_LIMIT = 1 << 20


def run_helper(helper: str, verb: str, text: str, environ: Mapping[str, str], where: object) -> str | None:
    """Its output; None where it knows no such credentials. ``where`` is the file that names it."""
    if not _NAME.fullmatch(helper):
        raise AuthenticationError(f"invalid credential helper name {helper[:80]!r} in {where}")
    program = f"docker-credential-{helper}"
    try:
        code, output, trouble = _talk(program, verb, text, environ)
    except FileNotFoundError:
        raise AuthenticationError(
            f"credential helper {program} is not installed", hint=f"{where} names it"
        ) from None
    except OSError as error:
        raise AuthenticationError(f"cannot run {program}: {error.strerror}") from None
    if code == 0:
        return output
    said = (output + trouble).strip()
    if verb == "get" and "not found" in said:
        return None
    line = "".join(letter if letter.isprintable() else " " for letter in said[:200])
    raise AuthenticationError(f"{program} {verb} failed: {line or code}")


def _talk(program: str, verb: str, text: str, environ: Mapping[str, str]) -> tuple[int, str, str]:
    pipe = subprocess.PIPE
    with subprocess.Popen([program, verb], stdin=pipe, stdout=pipe, stderr=pipe, env=dict(environ)) as child:
        try:
            assert child.stdin is not None and child.stdout is not None and child.stderr is not None
            with suppress(BrokenPipeError):
                child.stdin.write(text.encode())
                child.stdin.close()
            deadline = time.monotonic() + _SECONDS
            said = _listen(program, [child.stdout.fileno(), child.stderr.fileno()], deadline)
            code = child.wait(max(0.0, deadline - time.monotonic()))
        except BaseException as error:
            child.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise _late(program) from None
            raise
    return code, said[0], said[1]


def _listen(program: str, fds: list[int], deadline: float) -> list[str]:
    """All that comes from these descriptors until their ends."""
    said = {fd: bytearray() for fd in fds}
    with selectors.DefaultSelector() as selector:
        for fd in fds:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise _late(program)
            for key, _ in ready:
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fd)
                said[key.fd] += data
                if len(said[key.fd]) > _LIMIT:
                    raise AuthenticationError(f"{program} says more than {_LIMIT} bytes")
    return [bytes(said[fd]).decode("utf-8", "replace") for fd in fds]


def _late(program: str) -> AuthenticationError:
    return AuthenticationError(f"{program} did not answer within {_SECONDS:.0f} s")
