"""Configurations become plans, or are refused by name. No root needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.bundle import make_config

from orchestra.errors import OrchestraError, UnsupportedError
from orchestra.linux import constants as C
from orchestra.runtime import defaults, devices, hooks, mountoptions, mounts, namespaces, process, rlimits
from orchestra.runtime import plan as plans
from orchestra.runtime.cgroups import Mode, manager


def _plan(tmp_path: Path, change: dict[str, Any] | None = None, **linux: Any) -> plans.Plan:
    config = make_config(["sh"])
    config["root"]["path"] = str(tmp_path)
    config.update(change or {})
    config["linux"].update(linux)
    return plans.make(config, container_id="x", bundle="/b")


def test_defaults_make_a_plan(tmp_path: Path) -> None:
    plan = _plan(tmp_path)
    assert plan.namespaces.new == {"pid", "network", "ipc", "uts", "mount", "cgroup"}
    assert not plan.namespaces.needs_middle
    assert plan.namespaces.clone_flags() == (C.CLONE_NEWPID | C.CLONE_NEWNET | C.CLONE_NEWIPC | C.CLONE_NEWUTS | C.CLONE_NEWNS)
    assert plan.root == str(tmp_path)
    assert [device.path for device in plan.devices][:2] == ["/dev/null", "/dev/zero"]
    assert plan.state("stopped", 7) == {"ociVersion": "1.2.0", "id": "x", "status": "stopped", "bundle": "/b"}


def test_the_first_mount_may_be_the_root(tmp_path: Path) -> None:
    overlay = {"destination": "/", "type": "overlay", "source": "o", "options": ["lowerdir=/a:/b,upperdir=/u", "workdir=/w"]}
    plan = _plan(tmp_path, {"mounts": [overlay, *defaults.mounts()]})
    assert plan.root_mount is not None
    assert plan.root_mount.words.data == ["lowerdir=/a:/b", "upperdir=/u", "workdir=/w"]
    assert plan.mounts[0].destination == "/proc"


def test_user_namespaces(tmp_path: Path) -> None:
    ids = [{"containerID": 0, "hostID": 1000, "size": 10}]
    spaces = [*defaults.namespaces(), {"type": "user"}]
    plan = _plan(tmp_path, namespaces=spaces, uidMappings=ids, gidMappings=ids)
    assert plan.uids == [(0, 1000, 10)] and plan.namespaces.needs_middle
    with pytest.raises(OrchestraError, match="are needed"):
        _plan(tmp_path, namespaces=spaces)
    with pytest.raises(OrchestraError, match="need a user namespace"):
        _plan(tmp_path, uidMappings=ids)
    for user, text in (({"uid": 99}, "user.uid 99 is not in the uid"), ({"gid": 10}, "user.gid 10 is not in the gid"),
                       ({"additionalGids": [3, 12]}, "additionalGids: 12 is not in the gid")):
        with pytest.raises(OrchestraError, match=text):
            _plan(tmp_path, {"process": {**make_config(["x"])["process"], "user": user}}, namespaces=spaces,
                  uidMappings=ids, gidMappings=ids)
    later = [{"containerID": 5, "hostID": 1000, "size": 10}]
    with pytest.raises(OrchestraError, match="the container's root 0 is not in the uid mappings"):
        _plan(tmp_path, {"process": {**make_config(["x"])["process"], "user": {"uid": 5, "gid": 5}}}, namespaces=spaces,
              uidMappings=later, gidMappings=ids)


@pytest.mark.parametrize(("name", "path"), [
    ("net.ipv4.ip_forward", "net/ipv4/ip_forward"), ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
    ("net.ipv4.conf.eth0/100.mtu", "net/ipv4/conf/eth0.100/mtu"), ("net/ipv4/conf/eth0.100/mtu", "net/ipv4/conf/eth0.100/mtu"),
])
def test_sysctl_names(name: str, path: str) -> None:
    assert plans.sysctl_path(name) == path


@pytest.mark.parametrize("name", ["", "net", "net..x", "net/../x", "/net/x", "kernel.panic", "vm.swappiness", "fs.file-max"])
def test_bad_sysctls(tmp_path: Path, name: str) -> None:
    with pytest.raises(OrchestraError):
        _plan(tmp_path, sysctl={name: "1"})


def test_cgroup_places(tmp_path: Path) -> None:
    config = make_config(["sh"])
    config["root"]["path"] = str(tmp_path)
    hybrid = Mode("hybrid", {"cpu": "/cg/cpu,cpuacct", "cpuacct": "/cg/cpu,cpuacct"}, "/cg/unified", ())
    plan = plans.make(config, container_id="x", bundle="/b", cgroups=manager("/o/x", hybrid))
    assert plan.cgroup_places == [("cpu,cpuacct", "/cg/cpu,cpuacct/o/x"), ("unified", "/cg/unified/o/x")]
    plan = plans.make(config, container_id="x", bundle="/b", cgroups=manager("/o/x", Mode("v2", {}, "/cg", ())))
    assert (plan.cgroup_places, plan.cgroup_unified) == ([], "/cg/o/x")


def test_mount_words() -> None:
    words = mountoptions.parse(["rbind", "ro", "nosuid", "suid", "rslave", "rro", "size=1m", "tmpcopyup", "noatime"])
    assert words.flags == C.MS_BIND | C.MS_REC | C.MS_RDONLY | C.MS_NOATIME
    assert words.cleared & C.MS_NOSUID
    assert words.propagation == [C.MS_SLAVE | C.MS_REC]
    assert words.recursive_set == C.MOUNT_ATTR_RDONLY
    assert words.data == ["size=1m"] and words.tmpcopyup
    assert mountoptions.attributes(words.flags) == (C.MOUNT_ATTR_RDONLY | C.MOUNT_ATTR_NOATIME, C.MOUNT_ATTR__ATIME)
    assert mountoptions.parse(["ro", "rw"]).flags == 0


def test_mounts_are_checked() -> None:
    for entry in ({"type": "tmpfs"}, {"destination": "/x", "options": ["bind"]}, {"destination": "/x"},
                  {"destination": "/x", "type": "tmpfs", "options": ["idmap"]},
                  {"destination": "/x", "type": "proc", "options": ["tmpcopyup"]}):
        with pytest.raises(OrchestraError):
            mounts.parse([entry], "/b")
    mount = mounts.parse([{"destination": "a/../b/", "type": "bind", "source": "rel"}], "/bundle")[0]
    assert (mount.destination, mount.source, mount.bind) == ("/b", "/bundle/rel", True)
    assert mount.describe() == "mount bind /bundle/rel at /b"


def test_layers_are_split_and_unescaped() -> None:
    assert mounts.split_layers(r"/a:/b\:c:/d\\e") == ["/a", "/b:c", "/d\\e"]


def test_devices_of_the_configuration_win() -> None:
    found = devices.parse([{"path": "/dev/null", "type": "c", "major": 9, "minor": 9}])
    assert [(d.major, d.minor) for d in found if d.path == "/dev/null"] == [(9, 9)]
    for entry in ({"path": "x", "type": "c", "major": 1, "minor": 1}, {"path": "/x", "type": "z"}, {"path": "/x", "type": "c"}):
        with pytest.raises(OrchestraError):
            devices.parse([entry])


def test_process_pieces() -> None:
    base = {"args": ["sh"], "cwd": "/", "capabilities": {"bounding": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]}}
    found = process.parse({**base, "user": {"uid": 5, "umask": 63}, "consoleSize": {"height": 2, "width": 3},
                           "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4}, "execCPUAffinity": {"final": "0-1,3"},
                           "scheduler": {"policy": "SCHED_BATCH", "nice": 3}}, None)
    assert (found.uid, found.umask, found.rows, found.columns) == (5, 0o077, 2, 3)
    assert found.io_priority == 2 << 13 | 4
    assert found.affinity == [0, 1, 3]
    assert len(found.scheduler) == 48
    assert found.sets.ambient == 0
    for change in ({"args": []}, {"cwd": "x"}, {"env": ["A=\0"]}, {"scheduler": {"policy": "ODD"}},
                   {"ioPriority": {"class": "ODD"}}, {"capabilities": {"bounding": ["CAP_ODD"]}}):
        with pytest.raises(OrchestraError):
            process.parse({**base, **change}, None)
    with pytest.raises(UnsupportedError):
        process.parse(base, {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"})


@pytest.mark.parametrize("user", [{"uid": 2**32 - 1}, {"gid": 2**32 - 1}, {"uid": -1}, {"additionalGids": [1, 2**32 - 1]}, {"uid": 2**32}])
def test_an_id_that_would_leave_root_as_it_is(user: dict[str, Any]) -> None:
    """setresuid(-1) changes nothing."""
    with pytest.raises(OrchestraError, match="ids are from 0 to 4294967294"):
        process.parse({"args": ["sh"], "cwd": "/", "user": user}, None)
    with pytest.raises(OrchestraError, match="more than 65536 groups"):
        process.parse({"args": ["sh"], "cwd": "/", "user": {"additionalGids": [1] * 65537}}, None)


def test_the_machines_root_is_no_root_of_a_container(tmp_path: Path) -> None:
    with pytest.raises(OrchestraError, match="the root of this machine"):
        _plan(tmp_path, {"root": {"path": "/tmp/.."}})


def test_programs_are_found_as_a_shell_would(tmp_path: Path) -> None:
    for name, mode in (("run", 0o755), ("plain", 0o644)):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(mode)
    (tmp_path / "folder").mkdir()
    path = f"/nowhere:{tmp_path}"
    assert process.resolve("run", path) == f"{tmp_path}/run"
    for name, code in (("plain", 126), ("none", 127), ("folder", 126), (f"{tmp_path}/none", 127), (f"{tmp_path}/folder", 126)):
        with pytest.raises(plans.OrchestraError) as caught:
            process.resolve(name, path)
        assert caught.value.exit_code == code


def test_limits_and_hooks_are_checked() -> None:
    assert rlimits.parse([{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2**64 - 1}]) == [("RLIMIT_NOFILE", 1, -1)]
    for entry in ({"type": "X"}, {"type": "RLIMIT_CPU", "soft": 5, "hard": 1}):
        with pytest.raises(OrchestraError):
            rlimits.parse([entry])
    assert hooks.parse({"poststop": [{"path": "/x", "timeout": 3}]})["poststop"][0].args == ("/x",)
    for hook in ({"path": "x"}, {"path": "/x", "timeout": 0}):
        with pytest.raises(OrchestraError):
            hooks.parse({"prestart": [hook]})


def test_namespaces_are_checked() -> None:
    found = namespaces.parse([{"type": "pid", "path": "/proc/1/ns/pid"}, {"type": "mount"}])
    assert found.needs_middle and found.own("pid") and not found.own("user")
    for entries in ([{"type": "x"}], [{"type": "pid"}, {"type": "pid"}], [{"type": "pid", "path": "x"}]):
        with pytest.raises(OrchestraError):
            namespaces.parse(entries)


def test_defaults_are_fresh_each_time() -> None:
    defaults.mounts()[0]["options"].append("x")
    assert "x" not in defaults.mounts()[0]["options"]
    assert len(defaults.CAPABILITIES) == 11
    assert not {"CAP_NET_RAW", "CAP_MKNOD", "CAP_AUDIT_WRITE"} & set(defaults.CAPABILITIES)
    assert defaults.capabilities(root=False)["effective"] == []
