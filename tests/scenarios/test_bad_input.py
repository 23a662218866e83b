"""One clear message, the right place, exit code 1, nothing half-started."""

from __future__ import annotations

import socket

import pytest
from support.engine import Engine

pytestmark = pytest.mark.root

CASES = {
    "syntax": ("services:\n  a: {image: busybox\n  b: 1\n", "compose.yaml:"),
    "schema": ("services:\n  a:\n    image: busybox\n    prots: ['80:80']\n", "compose.yaml:4:5: error"),
    "cycle": ("services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [a]}\n", "cycle"),
    "network": ("services:\n  a: {image: x, networks: [nowhere]}\n", "nowhere"),
    "volume": ("services:\n  a: {image: x, volumes: ['nowhere:/data']}\n", "nowhere"),
    "nothing": ("services:\n  a: {}\n", "compose.yaml:2"),
}


@pytest.mark.parametrize("name", CASES)
def test_files_that_cannot_be(engine: Engine, name: str) -> None:
    text, expected = CASES[name]
    engine.write(text)
    done = engine.run("up", "-d", code=1)
    assert expected in done.stderr
    assert engine.json_lines("container", "ls", "-a", "--format", "json") == []


def test_a_missing_file(engine: Engine) -> None:
    assert "nowhere.yaml" in engine.run("-f", "nowhere.yaml", "up", "-d", code=1).stderr
    assert "no compose file found" in engine.run("up", "-d", code=1).stderr


def test_an_image_that_does_not_exist(engine: Engine) -> None:
    engine.write("services:\n  a:\n    image: localhost:1/no/such:image\n")
    done = engine.run("up", "-d", code=1)
    assert "compose.yaml:3:" in done.stderr and "localhost:1/no/such:image" in done.stderr
    assert engine.json_lines("container", "ls", "-a", "--format", "json") == []


def test_a_host_port_in_use(engine: Engine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        engine.write(f"name: port\nservices:\n  a:\n    image: busybox\n    command: sleep 100\n    ports: ['127.0.0.1:{port}:80']\n")
        done = engine.run("up", "-d", code=1)
    assert str(port) in done.stderr and "compose.yaml:" in done.stderr
    assert [row for row in engine.ps().values() if row["State"] == "running"] == []


def test_a_command_that_is_not_in_the_image(engine: Engine) -> None:
    engine.write("name: cmd\nservices:\n  a:\n    image: busybox\n    command: no-such-program\n")
    done = engine.run("up", "-d", code=1)
    assert "no-such-program" in done.stderr and "compose.yaml:" in done.stderr
    assert [row for row in engine.ps().values() if row["State"] == "running"] == []
    assert "cmd_default" not in engine.out("network", "ls", "--format", "{{.Name}}").split()


def test_unknown_words_have_hints(engine: Engine) -> None:
    assert "did you mean up?" in engine.run("upp", code=1).stderr
    assert "did you mean --project-name?" in engine.run("--project-nam", "x", "ps", code=1).stderr
    engine.write("name: x\nservices:\n  web: {image: busybox}\n")
    assert "no such service: wbe" in engine.run("up", "-d", "wbe", code=1).stderr
    assert "no such service: wbe" in engine.run("logs", "wbe", code=1).stderr


def test_errors_as_data(engine: Engine) -> None:
    import json

    engine.write(CASES["schema"][0])
    done = engine.run("--progress", "json", "up", "-d", code=1)
    error = json.loads(done.stderr.splitlines()[-1])
    assert error["error"] is True and error["location"][1:] == [4, 5]
