"""Containers that share namespaces of containers with other user namespaces: what works, and what is refused."""

from __future__ import annotations

import json
import os

import pytest
from support.engine import Engine

from orchestra.linux.mount import supports_idmap

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0 or not supports_idmap("/tmp"), reason="needs id-mapped mounts (root, kernel 5.19)"),
]


def space(engine: Engine, name: str, kind: str = "user") -> str:
    return os.readlink(f"/proc/{engine.inspect(name)['State']['Pid']}/ns/{kind}")


def service(name: str, **more: str) -> str:
    lines = "".join(f"    {key}: {value}\n" for key, value in more.items())
    return f"  {name}:\n    image: busybox\n    init: true\n    command: sleep 1000\n{lines}"


def compose(engine: Engine, *services: str) -> None:
    engine.write("name: s\nservices:\n" + "".join(services))


def test_all_of_one_container(engine: Engine) -> None:
    with_all = service("b", userns_mode="auto", network_mode="service:a", pid="service:a", ipc="service:a")
    compose(engine, service("a", userns_mode="auto:size=3000"), with_all)
    engine.run("up", "-d", "--wait")
    for kind in ("user", "net", "pid", "ipc"):
        assert space(engine, "s-a-1", kind) == space(engine, "s-b-1", kind)
    shell = ("exec", "-T", "b", "sh", "-ec")
    assert "3000" in engine.out(*shell, "cat /proc/self/uid_map; ps; touch /dev/shm/there; hostname; ls /sys/class/net")
    assert "there" in engine.out("exec", "-T", "a", "ls", "/dev/shm")


def test_without_a_user_namespace_in_those_of_one_with(engine: Engine) -> None:
    joins = service("b", network_mode="service:a", pid="service:a", ipc="service:a")
    compose(engine, service("a", userns_mode="auto"), joins)
    engine.run("up", "-d", "--wait")
    assert space(engine, "s-b-1") == os.readlink("/proc/self/ns/user")
    assert space(engine, "s-b-1", "net") == space(engine, "s-a-1", "net")
    assert engine.out("exec", "-T", "b", "cat", "/proc/1/comm").strip() != ""
    assert "eth0" in engine.out("exec", "-T", "b", "ls", "/sys/class/net")


def test_the_network_of_one_and_the_processes_of_another(engine: Engine) -> None:
    """Processes decide; the network works without rights over it, which a warning says."""
    compose(
        engine,
        service("net", userns_mode="auto").replace("sleep 1000", 'sh -c "echo here > /index.html; exec httpd -f -p 80 -h /"'),
        service("procs", userns_mode="auto"),
        service("both", userns_mode="auto", network_mode="service:net", pid="service:procs"),
    )
    done = engine.run("up", "-d", "--wait")
    assert "network of s-net-1" in done.stderr and "capabilities" in done.stderr
    assert space(engine, "s-both-1") == space(engine, "s-procs-1") != space(engine, "s-net-1")
    assert space(engine, "s-both-1", "net") == space(engine, "s-net-1", "net")
    shell = ("exec", "-T", "both", "sh", "-ec")
    assert engine.out(*shell, "wget -q -O - http://localhost/") == "here\n"
    assert engine.out(*shell, "ls /sys/class/net").split() == ["eth0", "lo"]
    assert engine.run(*shell, "ip link set lo down", code=None).returncode != 0
    assert engine.run(*shell, "echo 1 > /sys/kernel/mm/ksm/run", code=None).returncode != 0
    engine.run("restart", "-t", "1", "both")
    assert space(engine, "s-both-1") == space(engine, "s-procs-1")


def test_the_network_of_one_without(engine: Engine) -> None:
    compose(engine, service("a"), service("b", userns_mode="auto", network_mode="service:a"))
    done = engine.run("up", "-d", "--wait")
    assert "network of s-a-1" in done.stderr
    assert space(engine, "s-b-1") not in (space(engine, "s-a-1"), os.readlink("/proc/self/ns/user"))
    assert "eth0" in engine.out("exec", "-T", "b", "ip", "-o", "link")
    assert engine.run("exec", "-T", "b", "ip", "link", "set", "lo", "down", code=None).returncode != 0


def test_ipc_of_the_same_range(engine: Engine) -> None:
    """With one range for all the ids of two user namespaces are the same."""
    settings = engine.root / "daemon.json"
    settings.write_text(json.dumps({"userns-remap": "default"}))
    engine.environ["ORCHESTRA_SETTINGS"] = str(settings)
    compose(engine, service("a"), service("b"), service("c", network_mode="service:a", ipc="service:b"))
    engine.run("up", "-d", "--wait")
    assert space(engine, "s-c-1") == space(engine, "s-a-1") != space(engine, "s-b-1")
    engine.run("exec", "-T", "c", "touch", "/dev/shm/there")
    assert engine.out("exec", "-T", "b", "stat", "-c", "%u", "/dev/shm/there").strip() == "0"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"pid": "service:plain"}, "s-plain-1, whose processes it shares, has none"),
        ({"ipc": "service:plain"}, "s-plain-1, whose ipc namespace it shares, has none"),
        ({"network_mode": "service:one", "ipc": "service:two"}, "cannot share the ipc namespace of s-two-1"),
        ({"network_mode": "service:one", "userns_mode": "auto:size=4000"}, "wants 4000 ids"),
    ],
)
def test_refusals(engine: Engine, more: dict[str, str], said: str) -> None:
    base = [service("plain"), service("one", userns_mode="auto:size=3000"), service("two", userns_mode="auto")]
    compose(engine, *base, service("x", **{"userns_mode": "auto", **more}))
    engine.run("up", "-d", "--wait", "plain", "one", "two")
    done = engine.run("up", "-d", code=1)
    assert said in done.stderr and "hint:" in done.stderr, done.stderr


def test_ipc_without_user_namespaces(engine: Engine) -> None:
    """/dev/shm and the queues are shared, and nothing of it stays on the host."""
    compose(engine, service("a", shm_size="8m"), service("b", ipc="service:a"))
    engine.run("up", "-d", "--wait")
    assert space(engine, "s-a-1", "ipc") == space(engine, "s-b-1", "ipc")
    engine.run("exec", "-T", "b", "sh", "-c", "echo x > /dev/shm/there; touch /dev/mqueue/queue")
    assert engine.out("exec", "-T", "a", "sh", "-c", "cat /dev/shm/there; ls /dev/mqueue").split() == ["x", "queue"]
    assert "8192" in engine.out("exec", "-T", "b", "df", "-k", "/dev/shm")
    with open("/proc/self/mounts") as stream:
        assert not any(str(engine.root / "lib/volumes") in line for line in stream)
    assert [name for name in os.listdir(engine.root / "lib/volumes") if name.startswith(".mounted")] == []
