"""The life of a container through the commands of ``orchestra-runtime``."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from support.runtimelab import COMMAND, Lab, eventually

from orchestra.runtime.cgroups import probe

pytestmark = pytest.mark.root
SLEEPER = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done"


def test_create_start_kill_delete(lab: Lab, tmp_path: Path) -> None:
    name, place = lab.bundle(lab.shell("trap 'exit 5' TERM; touch /tmp/started; while :; do sleep 0.1; done"))
    null = subprocess.DEVNULL
    subprocess.run([*COMMAND, "--root", str(lab.state), "create", "--bundle", str(place), "--pid-file", str(tmp_path / "pid"),
                    name], stdin=null, stdout=null, stderr=null, check=True, timeout=60)
    found = lab.describe(name)
    assert found["status"] == "created"
    assert found["pid"] == int((tmp_path / "pid").read_text())
    assert found["bundle"] == str(place)
    assert not (lab.root / "tmp/started").exists()
    assert "already exists" in lab.command("create", "--bundle", str(place), name).stderr
    lab.command("start", name, check=True)
    eventually(lambda: (lab.root / "tmp/started").exists(), "the program runs")
    assert lab.status(name) == "running"
    assert "is running, not created" in lab.command("start", name).stderr
    assert lab.command("delete", name).returncode == 1
    assert name in lab.command("list").stdout
    assert [one["id"] for one in json.loads(lab.command("list", "--format", "json").stdout)] == [name]
    lab.command("kill", name, "SIGTERM", check=True)
    eventually(lambda: lab.status(name) == "stopped", "it stops")
    assert lab.command("kill", name, "KILL").returncode == 1
    lab.command("delete", name, check=True)
    assert "does not exist" in lab.command("state", name).stderr
    assert lab.command("delete", name).returncode == 1
    assert lab.command("delete", "--force", name).returncode == 0


def test_the_end_of_a_created_container(lab: Lab) -> None:
    name, place = lab.bundle(lab.shell("echo never"))
    subprocess.run([*COMMAND, "--root", str(lab.state), "create", "--bundle", str(place), name], stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, timeout=60)
    lab.command("kill", name, "TERM", check=True)
    eventually(lambda: lab.status(name) == "stopped", "a created container heeds SIGTERM")
    lab.command("delete", name, check=True)


def test_failed_starts_leave_nothing(lab: Lab) -> None:
    name, place = lab.bundle(lab.config("nosuch"))
    result = lab.command("create", "--bundle", str(place), name)
    assert result.returncode == 127
    assert not lab.state.exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/orchestra-runtime/{name}"))


def test_exec(lab: Lab) -> None:
    name = lab.start(lab.shell(SLEEPER))
    pid = lab.pid(name)
    result = lab.command("exec", name, "sh", "-c", "readlink /proc/self/ns/net; cat /proc/self/cgroup; grep CapBnd /proc/self/status;"
                         "ls /proc/self/fd | wc -l; hostname; exit 9")
    lines = result.stdout.splitlines()
    assert result.returncode == 9
    assert lines[0] == os.readlink(f"/proc/{pid}/ns/net")
    assert all(line.endswith(":/") for line in lines[1:-3])
    assert lines[-3].split()[1] == "00000000800405fb"
    assert int(lines[-2]) <= 4
    assert lab.command("exec", name, "nosuch").returncode == 127
    assert lab.command("exec", name, "/etc/passwd").returncode == 126
    options = ("--cwd", "/tmp", "--user", "1000:1000", "--env", "X=y")
    text = lab.command("exec", *options, name, "sh", "-c", "pwd; id -u; echo $X", check=True).stdout
    assert text.split() == ["/tmp", "1000", "y"]


def test_exec_into_a_container_at_its_limit_of_processes(lab: Lab) -> None:
    if "pids" not in (*probe().v1, *probe().controllers):
        pytest.skip("needs the pids controller")
    for limit in (1, 2):
        config = lab.shell("echo ready; exec sleep 1000")
        config["linux"]["resources"]["pids"] = {"limit": limit}
        name = lab.start(config)
        for words in ((), ("--tty",)):  # quick, careful
            done = lab.command("exec", *words, name, "cat", "/proc/self/cgroup")
            lines = done.stdout.splitlines()
            assert lines and all(line.endswith(":/") for line in lines), done.stderr
        assert limit == 2 or "can't fork" in lab.command("exec", name, "sh", "-c", "ls; true").stderr


def test_exec_makes_no_directory(lab: Lab) -> None:
    name = lab.start(lab.shell(SLEEPER))
    result = lab.command("exec", "--cwd", "/nosuch/place", name, "true")
    assert result.returncode == 1 and "change to directory /nosuch/place: no such file or directory" in result.stderr
    assert not (lab.root / "nosuch").exists()
    assert "not a directory" in lab.command("exec", "--cwd", "/bin/busybox", name, "true").stderr


def test_a_late_signal_is_told_in_the_words_that_callers_know(lab: Lab, tmp_path: Path) -> None:
    name = lab.start(lab.shell(SLEEPER))
    lab.command("kill", name, "KILL", check=True)
    eventually(lambda: lab.status(name) == "stopped", "it stops")
    log = tmp_path / "log.json"
    result = lab.command("--log", str(log), "--log-format", "json", "kill", name, "KILL")
    assert result.returncode == 1
    assert json.loads(log.read_text())["msg"] == f"container not running: {name} has ended"


def test_warnings_go_to_the_log_alone(lab: Lab, tmp_path: Path) -> None:
    config = lab.config("true")
    config["linux"]["resources"]["hugepageLimits"] = [{"pageSize": "3KB", "limit": 0}]
    assert "warning: hugepage limit 3KB" in lab.run(config).stderr
    name, place = lab.bundle(config)
    log = tmp_path / "log.json"
    result = lab.command("--log", str(log), "--log-format", "json", "run", "--bundle", str(place), name)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [entry["level"] for entry in entries] == ["warning"] and "hugepage limit 3KB" in entries[0]["msg"]


def test_exec_by_a_process_file_in_the_background(lab: Lab, tmp_path: Path) -> None:
    config = lab.shell(SLEEPER)
    name = lab.start(config)
    process = {**config["process"], "args": ["sh", "-c", "sleep 0.2; echo done >/tmp/made"], "cwd": "/"}
    (tmp_path / "process.json").write_text(json.dumps(process))
    null = subprocess.DEVNULL
    subprocess.run([*COMMAND, "--root", str(lab.state), "exec", "--detach", "--process", str(tmp_path / "process.json"),
                    "--pid-file", str(tmp_path / "pid"), name], stdin=null, stdout=null, stderr=null, check=True, timeout=60)
    assert int((tmp_path / "pid").read_text()) > 1
    eventually(lambda: (lab.root / "tmp/made").exists(), "the process ran")


def test_an_exec_that_cannot_be_told_of_is_ended(lab: Lab) -> None:
    name = lab.start(lab.shell("echo ready; exec sleep 1000"))
    for words in (("--pid-file", "/none/pid"), ("--tty", "--console-socket", "/none/socket")):
        assert lab.command("exec", "--detach", *words, name, "sleep", "1000").returncode == 1
        eventually(lambda: lab.command("ps", "--format", "json", name).stdout.split() == ["[", str(lab.pid(name)), "]"], "only the init is left")


def test_kill_all(lab: Lab) -> None:
    config = lab.shell("sleep 1000 & sleep 1000 & echo ready; wait")
    config["linux"]["namespaces"] = [one for one in config["linux"]["namespaces"] if one["type"] != "pid"]
    name = lab.start(config)
    pids = json.loads(lab.command("ps", "--format", "json", name, check=True).stdout)
    assert len(pids) == 3
    lab.command("kill", "--all", name, "KILL", check=True)
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids[1:]), "all are gone")
    lab.command("delete", name, check=True)


def test_pause_and_resume(lab: Lab) -> None:
    name = lab.start(lab.shell(SLEEPER))
    lab.command("pause", name, check=True)
    assert lab.status(name) == "paused"
    assert lab.command("exec", name, "true").returncode == 1
    lab.command("resume", name, check=True)
    assert lab.status(name) == "running"
    lab.command("pause", name, check=True)
    lab.command("delete", "--force", name, check=True)


def test_update_and_events(lab: Lab) -> None:
    name = lab.start(lab.shell(SLEEPER))
    lab.command("update", "--memory", "64m", "--pids-limit", "77", name, check=True)
    lab.command("update", "--resources", "-", name, check=True, input='{"cpu": {"shares": 512}}', stdin=None)
    event = json.loads(lab.command("events", "--stats", name, check=True).stdout)
    assert event["type"] == "stats"
    assert event["data"]["memory"]["usage"]["limit"] == 64 << 20
    assert event["data"]["pids"]["limit"] == 77
    assert lab.command("update", name).returncode == 1


def test_ps_table(lab: Lab) -> None:
    name = lab.start(lab.shell(SLEEPER))
    lines = lab.command("ps", name, check=True).stdout.splitlines()
    assert "PID" in lines[0] and len(lines) >= 2


def test_signals_are_handed_on(lab: Lab) -> None:
    name, place = lab.bundle(lab.shell("trap 'exit 7' USR1; echo ready; while :; do sleep 0.1; done"))
    process = subprocess.Popen([*COMMAND, "--root", str(lab.state), "run", "--bundle", str(place), name],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.wait(30) == 7
    finally:
        process.kill()
        process.wait()
        process.stdout.close() if process.stdout else None


def _read(master: int, until: bytes, timeout: float = 30) -> bytes:
    data = b""
    while until not in data:
        ready, _, _ = select.select([master], [], [], timeout)
        assert ready, data
        try:
            piece = os.read(master, 4096)
        except OSError:
            break
        data += piece
    return data


def test_terminal_in_the_foreground(lab: Lab) -> None:
    config = lab.shell("tty; stty size; read line; echo got:$line", terminal=True)
    name, place = lab.bundle(config)
    master, slave = pty.openpty()
    subprocess.run(["stty", "rows", "33", "cols", "99"], stdin=slave, check=True)
    process = subprocess.Popen([*COMMAND, "--root", str(lab.state), "run", "--bundle", str(place), name],
                               stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    try:
        head = _read(master, b"33 99")
        assert b"/dev/pts/0" in head
        os.write(master, b"hello\n")
        assert b"got:hello" in _read(master, b"got:hello")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_console_socket(lab: Lab, tmp_path: Path) -> None:
    config = lab.shell("ls -l /dev/console | cut -c1; stty size; tty; sleep 1000", terminal=True,
                       consoleSize={"height": 20, "width": 70})
    name, place = lab.bundle(config)
    path = str(tmp_path / "console")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(1)
        server.settimeout(60)
        received: list[tuple[bytes, list[int]]] = []

        def accept() -> None:
            end, _ = server.accept()
            with end:
                data, fds, _, _ = socket.recv_fds(end, 4096, 1)
                received.append((data, fds))

        thread = threading.Thread(target=accept)
        thread.start()
        null = subprocess.DEVNULL
        subprocess.run([*COMMAND, "--root", str(lab.state), "create", "--bundle", str(place), "--console-socket", path, name],
                       stdin=null, stdout=null, stderr=null, check=True, timeout=60)
        thread.join(60)
    assert received[0][0].startswith(b"/dev/pts/")
    master = received[0][1][0]
    try:
        lab.command("start", name, check=True)
        assert b"20 70" in _read(master, b"/dev/pts/0")
    finally:
        os.close(master)
    assert lab.command("create", "--bundle", str(place), "x" + name).returncode == 1


def test_terminal_of_an_exec(lab: Lab) -> None:
    name = lab.start(lab.shell(SLEEPER))
    master, slave = pty.openpty()
    process = subprocess.Popen([*COMMAND, "--root", str(lab.state), "exec", "--tty", name, "sh", "-c", "tty; exit 4"],
                               stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    try:
        assert b"/dev/pts/0" in _read(master, b"/dev/pts/0")
        assert process.wait(30) == 4
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_spec_runs(lab: Lab, tmp_path: Path) -> None:
    lab.command("spec", "--bundle", str(tmp_path), check=True)
    assert lab.command("spec", "--bundle", str(tmp_path)).returncode == 1
    config = json.loads((tmp_path / "config.json").read_text())
    config["root"]["path"] = str(lab.root)
    config["process"].update(terminal=False, args=["echo", "fine"])
    assert lab.output(config) == "fine\n"


def test_features(lab: Lab) -> None:
    found = json.loads(lab.command("features", check=True).stdout)
    assert "rro" in found["mountOptions"]
    assert "time" in found["linux"]["namespaces"]


def test_refusals_and_the_log(lab: Lab, tmp_path: Path) -> None:
    log = tmp_path / "log"
    result = lab.command("--log", str(log), "--log-format=json", "--systemd-cgroup", "list")
    assert result.returncode == 1
    assert "systemd" in json.loads(log.read_text())["msg"]
    assert lab.command("--log", str(log), "state", "nothing").returncode == 1
    assert "level=error" in log.read_text()
    for words in (["state", "../x"], ["nonsense"], [], ["kill", "x", "SIGNONE"]):
        result = lab.command(*words)
        assert result.returncode == 1
        assert "Traceback" not in result.stderr


def test_bad_configurations_are_named(lab: Lab) -> None:
    def complaint(**changes: object) -> str:
        config = lab.shell("true")
        for path, value in changes.items():
            part, _, key = path.partition("__")
            if key:
                config[part][key] = value
            else:
                config[part] = value
        result = lab.run(config)
        assert result.returncode == 1
        assert "Traceback" not in result.stderr
        return result.stderr

    assert "ociVersion" in complaint(ociVersion="2.0.0")
    assert "process.args" in complaint(process__args=[])
    assert "process.cwd" in complaint(process__cwd="relative")
    assert "mount namespace" in complaint(linux__namespaces=[])
    assert "unknown type" in complaint(linux__namespaces=[{"type": "mount"}, {"type": "odd"}])
    assert "CAP_ODD" in complaint(process__capabilities={"bounding": ["CAP_ODD"]})
    assert "RLIMIT_ODD" in complaint(process__rlimits=[{"type": "RLIMIT_ODD", "soft": 1, "hard": 1}])
    assert "has no source" in complaint(mounts=[{"destination": "/x", "type": "bind"}])
    assert "systemd" in complaint(linux__cgroupsPath="a.slice:b:c")


def test_hostile_configurations_leave_nothing(lab: Lab) -> None:
    """No traceback, and neither a state nor a cgroup remains."""
    text = json.dumps(lab.shell("true"))
    changes: list[tuple[str, str]] = [
        ('"hostname": ', '"hostname": 5, "x": '), ('"args": ["sh", "-c", "true"]', '"args": "sh"'), ('"uid": 0', '"uid": "root"'),
        ('"uid": 0', '"uid": 99999999999'), ('"mounts": [', '"mounts": [null, '), ('"linux": {', '"linux": [], "x": {'), (text, "[" * 200_000),
        ('"destination": "/proc"', '"destination": "/a\\u0000b"'), ('"resources": {', '"resources": {"blockIO": {"throttleReadBpsDevice": [{}]}, '),
        ('"hostname": ', '"hostname": "\\ud800", "x": '), ('"path": "' + str(lab.root), '"path": "../../../..' + str(lab.root) + "/nothing"),
    ]  # fmt: skip
    for old, new in changes:
        name, place = lab.bundle(lab.shell("true"))
        changed = text.replace(old, new, 1)
        assert changed != text, old
        (place / "config.json").write_text(changed)
        for verb in ("create", "run"):
            result = lab.command(verb, "--bundle", str(place), name)
            assert result.returncode == 1, (old, new, result.stderr)
            assert "Traceback" not in result.stderr
            assert result.stderr.count("\n") <= 3
            assert not (lab.state / name).exists()
            assert not [root for root in probe().hierarchies() if os.path.exists(f"{root}/orchestra-runtime/{name}")]
    os.remove(place / "config.json")
    os.symlink("config.json", place / "config.json")
    assert "symbolic links" in lab.command("create", "--bundle", str(place), name).stderr


@pytest.mark.parametrize("kind", ["prestart", "createContainer", "startContainer"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_hook_does_not_end(lab: Lab, tmp_path: Path, kind: str, number: signal.Signals) -> None:
    """Neither the container nor the hook remains, nor anything of them on disk."""
    begun = (lab.root if kind == "startContainer" else tmp_path) / "begun"
    inside = "/begun" if kind == "startContainer" else str(begun)
    config = lab.shell("true")
    config["hooks"] = {kind: [{"path": "/bin/sh", "args": ["sh", "-c", f"echo $$ > {inside}; exec sleep 1000"]}]}
    for verb in ("run",) if kind == "startContainer" else ("create", "run"):
        name, place = lab.bundle(config)
        with open(place / "said", "wb") as said:
            process = subprocess.Popen([*COMMAND, "--root", str(lab.state), verb, "--bundle", str(place), name],
                                       stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        eventually(lambda: begun.exists() and begun.read_text().strip(), "the hook runs")
        pid = int(begun.read_text())
        begun.unlink()
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert f"interrupted by {number.name}" in (place / "said").read_text()
        assert not (lab.state / name).exists()
        assert not [root for root in probe().hierarchies() if os.path.exists(f"{root}/orchestra-runtime/{name}")]
        if kind == "prestart":
            eventually(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), "the hook is gone")


def test_the_last_id_is_nobody_not_root(lab: Lab) -> None:
    name = lab.start(lab.shell("echo ready; exec sleep 1000"))
    for user in ("4294967295", "4294967295:0", "0:4294967295", "-1", "99999999999999999999"):
        done = lab.command("exec", "--user", user, name, "id", "-u")
        assert (done.returncode, done.stdout) == (1, ""), user
        assert "Traceback" not in done.stderr
    config = lab.shell("id -u", user={"uid": 4294967295, "gid": 0})
    done = lab.run(config)
    assert (done.returncode, done.stdout) == (1, "")


def _processes_of(place: str) -> list[int]:
    """Processes that have something of ``place`` as their root or mount."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                text = Path(f"/proc/{name}/mountinfo").read_text()
            except OSError:
                continue
            if place in text and int(name) != os.getpid():
                found.append(int(name))
    return found


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.13, 0.16, 0.2, 0.3])
def test_a_create_that_is_killed_leaves_nothing_after_delete(lab: Lab, delay: float) -> None:
    name, place = lab.bundle(lab.shell("sleep 1000"))
    process = subprocess.Popen([*COMMAND, "--root", str(lab.state), "create", "--bundle", str(place), name],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        process.kill()
    process.wait()
    lab.command("delete", "--force", name, check=True)
    assert not (lab.state / name).exists()
    assert not list(Path("/sys/fs/cgroup").glob(f"*/orchestra-runtime/{name}"))
    eventually(lambda: not _processes_of(str(lab.root)), "no process of it is left")
    assert lab.output(lab.shell("echo again")) == "again\n"


def test_damaged_records_are_named_and_can_be_deleted(lab: Lab) -> None:
    for name, text in (("state.json", "{"), ("state.json", '{"id": 5}'), ("state.json", "[]"), ("config.json", "{"), ("config.json", "")):
        container = lab.start(lab.shell("echo ready; exec sleep 1000"))
        pid = lab.pid(container)
        (lab.state / container / name).write_text(text)
        for words in (("exec", container, "true"), ("delete", container)):
            done = lab.command(*words)
            assert done.returncode == 1
            assert "Traceback" not in done.stderr
        if name == "state.json":
            assert "the record of container" in lab.command("state", container).stderr
        lab.command("delete", "--force", container, check=True)
        assert not (lab.state / container).exists()
        eventually(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), "its init is gone")
