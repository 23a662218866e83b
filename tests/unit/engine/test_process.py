"""Arguments, environment and limits by docker's rules."""

from __future__ import annotations

import pytest

from orchestra.backend import ExecSpec
from orchestra.compose.model import Service, Ulimit
from orchestra.engine.accounts import Identity
from orchestra.engine.process import (
    arguments,
    effective_capabilities,
    environment,
    exec_process,
    rlimits,
    stop_signal,
    working_dir,
)
from orchestra.errors import OrchestraError

IMAGE = {"Entrypoint": ["e"], "Cmd": ["c"], "Env": ["PATH=/bin", "A=image", "B=image"], "WorkingDir": "/w"}


@pytest.mark.parametrize(
    ("entrypoint", "command", "expected"),
    [
        (None, None, ["e", "c"]),
        (None, ("x",), ["e", "x"]),
        (("y",), None, ["y"]),
        (("y",), ("x",), ["y", "x"]),
        ((), None, ["c"]),
        ((), ("x",), ["x"]),
    ],
)
def test_entrypoint_and_command(
    entrypoint: tuple[str, ...] | None, command: tuple[str, ...] | None, expected: list[str]
) -> None:
    assert arguments(Service("s", entrypoint=entrypoint, command=command), IMAGE) == expected


def test_no_command_at_all_is_an_error() -> None:
    with pytest.raises(OrchestraError, match="no command specified"):
        arguments(Service("s"), {})


def test_environment_layers() -> None:
    service = Service("s", environment={"B": "service", "C": None}, tty=True)
    found = environment(service, IMAGE, Identity(home="/h"), hostname="me")
    assert found == ["PATH=/bin", "HOSTNAME=me", "TERM=xterm", "A=image", "B=service", "HOME=/h"]


def test_limits_above_the_ceiling_are_lowered_with_a_warning() -> None:
    warnings: list[str] = []
    service = Service("s", ulimits={"nofile": Ulimit(10, 2000), "core": Ulimit(-1, -1)})
    found = rlimits(service, {"NOFILE": 1000}, warnings)
    assert found == [
        {"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1},
        {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 1000},
    ]
    assert warnings == ["ulimits.nofile: 2000 is above this machine's limit, 1000 is used instead"]
    for bad in ({"nonsense": Ulimit(1, 1)}, {"nofile": Ulimit(2, 1)}):
        with pytest.raises(OrchestraError):
            rlimits(Service("s", ulimits=bad), {}, [])


def test_small_defaults() -> None:
    assert stop_signal(Service("s"), {"StopSignal": "SIGQUIT"}) == "SIGQUIT"
    assert stop_signal(Service("s"), {}) == "SIGTERM"
    assert working_dir(Service("s"), IMAGE) == "/w"
    assert working_dir(Service("s", working_dir="x"), IMAGE) == "/x"
    assert effective_capabilities(["CAP_KILL"], root=False)["effective"] == []
    assert effective_capabilities(["CAP_KILL"], root=False)["bounding"] == ["CAP_KILL"]


def test_an_exec_takes_over_what_it_does_not_say() -> None:
    base = {"args": ["main"], "env": ["A=1", "HOME=/h"], "cwd": "/w", "user": {}, "terminal": False}
    spec = ExecSpec(("sh",), {"A": "2"}, user="u", tty=True, size=(24, 80))
    found = exec_process(base, spec, Identity(5, 6, (6,), "/u"), capabilities=None)
    assert found["args"] == ["sh"]
    assert found["cwd"] == "/w"
    assert found["user"]["uid"] == 5
    assert found["env"] == ["A=2", "HOME=/u", "TERM=xterm"]
    assert found["consoleSize"] == {"height": 24, "width": 80}
