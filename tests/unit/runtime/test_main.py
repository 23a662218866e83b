"""The command line of ``orchestra-runtime``, without any container."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from orchestra.errors import OrchestraError, UsageError
from orchestra.runtime import commandline, inspecting, lifecycle, main, report, state
from orchestra.runtime.problems import StepError


@pytest.mark.parametrize(("text", "number"), [("9", 9), ("KILL", 9), ("SIGTERM", 15), ("usr1", 10), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)])
def test_signals(text: str, number: int) -> None:
    assert lifecycle.signal_number(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "NONE", "SIG", "RTMIN+x", "RTMIN+31", "RTMAX-31"])
def test_unknown_signals(text: str) -> None:
    with pytest.raises(OrchestraError):
        lifecycle.signal_number(text)


def test_numbers_and_times() -> None:
    assert [inspecting.number(text) for text in ("5", "-1", "2k", "64m", "1gb")] == [5, -1, 2048, 64 << 20, 1 << 30]
    with pytest.raises(OrchestraError):
        inspecting.number("x")
    assert [commandline._seconds(text) for text in ("5", "5s", "200ms", "1m")] == [5.0, 5.0, 0.2, 60.0]


@pytest.mark.parametrize("number", ["-1", "x", "99999999999", "\u00b2"])
def test_numbers_of_descriptors(number: str) -> None:
    """A negative one would close the standard ones."""
    for verb in ("create", "run", "exec"):
        with pytest.raises(UsageError):
            commandline.parser().parse_args([verb, f"--preserve-fds={number}", "x"])


def test_podmans_words_are_understood() -> None:
    found = commandline.parser().parse_args(["--log-format=json", "--log", "/l", "--root=/r", "create", "--bundle", "/b", "--pid-file", "/p",
                                      "--console-socket", "/c", "--no-new-keyring", "--preserve-fds", "2", "name"])
    assert (found.verb, found.bundle, found.id, found.preserve_fds) == ("create", "/b", "name", 2)
    found = commandline.parser().parse_args(["exec", "-d", "--pid-file", "/p", "--process", "/x", "name"])
    assert (found.id, found.process, found.command, found.detach) == ("name", "/x", [], True)
    found = commandline.parser().parse_args(["exec", "-t", "name", "ls", "-l"])
    assert (found.id, found.command, found.tty) == ("name", ["ls", "-l"], True)
    found = commandline.parser().parse_args(["kill", "--all", "name", "9"])
    assert (found.all, found.signal) == (True, "9")


def test_each_command_is_declared_alone() -> None:
    everything = commandline.parser()._subparsers._group_actions[0].choices
    assert sorted(name for names in commandline.FAMILIES.values() for name in names) == sorted(everything)
    for name in everything:
        alone = commandline.parser(name)._subparsers._group_actions[0].choices
        assert name in alone and alone[name].format_help() == everything[name].format_help()
    with pytest.raises(OrchestraError, match="invalid choice: 'checkpoint'"):
        commandline.parser("checkpoint").parse_args(["checkpoint"])


@pytest.mark.parametrize(("words", "verb"), [
    ("--root /create --log=/l --log-format json --debug exec --root x", "exec"), ("", ""), ("--version", ""), ("--help kill", ""),
    ("kill --help", "kill"), ("--root", "")])
def test_the_command_is_found_at_once(words: str, verb: str) -> None:
    assert main.verb_of(words.split()) == verb


@pytest.mark.parametrize("verb", ["state", "kill", "start", "delete"])
def test_a_command_loads_no_more_than_it_needs(tmp_path: Path, verb: str) -> None:
    code = f"""import sys; sys.path.insert(0, {str(Path(main.__file__).parents[2])!r})
from orchestra.linux import selfexe
from orchestra.runtime import main
assert not {{"argparse", "json", "typing", "re"}} & set(sys.modules), "needed before the copy of the interpreter runs"
main.main(["--root", {str(tmp_path)!r}, {verb!r}, "none"])
print(*sorted({{"dataclasses", "socket", "subprocess", "shutil", "orchestra.runtime.create", "orchestra.runtime.init"}} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == "orchestra-runtime: error: container none does not exist\n"
    assert done.stdout == "\n"


def test_update_options_become_resources() -> None:
    words = ["update", "--memory", "1m", "--cpuset-cpus", "0-1", "--pids-limit", "5", "x"]
    found = inspecting.resources(commandline.parser().parse_args(words))
    assert found == {"memory": {"limit": 1 << 20}, "cpu": {"cpus": "0-1"}, "pids": {"limit": 5}}


def test_errors_go_to_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    assert main.main(["--root", str(tmp_path), "--log", str(log), "--log-format", "json", "state", "none"]) == 1
    assert json.loads(log.read_text())["msg"] == "container none does not exist"
    assert "container none does not exist" in capsys.readouterr().err


def test_a_bug_is_in_the_log_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state.Store, "load", lambda *_: 1 / 0)
    log = tmp_path / "log"
    with pytest.raises(ZeroDivisionError):
        main.main(["--root", str(tmp_path), f"--log={log}", "state", "none"])
    assert 'level=error msg="internal error: ZeroDivisionError' in log.read_text()


def test_warnings_go_to_the_log_where_there_is_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    report.warner(Namespace(log=str(log), log_format="json"))("one")
    report.warner(Namespace(log="", log_format="text"))("two")
    report.warner(Namespace(log=str(tmp_path / "no/log"), log_format="text"))("three")
    assert [json.loads(line)["msg"] for line in log.read_text().splitlines()] == ["one"]
    assert capfd.readouterr().err.splitlines() == [f"orchestra-runtime: warning: {word}" for word in ("two", "three")]


def test_exec_process_from_words() -> None:
    config = {"process": {"args": ["x"], "terminal": True, "env": ["A=1"], "user": {"uid": 0},
                          "capabilities": {"bounding": ["CAP_CHOWN"]}}}
    options = Namespace(process=None, command=["ls"], tty=False, env=["B=2"], cwd="/tmp", user="5:6", additional_gids=[7],
                        no_new_privs=True, cap=["CAP_KILL"])
    found = lifecycle.exec_process(config, options)
    assert found["args"] == ["ls"] and not found["terminal"] and found["env"] == ["A=1", "B=2"]
    assert found["user"] == {"uid": 5, "gid": 6, "additionalGids": [7]}
    assert found["capabilities"]["bounding"] == ["CAP_CHOWN", "CAP_KILL"]
    options.user = "name"
    with pytest.raises(OrchestraError):
        lifecycle.exec_process(config, options)


def test_cgroup_paths() -> None:
    assert lifecycle.cgroup_path({}, "x") == "/orchestra-runtime/x"
    assert lifecycle.cgroup_path({"linux": {"cgroupsPath": "a/b"}}, "x") == "/a/b"
    with pytest.raises(OrchestraError):
        lifecycle.cgroup_path({"linux": {"cgroupsPath": "a.slice:b:c"}}, "x")


def test_records(tmp_path: Path) -> None:
    store = state.Store(str(tmp_path / "root"))
    assert store.all() == []
    store.reserve("a")
    with pytest.raises(OrchestraError, match="already exists"):
        store.reserve("a")
    assert store.all() == []
    record = state.Record("a", "/b", 2**22 + 9, 1, "now", "/r", "1.2.0")
    store.save(record)
    assert store.all() == [record]
    assert state.describe(store, record)["status"] == "stopped"
    for name in ("../a", "", "a/b", ".", "a\0"):
        with pytest.raises(OrchestraError):
            store.folder(name)
    store.remove("a")
    assert store.all() == []


def test_the_door_works_with_long_paths(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    door = state.open_door(str(folder))
    assert (folder / "start.sock").is_socket()
    door.close()
    with pytest.raises(StepError, match="does not wait"):
        state.knock(str(folder))


def test_step_errors_cross_as_data() -> None:
    error = StepError.from_step(StepError("exec", 2, "/x", "no such file").to_step())
    assert (error.step, error.errno, error.path, error.exit_code) == ("exec", 2, "/x", 127)
    assert StepError('exec "x"', 13, None, "denied").exit_code == 126
    assert StepError("mount", 13, None, "denied").exit_code == 1
    assert StepError.of("s", FileNotFoundError(2, "gone", "/f")).message == "gone (/f)"
