"""Attempts to get out of a container, which must all fail. The attacker is root inside, with the default
capabilities and profile unless the test says otherwise."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.runtimelab import COMMAND, Lab, eventually

from orchestra.linux import selfexe
from orchestra.runtime.seccomp import default_profile

pytestmark = pytest.mark.root
ALL = ["CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_SYS_CHROOT"]


def attack(lab: Lab, script: str, **process: object) -> str:
    """Output of a script under all defaults, the seccomp profile included."""
    config = lab.shell(script, **process)
    held = config["process"]["capabilities"]["bounding"]
    config["linux"]["seccomp"] = default_profile(held)
    result = lab.run(config)
    assert "Traceback" not in result.stderr
    return result.stdout


def with_capabilities(*names: str) -> dict[str, list[str]]:
    return {key: list(names) for key in ("bounding", "effective", "permitted")}


def test_writing_to_the_host_through_proc_and_sys(lab: Lab) -> None:
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    text = attack(lab, "for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/kernel/modprobe /sys/power/state"
                       " /sys/kernel/uevent_helper /proc/sys/fs/binfmt_misc/register; do"
                       " (echo '|/evil' >$f) 2>/dev/null && echo WROTE $f; done; echo over")
    assert text == "over\n"
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_what_is_masked_cannot_be_unmasked(lab: Lab) -> None:
    text = attack(lab, "umount /proc/acpi 2>/dev/null && echo OUT; umount /proc/sys 2>/dev/null && echo OUT;"
                       "mount -o remount,rw /proc/sys 2>/dev/null && echo OUT; mount -t proc proc /tmp 2>/dev/null && echo OUT;"
                       "mount -o remount,rw /sys 2>/dev/null && echo OUT; cat /proc/kcore 2>/dev/null | head -c 1; echo over")
    assert text == "over\n"


def test_raw_devices(lab: Lab) -> None:
    numbers = {path.name: path.stat().st_rdev for path in Path("/dev").iterdir() if stat.S_ISBLK(path.lstat().st_mode)}
    script = "mknod /tmp/mem c 1 1 2>/dev/null && head -c 1 /tmp/mem >/dev/null 2>&1 && echo OUT;"
    for name, number in sorted(numbers.items())[:5]:
        script += (f"mknod /tmp/{name} b {os.major(number)} {os.minor(number)} 2>/dev/null;"
                   f"head -c 1 /tmp/{name} >/dev/null 2>&1 && echo OUT {name};")
    assert attack(lab, script + "echo over") == "over\n"
    assert attack(lab, script + "echo over", capabilities=with_capabilities("CAP_MKNOD")) == "over\n"


def test_new_namespaces_and_mounts_are_refused(lab: Lab) -> None:
    text = attack(lab, "for f in -U -m -n -i -u -p; do unshare $f true 2>/dev/null && echo OUT $f; done;"
                       "mount -t tmpfs t /tmp 2>/dev/null && echo OUT; chroot / true && echo chroot")
    assert text == "chroot\n"


def test_setuid_gains_nothing_under_no_new_privileges(lab: Lab) -> None:
    (lab.root / "suid").mkdir()
    (lab.root / "suid/busybox").write_bytes((lab.root / "bin/busybox").read_bytes())
    (lab.root / "suid/busybox").chmod(0o4755)
    text = attack(lab, "grep CapEff /proc/self/status; /suid/busybox id -u", user={"uid": 1000, "gid": 1000})
    assert "\n0\n" not in text
    assert text.strip().endswith("1000")


def test_processes_outside_cannot_be_seen_or_killed(lab: Lab) -> None:
    victim = subprocess.Popen(["sleep", "1000"])
    try:
        text = attack(lab, f"kill -9 {victim.pid} 2>/dev/null && echo OUT; ls -d /proc/{victim.pid} 2>/dev/null;"
                           "kill -9 -1 2>/dev/null; cat /proc/1/root/etc/shadow 2>/dev/null; echo over")
        assert text == "over\n"
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


def test_no_descriptor_of_the_host_leaks(lab: Lab, tmp_path: Path) -> None:
    """CVE-2024-21626: a descriptor outside the root, inherited or as working directory."""
    fds = [os.open(path, os.O_RDONLY) for path in ("/", "/etc", str(tmp_path))]
    try:
        config = lab.shell("for f in /proc/self/fd/*; do readlink $f; done; for n in 3 4 5 6 7 8 9 10 11 12; do"
                           " ls /proc/self/fd/$n/../../etc/shadow 2>/dev/null && echo OUT; done; echo over")
        text = lab.run(config, pass_fds=fds).stdout
        assert "OUT" not in text and "over" in text
        assert not [line for line in text.splitlines() if line.startswith(("/etc", "/tmp/pytest", str(tmp_path)))
                    and "/proc" not in line]
    finally:
        for fd in fds:
            os.close(fd)


@pytest.mark.parametrize("number", [3, 4, 5, 6, 7, 8, 9, 10])
def test_working_directory_through_a_descriptor(lab: Lab, number: int) -> None:
    result = lab.run(lab.shell("pwd; ls ../../../../../etc/shadow 2>/dev/null && echo OUT", cwd=f"/proc/self/fd/{number}"))
    assert "OUT" not in result.stdout
    assert result.returncode != 0
    os.makedirs(lab.root / "link", exist_ok=True)
    if not os.path.lexists(lab.root / "link/out"):
        os.symlink(f"/proc/self/fd/{number}", lab.root / "link/out")
    result = lab.run(lab.shell("ls ../../../../../etc/shadow 2>/dev/null && echo OUT", cwd="/link/out"))
    assert "OUT" not in result.stdout


def test_exec_in_a_directory_through_a_descriptor(lab: Lab) -> None:
    name = lab.start(lab.shell("echo ready; sleep 1000"))
    for number in range(3, 11):
        result = lab.command("exec", "--cwd", f"/proc/self/fd/{number}", name, "ls", "../../../etc/shadow")
        assert result.returncode != 0
        assert "shadow\n" not in result.stdout


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_the_interpreter_cannot_be_overwritten(lab: Lab) -> None:
    """CVE-2019-5736: /proc/self/exe as program, as interpreter of a script, and held open."""
    binary = os.path.realpath(sys.executable)
    before = _digest(binary)
    (lab.root / "evil").write_text("#!/proc/self/exe\nimport os\n"
                                   "fd = os.open('/proc/self/exe', os.O_PATH)\n"
                                   "open(f'/proc/self/fd/{fd}', 'wb').write(b'x')\n")
    (lab.root / "evil").chmod(0o755)
    for program in ("/evil", "/proc/self/exe", "/proc/1/exe"):
        lab.run(lab.config(program, "-c", "open('/proc/self/exe', 'r+b').write(b'x')"))
    name = lab.start(lab.shell("(while :; do for p in /proc/[0-9]*/exe; do (echo x >$p) 2>/dev/null && echo OUT $p; done; done) &"
                               "echo ready; wait", capabilities=with_capabilities(*ALL)))
    for _ in range(3):
        lab.command("exec", name, "true")
        lab.command("exec", name, "/evil")
    assert "OUT" not in lab.text(name)
    assert _digest(binary) == before


def test_commands_that_enter_run_read_only(lab: Lab) -> None:
    """The file of the running interpreter is on a read-only mount of its own."""
    code = ("import sys; sys.path.insert(0, sys.argv[1])\n"
            "from orchestra.linux import selfexe\n"
            "selfexe.reexec([sys.executable, '-I', '-S', '-c', sys.argv[2], *sys.argv[1:]])")
    inner = ("import os, sys\nsys.path.insert(0, sys.argv[1])\nfrom orchestra.linux import selfexe\nprint(selfexe.protected())\n"
             "try:\n    os.open('/proc/self/exe', os.O_WRONLY)\nexcept OSError as e: print(e.errno)")
    source = str(Path(selfexe.__file__).parents[2])
    text = subprocess.run([sys.executable, "-I", "-S", "-c", code, source, inner], capture_output=True, text=True, check=True,
                          timeout=60).stdout
    assert text.split()[0] == "True"
    assert text.split()[1] in ("30", "26")  # EROFS, or ETXTBSY as it runs


def test_symbolic_links_at_mount_targets_stay_inside(lab: Lab, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for link, target in (("absolute", str(outside)), ("relative", "../../../../../../../../.." + str(outside)),
                         ("magic", "/proc/self/root" + str(outside))):
        os.symlink(target, lab.root / link)
    config = lab.shell("true")
    for name in ("absolute", "relative"):
        config["mounts"].append({"destination": f"/{name}/new/dir", "type": "tmpfs", "options": []})
    assert lab.run(config).returncode == 0
    config["mounts"] = [*config["mounts"][:7], {"destination": "/magic/new", "type": "tmpfs", "options": []}]
    lab.run(config)
    assert os.listdir(outside) == []


def test_dev_and_devices_through_links_stay_inside(lab: Lab, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (lab.root / "dev").rmdir()
    os.symlink(str(outside), lab.root / "dev")
    config = lab.shell("ls /dev/null")
    config["linux"]["devices"] = [{"path": "/up/../../../../../../../.." + str(outside) + "/x", "type": "c", "major": 1, "minor": 3}]
    lab.run(config)
    assert os.listdir(outside) == []


def test_mounts_inside_proc_are_refused(lab: Lab) -> None:
    """CVE-2019-16884, CVE-2025-52881: a fake file where the runtime writes labels and settings."""
    for target in ("/proc/self/attr", "/proc/sys/kernel", "/proc/1"):
        config = lab.shell("true")
        config["mounts"].append({"destination": target, "type": "tmpfs", "options": []})
        result = lab.run(config)
        assert result.returncode == 1
        assert "inside /proc" in result.stderr or "No such file" in result.stderr
    os.symlink("/proc", lab.root / "alias")
    config = lab.shell("true")
    config["mounts"].append({"destination": "/alias/sys/kernel", "type": "bind", "source": str(lab.root), "options": ["bind"]})
    assert lab.run(config).returncode == 1


def test_nothing_but_a_procfs_goes_onto_proc(lab: Lab, tmp_path: Path) -> None:
    """As a container's only mount there, and by a link of the image; on the quick way and on the careful one."""
    os.symlink("proc", lab.root / "other")
    for terminal in (False, True):
        for entry in ({"type": "bind", "source": str(tmp_path), "options": ["rbind"]}, {"type": "tmpfs", "source": "tmpfs"}):
            for target in ("/proc", "/proc/", "/dev/../proc", "/other"):
                config = lab.shell("ls /proc", terminal=terminal)
                if target != "/other":  # else /proc comes first, and the link leads onto it
                    config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] != "/proc"]
                config["mounts"].append({"destination": target, **entry})
                result = lab.run(config)
                assert result.returncode == 1, (target, entry)
                assert "only a procfs may be mounted on /proc" in result.stderr or "inside /proc" in result.stderr
    config = lab.shell("cat /proc/uptime; cat /proc/1/comm")
    config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] != "/proc"]
    config["mounts"].append({"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]})
    (tmp_path / "uptime").write_text("of lxcfs\n")
    config["mounts"].append({"destination": "/proc/uptime", "type": "bind", "source": str(tmp_path / "uptime"), "options": ["bind"]})
    assert lab.output(config).startswith("of lxcfs\n")


def test_masked_path_that_becomes_a_link(lab: Lab, tmp_path: Path) -> None:
    """CVE-2025-31133: another container swaps the target of a mask, in a shared volume, while we start."""
    volume = tmp_path / "volume"
    (volume / "a").mkdir(parents=True)
    (volume / "masked").write_text("x")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for make in (lambda: os.symlink("/proc/sysrq-trigger", volume / "new"),
                         lambda: os.symlink(str(tmp_path), volume / "new"), lambda: (volume / "new").write_text("y")):
                make()
                os.rename(volume / "new", volume / "masked")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(8):
            config = lab.shell("(echo x >/proc/sysrq-trigger) 2>/dev/null && echo OUT; cat /proc/keys; echo over")
            config["mounts"].append({"destination": "/v", "type": "bind", "source": str(volume), "options": ["rbind"]})
            config["linux"]["maskedPaths"].append("/v/masked")
            config["linux"]["readonlyPaths"].append("/v/masked")
            assert "OUT" not in lab.run(config).stdout
    finally:
        stop.set()
        thread.join()
    assert not [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(tmp_path) in line]


def test_console_that_is_a_link(lab: Lab, tmp_path: Path) -> None:
    """CVE-2025-52565: /dev/console of a root whose /dev is no tmpfs leads elsewhere."""
    target = tmp_path / "target"
    target.write_text("untouched")
    os.symlink(str(target), lab.root / "dev/console")
    config = lab.shell("echo hello", terminal=True)
    config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] != "/dev"]
    for name in ("pts", "shm", "mqueue"):
        (lab.root / "dev" / name).mkdir()
    name, place = lab.bundle(config)
    subprocess.run([*COMMAND, "--root", str(lab.state), "run", "--bundle", str(place), name], stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60, check=False)
    assert target.read_text() == "untouched"
    assert not [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(target) in line]


def test_mounts_do_not_propagate(lab: Lab, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    (volume / "inner").mkdir(parents=True)
    config = lab.shell("mount -t tmpfs t /v/inner && touch /v/inner/made && echo mounted",
                       capabilities=with_capabilities("CAP_SYS_ADMIN"))
    config["mounts"].append({"destination": "/v", "type": "bind", "source": str(volume), "options": ["rbind"]})
    assert lab.run(config).stdout == "mounted\n"
    assert os.listdir(volume / "inner") == []


def test_readonly_bind_cannot_be_made_writable(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    config = lab.shell("mount -o remount,rw,bind /v 2>/dev/null; touch /v/x 2>/dev/null && echo OUT; echo over")
    config["mounts"].append({"destination": "/v", "type": "bind", "source": str(tmp_path / "v"), "options": ["rbind", "rro"]})
    assert lab.run(config).stdout == "over\n"


def test_ptrace_of_an_exec_from_inside(lab: Lab) -> None:
    """A process on its way in shows the container nothing of the host: no memory, no directories."""
    watcher = ("echo ready; while :; do for p in /proc/[0-9]*; do case $p in /proc/1) continue;; esac;"
               " r=$(readlink $p/cwd 2>/dev/null); case $r in /root/*|/home/*|/tmp/pytest*) echo OUT $r;; esac;"
               " head -c 1 $p/environ >/dev/null 2>&1; done; done")
    name = lab.start(lab.shell(watcher))
    for _ in range(5):
        lab.command("exec", name, "true", check=True, cwd=str(lab.place))
    assert "OUT" not in lab.text(name)


def test_keyring_is_its_own(lab: Lab) -> None:
    text = attack(lab, "cat /proc/keys | wc -l; cat /proc/key-users 2>/dev/null | head -0; echo over")
    assert text.split() == ["0", "over"]


def test_secrets_of_another_container(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cr3t")
    config = lab.shell("echo ready; sleep 1000")
    config["mounts"].append({"destination": "/run/secret", "type": "bind", "source": str(tmp_path / "secret"),
                             "options": ["bind", "ro"]})
    first = lab.start(config)
    pid = lab.pid(first)
    text = attack(lab, f"cat /run/secret /proc/{pid}/root/run/secret /proc/*/root/run/secret 2>/dev/null; cat /proc/self/mountinfo;"
                       "echo over")
    assert "s3cr3t" not in text and str(tmp_path / "secret") not in text
    eventually(lambda: lab.status(first) == "running", "the first still runs")


def test_cgroups_cannot_be_written(lab: Lab) -> None:
    text = attack(lab, "for f in $(find /sys/fs/cgroup -name release_agent -o -name cgroup.procs -o -name devices.allow); do"
                       " (echo 0 >$f) 2>/dev/null && echo OUT $f; done; mkdir /sys/fs/cgroup/x 2>/dev/null && echo OUT; echo over")
    assert text == "over\n"


def test_symlinked_program_paths_stay_inside(lab: Lab, tmp_path: Path) -> None:
    marker = tmp_path / "host-program"
    marker.write_text("#!/bin/sh\necho OUT\n")
    marker.chmod(0o755)
    os.symlink(str(marker), lab.root / "bin/linked")
    assert "OUT" not in lab.run(lab.config("linked")).stdout
