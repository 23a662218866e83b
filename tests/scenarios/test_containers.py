"""Single containers without a compose file, with docker's options, exit codes and lists."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import tarfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.engine import Engine, eventually

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]


def run(engine: Engine, *words: str, **more: Any) -> str:
    return engine.out("container", "run", "--rm", *words, **more)


def inspect(engine: Engine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(engine.out("container", "inspect", name))[0]
    return found


def names(engine: Engine, *words: str) -> list[str]:
    return sorted(engine.out("container", "ls", "--format", "{{.Names}}", *words).split())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(engine: Engine, name: str, *words: str, command: tuple[str, ...] = ("sleep", "1000")) -> Iterator[str]:
    engine.run("container", "run", "-d", "--name", name, "--init", *words, "busybox", *command)
    try:
        yield name
    finally:
        engine.run("container", "rm", "-f", "-v", name, code=None)


def test_the_process(engine: Engine) -> None:
    said = run(
        engine, "-e", "A=1", "-e", "B", "-w", "/tmp", "-u", "1000:1001", "--hostname", "box", "--add-host", "db:10.1.2.3",
        "--dns", "10.9.9.9", "--dns-search", "x.example", "--group-add", "7", "busybox", "sh", "-c",
        "echo $A-$B; pwd; id -u; id -g; id -G; hostname; grep db /etc/hosts; cat /etc/resolv.conf", environ={"B": "host"},
    )  # fmt: skip
    lines = said.splitlines()
    assert lines[:3] == ["1-host", "/tmp", "1000"] and lines[3] == "1001" and "7" in lines[4].split()
    assert lines[5] == "box" and lines[6].split() == ["10.1.2.3", "db"]
    assert "search x.example" in said
    engine.write("C=3\n# comment\nD=4 5\n", "env")
    assert run(engine, "--env-file", "env", "-e", "C=override", "busybox", "sh", "-c", "echo $C $D") == "override 4 5\n"
    assert run(engine, "--entrypoint", "echo", "busybox", "a", "b") == "a b\n"
    assert run(engine, "-i", "busybox", "cat", stdin="from outside") == "from outside"
    assert engine.run("container", "run", "--rm", "-a", "stderr", "busybox", "sh", "-c", "echo out; echo err >&2").stdout == ""


def test_limits_and_rights(engine: Engine) -> None:
    with running(
        engine, "limited", "--memory", "64m", "--memory-swap", "-1", "--cpus", "0.5", "--pids-limit", "50", "--ulimit", "nofile=100:200", "--sysctl",
        "net.ipv4.ip_forward=1", "--shm-size", "1m", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--read-only", "--tmpfs", "/t:size=1m", "--cpuset-mems", "0",
        "--oom-score-adj", "100", "--security-opt", "no-new-privileges",
    ) as name:  # fmt: skip
        shell = ("container", "exec", name, "sh", "-c")
        assert engine.out(*shell, "ulimit -n; ulimit -Hn; cat /proc/sys/net/ipv4/ip_forward").split() == ["100", "200", "1"]
        assert engine.out(*shell, "grep CapEff /proc/1/status").split()[1] == f"{1 << 12:016x}"
        assert "NoNewPrivs:\t1" in engine.out(*shell, "cat /proc/1/status")
        assert engine.run(*shell, "touch /x", code=None).returncode != 0
        assert engine.out(*shell, "touch /t/x && df -k /t /dev/shm | awk '{print $2}' | tail -2").split() == ["1024", "1024"]
        assert engine.out(*shell, "cat /proc/1/oom_score_adj").strip() == "100"
        processes = (*shell, "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null || true")
        engine.run("container", "update", "--memory", "80m", "--pids-limit", "60", name)
        assert engine.out(*processes).strip() == "60"
        engine.run("container", "update", "--pids-limit", "-1", "--memory-swap", "100m", name)
        assert engine.out(*processes).strip() == "max"
        done = engine.run("container", "update", "--blkio-weight", "300", name)
        assert done.stderr == "" or "blkio_config.weight has no effect" in done.stderr
        assert engine.inspect(name)["HostConfig"]["BlkioWeight"] == 300
        assert "not within 10 and 1000" in engine.run("container", "update", "--blkio-weight", "5", name, code=1).stderr
    count = ("busybox", "sh", "-c", "ls /dev | wc -l")
    assert int(run(engine, "--privileged", *count)) > int(run(engine, *count))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (7, ["busybox", "sh", "-c", "exit 7"]),
        (143, ["--init", "busybox", "sh", "-c", "kill -15 $$"]),
        (127, ["busybox", "no-such-program"]),
        (126, ["busybox", "/etc"]),
        (125, ["--name", "a b", "busybox", "true"]),
        (125, ["--network", "no-such-network", "busybox", "true"]),
        (125, ["--restart", "always:3", "busybox", "true"]),
        (125, ["--health-retries", "x", "--health-cmd", "true", "busybox", "true"]),
        (125, ["--no-healthcheck", "--health-cmd", "true", "busybox", "true"]),
        (125, ["--network", "none", "--ip", "10.0.0.2", "busybox", "true"]),
        (125, ["--network", "name=bridge,wrong=1", "busybox", "true"]),
        (125, ["-d", "-a", "stdout", "busybox", "true"]),
        (125, ["-it", "busybox", "true"]),
        (125, ["--stop-timeout", "soon", "busybox", "true"]),
    ],
)
def test_exit_codes(engine: Engine, code: int, words: list[str]) -> None:
    done = engine.run("container", "run", "--rm", *words, code=code) if "--restart" not in words else engine.run("container", "run", *words, code=code)
    assert "Traceback" not in done.stderr
    assert names(engine, "-a") == []


def test_ports(engine: Engine) -> None:
    one, two = free_port(), free_port()
    serve = ("sh", "-c", "echo hello > /index.html; exec httpd -f -p 80 -h /")
    with running(engine, "web", "-p", f"{one}:80", "-p", f"127.0.0.1:{two}:80", "-p", "127.0.0.1::80", "-p", "5353/udp", "--expose", "9", command=serve):
        shown = engine.out("container", "port", "web")
        assert f"80/tcp -> 0.0.0.0:{one}" in shown and f"80/tcp -> 127.0.0.1:{two}" in shown and "5353/udp -> " in shown
        for number in (one, two):
            with urllib.request.urlopen(f"http://127.0.0.1:{number}/", timeout=10) as answer:
                assert answer.read() == b"hello\n"
        assert engine.out("container", "port", "web", "80").splitlines()[0].endswith(str(one))
        done = engine.run("container", "run", "--rm", "-p", f"{one}:80", "busybox", "true", code=125)
        assert str(one) in done.stderr and "web" in done.stderr
    with running(engine, "all", "-P", "--expose", "80", command=serve):
        assert engine.out("container", "port", "all").startswith("80/tcp -> 0.0.0.0:")


def test_networks(engine: Engine) -> None:
    engine.run("network", "create", "--subnet", "10.213.91.0/24", "--label", "a=b", "inner")
    engine.run("network", "create", "second")
    with (
        running(engine, "one", "--network", "inner", "--network-alias", "first", "--ip", "10.213.91.9"),
        running(engine, "two", "--network", "inner", "--network", "name=second,alias=x,alias=y"),
        running(engine, "three", "--network", "second"),
        running(engine, "alone", "--network", "none"),
        running(engine, "guest", "--network", "container:one"),
    ):
        look = ("container", "exec", "two", "nslookup")
        for name in ("one", "first"):
            assert "10.213.91.9" in engine.out(*look, name)
        for name in ("two", "x", "y"):
            engine.run("container", "exec", "three", "nslookup", name)
        assert engine.run("container", "exec", "three", "nslookup", "one", code=None).returncode != 0
        engine.run("network", "connect", "--alias", "late", "inner", "three")
        assert "10.213.91.9" in engine.out("container", "exec", "three", "nslookup", "one")
        engine.run(*look, "late")
        engine.run("network", "disconnect", "inner", "three")
        assert engine.run("container", "exec", "three", "nslookup", "one", code=None).returncode != 0
        assert engine.out("container", "exec", "alone", "ls", "/sys/class/net").split() == ["lo"]
        assert "10.213.91.9" in engine.out("container", "exec", "guest", "ip", "addr")
        found = json.loads(engine.out("network", "inspect", "inner"))[0]
        assert found["Labels"] == {"a": "b"} and {c["Name"] for c in found["Containers"].values()} >= {"one", "two"}
        done = engine.run("network", "rm", "inner", code=1)
        assert "in use" in done.stderr or "active" in done.stderr
    engine.run("network", "prune", "-f")
    assert engine.run("network", "inspect", "inner", code=None).returncode != 0
    assert run(engine, "--network", "host", "busybox", "hostname").strip() == socket.gethostname()


def test_a_life(engine: Engine) -> None:
    engine.run("container", "create", "--name", "life", "--label", "k=v", "--cidfile", "cid", "--init", "busybox", "sh", "-c", "echo started; sleep 1000")
    identity = (engine.folder / "cid").read_text()
    assert inspect(engine, "life")["Id"] == identity and inspect(engine, identity[:12])["State"]["Status"] == "created"
    for verb, state in (("start", "running"), ("pause", "paused"), ("unpause", "running"), ("restart", "running")):
        engine.run("container", verb, *(["-t", "1"] if verb == "restart" else []), "life")
        assert inspect(engine, "life")["State"]["Status"] == state
    engine.run("container", "rename", "life", "other")
    assert "sleep 1000" in engine.out("container", "top", "other")
    row = json.loads(engine.out("container", "stats", "--no-stream", "--format", "json", "other"))
    assert row["Name"] == "other"
    engine.run("container", "exec", "other", "touch", "/made")
    assert "A /made" in engine.out("container", "diff", "other").splitlines()
    engine.run("container", "kill", "-s", "KILL", "other")
    assert engine.out("container", "wait", "other").strip() == "137"
    eventually(lambda: inspect(engine, "other")["State"]["ExitCode"] == 137, what="the exit code is there")
    assert engine.out("container", "logs", "other").split() == ["started", "started"]
    assert engine.out("container", "logs", "--tail", "1", "-t", "other").startswith("20")
    assert engine.out("container", "inspect", "-f", "{{.State.Status}} {{.Config.Labels.k}}", "other").strip() == "exited v"
    engine.run("container", "rm", "other")
    assert engine.run("container", "inspect", "other", code=1).stdout.strip() in ("", "[]")


def test_lists(engine: Engine) -> None:
    with running(engine, "up", "--label", "tier=web"):
        engine.run("container", "run", "--name", "gone", "--label", "tier=db", "busybox", "sh", "-c", "exit 3", code=3)
        assert names(engine) == ["up"] and names(engine, "-a") == ["gone", "up"]
        for words, want in (
            (["-f", "status=exited"], ["gone"]), (["-f", "label=tier=web"], ["up"]), (["-f", "name=o"], ["gone"]), (["-f", "exited=3"], ["gone"]),
            (["-f", "ancestor=busybox"], ["gone", "up"]), (["-n", "1"], ["gone"]), (["-l"], ["gone"]),
        ):  # fmt: skip
            assert names(engine, "-a", *words) == want, words
        ids = engine.out("container", "ls", "-aq", "--no-trunc").split()
        assert len(ids) == 2 and all(len(one) == 64 for one in ids)
        rows = [json.loads(line) for line in engine.out("container", "ls", "-a", "--format", "json").splitlines()]
        assert {row["Names"] for row in rows} == {"up", "gone"}
        assert "SIZE" in engine.out("container", "ls", "-s")
        assert engine.out("ls", "-a", "-q").strip() == ""  # of no project
        assert "gone" in engine.out("container", "ls", "-a") and "Exited (3)" in engine.out("container", "ls", "-a")
        engine.run("container", "prune", "-f", "--filter", "label=tier=web")
        assert names(engine, "-a") == ["gone", "up"]
        engine.run("container", "prune", "-f")
        assert names(engine, "-a") == ["up"]
        assert engine.run("container", "rm", "up", code=1).stderr


def test_restart_policies_and_health(engine: Engine) -> None:
    engine.run("container", "run", "-d", "--name", "tries", "--restart", "on-failure:2", "busybox", "false")
    eventually(lambda: inspect(engine, "tries")["RestartCount"] == 2 and inspect(engine, "tries")["State"]["Status"] == "exited", what="two more tries")
    engine.run("container", "rm", "tries")
    check = ("--health-cmd", "test -e /good", "--health-interval", "200ms", "--health-retries", "1", "--health-start-period", "0s")
    with running(engine, "sick", *check):
        eventually(lambda: inspect(engine, "sick")["State"]["Health"]["Status"] == "unhealthy", what="it is unhealthy")
        engine.run("container", "exec", "sick", "touch", "/good")
        eventually(lambda: inspect(engine, "sick")["State"]["Health"]["Status"] == "healthy", what="it is healthy")
        assert "(healthy)" in engine.out("container", "ls")
    with running(engine, "stops", "--stop-signal", "USR1", command=("sh", "-c", "trap 'exit 9' USR1; echo ready; while :; do sleep 0.1; done")):
        eventually(lambda: "ready" in engine.out("container", "logs", "stops"), what="its trap is set")
        engine.run("container", "stop", "-t", "20", "stops")
        assert inspect(engine, "stops")["State"]["ExitCode"] == 9


def test_commit_and_export(engine: Engine) -> None:
    with running(engine, "base", "-v", "/data"):
        engine.run("container", "exec", "base", "sh", "-c", "echo kept > /kept; echo volume > /data/x")
        engine.run("container", "commit", "-a", "me", "-m", "why", "-c", 'CMD ["cat", "/kept"]', "-c", "ENV X=1", "base", "made:1")
        archive = engine.folder / "root.tar"
        engine.run("container", "export", "-o", str(archive), "base")
        engine.run("container", "exec", "base", "touch", "/.wh.bin")
        refused = engine.run("container", "commit", "base", "made:2", code=None)
        assert refused.returncode != 0
        assert "/.wh.bin cannot be part of an image" in refused.stderr
    assert run(engine, "made:1") == "kept\n"
    assert run(engine, "made:1", "sh", "-c", "echo $X; ls /data") == "1\n"
    history = engine.out("image", "history", "--no-trunc", "made:1")
    assert "why" in history
    with tarfile.open(fileobj=io.BytesIO(archive.read_bytes())) as tar:
        listed = {member.name.strip("/") for member in tar}
    assert "kept" in {Path(name).as_posix().removeprefix("./") for name in listed}
    engine.run("image", "rm", "made:1")


def test_removal_takes_anonymous_volumes(engine: Engine) -> None:
    before = set(engine.out("volume", "ls", "-q").split())
    run(engine, "-v", "/data", "-v", "named:/n", "busybox", "touch", "/data/x", "/n/x")
    assert set(engine.out("volume", "ls", "-q").split()) - before == {"named"}
    engine.run("container", "run", "--name", "keeps", "-v", "/data", "busybox", "true")
    engine.run("container", "rm", "keeps")
    assert len(set(engine.out("volume", "ls", "-q").split()) - before) == 2
    engine.run("volume", "prune", "-f")
    assert set(engine.out("volume", "ls", "-q").split()) - before == {"named"}
    engine.run("volume", "rm", "named")
