"""The host is as before: after normal use, and after starts that failed."""

from __future__ import annotations

import socket

import pytest
from support import faults
from support.engine import Engine

pytestmark = pytest.mark.root

USED = """
    name: used
    services:
      web:
        image: busybox
        command: httpd -f -p 80 -h /www
        init: true
        networks: [front, back]
        ports: ["127.0.0.1::80"]
        volumes: ["data:/data", "/scratch", "./page:/www:ro"]
        healthcheck: {test: ["CMD", "true"], interval: 1s}
      job: {image: busybox, command: "sh -c 'exit 3'", networks: [back]}
      helper: {image: busybox, command: sleep 1000, init: true, network_mode: "service:web"}
      limited: {image: busybox, command: sleep 1000, init: true, mem_limit: 64m, pids_limit: 20, tmpfs: [/t], read_only: true}
    networks: {front: {}, back: {internal: true}}
    volumes: {data: {}}
"""


def test_normal_use_leaves_nothing(engine: Engine) -> None:
    (engine.folder / "page").mkdir()
    (engine.folder / "page/index.html").write_text("hello\n")
    engine.write(USED)
    engine.run("up", "-d", "-t", "1")
    assert engine.out("exec", "-T", "helper", "wget", "-qO-", "http://127.0.0.1/") == "hello\n"
    engine.run("run", "--rm", "-T", "job", "true")
    engine.run("run", "--rm", "-T", "job", "sh", "-c", "exit 5", code=5)
    engine.run("exec", "-T", "web", "no-such-program", code=127)
    engine.run("restart", "-t", "1", "web")
    engine.run("up", "-d", "-t", "1", "--force-recreate", "limited")
    engine.run("kill", "limited")
    assert faults.leftovers(engine), "the check sees what is there"
    engine.run("down", "-v", "-t", "1")
    assert faults.wait_nothing_left(engine) == []


def test_a_single_container_leaves_nothing(engine: Engine) -> None:
    engine.run("container", "run", "-d", "--name", "one", "-v", "/anonymous", "busybox", "sleep", "1000")
    engine.run("container", "run", "--rm", "-v", "/anonymous", "busybox", "true")
    engine.run("container", "rm", "-f", "-v", "one")
    for name in engine.out("network", "ls", "-q").split():
        engine.run("network", "rm", name, code=None)
    assert faults.wait_nothing_left(engine) == []


FAILING = {
    "command": ("command: no-such-program", "no-such-program"),
    "mount": ("volumes: [{type: bind, source: /no/such/place, target: /x, bind: {create_host_path: false}}]", "/no/such/place"),
    "address": ("networks: {front: {ipv4_address: 203.0.113.9}}", "203.0.113.9"),
    "device": ("devices: [/dev/no-such-device]", "no-such-device"),
    "user": ("user: nobody-of-that-name", "nobody-of-that-name"),
    "port": ("ports: ['127.0.0.1:{port}:80']", "{port}"),
}


@pytest.mark.parametrize("what", FAILING)
def test_a_failed_start_leaves_nothing(engine: Engine, what: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        line, word = (text.replace("{port}", str(taken.getsockname()[1])) for text in FAILING[what])
        engine.write(
            "name: failing\n"
            "services:\n"
            "  web:\n"
            "    image: busybox\n"
            f"    {line}\n"
            + ("" if line.startswith("networks") else "    networks: [front]\n")
            + "networks: {front: {ipam: {config: [{subnet: 10.213.77.0/24}]}}}\n"
        )
        done = engine.run("up", "-d", code=1)
    assert word in done.stderr
    assert engine.ps("--all") == {}
    assert faults.wait_nothing_left(engine) == []
