"""The same bundle under another runtime looks the same from inside; and Podman takes us as its runtime."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.runtimelab import COMMAND, Lab

pytestmark = [pytest.mark.root, pytest.mark.peer]


@pytest.fixture(autouse=True)
def no_cgroup_left() -> Iterator[None]:
    """Peers leave empty parents of their cgroups behind."""
    yield
    for folder in Path("/sys/fs/cgroup").glob("*/orchestra-peer"):
        with contextlib.suppress(OSError):
            folder.rmdir()


# a signal that the caller ignores stays ignored under the peers, so SigIgn is not compared
PROBE = r"""
id; umask; pwd; hostname; echo $HOME
grep -E '^(Cap|NoNewPrivs|Seccomp:|SigBlk)' /proc/self/status
for d in null zero full random urandom tty ptmx console; do stat -c '%n %F %a %t:%T' /dev/$d 2>/dev/null; done
for l in fd stdin stdout stderr; do readlink /dev/$l; done
ulimit -n; ulimit -Hn
cat /proc/sys/net/ipv4/ip_unprivileged_port_start
for f in /proc/acpi /proc/kcore /proc/keys /sys/firmware; do ls $f 2>/dev/null | grep -v "^$f" | wc -l; done
for p in /proc/sys/kernel/panic /proc/sysrq-trigger /etc/x; do (: >>$p) 2>/dev/null && echo "writable $p"; done
cut -d' ' -f5,6 /proc/self/mountinfo | grep -E '^/(proc|dev|dev/pts|dev/shm|dev/mqueue|sys|data|ro) ' | sort
set -- /proc/[0-9]*; echo $#
"""


def _peer(name: str, lab: Lab, config: dict[str, object]) -> tuple[int, str]:
    program = shutil.which(name)
    if not program:
        pytest.skip(f"{name} is not installed")
    container, place = lab.bundle({**config, "ociVersion": "1.0.2"})
    # crun refuses hybrid machines: give it one without the unified tree
    hide = ["unshare", "--mount", "--propagation", "private", "sh", "-c",
            'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"', "sh"]
    result = subprocess.run([*hide, program, "--root", str(lab.place / name), "run", "--bundle", str(place), container],
                            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90, check=False)
    subprocess.run([program, "--root", str(lab.place / name), "delete", "--force", container], capture_output=True,
                   timeout=90, check=False)
    return result.returncode, result.stdout


@pytest.mark.parametrize("peer", ["crun", "runc"])
@pytest.mark.parametrize("uid", [0, 1000])
def test_same_view_as_a_peer(lab: Lab, peer: str, uid: int) -> None:
    (lab.place / "data").mkdir()
    config = lab.shell(PROBE, user={"uid": uid, "gid": uid, "additionalGids": [9]}, cwd="/tmp",
                       rlimits=[{"type": "RLIMIT_NOFILE", "soft": 256, "hard": 512}])
    config["linux"]["cgroupsPath"] = f"/orchestra-peer/{lab.mark}"
    config["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "80"}
    # what runc 1.1 still takes for a capability, a mask and a bind
    for target, words in (("/data", ["rbind", "rw"]), ("/ro", ["rbind", "ro", "nosuid", "nodev"])):
        config["mounts"].append({"destination": target, "type": "bind", "source": str(lab.place / "data"), "options": words})
    config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "cgroup"]
    code, text = _peer(peer, lab, config)
    ours = lab.run(config)
    assert (ours.returncode, ours.stdout.splitlines()) == (code, text.splitlines()), ours.stderr


@pytest.mark.parametrize("peer", ["crun", "runc"])
@pytest.mark.parametrize("args", [["sh", "-c", "exit 9"], ["sh", "-c", "kill -9 $$; sleep 1"], ["true"]])
def test_same_exit_codes(lab: Lab, peer: str, args: list[str]) -> None:
    config = lab.config(*args)
    config["linux"]["cgroupsPath"] = f"/orchestra-peer/{lab.mark}"
    config["mounts"] = [mount for mount in config["mounts"] if mount["type"] != "cgroup"]
    assert lab.run(config).returncode == _peer(peer, lab, config)[0]


class Podman:
    """Podman with its own storage and our command as its runtime."""

    def __init__(self, lab: Lab) -> None:
        if not shutil.which("podman") or not shutil.which("conmon"):
            pytest.skip("podman is not installed")
        self.lab = lab
        self.runtime = lab.place / "orchestra-runtime"
        self.runtime.write_text("#!/bin/sh\nexec " + " ".join(COMMAND) + ' "$@"\n')
        self.runtime.chmod(0o755)
        archive = lab.place / "root.tar"
        subprocess.run(["tar", "-C", str(lab.root), "-cf", str(archive), "."], check=True)
        self("import", str(archive), "box", check=True)

    def __call__(self, *words: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        place = self.lab.place
        result = subprocess.run(
            ["podman", "--root", str(place / "p"), "--runroot", str(place / "r"), "--tmpdir", str(place / "t"),
             "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file",
             "--runtime", str(self.runtime), *words],
            capture_output=True, text=True, timeout=150, check=False, stdin=subprocess.DEVNULL)
        if check:
            assert result.returncode == 0, result.stderr
        return result

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000")
        return self("run", "--network", "none", *limits, *words)

    def close(self) -> None:
        self("rm", "--all", "--force", "--time", "0")
        self("rmi", "--all", "--force")
        subprocess.run(["umount", str(self.lab.place / "p/vfs")], capture_output=True, check=False)
        for place in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            target = place.split()[4]
            if target.startswith(str(self.lab.place)):
                subprocess.run(["umount", target], check=False)


def test_podman(lab: Lab) -> None:
    podman = Podman(lab)
    try:
        assert podman.run("--rm", "box", "sh", "-c", "echo hi; id -u; exit 3").stdout == "hi\n0\n"
        assert podman.run("--rm", "box", "sh", "-c", "exit 3").returncode == 3
        assert podman.run("--rm", "--user", "1000", "--read-only", "--cap-drop", "all", "box", "id", "-u").stdout == "1000\n"
        assert podman.run("--rm", "--memory", "64m", "--pids-limit", "50", "box", "true").returncode == 0
        assert podman.run("--rm", "box", "nosuch").returncode == 127
        assert podman.run("--rm", "box", "/etc/passwd").returncode == 126
        started = podman.run("--detach", "--name", "one", "box", "sh", "-c",
                             "trap 'exit 5' TERM; echo begun; while :; do sleep 0.1; done")
        assert started.returncode == 0, started.stderr
        done = podman("exec", "one", "sh", "-c", "cat /proc/1/comm; exit 7")
        assert (done.returncode, done.stdout) == (7, "sh\n"), done.stderr
        assert "begun" in podman("logs", "one").stdout
        podman("pause", "one", check=True)
        podman("unpause", "one", check=True)
        podman("stop", "--time", "20", "one", check=True)
        assert podman("inspect", "--format", "{{.State.ExitCode}}", "one").stdout.strip() == "5"
        podman("rm", "one", check=True)
    finally:
        podman.close()
    assert os.path.isdir(lab.place)
