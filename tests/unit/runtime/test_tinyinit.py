"""Our own init: passes signals on, reaps, exits as its child did."""

from __future__ import annotations

import platform
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

import orchestra.runtime

SOURCE = Path(orchestra.runtime.__file__).parent / "tinyinit"
pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="made for x86-64")


@pytest.fixture(params=["shipped", "compiled"])
def init(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The binary that ships, and one made from the source beside it."""
    target = tmp_path / "init"
    if request.param == "shipped":
        shutil.copy(SOURCE / "init.x86_64", target)
        target.chmod(0o755)
        return str(target)
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    flags = "-Os -static -nostdlib -nostartfiles -ffreestanding -fno-stack-protector -fno-tree-loop-distribute-patterns"
    subprocess.run(["gcc", *flags.split(), "-o", str(target), str(SOURCE / "init.c")], check=True, capture_output=True)
    return str(target)


def code(init: str, *words: str) -> int:
    return subprocess.run([init, "--", *words], check=False, capture_output=True, timeout=20).returncode


def test_exit_codes(init: str) -> None:
    assert code(init, "sh", "-c", "exit 5") == 5
    assert code(init, "/bin/sh", "-c", "kill -9 $$") == 137
    assert code(init, "no-such-program") == 127
    assert code(init, "/etc/passwd") == 126
    assert subprocess.run([init], check=False, timeout=20).returncode == 2


def test_signals_are_passed_on(init: str) -> None:
    process = subprocess.Popen([init, "--", "sh", "-c", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done"],
                               stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 7
    process.stdout.close()
