"""Times, ports, sizes and templates as users read them; short forms as they write them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestra.cli import shortforms
from orchestra.cli.main import Globals, main, split
from orchestra.cli.render import words
from orchestra.cli.render.table import aligned
from orchestra.cli.render.template import render
from orchestra.errors import OrchestraError

HERE = SimpleNamespace(cwd="/here", environ={})


@pytest.mark.parametrize(("seconds", "text"), [
    (0, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (150, "2 minutes"), (3600, "About an hour"),
    (7200, "2 hours"), (86400 * 3, "3 days"), (86400 * 20, "2 weeks"), (86400 * 100, "3 months"), (86400 * 800, "2 years"),
])  # fmt: skip
def test_ago(seconds: float, text: str) -> None:
    assert words.ago(seconds) == text


def test_moments_and_durations() -> None:
    assert words.duration("1m30s") == 90 and words.duration("5") == 5
    assert words.moment("42m", now=10000) == 10000 - 2520
    assert words.moment("1970-01-01T00:01:00Z") == 60
    for bad in ("abc", "1x", ""):
        with pytest.raises(OrchestraError):
            words.duration(bad)


def info(**more: object) -> dict[str, object]:
    base = {"state": "running", "started": 0.0, "finished": 0.0, "health": "", "exit_code": 0, "publishers": []}
    return {**base, **more}


def test_status() -> None:
    assert words.status(info(health="healthy"), 300) == "Up 5 minutes (healthy)"
    assert words.status(info(health="starting"), 3) == "Up 3 seconds (health: starting)"
    assert words.status(info(state="exited", exit_code=137, oom_killed=True), 3) == "Exited (137, OOM killed) 3 seconds ago"
    assert words.status(info(state="paused"), 3) == "Up 3 seconds (Paused)"
    assert words.status(info(state="created")) == "Created"


def test_ports() -> None:
    found = info(publishers=[["", 80, 8080, "tcp"], ["::", 80, 8080, "tcp"], ["", 53, 0, "udp"]])
    assert words.ports(found) == "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp, 53/udp"


def test_templates() -> None:
    value = {"Name": "x", "Labels": {"a": "1"}, "List": ["p", "q"], "On": True}
    assert render("{{.Name}}\\t{{upper .Name}}", value) == "x\tX"
    assert render('{{json .List}} {{index .Labels "a"}} {{join .List ","}} {{len .List}}', value) == '["p", "q"] 1 p,q 2'
    assert render("{{range .List}}<{{.}}>{{end}}{{if .On}}yes{{else}}no{{end}}", value) == "<p><q>yes"
    for bad in ("{{.Nope}}", "{{frob .Name}}", "{{if .On}}"):
        with pytest.raises(OrchestraError):
            render(bad, value)


def test_aligned() -> None:
    assert aligned(["A", "LONG"], [["xyz", "1"]]) == "A     LONG\nxyz   1\n"


def test_mounts_and_ports_of_the_command_line() -> None:
    bind = shortforms.mount(HERE, "./a:/b:ro")  # type: ignore[arg-type]
    assert (bind["type"], bind["source"], bind["target"], bind["read_only"]) == ("bind", "/here/a", "/b", True)
    assert shortforms.mount(HERE, "/data")["source"] == ""  # type: ignore[arg-type]
    assert [p["published"] for p in shortforms.port("8000-8001:80-81/udp")] == ["8000", "8001"]
    assert shortforms.port("127.0.0.1::80")[0]["host_ip"] == "127.0.0.1"
    assert shortforms.port("[::1]:8080:80")[0]["host_ip"] == "::1"
    assert shortforms.byte_size("1.5g") == 3 << 29
    for bad in ("1:2:3:4", "x", "70000", "80/xyz", "1-2:5-9"):
        with pytest.raises(OrchestraError):
            shortforms.port(bad)


@pytest.mark.parametrize("bad", [
    "type=bind,src=/a,dst=/b,bind-recursiv=disabled", "type=bind,src=/a,dst=/b,bind-recursive=no", "type=bind,src=/a,dst=/b,volume-nocopy",
    "type=bind,src=/a,dst=/b,readonly=maybe", "type=bind,src=/a,dst=/b,bind-propagation=odd", "type=tmpfs,dst=/b,tmpfs-mode=9", "dst=/b,volume-opt=x",
    "type=bind,dst=/b", "dst=b", "type=npipe,dst=/b",
])  # fmt: skip
def test_mount_options_that_are_none(bad: str) -> None:
    with pytest.raises(OrchestraError):
        shortforms.mount_option(HERE, bad)  # type: ignore[arg-type]


def test_mount_options() -> None:
    found = shortforms.mount_option(HERE, "type=bind,src=a,dst=/b,ro,bind-recursive=writable,bind-propagation=rslave,consistency=cached")  # type: ignore[arg-type]
    assert (found["source"], found["read_only"]) == ("/here/a", True)
    assert found["bind"] == {"propagation": "rslave", "recursive": "writable", "create_host_path": False}
    assert shortforms.mount_option(HERE, "type=bind,src=/a,dst=/b,bind-nonrecursive=true")["bind"]["recursive"] == "disabled"  # type: ignore[arg-type]
    assert not shortforms.mount_option(HERE, "dst=/b,readonly=false")["read_only"]  # type: ignore[arg-type]


def test_global_options_before_the_verb() -> None:
    options = Globals()
    assert split(["-f", "a", "--file=b", "-pname", "--dry-run", "up", "-d"], options) == ("up", ["-d"])
    assert (options.file, options.project_name, options.dry_run) == (["a", "b"], "name", True)
    with pytest.raises(OrchestraError, match="unknown flag"):
        split(["--nope", "up"], Globals())


def test_errors_have_exit_codes_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["frob"]) == 1
    assert "unknown command" in capsys.readouterr().err
    assert main(["version", "--short"]) == 0
    assert main(["--help"]) == 0


def test_a_file_named_behind_the_verb_counts_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text("services: {a: {image: x, security_opt: [no-new-privileges]}}")
    assert main(["config", "-q", "-f", str(path)]) == 0, capsys.readouterr().err
