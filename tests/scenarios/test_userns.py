"""userns_mode: root inside is nobody outside, and everything else goes on as without."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

import pytest
from support.engine import SLOWNESS, Engine, eventually

from orchestra.linux.mount import supports_idmap

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300 * max(1, SLOWNESS / 2)),
    pytest.mark.skipif(os.geteuid() != 0 or not supports_idmap("/tmp"), reason="needs id-mapped mounts (root, kernel 5.19)"),
]

FIRST = 0x70000000

TWO = """
    name: u
    services:
      web:
        image: busybox
        init: true
        userns_mode: auto
        command: [sh, -c, "echo hello > /srv/index.html; exec httpd -f -p 80 -h /srv"]
        ports: ["127.0.0.1:18181:80"]
        volumes: [data:/srv, "./host:/host"]
        secrets:
          - token
          - {source: word, uid: "1000", mode: 0400}
        healthcheck: {test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1/"], interval: 1s, start_interval: 200ms, start_period: 20s}
      app:
        image: busybox
        init: true
        user: "1000:1000"
        userns_mode: auto:size=2000
        command: sleep 1000
        tmpfs: /scratch
    secrets:
      token: {file: ./token}
      word: {environment: WORD}
    volumes:
      data:
"""


def maps(pid: int) -> tuple[int, int]:
    """First id outside and how many."""
    words = Path(f"/proc/{pid}/uid_map").read_text().split()
    return int(words[1]), int(words[2])


def pid_of(engine: Engine, name: str) -> int:
    return int(json.loads(engine.out("container", "inspect", name))[0]["State"]["Pid"])


def owner(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Uid:"))
    return int(line.split()[1])


def start(engine: Engine) -> None:
    engine.write(TWO)
    engine.write("sesame", "token")
    os.chmod(engine.folder / "token", 0o600)
    (engine.folder / "host").mkdir(exist_ok=True)
    (engine.folder / "host/private").write_text("of the host's root")
    os.chmod(engine.folder / "host/private", 0o600)
    engine.run("up", "-d", "--wait", environ={"WORD": "xyzzy"})


def test_root_inside_is_nobody_outside(engine: Engine) -> None:
    start(engine)
    web, app = pid_of(engine, "u-web-1"), pid_of(engine, "u-app-1")
    (first, size), (other, fewer) = maps(web), maps(app)
    assert first >= FIRST and size == 65536
    assert other >= FIRST and fewer == 2000 and other != first
    assert owner(web) == first and owner(app) == other + 1000
    assert engine.out("exec", "-T", "web", "id", "-u").strip() == "0"
    assert engine.out("exec", "-T", "app", "id", "-u").strip() == "1000"
    assert os.readlink(f"/proc/{web}/ns/user") != os.readlink("/proc/self/ns/user")
    # the network namespace is its own: port 80, names, addresses
    with urllib.request.urlopen("http://127.0.0.1:18181/", timeout=10) as answer:
        assert answer.read() == b"hello\n"
    assert engine.out("exec", "-T", "app", "wget", "-q", "-O", "-", "http://web/") == "hello\n"
    engine.run("down", "-v", "-t", "2")


def test_files_keep_the_ids_they_have_inside(engine: Engine) -> None:
    start(engine)
    shell = ("exec", "-T", "web", "sh", "-ec")
    engine.run(*shell, "echo mine > /srv/mine; touch /srv/theirs; chown 1000:1000 /srv/theirs; touch /root/made")
    assert engine.out(*shell, "stat -c %u /etc/hosts /srv/mine /srv/theirs /root/made").split() == ["0", "0", "1000", "0"]
    place = engine.root / "lib/volumes/u_data/_data"
    assert (place / "mine").stat().st_uid == 0 and (place / "theirs").stat().st_uid == 1000
    # a bind mount is the host's
    assert engine.run(*shell, "cat /host/private", code=None).returncode != 0
    assert engine.out(*shell, "stat -c %u /host/private").strip() == "65534"
    # secrets are readable for whom they are for
    assert engine.out(*shell, "cat /run/secrets/token") == "sesame"
    assert engine.out(*shell, "stat -c %u:%a /run/secrets/word").strip() == "1000:400"
    # the volume means the same without the namespace
    text = (engine.folder / "compose.yaml").read_text().replace("userns_mode: auto\n", "userns_mode: host\n")
    (engine.folder / "compose.yaml").write_text(text)
    engine.run("up", "-d", "--wait", environ={"WORD": "xyzzy"})
    assert maps(pid_of(engine, "u-web-1")) == (0, 4294967295)
    assert engine.out(*shell, "stat -c %u /srv/mine /srv/theirs; cat /srv/mine").split() == ["0", "1000", "mine"]
    engine.run("down", "-v", "-t", "2")


def test_copying_committing_and_restarting(engine: Engine) -> None:
    start(engine)
    engine.write("from outside\n", "note")
    engine.run("cp", "note", "web:/root/note")
    assert engine.out("exec", "-T", "web", "stat", "-c", "%u", "/root/note").strip() == "0"
    engine.run("exec", "-T", "web", "sh", "-c", "echo inside > /root/back; chown 12:34 /root/back")
    engine.run("cp", "web:/root/back", "back")
    assert (engine.folder / "back").read_text() == "inside\n"
    engine.run("container", "commit", "u-web-1", "kept:1")
    said = engine.out("container", "run", "--rm", "kept:1", "stat", "-c", "%u:%g", "/root/back", "/root/note")
    assert said.split() == ["12:34", "0:0"]
    engine.run("restart", "-t", "1", "web")
    eventually(lambda: engine.out("exec", "-T", "web", "cat", "/root/back").strip() == "inside", what="its layer is there again")
    engine.run("stop", "-t", "1", "web")
    engine.write("later\n", "later")
    engine.run("cp", "later", "web:/later")
    engine.run("start", "web")
    assert engine.out("exec", "-T", "web", "stat", "-c", "%u", "/later").strip() == "0"
    engine.run("down", "-v", "-t", "2")
    engine.run("image", "rm", "kept:1")


def test_a_daemon_that_died_remembers_the_ranges(engine: Engine) -> None:
    engine.run("container", "run", "-d", "--name", "one", "--userns", "auto", "--init", "busybox", "sleep", "1000")
    for pid in engine.processes():
        if b"daemon" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, 9)
    engine.run("container", "run", "-d", "--name", "two", "--userns", "private", "--init", "busybox", "sleep", "1000")
    assert maps(pid_of(engine, "one")) != maps(pid_of(engine, "two"))
    engine.write("text", "file")
    engine.run("container", "cp", "file", "one:/file")
    assert engine.out("container", "exec", "one", "stat", "-c", "%u", "/file").strip() == "0"
    # who shares its network shares its ids
    engine.run("container", "run", "-d", "--name", "three", "--userns", "auto", "--network", "container:one", "--init", "busybox", "sleep", "1000")
    assert os.readlink(f"/proc/{pid_of(engine, 'three')}/ns/user") == os.readlink(f"/proc/{pid_of(engine, 'one')}/ns/user")
    assert "text" in engine.out("container", "exec", "one", "cat", "/file")


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("privileged: true", "privileged"),
        ("network_mode: host", "network: host"),
        ("pid: host", "pid: host"),
    ],
)
def test_contradictions_are_refused(engine: Engine, extra: str, said: str) -> None:
    engine.write(f"name: u\nservices:\n  a:\n    image: busybox\n    userns_mode: auto\n    {extra}\n")
    done = engine.run("up", "-d", code=1)
    assert said in done.stderr and "user namespace" in done.stderr and "userns_mode" in done.stderr


def test_the_default_of_the_settings(engine: Engine) -> None:
    settings = engine.root / "daemon.json"
    settings.write_text('{"userns-remap": "default"}')
    more = {"ORCHESTRA_SETTINGS": str(settings)}
    engine.run("container", "run", "-d", "--name", "one", "--init", "busybox", "sleep", "1000", environ=more)
    engine.run("container", "run", "-d", "--name", "two", "--init", "busybox", "sleep", "1000")
    engine.run("container", "run", "-d", "--name", "free", "--userns", "host", "--init", "busybox", "sleep", "1000")
    assert maps(pid_of(engine, "one")) == maps(pid_of(engine, "two")) and maps(pid_of(engine, "one"))[0] > 0
    assert maps(pid_of(engine, "free"))[0] == 0
    settings.write_text('{"userns-remap": "nobody-has-this-name"}')
    done = engine.run("container", "run", "--rm", "busybox", "true", code=125)
    assert "/etc/subuid" in done.stderr
    settings.write_text('{"userns": "x"}')
    assert "daemon.json:1" in engine.run("container", "run", "--rm", "busybox", "true", code=125).stderr
    settings.unlink()
