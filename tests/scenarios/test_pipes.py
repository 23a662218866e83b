"""Output that nobody reads any more (``orchestra … | head -1``): exit code 141, no traceback, and what runs runs on."""

from __future__ import annotations

import pytest
from support.engine import Engine

pytestmark = pytest.mark.root

FILE = """
name: p
services:
  web:
    image: busybox
    command: ["sh", "-c", "trap 'exit 0' TERM; while true; do echo line; sleep 0.05; done"]
    stop_grace_period: 2s
"""


def head(engine: Engine, *words: str) -> tuple[int, str, str]:
    """(exit code, first line, what was said on standard error) of a command whose reader leaves after a line."""
    process = engine.popen(*words)
    assert process.stdout is not None and process.stderr is not None
    line = process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    return process.wait(60), line, said


@pytest.mark.parametrize("words", [["logs", "-f"], ["container", "logs", "-f", "p-web-1"], ["stats"], ["export", "web"]])
def test_verbs_that_go_on_end_when_nobody_reads(engine: Engine, words: list[str]) -> None:
    engine.write(FILE)
    engine.run("up", "-d")
    if words[0] == "export":
        process = engine.popen(*words, text=False)
        process.stdout.read(10)  # type: ignore[union-attr]
        process.stdout.close()  # type: ignore[union-attr]
        assert (process.wait(60), process.stderr.read()) == (141, b"")  # type: ignore[union-attr]
    else:
        code, line, said = head(engine, *words)
        assert (code, said) == (141, "") and line
    assert engine.state("p-web-1") == "running"


def test_an_attached_up_leaves_its_containers(engine: Engine) -> None:
    engine.write(FILE)
    code, line, said = head(engine, "up")
    assert code == 141 and line == "Attaching to web\n" and "Traceback" not in said
    assert engine.state("p-web-1") == "running"


def test_a_run_ends_with_its_reader(engine: Engine) -> None:
    engine.write(FILE)
    code, line, said = head(engine, "run", "--rm", "web")
    assert code == 141 and line == "line\n" and "Traceback" not in said
    assert engine.out("ps", "-a", "-q") == ""


def test_a_disk_that_is_full_is_one_message(engine: Engine) -> None:
    engine.write(FILE)
    engine.run("up", "-d")
    with open("/dev/full", "w") as full:
        process = engine.popen("logs", "-f", stdout=full)
        assert process.wait(60) == 1
    assert process.stderr is not None
    assert process.stderr.read() == "error: cannot write the output: no space left on device\n"
