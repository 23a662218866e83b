"""Progress on terminals of any width, in colour and without, as JSON; what --quiet-pull and --quiet-build leave out; warnings and errors."""

from __future__ import annotations

import io
import json
import os
import pty
import re
from typing import Any

import pytest

from orchestra.cli import dryrun
from orchestra.cli.context import Context
from orchestra.cli.main import Globals
from orchestra.cli.menu import Menu
from orchestra.cli.render.progress import Tty, make
from orchestra.errors import OrchestraError

ESCAPE = re.compile(r"\x1b\[[0-9;]*[a-zA-Z]")


def event(resource: str, text: str, status: str = "Working", **more: Any) -> dict[str, Any]:
    return {"resource": resource, "text": text, "status": status, "details": "", "current": 0, "total": 0, **more}


EVENTS = [
    event("Image redis", "Pulling"), event("Layer 0123456789ab", "Downloading", details="redis", current=5, total=10),
    event("Image redis", "Pulled", "Done"), event("Image web", "Building"), event("[stage-0 2/2] RUN make\tall", "log", details="cc -o x\x1b[31m"),
    event("[stage-0 2/2] RUN make\tall", "Error", "Error"), event("", "no such thing", "Warning"), event("Container p-web-1", "Started", "Done"),
]  # fmt: skip


@pytest.mark.parametrize("columns", [1, 2, 10, 20, 29, 30, 31, 40, 80, 200])
@pytest.mark.parametrize("color", [True, False])
def test_no_line_is_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int, color: bool) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    out = io.StringIO()
    renderer = make("tty", out, color=color)
    for one in EVENTS:
        renderer.show(one)
    renderer.close()
    blocks = [line for line in ESCAPE.sub("", out.getvalue()).split("\n") if not line.startswith("warning:")]
    assert max(map(len, blocks)) <= max(1, columns - 1)
    assert ("\033[32m" in out.getvalue()) == color and "\t" not in out.getvalue()


def test_the_terminal_tells_its_width() -> None:
    ours, theirs = pty.openpty()
    try:
        import fcntl
        import struct
        import termios

        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 10, 33, 0, 0))
        with os.fdopen(os.dup(theirs), "w") as stream, pytest.MonkeyPatch.context() as patch:
            patch.delenv("COLUMNS", raising=False)
            Tty(stream).show(event("Container p-web-1", "Started", "Done"))
        line = ESCAPE.sub("", os.read(ours, 4096).decode()).splitlines()[1]
        assert len(line) == 32 and line.endswith("0.0s")
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("kind", ["plain", "json"])
def test_quiet_pull_and_quiet_build(kind: str) -> None:
    def shown(*hushed: str) -> str:
        out = io.StringIO()
        renderer = make(kind, out, hushed=hushed)
        for one in EVENTS:
            renderer.show(one)
        renderer.close()
        return out.getvalue()

    assert "Layer" in shown() and "RUN make" in shown()
    quiet = shown("Layer ", "[")
    assert "Layer" not in quiet and "Pulled" in quiet and "no such thing" in quiet and "log" not in quiet
    assert "Error" in quiet, "errors are shown in any case"


def context(environ: dict[str, str] | None = None, **options: Any) -> Context:
    chosen = Globals()
    for name, value in options.items():
        chosen.set(name, value)
    return Context(chosen, environ or {}, "/", io.StringIO(), io.StringIO())


def test_json_has_nothing_but_objects() -> None:
    here = context(progress="json")
    here.warn("careful")
    here.report(OrchestraError("no", hint="yes"))
    renderer = here.renderer()
    for one in EVENTS:
        renderer.show(one)
    lines = [json.loads(line) for line in here.stderr.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert lines[0] == {"level": "warning", "msg": "careful"} and lines[1]["error"] is True
    assert lines[3] == {"id": "Layer 0123456789ab", "status": "Working", "text": "Downloading", "details": "redis",
                        "current": 5, "total": 10, "percent": 50}  # fmt: skip


def test_quiet_says_warnings_and_errors_only() -> None:
    here = context({"COMPOSE_PROGRESS": "quiet"})
    renderer = here.renderer()
    for one in EVENTS:
        renderer.show(one)
    assert here.stderr.getvalue() == "warning: no such thing\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("value", "on"), [("1", True), ("true", True), ("0", False), ("false", False), ("", False)])
def test_progress_on_standard_output(value: str, on: bool) -> None:
    here = context({"COMPOSE_STATUS_STDOUT": value})
    here.renderer().show(event("Container p-web-1", "Started", "Done"))
    assert ("Started" in here.stdout.getvalue(), "Started" in here.stderr.getvalue()) == (on, not on)  # type: ignore[attr-defined]


def test_a_dry_run_as_json() -> None:
    here, plain = context(progress="json"), context()
    dryrun.lines(here, ["stop p-web-1: down"])
    dryrun.lines(plain, [])
    assert json.loads(here.stdout.getvalue()) == {"dry-run": True, "text": "stop p-web-1: down"}  # type: ignore[attr-defined]
    assert plain.stdout.getvalue() == "DRY-RUN MODE - nothing to do\n"  # type: ignore[attr-defined]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("environ", "options", "color", "kind"), [
    ({}, {}, True, "tty"), ({"NO_COLOR": "1"}, {}, False, "plain"), ({"NO_COLOR": ""}, {}, True, "tty"), ({"TERM": "dumb"}, {}, False, "plain"),
    ({}, {"ansi": "never"}, False, "plain"), ({"NO_COLOR": "1"}, {"ansi": "always"}, True, "tty"), ({"COMPOSE_ANSI": "never"}, {}, False, "plain"),
    ({}, {"no_ansi": True}, False, "plain"), ({"NO_COLOR": "1"}, {"progress": "tty"}, False, "tty"),
])  # fmt: skip
def test_colours_and_the_form_of_progress(environ: dict[str, str], options: dict[str, Any], color: bool, kind: str) -> None:
    here = context(environ, **options)
    here.stderr = Terminal()
    assert (here.color(here.stderr), here.progress_kind()) == (color, kind)


def test_a_pipe_has_no_colours_unless_asked() -> None:
    assert context().color(io.StringIO()) is False and context().progress_kind() == "plain"
    assert context(ansi="always").color(io.StringIO()) is True and context(ansi="always").progress_kind() == "plain"


@pytest.mark.parametrize(("columns", "plain"), [(20, True), (38, True), (60, False), (200, False)])
def test_a_table_that_does_not_fit_is_plain(monkeypatch: pytest.MonkeyPatch, columns: int, plain: bool) -> None:
    from orchestra.cli.render.table import aligned, print_table

    monkeypatch.setenv("COLUMNS", str(columns))
    titles, rows = ["NAME", "IMAGE", "COMMAND"], [["project-web-1", "registry/web:1", '"sh -c true and more words"']]
    out = io.StringIO()
    print_table(out, titles, rows, pretty=True, color=False)
    assert (out.getvalue() == aligned(titles, rows)) == plain
    assert plain or max(map(len, out.getvalue().splitlines())) <= columns


def test_the_keys_of_the_menu() -> None:
    import termios
    import threading

    ours, theirs = pty.openpty()
    pressed: list[str] = []
    told = threading.Event()

    def detach() -> None:
        pressed.append("d")
        told.set()

    before = termios.tcgetattr(theirs)
    try:
        with Menu({"w": lambda: pressed.append("w"), "d": detach}, fd=theirs):
            os.write(ours, b"xWd")
            assert told.wait(20)
        assert pressed == ["w", "d"] and termios.tcgetattr(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)
