"""Up, ps, logs, stop, start, restart, down: one obligation a test."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from support.engine import Engine, eventually

pytestmark = pytest.mark.root

TWO = """
    name: shop
    services:
      web:
        image: busybox
        command: sh -c 'echo hello from web; exec sleep 1000'
        init: true
        depends_on: [db]
      db:
        image: busybox
        command: sleep 1000
        init: true
"""


def started(engine: Engine) -> dict[str, str]:
    return {name: engine.inspect(name)["State"]["StartedAt"] for name in engine.ps()}


def test_up_creates_what_docker_compose_would(engine: Engine) -> None:
    engine.write(TWO)
    done = engine.run("up", "-d")
    assert "Container shop-web-1  Started" in done.stderr
    rows = engine.ps()
    assert set(rows) == {"shop-web-1", "shop-db-1"}
    assert rows["shop-web-1"]["State"] == "running"
    assert rows["shop-web-1"]["Service"] == "web"
    labels = dict(word.partition("=")[::2] for word in rows["shop-web-1"]["Labels"].split(","))
    assert labels["com.docker.compose.project"] == "shop"
    assert labels["com.docker.compose.container-number"] == "1"
    assert labels["com.docker.compose.oneoff"] == "False"
    hashes = dict(line.split() for line in engine.out("config", "--hash", "*").splitlines())
    assert labels["com.docker.compose.config-hash"] == hashes["web"]
    networks = engine.out("network", "ls", "--format", "{{.Name}}").split()
    assert "shop_default" in networks


def test_a_second_up_does_nothing_and_says_so(engine: Engine) -> None:
    engine.write(TWO)
    engine.run("up", "-d")
    before = started(engine)
    done = engine.run("up", "-d")
    assert "nothing to do" in done.stderr
    assert started(engine) == before


def test_a_changed_service_is_recreated_alone_and_the_plan_says_why(engine: Engine) -> None:
    engine.write(TWO)
    engine.run("up", "-d")
    before = started(engine)
    engine.write(TWO.replace("image: busybox\n        command: sh", "image: busybox\n        environment: {A: b}\n        command: sh"))
    plan = engine.out("plan")
    assert re.search(r"create shop-web-1: environment.A added \(compose.yaml:\d+\)", plan), plan
    assert "shop-db-1" in plan and "remove shop-db-1" not in plan
    engine.run("up", "-d")
    after = started(engine)
    assert after["shop-db-1"] == before["shop-db-1"]
    assert after["shop-web-1"] != before["shop-web-1"]
    assert "A=b" in engine.inspect("shop-web-1")["Config"]["Env"]


def test_logs_have_prefixes_and_tail(engine: Engine) -> None:
    engine.write(TWO)
    engine.run("up", "-d")
    eventually(lambda: "web-1  | hello from web" in engine.out("logs"), what="the line is in the log")
    assert engine.out("logs", "--no-log-prefix", "web") == "hello from web\n"
    assert engine.out("logs", "--tail", "0", "web") == ""


def test_stop_start_restart_keep_the_container(engine: Engine) -> None:
    engine.write(TWO)
    engine.run("up", "-d")
    first = engine.inspect("shop-web-1")["Id"]
    engine.run("stop", "-t", "5")
    assert {row["State"] for row in engine.ps().values()} == {"exited"}
    engine.run("start")
    assert {row["State"] for row in engine.ps().values()} == {"running"}
    before = started(engine)
    engine.run("restart", "-t", "5", "web")
    assert engine.inspect("shop-web-1")["Id"] == first
    assert started(engine)["shop-db-1"] == before["shop-db-1"]
    assert started(engine)["shop-web-1"] != before["shop-web-1"]


def test_down_takes_all_away(engine: Engine) -> None:
    engine.write(TWO)
    engine.run("up", "-d")
    engine.run("down", "-t", "5")
    assert engine.ps() == {}
    assert "shop_default" not in engine.out("network", "ls", "--format", "{{.Name}}").split()
    again = engine.run("down")
    assert "No resource found to remove" in again.stderr


def test_down_works_from_labels_alone(engine: Engine) -> None:
    path = engine.write(TWO)
    engine.run("up", "-d")
    path.unlink()
    engine.run("-p", "shop", "down", "-t", "5")
    assert engine.json_lines("container", "ls", "-a", "--format", "json") == []


def test_volumes_outlive_down_but_not_down_v(engine: Engine) -> None:
    engine.write("""
        name: keep
        services:
          a:
            image: busybox
            command: sh -c 'cat /data/x; echo more >> /data/x; exec sleep 1000'
            init: true
            volumes: [data:/data]
        volumes: {data: }
    """)
    engine.run("up", "-d")
    engine.run("down", "-t", "5")
    engine.run("up", "-d")
    eventually(lambda: "more" in engine.out("logs", "a"), what="the first run's line")
    engine.run("down", "-v", "-t", "5")
    assert "keep_data" not in engine.out("volume", "ls", "-q").split()


def test_scale_up_and_down(engine: Engine) -> None:
    engine.write("""
        name: many
        services:
          a: {image: busybox, command: sleep 1000, init: true}
    """)
    engine.run("up", "-d", "--scale", "a=3")
    assert set(engine.ps()) == {"many-a-1", "many-a-2", "many-a-3"}
    engine.run("scale", "a=1")
    assert set(engine.ps()) == {"many-a-1"}


def test_orphans_are_told_and_removed(engine: Engine) -> None:
    engine.write(TWO)
    engine.run("up", "-d")
    engine.write("name: shop\nservices:\n  db: {image: busybox, command: sleep 1000, init: true}\n")
    assert "orphan" in engine.run("up", "-d").stderr
    assert "shop-web-1" in engine.ps()
    engine.run("up", "-d", "--remove-orphans")
    assert "shop-web-1" not in engine.ps()


def test_conditions_order_the_start(engine: Engine) -> None:
    engine.write("""
        name: order
        services:
          job: {image: busybox, command: sh -c 'sleep 0.3; echo done'}
          web:
            image: busybox
            command: sleep 1000
            init: true
            depends_on:
              job: {condition: service_completed_successfully}
              db: {condition: service_healthy}
          db:
            image: busybox
            command: sh -c 'sleep 0.5; touch /ready; exec sleep 1000'
            init: true
            healthcheck: {test: test -f /ready, interval: 200ms, retries: 50}
    """)
    engine.run("up", "-d")
    rows = engine.ps()
    assert rows["order-job-1"]["State"] == "exited" and rows["order-job-1"]["ExitCode"] == 0
    assert rows["order-db-1"]["Health"] == "healthy"
    assert rows["order-web-1"]["State"] == "running"
    assert engine.inspect("order-web-1")["State"]["StartedAt"] > engine.inspect("order-job-1")["State"]["FinishedAt"]


def test_a_failed_dependency_fails_up(engine: Engine) -> None:
    engine.write("""
        name: bad
        services:
          job: {image: busybox, command: sh -c 'exit 3'}
          web:
            image: busybox
            command: sleep 1000
            depends_on:
              job: {condition: service_completed_successfully}
    """)
    done = engine.run("up", "-d", code=1)
    assert 'service "job" didn\'t complete successfully: exit 3' in done.stderr
    assert engine.ps().get("bad-web-1", {}).get("State") != "running"


def test_wait_fails_for_a_container_that_exits(engine: Engine) -> None:
    engine.write("name: w\nservices:\n  a: {image: busybox, command: 'true'}\n")
    assert "exited (0)" in engine.run("up", "-d", "--wait", code=1).stderr


def test_ls_version_and_formats(engine: Engine) -> None:
    engine.write(TWO)
    engine.run("up", "-d")
    rows: list[dict[str, Any]] = json.loads(engine.out("ls", "--format", "json"))
    assert rows[0]["Name"] == "shop" and rows[0]["Status"] == "running(2)"
    assert rows[0]["ConfigFiles"].endswith("compose.yaml")
    assert json.loads(engine.out("version", "--format", "json"))["version"].startswith("v")
    assert engine.out("ps", "--services").split() == ["db", "web"]
    assert engine.out("ps", "--format", "{{.Name}}").split() == ["shop-db-1", "shop-web-1"]
    header = engine.out("ps").splitlines()[0].split()
    assert header == ["NAME", "IMAGE", "COMMAND", "SERVICE", "CREATED", "STATUS", "PORTS"]
    assert len(engine.out("ps", "-q").split()) == 2


def test_exec_passes_streams_and_exit_codes(engine: Engine) -> None:
    engine.write(TWO)
    engine.run("up", "-d")
    assert engine.out("exec", "-T", "web", "echo", "hi") == "hi\n"
    assert engine.run("exec", "-T", "web", "sh", "-c", "exit 7", code=7).stdout == ""
    assert engine.run("exec", "-T", "web", "cat", stdin="through\n").stdout == "through\n"
    assert engine.run("exec", "-T", "web", "no-such-program", code=127).returncode == 127
    assert engine.out("exec", "-T", "-e", "X=1", "-w", "/tmp", "-u", "1000:1000", "web", "sh", "-c", "id -u; pwd; echo $X") == "1000\n/tmp\n1\n"


def test_run_is_a_container_of_its_own(engine: Engine) -> None:
    engine.write(TWO)
    assert engine.out("run", "--rm", "-T", "web", "echo", "once") == "once\n"
    assert [name for name in engine.ps() if "-run-" in name] == []
    assert "shop-db-1" in engine.ps()
    assert engine.run("run", "--rm", "-T", "--no-deps", "web", "sh", "-c", "exit 4", code=4).stdout == ""


def test_restart_policy_and_exit_codes(engine: Engine) -> None:
    engine.write("""
        name: again
        services:
          fails: {image: busybox, command: sh -c 'exit 5', restart: 'on-failure:2'}
          stays: {image: busybox, command: sleep 1000}
    """)
    engine.run("up", "-d")
    eventually(lambda: engine.inspect("again-fails-1")["RestartCount"] == 2, what="restarted twice")
    engine.wait_state("again-fails-1", "exited")
    assert engine.ps()["again-fails-1"]["ExitCode"] == 5
    engine.run("kill", "stays")
    engine.wait_state("again-stays-1", "exited")
    assert engine.ps()["again-stays-1"]["ExitCode"] == 137
