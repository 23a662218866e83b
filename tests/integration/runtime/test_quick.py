"""A start as a program of system calls gives the same container as the careful one, and says the same when it
fails."""

from __future__ import annotations

import copy
import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.engine import eventually
from support.runtimelab import Lab

import orchestra
from orchestra.linux.program import available

pytestmark = [pytest.mark.root, pytest.mark.skipif(not available(), reason="made for x86-64, with executable memory")]

# the descriptors of a process, less what quick starts keep for good
FDS = """
import os
from orchestra.linux import program as _programs
_programs.available()
def fds():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try: found[int(name)] = os.readlink("/proc/self/fd/" + name)
        except OSError: pass
    return sorted(number for number, place in found.items() if place != "/proc" and not place.startswith(("/memfd:orchestra-init", "/proc/")))
"""

# how each is made: careful or not; prints whether it was quick, how it ended and what it wrote
DRIVER = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
@FDS@
from orchestra.runtime import create
from orchestra.runtime.problems import StepError
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
bundle, careful, cgroup = sys.argv[2], sys.argv[3] == "careful", sys.argv[4]
from orchestra.runtime.cgroups import manager
config = json.load(open(bundle + "/config.json"))
group = manager(cgroup) if cgroup else None
if group: group.create(config["linux"]["resources"])
null, out = os.open("/dev/null", os.O_RDWR), os.open(bundle + "/output", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
reader, writer = os.pipe()
found = {}
before = fds()
try:
    prepared = create.prepare(config, container_id="x", bundle=bundle, stdio=(null, out, writer), cgroups=group)
    pending = prepared.launch(careful=careful)
    created = pending.finish()
    found["quick"] = pending.quick
    created.start()
    status = os.waitstatus_to_exitcode(os.waitpid(created.pid, 0)[1])
    os.close(created.pidfd)
    found["status"] = status
except StepError as problem:
    found["error"] = [problem.step, problem.errno, problem.message, problem.exit_code]
    try:
        os.close(created.pidfd); os.waitpid(created.pid, 0)
    except NameError: pass
finally:
    if group: group.destroy()
found["fds"] = fds() == before
try:
    os.waitpid(-1, os.WNOHANG)
    found["child"] = True
except ChildProcessError: found["child"] = False
os.lseek(out, 0, 0)
found["output"] = os.read(out, 1 << 20).decode(errors="replace")
json.dump(found, sys.stdout)
""".replace("@FDS@", FDS)

LOOK = r"""
grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp|Sig(Ign|Blk|Cgt)|Umask|NStgid|NSpid|NSpgid|NSsid)' /proc/self/status
cut -d' ' -f5- /proc/self/mountinfo | sed -e 's/shared:[0-9]*/shared/; s/master:[0-9]*/master/; s/lowerdir+=/lowerdir=/; s/bundles.[^ /]*//g; s/upper[0-9]*//g; s/work[0-9]*//g' | sort
for i in 0 1 2; do stat -L -c '%F %u %g' /proc/self/fd/$i; done
ls /proc/self/fd | wc -l
env | sort; pwd; id; hostname; ulimit -a
ls -ln /dev /dev/pts /dev/shm 2>&1 | sed -e 's/ [A-Z][a-z][a-z] .*[0-9] / /'
ls /sys/fs/cgroup 2>&1; cat /proc/self/cgroup 2>&1 | sort
cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/domainname
for p in /proc/kcore /proc/keys /proc/acpi /sys/firmware /proc/sys/kernel/shmmax; do echo x 2>&1 >$p; ls $p; head -c 10 $p 2>&1; done
touch /here /proc/sys/x /dev/y /tmp/z /sys/q 2>&1; rm -f /here /dev/y /tmp/z; unshare -U true 2>&1
for n in pid net ipc uts mnt cgroup; do [ -e /proc/self/ns/$n ] && echo $n; done
echo $0; cat /proc/self/cmdline | tr '\0' ' '; cat /proc/self/oom_score_adj; cat /proc/1/comm
"""


def attempt(lab: Lab, config: dict[str, Any], *, careful: bool) -> dict[str, Any]:
    _name, place = lab.bundle(copy.deepcopy(config))
    cgroup = config["linux"].get("cgroupsPath", "")
    source = str(Path(orchestra.__file__).parents[1])
    words = [sys.executable, "-I", "-S", "-c", DRIVER, source, str(place), "careful" if careful else "quick", cgroup]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found.pop("fds"), "a descriptor stays open"
    assert not found.pop("child"), "a process stays"
    return found


def add(config: dict[str, Any], *mounts: dict[str, Any]) -> dict[str, Any]:
    config["mounts"] += mounts
    return config


def bind(lab: Lab, destination: str, *options: str, name: str = "data") -> dict[str, Any]:
    source = lab.place / name
    source.mkdir(exist_ok=True)
    (source / "file").write_text("x")
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind", *options]}


def plain(lab: Lab) -> dict[str, Any]:
    config = lab.shell(LOOK)
    config["hostname"], config["domainname"] = "box", "example.org"
    config["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "0", "kernel.shmmax": "1048576"}
    return config


def with_user(lab: Lab) -> dict[str, Any]:
    config = plain(lab)
    config["process"].update(user={"uid": 1000, "gid": 1000, "additionalGids": [5, 7], "umask": 0o27}, cwd="/home/user")
    for kind in ("effective", "permitted"):
        config["process"]["capabilities"][kind] = []
    return config


def with_ambient(lab: Lab) -> dict[str, Any]:
    config = with_user(lab)
    for kind in ("inheritable", "ambient", "effective", "permitted"):
        config["process"]["capabilities"][kind] = ["CAP_NET_BIND_SERVICE"]
    config["process"]["noNewPrivileges"] = False
    return config


def with_limits(lab: Lab) -> dict[str, Any]:
    config = plain(lab)
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    config["process"]["oomScoreAdj"] = 500
    return config


def with_filter(lab: Lab) -> dict[str, Any]:
    from orchestra.runtime import defaults, seccomp

    config = plain(lab)
    config["linux"]["seccomp"] = seccomp.default_profile(defaults.CAPABILITIES)
    config["process"]["noNewPrivileges"] = False
    return config


def with_binds(lab: Lab) -> dict[str, Any]:
    os.makedirs(lab.place / "data/below/deep", exist_ok=True)
    os.makedirs(lab.root / "run/fast", exist_ok=True)
    (lab.place / "single").write_text("x")
    return add(
        plain(lab), bind(lab, "/data"), bind(lab, "/new/place", "ro", "nosuid"), bind(lab, "/data/below", "noexec", name="other"),
        {"destination": "/etc/hosts", "type": "bind", "source": str(lab.place / "single"), "options": ["bind", "ro"]},
        {"destination": "/dev/init", "type": "bind", "source": str(lab.place / "single"), "options": ["bind", "ro"]},
        {"destination": "/run/fast", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "nosuid"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": []},
    )  # fmt: skip


def test_a_tmpfs_where_there_was_nothing(lab: Lab) -> None:
    """The kernel's mode, not that of the mount point which is made for it."""
    for careful in (False, True):
        place = f"/fresh/{careful}/place"
        config = add(lab.shell(f"stat -c %a {place}"), {"destination": place, "type": "tmpfs", "source": "tmpfs", "options": []})
        found = attempt(lab, config, careful=careful)
        assert (found["quick"], found["output"]) == (not careful, "1777\n")


def test_mount_points_are_made_through_links(lab: Lab) -> None:
    (lab.root / "real").mkdir()
    os.symlink("/real", lab.root / "link")
    config = add(lab.shell("ls -A /real/new/deep /real/again; cat /real/file"), bind(lab, "/link/new/deep"), bind(lab, "/real/again"))
    (lab.place / "single").write_text("one")
    add(config, {"destination": "/link/file", "type": "bind", "source": str(lab.place / "single"), "options": ["bind"]})
    found = attempt(lab, config, careful=False)
    assert (found["quick"], found["output"].split()) == (True, ["/real/again:", "file", "/real/new/deep:", "file", "one"])


def test_subpaths_are_not_followed(lab: Lab) -> None:
    (lab.place / "data/deep").mkdir(parents=True)
    (lab.place / "data/deep/file").write_text("x")
    os.symlink("/etc", lab.place / "data/out")
    for rest, quick in (("deep", True), ("out", False)):
        entry = {"destination": "/sub", "type": "bind", "source": f"{lab.place}/data/./{rest}", "options": ["rbind"]}
        found = [attempt(lab, add(lab.shell("ls /sub"), copy.deepcopy(entry)), careful=careful) for careful in (False, True)]
        assert found[0].pop("quick", False) is quick
        found[1].pop("quick", None)
        assert found[0] == found[1]
        assert (found[0].get("output") == "file\n") is quick


def read_only(lab: Lab) -> dict[str, Any]:
    config = with_binds(lab)
    for name in ("data", "new/place", "etc", "run/fast", "dev", "proc", "sys"):
        os.makedirs(lab.root / name, exist_ok=True)
    (lab.root / "etc/hosts").touch()
    config["root"]["readonly"] = True
    return config


def overlaid(lab: Lab) -> dict[str, Any]:
    config = plain(lab)
    folders = [lab.place / f"{name}{next(lab._count)}" for name in ("upper", "work")]
    for folder in folders:
        folder.mkdir()
    options = [f"lowerdir={lab.root}", f"upperdir={folders[0]}", f"workdir={folders[1]}"]
    config["mounts"].insert(0, {"destination": "/", "type": "overlay", "source": "overlay", "options": options})
    point = lab.place / "point"
    point.mkdir(exist_ok=True)
    config["root"]["path"] = str(point)
    return config


def of_the_host(lab: Lab) -> dict[str, Any]:
    """Namespaces of the host, as far as they may be."""
    config = plain(lab)
    config["linux"]["namespaces"] = [{"type": "mount"}]
    for key in ("hostname", "domainname"):
        del config[key]
    del config["linux"]["sysctl"]
    return config


def joined(lab: Lab) -> dict[str, Any]:
    config = plain(lab)
    config["linux"]["sysctl"] = {}
    for entry in config["linux"]["namespaces"]:
        if entry["type"] in ("network", "ipc"):
            entry["path"] = f"/proc/{holder(lab)}/ns/{'net' if entry['type'] == 'network' else 'ipc'}"
    return config


def holder(lab: Lab) -> int:
    """A process with namespaces of its own."""
    if not hasattr(lab, "holder"):
        words = ["unshare", "--net", "--ipc", "sh", "-c", "echo ready; exec sleep 1000"]
        lab.holder = subprocess.Popen(words, stdout=subprocess.PIPE)  # type: ignore[attr-defined]
        lab.holder.stdout.readline()  # type: ignore[attr-defined]
    return int(lab.holder.pid)


@pytest.fixture(autouse=True)
def no_holder(lab: Lab) -> Iterator[None]:
    yield
    process = getattr(lab, "holder", None)
    if process:
        process.kill()
        process.communicate()


def limited(lab: Lab) -> dict[str, Any]:
    config = plain(lab)
    config["linux"]["cgroupsPath"] = f"/orchestra-test-{lab.mark}/x"
    config["linux"]["resources"] = {"pids": {"limit": 50}, "memory": {"limit": 64 << 20}, "devices": [{"allow": False, "access": "rwm"}]}
    return config


CASES = [plain, with_user, with_ambient, with_limits, with_filter, with_binds, read_only, overlaid, of_the_host, joined, limited]


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_it_looks_the_same_from_inside(lab: Lab, make: Any) -> None:
    quick, careful = attempt(lab, make(lab), careful=False), attempt(lab, make(lab), careful=True)
    assert "error" not in careful, careful
    assert (quick.pop("quick"), careful.pop("quick")) == (True, False)
    for found in (quick, careful):  # in the host's pid namespace no two are alike
        found["lines"] = [line for line in found.pop("output").splitlines() if "NS" not in line or make is not of_the_host]
    assert quick["lines"] == careful["lines"]
    assert quick == careful
    assert any("CapEff" in line for line in quick["lines"])


def wrong(lab: Lab, what: str) -> dict[str, Any]:
    config = lab.config("true")
    root = lab.root
    if what == "missing program":
        config["process"]["args"] = ["no-such-program"]
    elif what == "missing path":
        config["process"]["args"] = ["/bin/no-such-program"]
    elif what == "directory":
        config["process"]["args"] = ["/etc"]
    elif what == "not executable":
        config["process"]["args"] = ["/etc/passwd"]
    elif what == "not ours":
        (root / "secret").mkdir(mode=0o700, exist_ok=True)
        config["process"].update(args=["/secret/x"], user={"uid": 1000, "gid": 1000})
    elif what == "no interpreter":
        (root / "bin/odd").write_text("#!/no/such/interpreter\n")
        (root / "bin/odd").chmod(0o755)
        config["process"]["args"] = ["odd"]
    elif what == "no format":
        (root / "bin/empty").write_bytes(b"\0\1\2\3")
        (root / "bin/empty").chmod(0o755)
        config["process"]["args"] = ["empty"]
    elif what == "bind of nothing":
        add(config, {"destination": "/x", "type": "bind", "source": "/no/such/thing", "options": ["bind"]})
    elif what == "mount in proc":
        os.makedirs(lab.place / "data", exist_ok=True)
        if not (root / "link").is_symlink():
            os.symlink("/proc/sys", root / "link")
        add(config, bind(lab, "/link"))
    elif what == "file as directory":
        add(config, {"destination": "/etc/passwd", "type": "tmpfs", "source": "tmpfs", "options": []})
    elif what == "unknown filesystem":
        add(config, {"destination": "/x", "type": "nosuchfs", "source": "x", "options": []})
    elif what == "missing program on a volatile root":
        config = overlaid(lab)
        config["process"]["args"] = ["no-such-program"]
        config["mounts"][0]["options"].append("volatile")
    elif what == "directory on a file":
        add(config, bind(lab, "/etc/passwd"))
    elif what == "file on a directory":
        (lab.place / "single").write_text("x")
        add(config, {"destination": "/etc", "type": "bind", "source": str(lab.place / "single"), "options": ["bind"]})
    elif what == "file as cwd":
        config["process"]["cwd"] = "/etc/passwd"
    return config


WRONG = [
    "missing program", "missing path", "directory", "not executable", "not ours", "no interpreter", "no format", "bind of nothing",
    "missing program on a volatile root", "directory on a file", "file on a directory", "mount in proc", "file as directory", "unknown filesystem", "file as cwd",
]  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_it_says_the_same_when_it_cannot(lab: Lab, what: str) -> None:
    quick, careful = attempt(lab, wrong(lab, what), careful=False), attempt(lab, wrong(lab, what), careful=True)
    for found in (quick, careful):
        found.pop("quick", None)
    assert quick["error"]
    assert quick == careful
    if " on a " in what and "root" not in what:
        assert "not a directory" in quick["error"][2] and quick["error"][1] == errno.ENOTDIR


def test_it_starts_over_where_the_root_has_a_surprise(lab: Lab) -> None:
    """A symbolic link in place of /dev is for the careful way."""
    root = lab.root
    (root / "dev").rmdir()
    os.symlink("etc/dev", root / "dev")
    (root / "etc/dev").mkdir()
    found = attempt(lab, lab.shell("echo there >/dev/null && ls /dev | wc -l"), careful=False)
    assert (found["quick"], found["status"]) == (False, 0)
    assert int(found["output"]) > 10


def test_a_program_that_only_the_container_sees(lab: Lab) -> None:
    """Found in a bind mount that a directory of PATH leads to by a link."""
    tools = lab.place / "tools"
    tools.mkdir()
    (tools / "hello").write_text("#!/bin/sh\necho hello\n")
    (tools / "hello").chmod(0o755)
    os.symlink("/mnt/tools", lab.root / "tools")
    config = lab.config("hello", env=["PATH=/no/such:/etc/passwd:/tools:/bin"])
    add(config, {"destination": "/mnt/tools", "type": "bind", "source": str(tools), "options": ["bind"]})
    assert attempt(lab, config, careful=False) == {"quick": True, "status": 0, "output": "hello\n"}


@pytest.mark.parametrize("number", ["TERM", "INT", "USR1"])
def test_a_signal_before_the_start_ends_it(lab: Lab, number: str) -> None:
    body = DRIVER.replace("    created.start()\n", f"    os.kill(created.pid, signal.SIG{number})\n")
    _name, place = lab.bundle(lab.config("sleep", "1000"))
    source = str(Path(orchestra.__file__).parents[1])
    words = [sys.executable, "-I", "-S", "-c", body, source, str(place), "quick", ""]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["quick"]
    assert found["status"] == 128 + {"TERM": 15, "INT": 2, "USR1": 10}[number]


INJECTED = """
import copy, json, os, sys
sys.path.insert(0, sys.argv[1])
@FDS@
from orchestra.linux import program as programs
from orchestra.runtime import create, quick
from orchestra.runtime.cgroups import manager
from orchestra.runtime.problems import StepError
bundle, cgroup, number, argument = sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
config = json.load(open(bundle + "/config.json"))
null = os.open("/dev/null", os.O_RDWR)
plain = programs.Program.call
at = -1
def call(self, *arguments, **words):
    if len(self) == at:
        plain(self, number, argument)
    return plain(self, *arguments, **words)
programs.Program.call = call
RESOURCES = {"memory": {"limit": 64 << 20}, "pids": {"limit": 50}}
def mounts(): return [line for line in open("/proc/self/mountinfo") if os.path.dirname(bundle) in line]
def once():
    quick._programs.clear()
    group = manager(cgroup)
    recipe = group.recipe(RESOURCES)
    if recipe is None:
        group.create(RESOURCES)
    try:
        prepared = create.prepare(config, container_id="x", bundle=bundle, stdio=(null, null, null), cgroups=group, recipe=recipe)
        pending = prepared.launch()
        try:
            created = pending.finish()
        except StepError as problem:
            return "failed: " + str(problem)
        try:
            created.start()
            status = os.waitstatus_to_exitcode(os.waitpid(created.pid, 0)[1])
            os.close(created.pidfd)
        except StepError:
            created.abort()
            return "start failed"
        return ("quick " if pending.quick else "careful ") + str(status)
    finally:
        group.destroy()
once()
length = len(next(iter(quick._programs.values())))
before = fds(), mounts()
found = []
for at in range(0, length, int(sys.argv[6])):
    found.append(once())
    assert (fds(), mounts()) == before, at
    try:
        os.waitpid(-1, os.WNOHANG)
        raise AssertionError("a child is left")
    except ChildProcessError: pass
json.dump({"length": length, "found": found}, sys.stdout)
""".replace("@FDS@", FDS)


@pytest.mark.parametrize(("number", "argument"), [(3, -1), (231, 9)], ids=["a call fails", "it ends"])
def test_at_every_step_a_failure_leads_to_the_careful_way_or_to_nothing(lab: Lab, number: int, argument: int) -> None:
    _name, place = lab.bundle(with_binds(lab) | {})
    config = json.loads((place / "config.json").read_text())
    config["process"]["args"] = ["sh", "-c", "exit 7"]
    (place / "config.json").write_text(json.dumps(config))
    words = [sys.executable, "-I", "-S", "-c", INJECTED, str(Path(orchestra.__file__).parents[1]), str(place),
             f"/orchestra-test-{lab.mark}/x", str(number), str(argument), "4"]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["length"] > 150
    # before "ready" the careful way takes over, after it the start has failed
    turn = next((index for index, outcome in enumerate(result["found"]) if outcome != "careful 7"), len(result["found"]))
    assert turn > 30
    assert set(result["found"][turn:]) <= {"start failed", "quick 9"}


EXEC = """
import copy, json, os, select, sys
sys.path.insert(0, sys.argv[1])
@FDS@
from orchestra.runtime import create, exec as execs, quick_exec
from orchestra.runtime.cgroups import manager
from orchestra.runtime.problems import StepError
bundle, cgroup = sys.argv[2], sys.argv[3]
config = json.load(open(bundle + "/config.json"))
processes = json.load(open(bundle + "/processes.json"))
null = os.open("/dev/null", os.O_RDWR)
group = manager(cgroup)
group.create({})
created = create.prepare(config, container_id="x", bundle=bundle, stdio=(null, null, null), cgroups=group).launch().finish()
created.start()
def once(process, careful):
    before = fds()
    out, writer = os.pipe()
    fits = quick_exec.fits
    if careful: quick_exec.fits = lambda *_: False
    found = {}
    try:
        folder = group.fds_for_clone()
        pending = execs.exec_begin(config, created.pid, process, pidfd=created.pidfd, stdio=(null, writer, writer),
                                   cgroup_dirs=group.dirs() if folder is None else [], cgroup_fd=folder)
        if folder is not None: os.close(folder)
        os.close(writer)
        found["quick"] = pending._again is not None
        done = pending.finish()
        text = b""
        while piece := os.read(out, 65536): text += piece
        found["status"] = os.waitstatus_to_exitcode(os.waitpid(done.pid, 0)[1])
        os.close(done.pidfd)
        found["output"] = text.decode(errors="replace")
    except StepError as problem:
        found["error"] = [problem.step, problem.errno, problem.message, problem.exit_code]
    finally:
        quick_exec.fits = fits
        os.close(out)
    assert fds() == before, (before, fds())
    try:
        assert os.waitpid(-1, os.WNOHANG) == (0, 0), "a process is left"
    except ChildProcessError: pass
    return found
try:
    result = [[once(process, False), once(process, True)] for process in processes]
finally:
    created.abort()
    group.destroy()
json.dump(result, sys.stdout)
""".replace("@FDS@", FDS)


def executions(lab: Lab, config: dict[str, Any], processes: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    _name, place = lab.bundle(config)
    (place / "processes.json").write_text(json.dumps(processes))
    words = [sys.executable, "-I", "-S", "-c", EXEC, str(Path(orchestra.__file__).parents[1]), str(place), f"/orchestra-test-{lab.mark}/e"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found: list[list[dict[str, Any]]] = json.loads(done.stdout)
    return found


def test_exec_looks_the_same(lab: Lab) -> None:
    config = with_filter(lab)
    config["process"]["args"] = ["sleep", "1000"]
    plainly = {**config["process"], "args": ["sh", "-c", LOOK], "env": ["HOME=/root", "PATH=/no:/bin", "A=b"]}
    sets = {kind: [] for kind in ("effective", "permitted", "inheritable", "ambient")}
    user = {"uid": 1000, "gid": 1000, "additionalGids": [5], "umask": 0o27}
    other = {**plainly, "user": user, "cwd": "/tmp", "capabilities": {**plainly["capabilities"], **sets}, "oomScoreAdj": 300,
             "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]}  # fmt: skip
    for pair in executions(lab, config, [plainly, other]):
        quick, careful = pair
        assert (quick.pop("quick"), careful.pop("quick")) == (True, False)
        for found in pair:
            found["lines"] = [line for line in found.pop("output").splitlines() if not line.startswith(("NS", "0::"))]
        assert quick["lines"] == careful["lines"]
        assert any("CapEff" in line for line in quick["lines"])
        assert quick == careful


def test_exec_says_the_same_when_it_cannot(lab: Lab) -> None:
    config = lab.config("sleep", "1000")
    base = {**config["process"], "env": ["HOME=/root", "PATH=/bin"]}
    (lab.root / "bin/odd").write_text("#!/no/such/interpreter\n")
    (lab.root / "bin/odd").chmod(0o755)
    wanted = [
        {"args": ["no-such"]}, {"args": ["/etc"]}, {"args": ["/etc/passwd"]}, {"args": ["odd"]}, {"args": ["true"], "cwd": "/no/such"},
        {"args": ["true"], "cwd": "/etc/passwd"},
    ]  # fmt: skip
    for quick, careful in executions(lab, config, [{**base, **one} for one in wanted]):
        assert (quick.pop("quick"), careful.pop("quick")) == (True, False)
        assert "error" in careful
        assert quick == careful


NO_DESCRIPTORS = """
import json, os, resource, sys
sys.path.insert(0, sys.argv[1])
@FDS@
from orchestra.runtime import create, exec as execs
from orchestra.runtime.problems import StepError
bundle = sys.argv[2]
config = json.load(open(bundle + "/config.json"))
null = os.open("/dev/null", os.O_RDWR)
def begin(): return create.prepare(config, container_id="x", bundle=bundle, stdio=(null, null, null)).launch()
first = begin().finish()
first.start()
process = {**config["process"], "args": ["true"], "env": ["HOME=/", "PATH=/bin"]}
def enter(): return execs.exec_begin(config, first.pid, process, pidfd=first.pidfd, stdio=(null, null, null))
enter().abort()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
before, failed = fds(), {"begin": 0, "enter": 0}
for action in (begin, enter):
    for more in range(0, 30):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(before) + more, hard))
        pending = None
        try:
            pending = action()
            pending.finish() if action is begin else None
        except (OSError, StepError):
            failed[action.__name__] += 1
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        if pending is not None: pending.abort()
        assert fds() == before, (action.__name__, more, fds(), before)
        try: assert os.waitpid(-1, os.WNOHANG) == (0, 0), "a process is left"
        except ChildProcessError: pass
first.abort()
json.dump(failed, sys.stdout)
""".replace("@FDS@", FDS)


def test_without_descriptors_nothing_leaks(lab: Lab) -> None:
    """The limit of open files is reached at each point in turn."""
    _name, place = lab.bundle(lab.config("sleep", "1000"))
    words = [sys.executable, "-I", "-S", "-c", NO_DESCRIPTORS, str(Path(orchestra.__file__).parents[1]), str(place)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    failed = json.loads(done.stdout)
    assert failed["begin"] > 3 and failed["enter"] > 3


KILLED = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from orchestra.linux import program as programs
from orchestra.runtime import create
from orchestra.runtime.cgroups import manager
bundle, cgroup, at = sys.argv[2], sys.argv[3], int(sys.argv[4])
config = json.load(open(bundle + "/config.json"))
null = os.open("/dev/null", os.O_RDWR)
plain = programs.Program.call
made = -1
def call(self, number, *arguments, **words):
    global made
    if made == at:
        plain(self, 34)  # pause
    made += made >= 0 or number == programs.NR.mkdirat
    return plain(self, number, *arguments, **words)
programs.Program.call = call
group = manager(cgroup)
recipe = group.recipe({"pids": {"limit": 50}})
if recipe is None: sys.exit(3)
pending = create.prepare(config, container_id="x", bundle=bundle, stdio=(null, null, null), cgroups=group, recipe=recipe).launch()
print(pending.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("at", [0, 3, 9, 20])
def test_whoever_makes_cgroups_ends_with_its_parent(lab: Lab, at: int) -> None:
    """Killed at any moment of that: who takes over removes them, and none comes after."""
    from orchestra.linux import procfs
    from orchestra.runtime.cgroups import manager

    _name, place = lab.bundle(lab.config("true"))
    group = manager(f"/orchestra-test-{lab.mark}/killed")
    words = [sys.executable, "-I", "-S", "-c", KILLED, str(Path(orchestra.__file__).parents[1]), str(place), group.path, str(at)]
    parent = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdout and parent.stdin
    line = parent.stdout.readline()
    if not line and parent.wait() == 3:
        pytest.skip("cgroups are made by the parent here")
    try:
        pid = int(line)
        started = procfs.start_time(pid)
        eventually(group.dirs, what="it makes cgroups")
    finally:
        parent.kill()
        parent.communicate()
    eventually(lambda: not procfs.alive(pid, started), what="it ends, too")
    group.destroy()
    assert not [folder for folder in group.places() if os.path.exists(os.path.dirname(folder))]


@pytest.mark.parametrize(("own", "wanted"), [(300, 100), (300, 300), (300, 400)])
def test_the_score_of_the_parent_stays_its_own(lab: Lab, own: int, wanted: int) -> None:
    """Lower than it, which takes rights, or higher; without the rights there is a warning."""
    body = DRIVER.replace('null, out =', f'open("/proc/self/oom_score_adj", "w").write("{own}")\nnull, out =')
    body = body.replace("cgroups=group)", 'cgroups=group, options=create.Options(warn=lambda text: found.setdefault("warned", text)))')
    body = body.replace("os.lseek(out, 0, 0)", 'os.lseek(out, 0, 0); found["own"] = int(open("/proc/self/oom_score_adj").read())')
    config = lab.shell("cat /proc/self/oom_score_adj")
    config["process"]["oomScoreAdj"] = wanted
    _name, place = lab.bundle(config)
    words = [sys.executable, "-I", "-S", "-c", body, str(Path(orchestra.__file__).parents[1]), str(place), "quick", ""]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["quick"] and found["own"] == own
    assert int(found["output"]) == (own if "warned" in found else wanted)
    assert "warned" not in found or wanted < own
