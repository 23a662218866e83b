"""Every command on containers with a user namespace: what it shows, and whose the files are on disk and inside."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.engine import BIN, Engine, eventually

from orchestra.linux.mount import supports_idmap

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0 or not supports_idmap("/tmp"), reason="needs id-mapped mounts (root, kernel 5.19)"),
]

MAKE = """
set -e
mkdir /made
echo one > /made/mine
echo two > /made/theirs
chown 1000:1001 /made/theirs
chmod 600 /made/theirs
mkfifo /made/pipe
rm /usr/bin/vi
"""


@pytest.fixture
def one(engine: Engine) -> Iterator[Engine]:
    """``one`` with 2000 ids of its own, a volume and a bind mount, and some files made."""
    (engine.folder / "host").mkdir()
    engine.write("of the host's root\n", "host/private").chmod(0o600)
    engine.write("for all\n", "host/public").chmod(0o644)
    words = ["--userns", "auto:size=2000", "-v", "data:/data", "-v", f"{engine.folder}/host:/host", "--init"]
    engine.run("container", "run", "-d", "--name", "one", *words, "busybox", "sleep", "1000")
    engine.run("container", "exec", "one", "sh", "-c", MAKE)
    yield engine


def upper(engine: Engine) -> Path:
    return engine.root / "lib/containers" / engine.inspect("one")["Id"] / "upper"


def start_of(engine: Engine) -> int:
    pid = engine.inspect("one")["State"]["Pid"]
    return int(Path(f"/proc/{pid}/uid_map").read_text().split()[1])


def exported(engine: Engine) -> dict[str, tuple[int, int, int]]:
    done = subprocess.run([BIN, "container", "export", "one"], env=engine.environ, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        return {m.name: (m.uid, m.gid, m.mode) for m in tar}


def test_diff_and_export_running_and_stopped(one: Engine) -> None:
    made = upper(one) / "made"
    assert (made / "mine").stat().st_uid == 0
    assert ((made / "theirs").stat().st_uid, (made / "theirs").stat().st_gid) == (1000, 1001)
    lines = one.out("container", "diff", "one").splitlines()
    assert {"A /made", "A /made/mine", "A /made/theirs", "A /made/pipe", "D /usr/bin/vi"} <= set(lines)
    assert not any("/host/" in line or "/proc" in line for line in lines)
    running = exported(one)
    assert running["made/mine"][:2] == (0, 0) and running["made/theirs"] == (1000, 1001, 0o600)
    assert {"made/pipe", "etc/passwd", "proc", "data", "host"} <= set(running)
    assert running["proc"][:2] == (0, 0)  # the place, not what is mounted there
    assert not {"usr/bin/vi", "host/public", "proc/1", "dev/null"} & set(running)
    one.run("container", "stop", "-t", "1", "one")
    assert exported(one) == running
    assert one.out("container", "diff", "one").splitlines() == lines


def test_a_layer_that_no_id_owns_is_exported_too(one: Engine) -> None:
    """Files with owners outside of the 2000 ids come with the image; inside they are nobody's."""
    foreign = upper(one) / "made/foreign"
    foreign.write_text("x")
    os.chown(foreign, 70000, 70000)
    foreign.chmod(0o600)
    assert exported(one)["made/foreign"] == (70000, 70000, 0o600)


def test_commit_keeps_the_owners(one: Engine) -> None:
    one.run("container", "commit", "-c", "USER 1000:1001", "one", "kept:1")
    shown = ("stat", "-c", "%u:%g %n", "/made/mine", "/made/theirs")
    wanted = ["0:0 /made/mine", "1000:1001 /made/theirs"]
    assert one.out("container", "run", "--rm", "kept:1", *shown).splitlines() == wanted
    assert one.out("container", "run", "--rm", "--userns", "auto", "kept:1", *shown).splitlines() == wanted
    assert one.out("container", "run", "--rm", "--userns", "auto", "kept:1", "cat", "/made/theirs") == "two\n"


def test_top_and_logs(one: Engine) -> None:
    rows = [line.split() for line in one.out("container", "top", "one").splitlines()]
    assert rows[0][0] == "UID"
    assert {row[0] for row in rows[1:]} == {str(start_of(one))}  # as the host sees them
    script = "echo first; echo second >&2; echo third > /dev/stdout; echo fourth > /dev/stderr"
    one.run("container", "run", "--name", "says", "--userns", "auto", "--user", "1000:1000", "busybox", "sh", "-c", script)
    done = one.run("container", "logs", "says")
    assert sorted(done.stdout.split()) == ["first", "third"] and sorted(done.stderr.split()) == ["fourth", "second"]


def test_exec_as_somebody(one: Engine) -> None:
    script = "id -u; id -g; echo again > /dev/stdout; echo aside > /dev/stderr"
    for user, ids in (("1000:1001", ["1000", "1001"]), ("0", ["0", "0"]), ("1999", ["1999", "0"])):
        done = one.run("container", "exec", "-u", user, "one", "sh", "-c", script)
        assert done.stdout.split() == [*ids, "again"] and done.stderr.split() == ["aside"]
    one.run("container", "exec", "-u", "1000:1001", "one", "cat", "/made/theirs")
    assert one.run("container", "exec", "-u", "1001:1001", "one", "cat", "/made/theirs", code=None).returncode != 0
    for user, said in (("2000", "uid 2000"), ("0:2000", "gid 2000")):
        done = one.run("container", "exec", "-u", user, "one", "id", code=None)
        assert done.returncode != 0 and said in done.stderr and "2000 ids" in done.stderr and "auto:size" in done.stderr
    done = one.run("container", "run", "--rm", "--userns", "auto:size=10", "--user", "10", "busybox", "id", code=None)
    assert done.returncode == 125 and "uid 10" in done.stderr and "10 ids" in done.stderr


def test_a_terminal_belongs_to_the_user(engine: Engine) -> None:
    script = "stat -c %u $(tty); echo typed > /dev/tty; echo console > /dev/console"
    command = f"{BIN} container run --rm -it --userns auto --user 1000 busybox sh -c '{script}'"
    done = subprocess.run(["script", "-qec", command, "/dev/null"], env=engine.environ, capture_output=True, text=True, check=True,
                          stdin=subprocess.DEVNULL, timeout=120)  # fmt: skip
    assert [word.strip("^@\b") for word in done.stdout.split()][-3:] == ["1000", "typed", "console"], done.stdout


def test_cp_out(one: Engine) -> None:
    one.run("container", "cp", "-a", "one:/made", "out")
    assert ((one.folder / "out/theirs").stat().st_uid, (one.folder / "out/theirs").stat().st_gid) == (1000, 1001)
    one.run("container", "cp", "one:/made/theirs", "plain")
    assert (one.folder / "plain").stat().st_uid == 0
    one.run("container", "cp", "one:/host/public", "public")
    assert (one.folder / "public").read_text() == "for all\n"
    # what the container may not read is an error, not a gap
    done = one.run("container", "cp", "one:/host", "everything", code=1)
    assert "/host/private" in done.stderr and "ermission" in done.stderr


def test_cp_in(one: Engine) -> None:
    place = one.write("new\n", "note")
    os.chown(place, 1000, 1001)
    one.run("container", "cp", "note", "one:/data/plain")
    one.run("container", "cp", "-a", "note", "one:/data/kept")
    shown = one.out("container", "exec", "one", "stat", "-c", "%u:%g", "/data/plain", "/data/kept").split()
    assert shown == ["0:0", "1000:1001"]
    volume = one.root / "lib/volumes/data/_data"
    assert (volume / "plain").stat().st_uid == 0 and (volume / "kept").stat().st_uid == 1000
    # an owner that it has no id for
    os.chown(place, 70000, 70000)
    done = one.run("container", "cp", "-a", "note", "one:/data/far", code=1)
    assert "70000" in done.stderr and not (volume / "far").exists()
    done = one.run("container", "cp", "note", "one:/host/new", code=1)  # the host's own folder
    assert "ermission" in done.stderr and not (one.folder / "host/new").exists()
    one.run("container", "stop", "-t", "1", "one")
    one.run("container", "cp", "note", "one:/made/later")
    one.run("container", "start", "one")
    assert one.out("container", "exec", "one", "stat", "-c", "%u", "/made/later", "/data/kept").split() == ["0", "1000"]


def test_the_rest_goes_on_as_ever(one: Engine) -> None:
    assert json.loads(one.out("container", "stats", "--no-stream", "--format", "json", "one").splitlines()[0])["Name"] == "one"
    one.run("container", "pause", "one")
    one.run("container", "unpause", "one")
    one.run("container", "rename", "one", "other")
    one.run("container", "kill", "-s", "TERM", "other")
    eventually(lambda: one.inspect("other")["State"]["Status"] == "exited", what="its init takes the signal")


DOCKERFILE = """
    FROM busybox AS first
    RUN mkdir /a && echo x > /a/f && chown 1000:1001 /a/f
    RUN echo y > /a/g
    FROM busybox
    RUN cat /proc/self/uid_map > /map; id -u > /id; touch /root/r; chown 5:6 /root/r
    RUN --mount=type=cache,target=/cache echo kept > /cache/file && chown 1000 /cache/file && stat -c %u /cache /cache/file > /cached
    RUN --mount=type=secret,id=word --mount=type=bind,from=first,source=/a,target=/b \\
        cat /run/secrets/word > /secret; stat -c %u:%g /b/f /b/g > /bound
    RUN --mount=type=bind,target=/ctx,rw cat /ctx/Dockerfile > /text && touch /ctx/new
    USER 1000
    RUN id -u > /tmp/user
    USER 0
    COPY --from=first --chown=3:4 /a/g /given
"""


@pytest.mark.parametrize("remap", ["", "default", "auto"])
def test_builds(engine: Engine, remap: str) -> None:
    settings = engine.root / "daemon.json"
    settings.write_text(json.dumps({"userns-remap": remap}))
    engine.environ["ORCHESTRA_SETTINGS"] = str(settings)
    engine.write(DOCKERFILE, "Dockerfile")
    engine.write("sesame", "word")
    engine.run("image", "build", "--secret", "id=word,src=word", "-t", "built:1", ".")
    shown = engine.out("container", "run", "--rm", "--userns", "host", "built:1", "sh", "-c",
                       "cat /map /id /cached /secret; echo; cat /bound /tmp/user; stat -c %u:%g /root/r /given")  # fmt: skip
    first, *rest = shown.splitlines()
    assert first.split() == (["0", str(0x70000000), "65536"] if remap else ["0", "0", "4294967295"])
    assert rest == ["0", "0", "1000", "sesame", "1000:1001", "0:0", "1000", "5:6", "3:4"]
    # by the daemon, for compose
    engine.write("name: b\nservices:\n  a:\n    build: {context: ., dockerfile_inline: \"FROM busybox\\nRUN cat /proc/self/uid_map > /map\"}\n    command: cat /map\n")
    engine.run("up")
    assert str(0x70000000 if remap else 4294967295) in engine.out("logs", "a")
    engine.run("down", "--rmi", "local", "-t", "1")


def test_builds_with_other_ids_and_networks(engine: Engine) -> None:
    settings = engine.root / "daemon.json"
    settings.write_text('{"userns-remap": "default"}')
    engine.environ["ORCHESTRA_SETTINGS"] = str(settings)
    engine.write("FROM busybox\nUSER 70000\nRUN true\n", "Dockerfile")
    done = engine.run("image", "build", ".", code=1)
    assert "70000" in done.stderr and "userns-remap" in done.stderr and "Dockerfile:3" in done.stderr
    engine.write("FROM busybox\nRUN --network=none ls /sys/class/net\nRUN --security=insecure cat /proc/self/uid_map > /map\n", "Dockerfile")
    engine.run("image", "build", "--allow", "security.insecure", "-t", "built:2", ".")
    assert engine.out("container", "run", "--rm", "--userns", "host", "built:2", "cat", "/map").split()[1] == "0"
