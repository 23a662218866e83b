"""Attempts to get out of containers of the engine: what the shim and `exec` leave open, and whose secrets are seen."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pytest
from support.engine import Engine, eventually

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

FILE = """
name: escape
services:
  holder: {image: busybox, init: true, command: sleep 1000, secrets: [one], volumes: ["data:/data"]}
  other: {image: busybox, init: true, command: sleep 1000, secrets: [two]}
  beside: {image: busybox, init: true, command: sleep 1000, pid: "service:holder"}
secrets:
  one: {environment: ONE}
  two: {file: ./two}
volumes: {data: {}}
"""


def test_the_defaults_of_a_container(engine: Engine) -> None:
    """The table of docs/security.md, as a container sees it."""
    text = engine.out("container", "run", "--rm", "busybox", "sh", "-c", "cat /proc/self/status; id -u; cat /proc/self/mountinfo")
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    assert fields["CapEff"] == fields["CapPrm"] == fields["CapBnd"] == "00000000800405fb"
    assert fields["CapInh"] == fields["CapAmb"] == "0" * 16
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("0", "2")
    mounts = {line.split()[4]: line.split()[5].split(",") for line in text.splitlines() if " - " in line}
    for place in ("/sys", "/proc/sys", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger", "/sys/fs/cgroup"):
        assert not os.path.exists(place) or "ro" in mounts[place], place
    for place in ("/proc", "/sys", "/dev/shm", "/dev/mqueue"):
        assert {"nosuid", "nodev", "noexec"} <= set(mounts[place]), place
    user = engine.out("container", "run", "--rm", "--user", "1000", "busybox", "grep", "CapEff", "/proc/self/status")
    assert user.split()[1] == "0" * 16


def test_no_descriptor_comes_from_the_shim(engine: Engine) -> None:
    """The standard streams are FIFOs, whose path outside is shown but leads nowhere: they are no directories."""
    list_them = ("sh", "-c", "for n in /proc/self/fd/*; do echo $n $(readlink $n); done; ls /proc/self/fd/2/.. 2>/dev/null; echo over")
    fine = ("/dev/null", "/proc/", "/dev/pts/", str(engine.root / "run/containers"))
    for words in (("run", "--rm", "busybox"), ("run", "--rm", "-i", "busybox"), ("run", "--rm", "--init", "busybox")):
        text = engine.out("container", *words, *list_them)
        targets = [line.split(" ", 1)[1] for line in text.splitlines() if line.startswith("/proc/self/fd/") and " " in line]
        assert not [one for one in targets if one.startswith("/") and not one.startswith(fine)], text
        assert not [one for one in targets if one.startswith(fine[-1]) and not one.endswith(("/stdin", "/stdout", "/stderr"))], text
        assert text.endswith("over\n") and len(targets) >= 3
    engine.run("container", "run", "-d", "--name", "one", "--init", "busybox", "sleep", "1000")
    text = engine.out("container", "exec", "one", "sh", "-c", "for n in /proc/self/fd/*; do readlink $n; done; echo over")
    assert not [line for line in text.splitlines() if line.startswith("/") and not line.startswith(("/dev/null", "/proc/"))], text


def test_working_directories_through_descriptors(engine: Engine) -> None:
    """CVE-2024-21626, in `run` and in `exec`, directly and by a link of the image."""
    engine.run("container", "run", "-d", "--name", "one", "--init", "busybox", "sleep", "1000")
    engine.run("container", "exec", "one", "ln", "-s", "/proc/self/fd", "/way")
    look = ("sh", "-c", "ls -d ../../../../../../etc/shadow ../../../../../../usr/lib/os-release 2>/dev/null; echo $(pwd)")
    for number in range(3, 13):
        for place in (f"/proc/self/fd/{number}", f"/way/{number}"):
            done = engine.run("container", "exec", "-w", place, "one", *look, code=None)
            assert "shadow" not in done.stdout and "os-release" not in done.stdout
        done = engine.run("container", "run", "--rm", "-w", f"/proc/self/fd/{number}", "busybox", *look, code=None)
        assert done.returncode and "shadow" not in done.stdout and "os-release" not in done.stdout


def test_the_shims_program_cannot_be_overwritten(engine: Engine) -> None:
    """CVE-2019-5736: a container that waits for whoever enters it, and programs that are /proc/self/exe."""
    program = Path(os.path.realpath(sys.executable))
    before = hashlib.sha256(program.read_bytes()).hexdigest()
    watch = ("while :; do for p in /proc/[0-9]*; do (echo x > $p/exe) 2>/dev/null && echo OUT $p; "
             "r=$(readlink $p/exe); case $r in */python*) echo SEEN $r;; esac; done; done")
    engine.run("container", "run", "-d", "--name", "trap", "--cap-add", "SYS_PTRACE", "--cap-add", "DAC_READ_SEARCH", "busybox", "sh", "-c", watch)
    engine.run("container", "exec", "trap", "ln", "-s", "/proc/self/exe", "/evil")
    for words in (("true",), ("/evil", "-c", "open('/proc/self/exe', 'r+b').write(b'x')"), ("/proc/self/exe",), ("/proc/1/exe", "true")):
        for _ in range(3):
            engine.run("container", "exec", "trap", *words, code=None)
    engine.run("container", "run", "--rm", "busybox", "/proc/self/exe", "-c", "import os", code=None)
    assert "OUT" not in engine.out("container", "logs", "trap")
    assert hashlib.sha256(program.read_bytes()).hexdigest() == before


def test_secrets_are_seen_by_whom_they_are_granted_to(engine: Engine) -> None:
    first, second = "the-first-secret-of-this-test", "the-second-secret-of-this-test"
    engine.write(FILE)
    engine.write(second, "two")
    engine.run("up", "-d", environ={"ONE": first})
    assert engine.out("exec", "-T", "holder", "cat", "/run/secrets/one") == first
    look = "cat /run/secrets/* /proc/[0-9]*/root/run/secrets/* 2>/dev/null; cat /proc/self/mountinfo; ls /run/secrets; echo over"
    assert first not in engine.out("exec", "-T", "other", "sh", "-c", look)
    assert second not in engine.out("exec", "-T", "holder", "sh", "-c", look)
    # the same pid namespace shows its processes, and as equals their files: what `pid: service:` asks for
    assert second not in engine.out("exec", "-T", "beside", "sh", "-c", look)
    # and no user of the host but root
    name = engine.inspect("escape-holder-1")["Id"]
    places = [*Path("/dev/shm").glob(f"*/{name}"), *Path("/run").glob(f"*/{name}")]
    assert places
    for place in places:
        assert place.stat().st_mode & 0o077 == 0 and place.parent.stat().st_mode & 0o077 == 0


def test_mounts_of_a_container_do_not_reach_the_host(engine: Engine) -> None:
    (engine.folder / "shared/inner").mkdir(parents=True)
    engine.run("container", "run", "--rm", "--privileged", "-v", f"{engine.folder}/shared:/shared", "busybox", "sh", "-ec",
               "mount -t tmpfs t /shared/inner; touch /shared/inner/made; mount --bind /shared /mnt 2>/dev/null || true")  # fmt: skip
    assert os.listdir(engine.folder / "shared/inner") == []
    assert str(engine.folder) not in Path("/proc/self/mountinfo").read_text()


def test_racing_links_in_a_subpath(engine: Engine) -> None:
    """A container that writes to a volume swaps the part of it that another one mounts."""
    (engine.root / "outside").mkdir()
    (engine.root / "outside/file").write_text("of the host")
    swap = ("mkdir -p /data/part; ln -s $1 /data/link; while :; do mv -T /data/part /data/away; mv -T /data/link /data/part;"
            "mv -T /data/part /data/link; mv -T /data/away /data/part; done")  # fmt: skip
    engine.run("container", "run", "-d", "--name", "swapper", "-v", "shared:/data", "busybox", "sh", "-c", swap, "sh", str(engine.root / "outside"))
    eventually(lambda: engine.run("container", "exec", "swapper", "ls", "/data", code=None).stdout, what="it swaps")
    for _ in range(30):
        done = engine.run("container", "run", "--rm", "--mount", "type=volume,source=shared,target=/x,volume-subpath=part", "busybox", "ls", "/x", code=None)
        assert done.stdout == ""
    engine.run("container", "rm", "-f", "swapper")
