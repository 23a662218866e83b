"""The engine in this process against the real kernel: life, logs, exec, restart, adoption, clean-up."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.engine import eventually, image_cache, need, need_root

from orchestra.backend import ContainerSpec, ExecSpec, NetworkUse, RestartSpec
from orchestra.compose.model import HealthCheck, IpamPool, Mount, Network, NetworkAttachment, Port, Service
from orchestra.engine.engine import Engine
from orchestra.errors import ConflictError, NotFoundError, OrchestraError
from orchestra.images.archive import load
from orchestra.paths import Paths

pytestmark = pytest.mark.root
Make = Callable[..., str]


@pytest.fixture
def place() -> Iterator[Path]:
    need_root()
    need("nft", shutil.which("nft") is not None, "needs nft (package nftables)")
    folder = Path(tempfile.mkdtemp(prefix="oc-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def engine(place: Path) -> Iterator[Engine]:
    made = Engine(Paths.from_environment({}, root=str(place)))
    made.recover()
    with open(image_cache(), "rb") as stream:
        load(made.images, stream)
    try:
        yield made
    finally:
        clear(made)
        made.close()


def clear(engine: Engine) -> None:
    for info in engine.containers():
        engine.remove(info.id, force=True, volumes=True)
    for network in engine.networks():
        engine.remove_network(network.name)


def spec(engine: Engine, name: str, *command: str, networks: tuple[str, ...] = (), **more: Any) -> ContainerSpec:
    found = engine.image("busybox")
    assert found is not None
    own = {key: more.pop(key) for key in ("restart", "mounts", "auto_remove") if key in more}
    service = Service(name, image="busybox", command=command or ("sleep", "1000"), stop_grace_period=0.2, **more)
    uses = tuple(NetworkUse(network, aliases=(name,)) for network in networks)
    return ContainerSpec(name, service, found[0], networks=uses, image_name="busybox", **own)


def output(engine: Engine, name: str) -> bytes:
    return b"\n".join(line.text for line in engine.logs(name))


def test_a_life(engine: Engine) -> None:
    engine.create(spec(engine, "a", "sh", "-c", "echo out; echo $X >&2; exit 3", environment={"X": "err"}))
    assert engine.container("a").state == "created"
    engine.start("a")
    assert engine.wait("a") == 3
    info = engine.container("a")
    assert (info.state, info.exit_code, info.pid) == ("exited", 3, 0)
    assert sorted(output(engine, "a").split()) == [b"err", b"out"]
    with pytest.raises(ConflictError, match="already in use"):
        engine.create(spec(engine, "a"))
    engine.remove("a")
    with pytest.raises(NotFoundError):
        engine.container("a")


def test_stop_exec_pause_and_rename(engine: Engine) -> None:
    engine.create(spec(engine, "b"))
    engine.start("b")
    assert engine.exec_wait(engine.exec("b", ExecSpec(("sh", "-c", "exit 7")), None)) == 7
    engine.pause("b")
    assert engine.container("b").state == "paused"
    engine.unpause("b")
    engine.rename("b", "c")
    engine.stop("c", timeout=0.2)
    assert engine.container("c").exit_code == 137
    engine.start("c")
    with pytest.raises(ConflictError):
        engine.remove("c")


def test_a_failed_start_leaves_nothing_running(engine: Engine) -> None:
    engine.create(spec(engine, "d", "no-such-command"))
    with pytest.raises(OrchestraError, match="no-such-command"):
        engine.start("d")
    info = engine.container("d")
    assert (info.state, info.exit_code) == ("created", 127)
    assert not engine.busy()


def test_networks_ports_and_conflicts(engine: Engine) -> None:
    engine.create_network(Network("n", "n"), {})
    listen = ("sh", "-c", "while true; do echo hello | nc -l -p 80; done")
    engine.create(spec(engine, "web", *listen, networks=("n",), ports=(Port(80, host_ip="127.0.0.1"),)))
    engine.start("web")
    info = engine.container("web")
    assert info.networks["n"]
    port = info.publishers[0].published_port
    assert port
    engine.create(spec(engine, "peer", networks=("n",), ports=(Port(80, str(port), "127.0.0.1"),)))
    with pytest.raises(ConflictError, match=str(port)):
        engine.start("peer")
    engine.create(spec(engine, "client", "sh", "-c", "nc -w 5 web 80 </dev/null", networks=("n",)))
    engine.start("client")
    engine.wait("client")
    assert b"hello" in output(engine, "client")
    with pytest.raises(OrchestraError):
        engine.remove_network("n")


def test_volumes_keep_their_data(engine: Engine) -> None:
    mount = (Mount("volume", "/data", "v"),)
    for name, command in (("w", "echo kept > /data/file"), ("r", "cat /data/file")):
        engine.create(spec(engine, name, "sh", "-c", command, mounts=mount))
        engine.start(name)
        assert engine.wait(name) == 0
    assert output(engine, "r") == b"kept"
    with pytest.raises(OrchestraError):
        engine.remove_volume("v")
    clear(engine)
    engine.remove_volume("v")


def test_restart_policy_and_auto_remove(engine: Engine) -> None:
    engine.create(spec(engine, "f", "false", restart=RestartSpec("on-failure", 2)))
    engine.start("f")
    eventually(lambda: engine.container("f").restart_count == 2 and engine.container("f").state == "exited")
    engine.create(spec(engine, "g", "true", auto_remove=True))
    engine.start("g")
    eventually(lambda: all(info.name != "g" for info in engine.containers()), what="g is gone")


def test_health(engine: Engine) -> None:
    check = HealthCheck(("CMD", "test", "-e", "/ok"), interval=0.3, retries=2)
    engine.create(spec(engine, "h", healthcheck=check))
    engine.start("h")
    assert engine.container("h").has_healthcheck
    eventually(lambda: engine.container("h").health == "unhealthy", what="unhealthy")
    engine.exec_wait(engine.exec("h", ExecSpec(("touch", "/ok")), None))
    eventually(lambda: engine.container("h").health == "healthy", what="healthy")


def test_another_engine_adopts_what_runs(engine: Engine, place: Path) -> None:
    engine.create(spec(engine, "keep"))
    engine.create(spec(engine, "end", "sh", "-c", "while [ ! -e /go ]; do sleep 0.1; done; exit 5"))
    for name in ("keep", "end"):
        engine.start(name)
    before = engine.container("keep")
    root = f"/proc/{engine.container('end').pid}/root"
    engine.close()
    Path(root, "go").touch()
    second = Engine(Paths.from_environment({}, root=str(place)))
    try:
        second.recover()
        after = second.container("keep")
        assert (after.state, after.pid, after.started) == ("running", before.pid, before.started)
        eventually(lambda: second.container("end").state == "exited", what="the end was noticed")
        assert second.container("end").exit_code == 5
    finally:
        clear(second)
        engine.close = second.close  # type: ignore[method-assign]  # the fixture ends the living one
        engine.parts, engine.nets = second.parts, second.nets


def test_many_at_once_and_nothing_left(engine: Engine) -> None:
    engine.create_network(Network("many", "many"), {})
    errors: list[BaseException] = []

    def one(number: int) -> None:
        try:
            engine.create(spec(engine, f"m{number}", networks=("many",)))
            engine.start(f"m{number}")
        except BaseException as error:
            errors.append(error)

    begun = time.monotonic()
    threads = [threading.Thread(target=one, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert time.monotonic() - begun < 40
    infos = engine.containers()
    assert {info.state for info in infos} == {"running"}
    assert len({info.networks["many"] for info in infos}) == 12
    pids = [info.pid for info in infos]
    clear(engine)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)
    assert not engine.busy()
    assert not list(engine.paths.bundles.iterdir())


def notifies(engine: Engine, name: str) -> str:
    read, write = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    try:
        words = ("cat", "/proc/sys/net/ipv4/conf/eth0/arp_notify")
        assert engine.exec_wait(engine.exec(name, ExecSpec(words), (null, write, null))) == 0
        return os.read(read, 10).decode().strip()
    finally:
        for fd in (read, write, null):
            os.close(fd)


def test_only_an_address_that_somebody_may_have_had_is_announced(engine: Engine, place: Path) -> None:
    engine.create_network(Network("n", "n", ipam=(IpamPool("10.218.40.0/24"),)), {})
    for name in ("a", "b"):
        listen = ("sh", "-c", "while true; do echo hello | nc -l -p 80; done")
        engine.create(spec(engine, name, *listen, networks=("n",)))
        engine.start(name)
    assert [notifies(engine, name) for name in ("a", "b")] == ["0", "0"]
    engine.restart("a", timeout=0)
    assert notifies(engine, "a") == "1"
    fixed = replace(spec(engine, "m", networks=("n",)), networks=(NetworkUse("n", NetworkAttachment(mac_address="02:00:00:00:00:77")),))
    engine.create(fixed)
    engine.start("m")
    assert notifies(engine, "m") == "1"
    engine.create(spec(engine, "c", "sh", "-c", "nc -w 5 a 80 </dev/null; nc -w 5 b 80 </dev/null", networks=("n",)))
    engine.start("c")
    engine.wait("c")
    assert output(engine, "c").split() == [b"hello", b"hello"]
    engine.close()  # whatever another daemon gave before is not known any more
    again = Engine(Paths.from_environment({}, root=str(place)))
    try:
        again.recover()
        again.create(spec(again, "d", networks=("n",)))
        again.start("d")
        assert notifies(again, "d") == "1"
    finally:
        clear(again)
        engine.close = again.close  # type: ignore[method-assign]  # the fixture ends the living one
        engine.parts, engine.nets = again.parts, again.nets
