"""What a command may load. Start-up is most of what a short command costs, so each module is on a budget."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestra.cli.table import GROUPS, VERBS

HEAVY = {
    "asyncio", "concurrent.futures", "dataclasses", "email", "http.client", "inspect", "jsonschema", "logging", "networkx",
    "pathlib", "pyroute2", "rich", "shutil", "socket", "sqlite3", "ssl", "subprocess", "tarfile", "typing", "urllib.request", "yaml",
}  # fmt: skip

# Beyond the modules named here none of HEAVY may be loaded by the whole command.
WHOLE: dict[str, tuple[list[str], set[str]]] = {
    "version": (["version"], set()),
    "version as data": (["version", "--format", "json"], set()),
    "help": (["--help"], set()),
    "config -q": (["config", "-q"], {"yaml"}),
    "config --services": (["config", "--services"], {"yaml"}),
    "config": (["config"], {"yaml"}),
    "graph": (["graph", "--format", "mermaid"], {"yaml", "dataclasses", "inspect", "typing", "pathlib", "shutil", "socket", "networkx", "logging",
                                                 "concurrent.futures", "subprocess", "urllib.request", "http.client", "email", "ssl", "tarfile", "asyncio"}),
}  # fmt: skip

# What finding out the verb and reading its flags may load besides nothing.
NEVER = HEAVY - {"typing", "dataclasses", "inspect", "pathlib", "shutil", "socket", "subprocess"}

PROGRAM = """
import json, os, sys
def leave(code):
    sys.stderr.write("MODULES" + json.dumps(sorted(sys.modules)))
    sys.stderr.flush()
    sys.exit(code)
os._exit = leave
sys.argv = json.loads(sys.argv[1])
from orchestra.cli.main import entry
entry()
"""

PARSERS = """
import json, sys
import importlib
from orchestra.cli.main import make_parser
module = importlib.import_module("orchestra.cli.verbs." + sys.argv[1])
getattr(module, "add_" + sys.argv[2] if sys.argv[2] else "add_arguments")(make_parser("x"))
print(json.dumps(sorted(sys.modules)))
"""


def python(code: str, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "HOME": "/", "ORCHESTRA_ROOT": "/nonexistent"}
    root = str(Path(__file__).resolve().parents[3])
    code = f"import sys; sys.path.insert(0, {root!r})\n{code}"
    return subprocess.run(
        [sys.executable, "-I", "-c", code, *words], capture_output=True, text=True, check=False, cwd=cwd, env=environ
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "compose.yaml").write_text(
        "name: p\nservices:\n  a: {image: x, ports: ['80:80'], depends_on: [b], environment: {A: $HOME}}\n  b: {image: y, mem_limit: 64m}\n"
    )
    return tmp_path


@pytest.mark.parametrize("name", list(WHOLE))
def test_a_whole_command(folder: Path, name: str) -> None:
    words, allowed = WHOLE[name]
    done = python(PROGRAM, json.dumps(["orchestra", *words]), cwd=folder)
    said, _, text = done.stderr.rpartition("MODULES")
    assert done.returncode == 0, said
    assert sorted(HEAVY & set(json.loads(text)) - allowed) == []


@pytest.mark.parametrize("target", sorted({*VERBS.values(), *(t for group in GROUPS.values() for t in group.values())}))
def test_reading_the_flags(target: str) -> None:
    module, _, function = target.partition(":")
    done = python(PARSERS, module, function)
    assert done.returncode == 0, done.stderr
    assert sorted(NEVER & set(json.loads(done.stdout))) == []


@pytest.mark.parametrize("words", [["version"], ["--help"], ["config"]])
def test_output_that_cannot_be_written(folder: Path, words: list[str]) -> None:
    code = f"import sys; sys.argv = {['orchestra', *words]!r}; from orchestra.cli.main import entry; entry()"
    root = str(Path(__file__).resolve().parents[3])
    command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {root!r})\n{code}"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=folder, check=False)
    assert done.returncode == 1
    assert "cannot write the output: no space left on device" in done.stderr and "Traceback" not in done.stderr
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], stderr=subprocess.PIPE, text=True, cwd=folder, check=False)
    assert done.returncode == 0 and done.stderr == ""


def test_the_daemon_does_not_load_what_shims_do() -> None:
    done = python("import json\nimport orchestra.controller.api\nprint(json.dumps(sorted(sys.modules)))")
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    shims = {"shim_server", "shim_ops", "shim_container", "shim_birth", "shim_rehearsal", "quick", "create", "init", "process"}
    assert sorted({f"orchestra.runtime.{name}" for name in shims} & loaded) == []
