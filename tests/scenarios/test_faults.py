"""kill -9 of the daemon, the shim, a container's init and the command, at every step of what they do.

Each blow is followed by the command that was in progress: it must work, and one ``down -v`` must leave
nothing. ``ORCHESTRA_FAULTS=all`` tries every step, otherwise some that are spread over them; a failure
names its step.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from support import faults
from support.engine import Engine, eventually
from support.engine import engine as make

pytestmark = pytest.mark.root

FEW = 2  # blows a verb, when not all
FILE = """
    name: hit
    services:
      first:
        image: busybox
        command: sh -c 'trap "exit 0" TERM; sleep 1000 & wait'
        networks: [front]
        ports: ["127.0.0.1::80"]
        volumes: ["data:/data", "/scratch"]
      second: {image: busybox, command: sleep 1000, init: true, networks: [front, back], depends_on: [first]}
    networks: {front: {}, back: {internal: true}}
    volumes: {data: {}}
"""
NAMES = {"hit-first-1", "hit-second-1"}
UP = ("up", "-d", "-t", "1")
DOWN = ("down", "-v", "-t", "1")


@pytest.fixture
def hit() -> Iterator[Engine]:
    with make(ORCHESTRA_IDLE="60") as made:
        made.write(FILE)
        yield made


def nothing(_engine: Engine) -> None:
    """No preparation."""


def up(engine: Engine) -> None:
    engine.run(*UP)


def created(engine: Engine) -> None:
    engine.run("up", "--no-start")


def stopped(engine: Engine) -> None:
    engine.run(*UP)
    engine.run("stop", "-t", "1")


VERBS: dict[str, tuple[Callable[[Engine], None], tuple[str, ...]]] = {
    "up": (nothing, UP),
    "create": (nothing, ("up", "--no-start")),
    "start": (created, ("start",)),
    "stop": (up, ("stop", "-t", "1")),
    "restart": (up, ("restart", "-t", "1")),
    "recreate": (up, ("up", "-d", "-t", "1", "--force-recreate")),
    "remove": (stopped, ("rm", "-f", "-v")),
    "down": (up, DOWN),
}


def mended(engine: Engine) -> None:
    """The next ``up`` works, all runs and answers; one ``down -v`` leaves nothing."""
    faults.disarm(engine)
    engine.run("ps", "-a")
    engine.run(*UP)
    rows = engine.ps()
    assert {name: row["State"] for name, row in rows.items()} == dict.fromkeys(NAMES, "running")
    assert engine.out("exec", "-T", "second", "sh", "-c", "nslookup first >/dev/null && echo here") == "here\n"
    cleared(engine)


def cleared(engine: Engine) -> None:
    faults.disarm(engine)
    engine.run(*DOWN)
    # a recreate that was killed between remove and create keeps the anonymous volumes for nobody (adr/0002)
    engine.run("volume", "prune", "-f")
    assert faults.wait_nothing_left(engine) == []


def count(engine: Engine, verb: str) -> int:
    """How many points the verb passes when nobody is killed."""
    prepare, words = VERBS[verb]
    faults.start_daemon(engine)
    prepare(engine)
    faults.arm(engine, "")
    engine.run(*words)
    found = len(faults.points(engine))
    cleared(engine)
    return found


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("who", ["daemon", "shim"])
def test_killed_at_a_step(hit: Engine, verb: str, who: str) -> None:
    prepare, words = VERBS[verb]
    problems = []
    for number, at in enumerate(faults.chosen(count(hit, verb), FEW)):
        faults.start_daemon(hit)
        prepare(hit)
        faults.arm(hit, who, at)
        done = hit.run(*words, code=None)
        passed = faults.points(hit)
        place = f"{verb}: {who} killed at {at} ({passed[at - 1] if len(passed) >= at else 'end'}), exit {done.returncode}"
        try:
            if number % 2:  # straight to the end, or mended first
                cleared(hit)
            else:
                mended(hit)
        except AssertionError as error:
            problems.append(f"{place}: {error}\n{done.stderr[-1500:]}")
            hit.run(*DOWN, code=None)
    assert not problems, "\n\n".join(problems)


@pytest.mark.parametrize("seconds", [0.02, 0.08, 0.2, 0.4] if not faults.ALL else [n / 50 for n in range(40)])
def test_the_command_killed_in_the_middle_of_up(hit: Engine, seconds: float) -> None:
    process = hit.popen(*UP)
    with contextlib.suppress(Exception):
        process.wait(seconds)
    process.kill()
    process.communicate()
    mended(hit)


def test_a_containers_init_is_killed(hit: Engine) -> None:
    hit.run(*UP)
    for name in sorted(NAMES):
        os.kill(hit.inspect(name)["State"]["Pid"], signal.SIGKILL)
    for name in sorted(NAMES):
        hit.wait_state(name, "exited")
        assert hit.inspect(name)["State"]["ExitCode"] == 137
    mended(hit)


def test_inits_are_killed_while_nobody_watches(hit: Engine) -> None:
    """Daemon and shim dead, then the containers: the end is seen although its status is lost."""
    hit.run(*UP)
    pids = [hit.inspect(name)["State"]["Pid"] for name in sorted(NAMES)]
    blow = [pid for pid in hit.processes() if pid != os.getpid()]
    for pid in [*blow, *pids]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), what="inits are gone")
    assert {row["State"] for row in hit.ps().values()} == {"exited"}
    mended(hit)


def test_the_shim_leaves_between_two_starts(hit: Engine) -> None:
    """A shim that is gone while the daemon still has its client is replaced at the next start."""
    hit.run(*UP)
    hit.run("stop", "-t", "1")
    daemon = hit.daemon_pid()
    for pid in hit.processes():
        if pid != daemon:
            os.kill(pid, signal.SIGKILL)
    hit.run("start")
    assert {row["State"] for row in hit.ps().values()} == {"running"}
    second = hit.inspect("hit-second-1")["State"]["Pid"]
    for pid in hit.processes():
        if pid != daemon:
            os.kill(pid, signal.SIGKILL)
    os.kill(second, signal.SIGKILL)
    hit.wait_state("hit-second-1", "exited")
    os.kill(hit.inspect("hit-first-1")["State"]["Pid"], signal.SIGKILL)  # the new shim is listened to
    hit.wait_state("hit-first-1", "exited")
    assert hit.daemon_pid() == daemon
    mended(hit)


def test_blows_all_the_time(hit: Engine) -> None:
    """Random kills during many commands, then one more ``up`` and ``down``."""
    begun = time.monotonic()
    for number in range(12 if not faults.ALL else 100):
        process = hit.popen(*(UP if number % 3 else ("restart", "-t", "0")))
        time.sleep(0.03 * (number % 7))
        victims = hit.processes()
        for pid in victims[number % 2 :: 2]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate(timeout=60)
    assert time.monotonic() - begun < 600
    mended(hit)
