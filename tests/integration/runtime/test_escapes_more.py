"""Further attempts to get out of a container, by system calls themselves: the attacker is a Python program, as root
inside with the default capabilities and profile unless the test says otherwise."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.runtimelab import COMMAND, Lab

from orchestra.runtime.seccomp import default_profile
from orchestra.runtime.seccomp_numbers import numbers

pytestmark = pytest.mark.root

EPERM, ENOSYS, ENOKEY = 1, 38, 126
PRELUDE = """
import ctypes, json, os, sys
_libc = ctypes.CDLL(None, use_errno=True)
NR = json.loads(os.environ["NUMBERS"])
def call(name, *args):
    ctypes.set_errno(0)
    words = [a if isinstance(a, (bytes, type(None))) else ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    result = _libc.syscall(ctypes.c_long(NR[name]), *words)
    return result if result >= 0 else -ctypes.get_errno()
found = {}
"""


def with_python(lab: Lab, script: str, *, profile: bool = True, **process: Any) -> dict[str, Any]:
    """A configuration that runs the script with this machine's Python, which is mounted read-only."""
    table = dict(numbers(os.uname().machine))
    env = ["PATH=/bin", f"NUMBERS={json.dumps(table)}", "PYTHONDONTWRITEBYTECODE=1"]
    program = os.path.realpath(sys.executable)
    code = PRELUDE + script + "\nprint(json.dumps(found))\n"
    config = lab.config(program, "-I", "-S", "-c", code, env=env, **process)
    for place in dict.fromkeys([sys.base_prefix, "/usr/lib", "/lib", "/lib64"]):
        if os.path.isdir(place):
            source = os.path.realpath(place)
            config["mounts"].append({"destination": place, "type": "bind", "source": source, "options": ["rbind", "ro"]})
    if profile:
        config["linux"]["seccomp"] = default_profile(config["process"]["capabilities"]["bounding"])
    return config


def attack(lab: Lab, script: str, *, profile: bool = True, change: Callable[[dict[str, Any]], None] | None = None) -> dict[str, Any]:
    """What the script has put into ``found``."""
    config = with_python(lab, script, profile=profile)
    if change:
        change(config)
    result = lab.run(config)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def test_namespaces_by_system_call(lab: Lab) -> None:
    """unshare, clone, clone3 and setns: user namespaces are how most kernel holes are reached."""
    found = attack(lab, """
NEW = {"user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "net": 0x40000000, "cgroup": 0x2000000}
for kind, flag in NEW.items():
    found["unshare " + kind] = call("unshare", flag)
    for high in (0, 1 << 32):
        pid = call("clone", flag | high | 17, 0, 0, 0, 0)
        if pid == 0:
            os._exit(0)
        found[f"clone {kind} {high >> 32}"] = min(pid, 1)
block = (ctypes.c_uint64 * 11)(NEW["user"], 0, 0, 0, 17)
pid = call("clone3", block, 88)
if pid == 0:
    os._exit(0)
found["clone3"] = min(pid, 1)
found["setns"] = call("setns", os.open("/proc/self/ns/net", os.O_RDONLY), 0)
""")
    assert found.pop("clone3") == -ENOSYS
    assert set(found.values()) == {-EPERM}, found


def test_doors_of_the_kernel_are_closed(lab: Lab) -> None:
    found = attack(lab, """
found["mount"] = call("mount", b"none", b"/tmp", b"tmpfs", 0, None)
found["open_tree"] = call("open_tree", -100, b"/", 1)
found["fsopen"] = call("fsopen", b"tmpfs", 0)
found["pivot_root"] = call("pivot_root", b"/", b"/")
found["bpf"] = call("bpf", 0, None, 0)
found["perf_event_open"] = call("perf_event_open", None, 0, -1, -1, 0)
found["io_uring_setup"] = call("io_uring_setup", 1, None)
found["userfaultfd"] = call("userfaultfd", 0)
found["open_by_handle_at"] = call("open_by_handle_at", -100, None, 0)
found["kexec_load"] = call("kexec_load", 0, 0, None, 0)
found["init_module"] = call("init_module", None, 0, b"")
found["syslog"] = call("syslog", 2, None, 0)
found["AF_VSOCK"] = call("socket", 40, 1, 0)
found["AF_ALG"] = call("socket", 38, 5, 0)
""")
    assert set(found.values()) == {-EPERM}, found


def test_keyrings_by_system_call(lab: Lab) -> None:
    found = attack(lab, """
found["add_key"] = call("add_key", b"user", b"x", b"y", 1, -4)
found["request_key"] = call("request_key", b"user", b"x", None, -4)
found["keyctl"] = call("keyctl", 0, -3, 0)
""")
    assert set(found.values()) == {-EPERM}, found


def test_the_session_keyring_of_the_caller_stays_outside(lab: Lab) -> None:
    """Even without a filter: the container begins with an empty session keyring of its own."""
    script = """
found["search"] = call("keyctl", 10, -3, b"user", b"orchestra-test-key", 0)
"""
    config = with_python(lab, script, profile=False)
    name, place = lab.bundle(config)
    caller = PRELUDE + """
if call("keyctl", 1, None) < 0:
    sys.exit(77)
if call("add_key", b"user", b"orchestra-test-key", b"hidden", 6, -3) < 0 or call("keyctl", 10, -3, b"user", b"orchestra-test-key", 0) <= 0:
    sys.exit(77)
os.execvp(sys.argv[1], sys.argv[1:])
"""
    table = json.dumps(numbers(os.uname().machine))
    result = subprocess.run(
        [sys.executable, "-c", caller, *COMMAND, "--root", str(lab.state), "run", "--bundle", str(place), name],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90, env={**os.environ, "NUMBERS": table}, check=False)
    if result.returncode == 77:
        pytest.skip("this kernel has no keyrings")
    assert json.loads(result.stdout)["search"] == -ENOKEY, result.stderr


TOUCH = """
target = int(os.environ["TARGET"])
def attempt(name, action):
    try:
        found[name] = action()
    except OSError as problem:
        found[name] = -problem.errno
attempt("attach", lambda: call("ptrace", 16, target, 0, 0))
attempt("seize", lambda: call("ptrace", 0x4206, target, 0, 0))
buffer = ctypes.create_string_buffer(16)
block = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 16)
there = (ctypes.c_size_t * 2)(0x400000, 16)
attempt("readv", lambda: call("process_vm_readv", target, block, 1, there, 1, 0))
attempt("writev", lambda: call("process_vm_writev", target, block, 1, there, 1, 0))
for name in ("mem", "environ", "maps", "stack"):
    attempt(name, lambda: len(open(f"/proc/{target}/{name}", "rb").read(1)))
for name in ("root", "cwd", "exe"):
    attempt(name, lambda: len(os.readlink(f"/proc/{target}/{name}")))
attempt("files", lambda: len(os.listdir(f"/proc/{target}/root/etc")))
attempt("fd", lambda: len(os.readlink(f"/proc/{target}/fd/0")))
attempt("pidfd", lambda: call("pidfd_getfd", call("pidfd_open", target, 0), 0, 0))
"""


@pytest.mark.parametrize("shared", [False, True], ids=["own pid namespace", "the host's pid namespace"])
@pytest.mark.parametrize("profile", [True, False], ids=["filter", "no filter"])
def test_processes_outside_cannot_be_traced_or_read(lab: Lab, shared: bool, profile: bool) -> None:
    """With the host's pid namespace its processes are seen, but their rights are more than the container's."""
    victim = subprocess.Popen(["sleep", "1000"])

    def change(config: dict[str, Any]) -> None:
        config["process"]["env"].append(f"TARGET={victim.pid}")
        if shared:
            config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "pid"]

    try:
        found = attack(lab, TOUCH, profile=profile, change=change)
        assert len(found) == 14
        assert [name for name, value in found.items() if value > 0 or (value == 0 and name in ("attach", "seize"))] == [], found
        status = Path(f"/proc/{victim.pid}/status").read_text()
        assert "TracerPid:\t0\n" in status and "State:\tS" in status
    finally:
        victim.kill()
        victim.wait()


def test_signals_do_not_leave_the_pid_namespace(lab: Lab) -> None:
    victim = subprocess.Popen(["sleep", "1000"])
    try:
        found = attack(lab, f"""
import signal
for name, action in (("kill", lambda: os.kill({victim.pid}, 9)), ("group", lambda: os.killpg({victim.pid}, 9)),
                     ("pidfd", lambda: os.pidfd_open({victim.pid}))):
    try:
        action()
        found[name] = 0
    except OSError as problem:
        found[name] = problem.errno
found["parent"] = os.getppid()
""")
        assert found == {"kill": 3, "group": 3, "pidfd": 3, "parent": 0}
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


def mounts_at(place: str) -> list[str]:
    """The host's mounts there and in what the links of the attacks lead to."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4].startswith((place, "/proc/", "/dev/null"))]


def swapping(place: Path, targets: list[str]) -> tuple[threading.Event, threading.Thread]:
    """Another container's part of a race: ``place`` is by turns a directory and a link to each target."""
    stop = threading.Event()

    def swap() -> None:
        draft, aside, number = place.with_name("draft"), place.with_name("aside"), 0
        while not stop.is_set():
            os.symlink(targets[number % len(targets)], draft)
            number += 1
            try:
                os.rename(place, aside)
                os.rename(draft, place)
                stop.wait(0.001)
                os.unlink(place)
                os.rename(aside, place)
                stop.wait(0.001)
            except OSError:  # the runtime has made a directory in the gap
                if not os.path.lexists(aside):
                    continue
                for other in (place, draft):
                    if other.is_symlink():
                        other.unlink()
                    else:
                        shutil.rmtree(other, ignore_errors=True)
                os.rename(aside, place)

    thread = threading.Thread(target=swap)
    thread.start()
    return stop, thread


def test_racing_links_below_mount_targets(lab: Lab, tmp_path: Path) -> None:
    """CVE-2025-52881, -31133: while we mount below a shared volume, another container swaps the way there."""
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    for place in (volume / "way", outside, tmp_path / "given"):
        place.mkdir(parents=True)
    (tmp_path / "given/file").write_text("given")
    stop, thread = swapping(volume / "way", [str(outside), "/proc/sys", "/proc/self/attr", "/proc/1", "/proc/self/root" + str(outside),
                                             "../../../../../../.." + str(outside)])
    before = Path("/proc/sys/kernel/shmmni").read_text()
    mounted = mounts_at(str(tmp_path))
    ran = 0
    try:
        for number in range(12):
            config = lab.shell("cat /proc/sys/kernel/shmmni; (echo x >/proc/sysrq-trigger) 2>/dev/null && echo OUT;"
                               "(echo x >/proc/sys/kernel/core_pattern) 2>/dev/null && echo OUT; cat /proc/keys")
            config["linux"]["sysctl"] = {"kernel.shmmni": str(70 + number)}
            config["mounts"] += [
                {"destination": "/v", "type": "bind", "source": str(volume), "options": ["rbind"]},
                {"destination": "/v/way/kernel", "type": "tmpfs", "options": []},
                {"destination": "/v/way/given", "type": "bind", "source": str(tmp_path / "given"), "options": ["rbind"]},
            ]
            result = lab.run(config)
            if result.returncode == 0 and result.stdout:
                ran += 1
            assert "OUT" not in result.stdout and "Traceback" not in result.stderr
            assert result.stdout.split() in ([], [str(70 + number)]), "the setting went where it belongs"
    finally:
        stop.set()
        thread.join()
    assert os.listdir(outside) == []
    assert Path("/proc/sys/kernel/shmmni").read_text() == before
    assert mounts_at(str(tmp_path)) == mounted
    assert ran


def test_racing_links_below_covered_paths(lab: Lab, tmp_path: Path) -> None:
    """CVE-2025-31133: what is masked or made read-only is swapped; the host's files behind the links stay as they are."""
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    for place in (volume / "way/below", outside / "below"):
        place.mkdir(parents=True)
    (outside / "below/file").write_text("untouched")
    stop, thread = swapping(volume / "way", [str(outside), "/proc/sys", "/dev", "/proc/self/root" + str(outside)])
    mounted = mounts_at(str(tmp_path))
    try:
        for _ in range(12):
            config = lab.shell("(echo x >/proc/sysrq-trigger) 2>/dev/null && echo OUT; cat /proc/keys; echo x >/dev/null || echo OUT")
            config["mounts"].append({"destination": "/v", "type": "bind", "source": str(volume), "options": ["rbind"]})
            config["linux"]["maskedPaths"] += ["/v/way/below", "/v/way/kernel"]
            config["linux"]["readonlyPaths"] += ["/v/way", "/v/way/below"]
            result = lab.run(config)
            assert "OUT" not in result.stdout and "Traceback" not in result.stderr
    finally:
        stop.set()
        thread.join()
    (outside / "below/new").write_text("still writable")
    assert (outside / "below/file").read_text() == "untouched"
    assert mounts_at(str(tmp_path)) == mounted


def test_racing_links_in_the_source_of_a_mount(lab: Lab, tmp_path: Path) -> None:
    """A part of a volume (``subpath``) is looked up below the volume, by no link: ``/volume/./part``."""
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    for place in (volume / "way/part", outside / "part"):
        place.mkdir(parents=True)
    (outside / "part/file").write_text("of the host")
    stop, thread = swapping(volume / "way", [str(outside), "../outside", "/proc/self/root" + str(outside)])
    codes = []
    try:
        for _ in range(12):
            config = lab.shell("ls /x; echo over")
            config["mounts"].append({"destination": "/x", "type": "bind", "source": f"{volume}/./way/part", "options": ["rbind"]})
            result = lab.run(config)
            codes.append(result.returncode)
            assert result.stdout in ("", "over\n")
    finally:
        stop.set()
        thread.join()
    assert 0 in codes, "sometimes the directory was there"


def test_no_descriptor_but_the_standard_ones(lab: Lab, tmp_path: Path) -> None:
    """Nor one that a program could pass on by name: /proc/self/fd has three entries and the one that lists it."""
    fds = [os.open(path, os.O_RDONLY) for path in ("/", "/proc", str(tmp_path))]
    script = "found.update({n: os.readlink('/proc/self/fd/' + n) for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n)})"
    try:
        config = with_python(lab, script)
        result = lab.run(config, pass_fds=fds)
    finally:
        for fd in fds:
            os.close(fd)
    assert result.returncode == 0, result.stderr
    assert sorted(json.loads(result.stdout)) == ["0", "1", "2"]


def test_device_nodes_by_system_call(lab: Lab) -> None:
    """With CAP_MKNOD a node can be made, but not opened: the device rules decide."""
    capabilities = ["CAP_MKNOD", "CAP_DAC_OVERRIDE", "CAP_SYS_RAWIO", "CAP_SYS_ADMIN"]
    blocks = [info.st_rdev for path in Path("/dev").iterdir() if (info := path.lstat()).st_mode & 0o170000 == 0o060000]

    def change(config: dict[str, Any]) -> None:
        config["process"]["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), capabilities)
        config["process"]["env"].append(f"BLOCKS={json.dumps(blocks[:8])}")

    found = attack(lab, """
import stat
os.mknod("/tmp/null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
os.close(os.open("/tmp/null", os.O_RDWR))
nodes = [(stat.S_IFCHR, os.makedev(1, n)) for n in (1, 2, 4, 11)] + [(stat.S_IFCHR, os.makedev(10, n)) for n in (183, 229, 232, 237)]
nodes += [(stat.S_IFBLK, number) for number in json.loads(os.environ["BLOCKS"])]
for index, (kind, number) in enumerate(nodes):
    os.mknod(f"/tmp/n{index}", kind | 0o600, number)
    for flags in (os.O_RDONLY, os.O_WRONLY):
        try:
            os.close(os.open(f"/tmp/n{index}", flags))
            found[f"{kind} {number} {flags}"] = 0
        except OSError as problem:
            found[f"{kind} {number} {flags}"] = -problem.errno
""", profile=False, change=change)
    assert len(found) >= 16
    assert set(found.values()) == {-EPERM}, found
