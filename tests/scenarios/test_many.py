"""Many containers, and many commands at once. ``ORCHESTRA_MANY`` is the number of containers (100)."""

from __future__ import annotations

import os
import threading
import time

import pytest
from support import faults
from support.engine import Engine, image_cache

pytestmark = pytest.mark.root

MANY = int(os.environ.get("ORCHESTRA_MANY", "100"))
PATIENCE = 120 + MANY  # seconds
PAIR = """
    name: {name}
    services:
      one: {{image: busybox, command: sleep 1000, init: true}}
      two: {{image: busybox, command: sleep 1000, init: true, depends_on: [one]}}
"""


def test_many_containers_in_one_project(engine: Engine) -> None:
    engine.write(f"""
        name: many
        services:
          s: {{image: busybox, command: sleep 1000, init: true, deploy: {{replicas: {MANY}}}, networks: [n]}}
        networks: {{n: {{ipam: {{config: [{{subnet: 10.214.0.0/16}}]}}}}}}
    """)
    up = engine.popen("up", "-d")
    slowest, answers = _ask_while(engine, up)
    _output, errors = up.communicate()
    assert up.returncode == 0, errors
    assert {row["State"] for row in engine.ps().values()} == {"running"} and len(engine.ps()) == MANY
    assert "nothing to do" in engine.run("up", "-d").stderr
    down = engine.popen("down", "-v", "-t", "2")
    later, more = _ask_while(engine, down)
    _output, errors = down.communicate()
    assert down.returncode == 0, errors
    assert answers + more > 0
    assert max(slowest, later) < 10
    assert faults.wait_nothing_left(engine, 30) == []


def _ask_while(engine: Engine, process: object) -> tuple[float, int]:
    """``ps`` again and again until the process has ended: the slowest answer in seconds, and how many."""
    slowest, answers, deadline = 0.0, 0, time.monotonic() + PATIENCE
    while process.poll() is None:  # type: ignore[attr-defined]
        assert time.monotonic() < deadline
        begun = time.monotonic()
        engine.ps()
        slowest, answers = max(slowest, time.monotonic() - begun), answers + 1
        time.sleep(0.1)
    return slowest, answers


def test_projects_side_by_side(engine: Engine) -> None:
    names = [f"side{number}" for number in range(5)]
    files = {name: str(engine.write(PAIR.format(name=name), f"{name}/compose.yaml")) for name in names}
    for words in (("up", "-d"), ("restart", "-t", "1"), ("down", "-v", "-t", "1")):
        running = [engine.popen("-f", file, *words) for file in files.values()]
        for process in running:
            _output, errors = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, errors
    assert faults.wait_nothing_left(engine) == []


def test_two_ups_of_one_project_at_once(engine: Engine) -> None:
    engine.write(PAIR.format(name="twice"))
    running = [engine.popen("up", "-d") for _ in range(3)]
    for process in running:
        _output, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
    assert {name: row["State"] for name, row in engine.ps().items()} == {"twice-one-1": "running", "twice-two-1": "running"}
    running = [engine.popen("down", "-v", "-t", "1") for _ in range(3)]
    for process in running:
        _output, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
    assert faults.wait_nothing_left(engine) == []


def test_images_are_loaded_at_once(engine: Engine) -> None:
    engine.write(PAIR.format(name="busy"))
    engine.run("image", "rm", "-f", "busybox")
    problems: list[str] = []

    def load() -> None:
        done = engine.run("image", "load", "-i", str(image_cache()), code=None)
        if done.returncode:
            problems.append(done.stderr)

    threads = [threading.Thread(target=load) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    engine.run("up", "-d")
    engine.run("down", "-v", "-t", "1")
    assert faults.wait_nothing_left(engine) == []
