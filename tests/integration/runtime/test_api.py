"""``create`` and ``exec_in`` called as the shim does: many at once, given up half-way, nothing leaks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.runtimelab import Lab

import orchestra

pytestmark = pytest.mark.root

HEAD = """
import copy, json, os, sys
sys.path.insert(0, sys.argv[1])
from orchestra.runtime import create, exec as execs
from orchestra.runtime.problems import StepError
config, bundle = json.load(open(sys.argv[2])), sys.argv[3]
null = os.open("/dev/null", os.O_RDWR)
def begin(config): return create.create_begin(config, container_id="x", bundle=bundle, stdio=(null, null, null))
def fds(): return sorted(os.listdir("/proc/self/fd"))
def alone():
    try: os.waitpid(-1, os.WNOHANG)
    except ChildProcessError: return True
    return False
def user(config):
    config = copy.deepcopy(config)
    config["linux"]["namespaces"].append({"type": "user"})
    for key in ("uidMappings", "gidMappings"):
        config["linux"][key] = [{"containerID": 0, "hostID": 0, "size": 65536}]
    return config
"""


def _script(lab: Lab, body: str) -> str:
    _name, place = lab.bundle(lab.config("sleep", "1000"))
    source = str(Path(orchestra.__file__).parents[1])
    result = subprocess.run([sys.executable, "-I", "-S", "-c", HEAD + body, source, str(place / "config.json"), str(place)],
                            capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_nothing_leaks_whatever_happens(lab: Lab) -> None:
    text = _script(lab, """
terminal, bad = copy.deepcopy(config), copy.deepcopy(config)
terminal["process"]["terminal"] = True
bad["process"]["args"] = ["nosuch"]
missing = user(config)
missing["mounts"].append({"destination": "/x", "type": "bind", "source": "/nosuch", "options": ["bind"]})
first = begin(config).finish()
first.start()
before = fds()
steps = []
for _ in range(3):
    for one in (config, user(config), terminal): begin(one).finish().abort()
    for one in (bad, user(bad), missing):
        try: begin(one).finish()
        except StepError as error: steps.append(error.step)
    begin(user(config)).abort()
    for args, tty in ((["true"], False), (["true"], True), (["nosuch"], True)):
        process = {**config["process"], "args": args, "terminal": tty}
        try: done = execs.exec_in(config, first.pid, process, stdio=(null, null, null), pidfd=first.pidfd)
        except StepError as error: steps.append(error.step); continue
        os.waitpid(done.pid, 0)
        os.close(done.pidfd)
        if done.master >= 0: os.close(done.master)
    execs.exec_begin(config, first.pid, config["process"], stdio=(null, null, null)).abort()
same = before == fds()
first.abort()
print(json.dumps([same, alone(), sorted(set(steps))]))
""")
    assert json.loads(text) == [True, True, ['exec "nosuch"', "mount bind /nosuch at /x"]]


def test_a_burst(lab: Lab) -> None:
    text = _script(lab, """
pending = [begin(config) for _ in range(30)]
for one in pending: one.attach()
created = [one.finish() for one in pending]
for one in created: one.start_begin()
for one in created: one.start_finish()
names = {open(f"/proc/{one.pid}/comm").read().strip() for one in created}
spaces = {os.readlink(f"/proc/{one.pid}/ns/pid") for one in created}
for one in created: one.abort()
print(json.dumps([sorted(names), len(spaces), alone()]))
""")
    names, spaces, alone = json.loads(text)
    assert (spaces, alone) == (30, True)
    assert names in (["sleep"], ["busybox"])


def test_the_init_ends_with_its_creator(lab: Lab) -> None:
    text = _script(lab, """
reader, writer = os.pipe2(os.O_CLOEXEC)
middle = os.fork()
if middle == 0:
    made = begin(config).finish()
    os.write(writer, str(made.pid).encode())
    os._exit(0)
pid = int(os.read(reader, 100))
os.waitpid(middle, 0)
import select
try:
    fd = os.pidfd_open(pid)
    poller = select.poll(); poller.register(fd, select.POLLIN)
    print(bool(poller.poll(30000)))
except ProcessLookupError:
    print(True)
""")
    assert text.strip() == "True"
