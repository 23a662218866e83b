"""The default filter inside a container."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.shimhelp import World, process, world

from orchestra.runtime import seccomp

pytestmark = pytest.mark.root


@pytest.fixture
def w() -> Iterator[World]:
    with world() as found:
        yield found


def filtered(config: dict[str, Any]) -> None:
    config["linux"]["seccomp"] = seccomp.default_profile(config["process"]["capabilities"]["bounding"])


def test_the_default_filter_holds(w: World) -> None:
    w.run("a", "sleep", "1000", change=filtered)
    for words in (("unshare", "-U", "true"), ("unshare", "-m", "true"), ("mount", "-t", "tmpfs", "x", "/tmp")):
        code, output = w.client.exec_run("a", process("busybox", *words))
        assert code != 0
        assert b"ermitted" in output or b"denied" in output, output
    assert w.client.exec_run("a", process("sh", "-c", "ls / > /dev/null && sleep 0 && echo fine"))[1] == b"fine\n"
    assert b"Seccomp:\t2" in w.client.exec_run("a", process("cat", "/proc/self/status"))[1]
    assert b"Seccomp:\t2" in w.client.exec_run("a", process("cat", "/proc/1/status"))[1]


def test_a_profile_of_ones_own(w: World) -> None:
    def change(config: dict[str, Any]) -> None:
        config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122}]}

    w.run("a", "sh", "-c", "busybox mkdir /tmp/x", change=change)
    assert w.client.wait("a")["exit_code"] == 1
    assert b"quota exceeded" in w.output("a")
