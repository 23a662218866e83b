"""What a configuration asks for is what the program finds."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from support.runtimelab import Lab, own_namespace

pytestmark = pytest.mark.root


def test_namespaces_are_its_own(lab: Lab) -> None:
    text = lab.output(lab.shell("for n in pid net ipc uts mnt cgroup user; do readlink /proc/self/ns/$n; done"))
    found = dict(line.split(":", 1) for line in text.split())
    for kind in ("pid", "net", "ipc", "uts", "mnt", "cgroup"):
        assert f"{kind}:{found[kind]}" != own_namespace(kind)
    assert f"user:{found['user']}" == own_namespace("user")


def test_it_sees_only_itself(lab: Lab) -> None:
    text = lab.output(lab.shell("echo $$; ls /proc | grep -c '^[0-9]'; cat /proc/self/cgroup"))
    lines = text.splitlines()
    assert lines[0] == "1"
    assert int(lines[1]) <= 3
    assert all(line.endswith(":/") for line in lines[2:])


def test_names(lab: Lab) -> None:
    config = lab.shell("hostname; cat /proc/sys/kernel/domainname")
    config.update(hostname="box", domainname="example.test")
    assert lab.output(config).split() == ["box", "example.test"]


def test_capabilities_of_root_and_user(lab: Lab) -> None:
    script = "grep -E '^(Cap|NoNewPrivs)' /proc/self/status"
    root = dict(line.split(":\t") for line in lab.output(lab.shell(script)).splitlines())
    assert root["CapBnd"] == root["CapPrm"] == root["CapEff"] == "00000000800405fb"
    assert root["CapInh"] == root["CapAmb"] == "0" * 16
    assert root["NoNewPrivs"] == "1"
    sets = {key: ["CAP_NET_BIND_SERVICE"] for key in ("bounding", "effective", "permitted", "inheritable", "ambient")}
    config = lab.shell(script, user={"uid": 1000, "gid": 1000}, capabilities=sets, noNewPrivileges=False)
    user = dict(line.split(":\t") for line in lab.output(config).splitlines())
    assert {user[key] for key in ("CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb")} == {"0000000000000400"}
    assert user["NoNewPrivs"] == "0"


def test_no_capabilities_at_all(lab: Lab) -> None:
    config = lab.shell("grep ^Cap /proc/self/status")
    del config["process"]["capabilities"]
    assert {line.split()[1] for line in lab.output(config).splitlines()} == {"0" * 16}


def test_masked_and_readonly_paths(lab: Lab) -> None:
    (lab.root / "secret").mkdir()
    (lab.root / "secret/key").write_text("x")
    (lab.root / "file").write_text("hidden")
    config = lab.shell("ls /secret; cat /file; ls /sys/firmware; cat /proc/keys; echo 1 >/proc/sys/kernel/panic || echo ro;"
                       "touch /secret/new || echo ro; touch /etc/new || echo ro")
    config["linux"]["maskedPaths"] += ["/secret", "/file", "/nothing/there"]
    config["linux"]["readonlyPaths"] += ["/etc", "/nothing"]
    result = lab.run(config)
    assert result.stdout.split() == ["ro", "ro", "ro"]
    assert (lab.root / "file").read_text() == "hidden"


def test_readonly_root(lab: Lab) -> None:
    config = lab.shell("touch /x || echo ro; touch /tmp/y && echo rw; touch /dev/shm/z && echo rw")
    config["root"]["readonly"] = True
    config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "options": ["nosuid", "mode=1777"]})
    assert lab.output(config).split() == ["ro", "rw", "rw"]


def test_bind_mounts_read_only_and_recursively(lab: Lab, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", source / "below"], check=True)
    try:
        config = lab.shell("touch /a/x || echo ro; touch /a/below/x && echo rw; touch /b/x || echo ro;"
                           "touch /b/below/y || echo ro; touch /c/z && echo rw; ls /d/below | wc -l")
        for target, words in (("/a", ["rbind", "ro"]), ("/b", ["rbind", "rro"]), ("/c", ["rbind", "rw"]), ("/d", ["bind"])):
            config["mounts"].append({"destination": target, "type": "bind", "source": str(source), "options": words})
        assert lab.output(config).split() == ["ro", "rw", "ro", "ro", "rw", "0"]
    finally:
        subprocess.run(["umount", source / "below"], check=True)
    assert sorted(os.listdir(source)) == ["below", "z"]


def test_bind_of_a_file_makes_its_target(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("hello")
    config = lab.shell("cat /new/place/note; echo; echo x >>/new/place/note || echo ro")
    config["mounts"].append({"destination": "/new/place/note", "type": "bind", "source": str(tmp_path / "note"),
                             "options": ["rbind", "ro"]})
    assert lab.output(config).split() == ["hello", "ro"]


def test_missing_bind_source_is_named(lab: Lab) -> None:
    config = lab.shell("true")
    config["mounts"].append({"destination": "/x", "type": "bind", "source": "/no/such/thing", "options": ["bind"]})
    result = lab.run(config)
    assert result.returncode == 1
    assert "/no/such/thing" in result.stderr and "No such file" in result.stderr


def test_tmpfs_with_size_mode_and_copy_up(lab: Lab) -> None:
    (lab.root / "var/data").mkdir(mode=0o750)
    (lab.root / "var/data/file").write_text("kept")
    os.symlink("file", lab.root / "var/data/link")
    os.chown(lab.root / "var/data/file", 1000, 1000)
    config = lab.shell("stat -c %a /var/data; cat /var/data/link; echo; stat -c %u /var/data/file; touch /var/data/new;"
                       "stat -c %a /t; df -k /t | tail -1 | tr -s ' ' | cut -d' ' -f2; touch /ro/x || echo ro")
    config["mounts"] += [
        {"destination": "/var/data", "type": "tmpfs", "options": ["tmpcopyup", "size=1m"]},
        {"destination": "/t", "type": "tmpfs", "options": ["mode=1770", "size=2m"]},
        {"destination": "/ro", "type": "tmpfs", "options": ["ro"]},
    ]
    assert lab.output(config).split() == ["750", "kept", "1000", "1770", "2048", "ro"]
    assert not (lab.root / "var/data/new").exists()


def test_devices(lab: Lab) -> None:
    config = lab.shell("for d in null zero full random urandom tty; do test -c /dev/$d || echo missing $d; done;"
                       "echo x >/dev/null && head -c 4 /dev/zero | wc -c; stat -c '%a %u %t:%T' /dev/mine;"
                       "for l in fd stdin ptmx; do readlink /dev/$l; done")
    config["linux"]["devices"] = [{"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 7}]
    assert lab.output(config).split("\n")[:-1] == ["4", "640 7 1:3", "/proc/self/fd", "/proc/self/fd/0", "pts/ptmx"]


def test_device_rules_hold(lab: Lab) -> None:
    capabilities = {key: ["CAP_MKNOD"] for key in ("bounding", "effective", "permitted")}
    script = "mknod /tmp/kmsg c 1 11; head -c 1 /tmp/kmsg >/dev/null && echo open || echo refused"
    config = lab.shell(script, capabilities=capabilities)
    assert lab.output(config).split() == ["refused"]


def test_limits_of_the_process(lab: Lab) -> None:
    config = lab.shell("ulimit -n; ulimit -Hn; ulimit -c",
                       rlimits=[{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}])
    assert lab.output(config).split() == ["100", "200", "0"]


def test_sysctls_of_its_own_namespaces_only(lab: Lab) -> None:
    config = lab.shell("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni")
    config["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "7", "kernel.shmmni": "99"}
    before = Path("/proc/sys/kernel/shmmni").read_text()
    assert lab.output(config).split() == ["7", "99"]
    assert Path("/proc/sys/kernel/shmmni").read_text() == before
    for name in ("kernel.panic", "vm.swappiness", "net/../kernel/panic"):
        config["linux"]["sysctl"] = {name: "1"}
        assert lab.run(config).returncode == 1
    config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1"}
    config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "network"]
    assert "network namespace" in lab.run(config).stderr


def test_user_groups_umask_and_home(lab: Lab) -> None:
    user = {"uid": 1000, "gid": 1000, "additionalGids": [5, 7], "umask": 0o077}
    text = lab.output(lab.shell("id -u; id -g; id -G; umask; echo $HOME; echo x >/dev/stdout", user=user))
    assert text.splitlines() == ["1000", "1000", "1000 5 7", "0077", "/home/user", "x"]


def test_working_directory_is_made(lab: Lab) -> None:
    assert lab.output(lab.shell("pwd", cwd="/srv/deep/place")).strip() == "/srv/deep/place"


def test_environment_is_exactly_what_is_given(lab: Lab) -> None:
    os.environ["ORCHESTRA_TEST_LEAK"] = "1"
    try:
        text = lab.output(lab.config("env", env=["A=1", "PATH=/bin", "B=two words", "HOME=/h"]))
    finally:
        del os.environ["ORCHESTRA_TEST_LEAK"]
    assert sorted(text.splitlines()) == ["A=1", "B=two words", "HOME=/h", "PATH=/bin"]


@pytest.mark.parametrize(("args", "code", "text"), [
    (["nosuch"], 127, 'exec "nosuch": executable file not found in $PATH'),
    (["/no/such"], 127, 'exec "/no/such": no such file or directory'),
    (["/etc/passwd"], 126, 'exec "/etc/passwd": permission denied'),
    (["/etc"], 126, "is a directory"),
])
def test_programs_that_cannot_run(lab: Lab, args: list[str], code: int, text: str) -> None:
    result = lab.run(lab.config(*args))
    assert result.returncode == code
    assert text in result.stderr


def test_bad_interpreter_and_format(lab: Lab) -> None:
    for name, content, code in (("script", "#!/no/interpreter\n", 127), ("noise", "\x7fnothing", 126)):
        (lab.root / name).write_text(content)
        (lab.root / name).chmod(0o755)
        result = lab.run(lab.config(f"/{name}"))
        assert result.returncode == code
        assert f"/{name}" in result.stderr


def test_exit_codes_and_signals(lab: Lab) -> None:
    assert lab.run(lab.shell("exit 42")).returncode == 42
    assert lab.run(lab.shell("sh -c 'kill -9 $$'; exit $?")).returncode == 137


def test_signal_dispositions_are_clean(lab: Lab) -> None:
    text = lab.output(lab.config("grep", "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status"))
    assert {line.split()[1] for line in text.splitlines()} == {"0" * 16}


def test_oom_score(lab: Lab) -> None:
    assert lab.output(lab.shell("cat /proc/self/oom_score_adj", oomScoreAdj=500)).strip() == "500"
    lowered = lab.run(lab.shell("cat /proc/self/oom_score_adj", oomScoreAdj=-500))
    assert lowered.returncode == 0
    assert lowered.stdout.strip() == "-500" or "oomScoreAdj" in lowered.stderr


def test_personality_scheduler_and_io_priority(lab: Lab) -> None:
    config = lab.shell("uname -m; cut -d' ' -f19 /proc/self/stat", scheduler={"policy": "SCHED_OTHER", "nice": 5},
                       ioPriority={"class": "IOPRIO_CLASS_IDLE", "priority": 0})
    config["linux"]["personality"] = {"domain": "LINUX32"}
    machine, nice = lab.output(config).split()
    assert nice == "5"
    if os.uname().machine == "x86_64":
        assert machine == "i686"


def test_time_namespace(lab: Lab) -> None:
    if not os.path.exists("/proc/self/ns/time"):
        pytest.skip("the kernel has no time namespaces")
    config = lab.shell("cut -d. -f1 /proc/uptime")
    config["linux"]["namespaces"].append({"type": "time"})
    config["linux"]["timeOffsets"] = {"boottime": {"secs": 1000000}}
    assert int(lab.output(config)) > 1000000


def test_joined_namespaces(lab: Lab) -> None:
    first = lab.start(lab.shell("echo ready; sleep 1000"))
    pid = lab.pid(first)
    config = lab.shell("readlink /proc/self/ns/net; readlink /proc/self/ns/pid; echo $$; hostname")
    config["hostname"] = "second"
    files = {"network": "net", "pid": "pid"}
    for entry in config["linux"]["namespaces"]:
        if entry["type"] in files:
            entry["path"] = f"/proc/{pid}/ns/{files[entry['type']]}"
    net, space, own, name = lab.output(config).split()
    assert net == os.readlink(f"/proc/{pid}/ns/net")
    assert space == os.readlink(f"/proc/{pid}/ns/pid")
    assert int(own) > 1
    assert name == "second"


def _with_user_namespace(config: dict[str, object], start: int = 200000) -> None:
    linux = config["linux"]
    assert isinstance(linux, dict)
    linux["namespaces"].append({"type": "user"})
    for key in ("uidMappings", "gidMappings"):
        linux[key] = [{"containerID": 0, "hostID": start, "size": 65536}]


def test_user_namespace_with_an_idmapped_overlay(lab: Lab, tmp_path: Path) -> None:
    for name in ("upper", "work", "merged", "volume"):
        (tmp_path / name).mkdir()
    (tmp_path / "volume/file").write_text("x")
    config = lab.shell("id -u; stat -c %u / /bin /volume/file; touch /made /volume/made && stat -c %u /made;"
                       "cat /proc/self/uid_map; echo x >/dev/null && echo null; cat /proc/sys/kernel/hostname")
    _with_user_namespace(config)
    config["root"]["path"] = str(tmp_path / "merged")
    config["mounts"].insert(0, {"destination": "/", "type": "overlay", "source": "overlay", "options": [
        f"lowerdir={lab.root}", f"upperdir={tmp_path}/upper", f"workdir={tmp_path}/work", "volatile", "idmap"]})
    config["mounts"].append({"destination": "/volume", "type": "bind", "source": str(tmp_path / "volume"),
                             "options": ["rbind", "idmap"]})
    result = lab.run(config)
    if "id-mapped" in result.stderr:
        pytest.skip("this filesystem takes no id-mapped mounts")
    assert result.stdout.split() == ["0", "0", "0", "0", "0", "0", "200000", "65536", "null", "orchestra"], result.stderr
    assert (tmp_path / "upper/made").stat().st_uid == 0
    assert (tmp_path / "volume/made").stat().st_uid == 0


def test_user_namespace_on_a_plain_root(lab: Lab) -> None:
    config = lab.shell("stat -c %u /bin; touch /x || echo refused; ls /dev/pts /sys/fs/cgroup >/dev/null && echo fine")
    _with_user_namespace(config)
    assert lab.output(config).split() == ["65534", "refused", "fine"]


def test_devices_of_other_names_in_a_user_namespace(lab: Lab) -> None:
    """Nobody may make nodes there: the host's own are bound, whatever they are called inside."""
    config = lab.shell("stat -c %t:%T /dev/mine /dev/below/zero; echo x > /dev/mine && head -c 3 /dev/below/zero | wc -c")
    _with_user_namespace(config)
    config["linux"]["devices"] = [{"path": "/dev/mine", "type": "c", "major": 1, "minor": 3},
                                  {"path": "/dev/below/zero", "type": "c", "major": 1, "minor": 5}]
    assert lab.output(config).split() == ["1:3", "1:5", "3"]
    config["linux"]["devices"] = [{"path": "/dev/mine", "type": "c", "major": 1, "minor": 250}]
    assert "/dev/mine" in lab.run(config).stderr


def test_overlay_of_many_layers(lab: Lab, tmp_path: Path) -> None:
    layers = []
    for index in range(150):
        layer = tmp_path / f"a-layer-with-quite-a-long-name-{index:03}"
        layer.mkdir()
        (layer / f"file{index:03}").write_text(str(index))
        layers.append(str(layer))
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    config = lab.shell("ls / | grep -c ^file; cat /file149; touch /made")
    config["root"]["path"] = str(tmp_path / "merged")
    config["mounts"].insert(0, {"destination": "/", "type": "overlay", "source": "overlay", "options": [
        "lowerdir=" + ":".join([*layers, str(lab.root)]), f"upperdir={tmp_path}/upper", f"workdir={tmp_path}/work"]})
    result = lab.run(config)
    if result.returncode and os.uname().release < "6.8":
        pytest.skip("needs kernel 6.8")
    assert result.stdout.split() == ["150", "149"]
    assert (tmp_path / "upper/made").exists()
    assert not os.listdir(tmp_path / "merged")


def test_nothing_is_shared_with_the_host(lab: Lab) -> None:
    text = lab.output(lab.shell("cat /proc/self/mountinfo; mount -t tmpfs tmpfs /tmp 2>/dev/null || true"))
    assert "shared:" not in text
    assert str(lab.place) not in Path("/proc/self/mountinfo").read_text()


def test_no_pivot(lab: Lab) -> None:
    assert "root" in lab.output(lab.shell("ls /; ls /proc/1/root"), "--no-pivot")


def test_preserved_descriptors(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "note").write_text("handed over")
    fd = os.open(tmp_path / "note", os.O_RDONLY)
    target = 3
    moved = os.dup2(fd, target) if fd != target else fd
    try:
        text = lab.output(lab.shell("cat <&3; ls /proc/self/fd | wc -l"), "--preserve-fds", "1", pass_fds=(moved,))
    finally:
        os.close(fd)
    assert text.startswith("handed over")


def test_descriptors_that_are_not_there_are_none_of_ours(lab: Lab) -> None:
    """A gap among the preserved ones would be filled by a descriptor of the runtime."""
    done = lab.run(lab.shell("ls /proc/self/fd"), "--preserve-fds", "20")
    assert (done.returncode, done.stdout) == (1, "")
    assert "descriptor 3 is not open" in done.stderr
    name = lab.start(lab.shell("echo ready; exec sleep 1000"))
    assert "is not open" in lab.command("exec", "--preserve-fds", "2", name, "ls", "/proc/self/fd").stderr
    environ = {**os.environ, "LISTEN_FDS": "5"}  # somebody else's, who is not our parent
    text = lab.output(lab.shell("ls /proc/self/fd; echo $LISTEN_FDS."), env=environ)
    assert text.split() == ["0", "1", "2", "3", "."]  # 3 is the directory itself


def test_hooks_run_in_order(lab: Lab, tmp_path: Path) -> None:
    kinds = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
    config = lab.shell("echo program")
    config["mounts"].append({"destination": "/log", "type": "bind", "source": str(tmp_path), "options": ["bind"]})
    config["hooks"] = {}
    for kind in kinds:
        folder = "/log" if kind == "startContainer" else str(tmp_path)
        script = f"read state; echo {kind} >>{folder}/order; echo \"$state\" >>{folder}/states"
        config["hooks"][kind] = [{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}]
    lab.output(config)
    order = (tmp_path / "order").read_text().split()
    assert [kind for kind in order if kind != "poststart"] == [kind for kind in kinds if kind != "poststart"]
    assert "poststart" in order
    states = (tmp_path / "states").read_text()
    assert states.count('"pid"') == 5 and '"stopped"' in states


def test_a_failing_hook_ends_the_creation(lab: Lab) -> None:
    config = lab.shell("echo never")
    config["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
    result = lab.run(config)
    assert result.returncode == 1
    assert "createRuntime hook /bin/false: exit status 1" in result.stderr
    assert "never" not in result.stdout
    assert not lab.state.exists()


def test_hook_timeout(lab: Lab) -> None:
    config = lab.shell("echo never")
    config["hooks"] = {"prestart": [{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]}
    assert "no end after 1 seconds" in lab.run(config).stderr


def test_resources_are_set_and_hold(lab: Lab) -> None:
    config = lab.shell("cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null;"
                       "for i in 1 2 3 4 5 6 7 8 9; do sleep 5 & done; echo done")
    config["linux"]["resources"].update({"memory": {"limit": 33554432}, "pids": {"limit": 5}})
    result = lab.run(config)
    assert "33554432" in result.stdout
    assert "fork" in result.stderr


def test_seccomp_of_the_configuration(lab: Lab) -> None:
    config = lab.shell("mkdir /tmp/a && echo made; chmod 700 /tmp || echo refused")
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
                                  "syscalls": [{"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}
    for no_new in (True, False):
        config["process"]["noNewPrivileges"] = no_new
        result = lab.run(config)
        assert "refused" in result.stdout, result.stderr
    config["linux"]["seccomp"]["listenerPath"] = "/x"
    assert "listenerPath" in lab.run(config).stderr
