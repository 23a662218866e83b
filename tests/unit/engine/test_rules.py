"""Security options, capabilities, device rules, mounts and ports: what words become."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra.backend import ContainerSpec
from orchestra.compose.model import Device, Mount, Port, Service, TmpfsOptions
from orchestra.engine import mounts, namespaces, ports, security
from orchestra.engine.devices import devices
from orchestra.engine.stop import signal_number
from orchestra.errors import ConflictError, NotFoundError, OrchestraError
from orchestra.runtime import seccomp
from orchestra.store.store import Store

KNOWN = {"CAP_KILL", "CAP_CHOWN", "CAP_NET_ADMIN", "CAP_SYS_TIME"}
HERE = KNOWN - {"CAP_SYS_TIME"}


def caps(**settings: object) -> tuple[list[str], list[str]]:
    warnings: list[str] = []
    service = Service("s", **settings)  # type: ignore[arg-type]
    return security.capabilities(service, ["CAP_KILL", "CAP_CHOWN"], HERE, KNOWN, warnings), warnings


def test_capabilities() -> None:
    assert caps() == (["CAP_CHOWN", "CAP_KILL"], [])
    assert caps(cap_add=("net_admin",), cap_drop=("CAP_KILL",))[0] == ["CAP_CHOWN", "CAP_NET_ADMIN"]
    assert caps(cap_drop=("ALL",), cap_add=("KILL",))[0] == ["CAP_KILL"]
    assert caps(cap_add=("ALL",), cap_drop=("KILL",))[0] == ["CAP_CHOWN", "CAP_NET_ADMIN"]
    assert caps(privileged=True)[0] == sorted(HERE)
    assert caps(cap_add=("SYS_TIME",))[1] == ["cap_add: this machine cannot give CAP_SYS_TIME"]
    with pytest.raises(OrchestraError, match="unknown capability"):
        caps(cap_add=("NOPE",))


def test_security_options() -> None:
    warnings: list[str] = []
    words = ["no-new-privileges:true", "seccomp=unconfined", "label:disable", "systempaths=unconfined"]
    found = security.security_options(words, warnings)
    assert found == security.SecurityOptions(True, "unconfined", True)
    assert warnings == ['security_opt "label:disable" is not supported and was ignored']
    with pytest.raises(OrchestraError, match="invalid security_opt"):
        security.security_options(["whatever"], [])


def test_docker_seccomp_profile_is_decided() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "9.1"}},
        ],
    }
    found = seccomp.from_docker_profile(profile, [], machine="x86_64", kernel=(6, 1))
    assert [rule["names"] for rule in found["syscalls"]] == [["read"], ["clone"]]
    assert found["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]


@pytest.mark.parametrize("text", ["[]", '{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": "x"}', "{", '{"syscalls": []}',
                                  '{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"includes": []}, 3]}'])
def test_a_profile_that_is_none_is_said_so(tmp_path: Path, text: str) -> None:
    (tmp_path / "profile.json").write_text(text)
    with pytest.raises(OrchestraError, match="seccomp profile"):
        security.read_profile(str(tmp_path / "profile.json"), [])


def test_devices() -> None:
    nodes, rules = devices(
        Service("s", devices=(Device("/dev/null", "/dev/x", "r"),), device_cgroup_rules=("c 1:* rm",)), []
    )
    assert [(node["path"], node["major"], node["minor"]) for node in nodes] == [("/dev/x", 1, 3)]
    assert rules == [
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"},
        {"allow": True, "type": "c", "access": "rm", "major": 1},
    ]
    for service in (Service("s", devices=(Device("/nope", "/x"),)), Service("s", device_cgroup_rules=("z",))):
        with pytest.raises(OrchestraError):
            devices(service, [])


def test_mounts_by_precedence() -> None:
    service = Service("s", tmpfs=("/t:exec,size=1m", "/data"))
    spec = ContainerSpec(
        "c", service, "i",
        mounts=(
            Mount("volume", "/data/", "v", read_only=True),
            Mount("bind", "/b", "/host"),
            Mount("tmpfs", "/m", tmpfs=TmpfsOptions(5, 0o700)),
        ),
        carried={"/anon": "kept"}, volumes_from=(("o", "ro"),),
    )  # fmt: skip
    others = {"o": [{"Type": "volume", "Name": "w", "Destination": "/w", "RW": True}]}
    found = {one["Destination"]: one for one in mounts.records(spec, {"Volumes": {"/anon": {}}}, others, [])}
    assert sorted(found) == ["/anon", "/b", "/data", "/m", "/t", "/w"]
    assert (found["/data"]["Type"], found["/data"]["RW"], found["/data"]["Anonymous"]) == ("volume", False, False)
    assert (found["/anon"]["Name"], found["/anon"]["Anonymous"]) == ("kept", True)
    assert found["/w"]["RW"] is False
    assert found["/t"]["Options"] == ["nosuid", "nodev", "exec", "size=1m", "mode=1777"]
    assert "mode=700" in found["/m"]["Options"]


def test_bind_sources(tmp_path: Path) -> None:
    missing = {"Source": str(tmp_path / "a/b"), "CreateHostPath": False}
    with pytest.raises(NotFoundError, match="bind source path does not exist"):
        mounts.prepare_bind(missing)
    mounts.prepare_bind({**missing, "CreateHostPath": True})
    assert (tmp_path / "a/b").is_dir()


def test_namespace_modes() -> None:
    found = namespaces.namespaces({"pid": "host", "ipc": "container:x", "network": "none"}, lambda _ref: 42)
    assert {"type": "ipc", "path": "/proc/42/ns/ipc"} in found
    assert [one["type"] for one in found] == ["mount", "network", "ipc", "uts", "cgroup"]
    with pytest.raises(OrchestraError, match="invalid pid mode"):
        namespaces.namespaces({"pid": "what"}, lambda _ref: 0)


def test_signals() -> None:
    assert [signal_number(text) for text in ("SIGTERM", "term", "9", "SIGRTMIN+3")] == [15, 15, 9, 37]
    for bad in ("", "SIGNOPE", "0", "TERM+x"):
        with pytest.raises(OrchestraError):
            signal_number(bad)


def test_ports_are_held_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    busy = {7000}
    book = ports.PortBook(store, lambda _ip, number, _protocol: number not in busy, lambda key: f"<{key}>")
    (first,) = book.claim("a", [Port(80, "8080")])
    assert first.published == 8080
    with pytest.raises(ConflictError, match="in use by container <a>"):
        book.claim("b", [Port(80, "9000"), Port(81, "8080", "127.0.0.1")])
    assert book.held("b") == ()
    assert book.claim("b", [Port(81, "8080", protocol="udp")])
    assert book.claim("c", [Port(80, "8080-8082")])[0].published == 8081
    with pytest.raises(ConflictError, match="another program"):
        book.claim("d", [Port(80, "7000")])
    again = ports.PortBook(store, lambda *_: True, str)
    assert again.held("a") == (first,)
    assert book.release("a")
    assert not book.release("a")
    assert book.claim("d", [Port(80, "8080")])[0].published == 8080
    store.close()


@pytest.mark.parametrize("port", [Port(1, "x"), Port(1, "70000"), Port(1, "9-8"), Port(1, protocol="x")])
def test_bad_ports(port: Port) -> None:
    with pytest.raises(OrchestraError):
        ports.check([port])
