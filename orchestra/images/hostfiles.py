"""What belongs to a program of this machine besides its shared libraries: a script's interpreter, the
standard library of Python and Perl, the applets of busybox.

Interpreters are asked themselves (they know best where their library is), with a time limit.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field

_PYTHON = re.compile(r"python(\d+(\.\d+)?)?")
_PERL = re.compile(r"perl(5[\d.]*)?")
_PYTHON_SKIP = re.compile(
    r"/(?:site-packages|dist-packages|test|tests|idlelib|tkinter|turtledemo|lib2to3|ensurepip|config-[^/]*)$"
    r"|/(?:turtle\.py)$|\.opt-[12]\.pyc$|/_tkinter\.[^/]*$|/libpython[^/]*\.a$"
)
_PYTHON_ASK = (
    "import sys, sysconfig\n"
    "print(getattr(sys, '_base_executable', sys.executable) or sys.executable)\n"
    "p = sysconfig.get_paths(vars={'base': sys.base_prefix, 'platbase': sys.base_exec_prefix})\n"
    "print(p['stdlib']); print(p['platstdlib'])\n"
)
_PERL_ASK = r'print join("\n", grep { -d } @INC)'


@dataclass(frozen=True, slots=True)
class Tree:
    source: str
    skip: Callable[[str], bool] | None = None


@dataclass(slots=True)
class Runtime:
    """``links`` are (path, target), made only where nothing else is."""

    trees: list[Tree] = field(default_factory=list)
    programs: list[str] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def interpreter_of(path: str) -> list[str]:
    """The programs that a ``#!`` line names (with ``env``: both)."""
    with open(path, "rb") as stream:
        head = stream.read(256)
    if not head.startswith(b"#!"):
        return []
    words = os.fsdecode(head[2:].split(b"\n", 1)[0]).split()
    if not words:
        return []
    if os.path.basename(words[0]) == "env":
        rest = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
        return [words[0], *rest[:1]]
    return words[:1]


def runtime_files(path: str, *, applets: bool) -> Runtime:
    """What the program at the real path ``path`` brings."""
    name = os.path.basename(path)
    runtime = Runtime()
    if _PYTHON.fullmatch(name):
        _python(path, runtime)
    elif _PERL.fullmatch(name):
        _perl(path, runtime)
    elif name == "busybox" and applets:
        _busybox(path, runtime)
    return runtime


def _ask(command: list[str], runtime: Runtime) -> list[str]:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        runtime.warnings.append(f"{command[0]} does not tell what it needs: {error}")
        return []
    return done.stdout.splitlines()


def _python(path: str, runtime: Runtime) -> None:
    lines = _ask([path, "-I", "-S", "-c", _PYTHON_ASK], runtime)
    if not lines:
        return
    if os.path.realpath(lines[0]) != path and os.path.exists(lines[0]):
        runtime.programs.append(lines[0])  # a virtual environment's interpreter
    for folder in dict.fromkeys(lines[1:]):
        if os.path.isdir(folder):
            runtime.trees.append(Tree(folder, lambda name: _PYTHON_SKIP.search(name) is not None))


def python_behind(path: str) -> str:
    """The real interpreter where ``path`` is a script that starts one (pyenv and its like)."""
    if _PYTHON.fullmatch(os.path.basename(path)) and interpreter_of(path):
        lines = _ask([path, "-I", "-S", "-c", _PYTHON_ASK], Runtime())
        if lines and os.path.isfile(lines[0]):
            return lines[0]
    return path


def _perl(path: str, runtime: Runtime) -> None:
    for folder in dict.fromkeys(_ask([path, "-e", _PERL_ASK], runtime)):
        if os.path.isdir(folder) and not folder.startswith("/etc"):
            runtime.trees.append(Tree(folder))


def _busybox(path: str, runtime: Runtime) -> None:
    for applet in _ask([path, "--list-full"], runtime):
        clean = applet.strip().strip("/")
        if clean and os.path.basename(clean) not in ("busybox", "linuxrc") and ".." not in clean:
            runtime.links.append((f"/{clean}", path))
