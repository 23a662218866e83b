"""Writes the manual pages docs/orchestra.1 and docs/orchestra-runtime.1 from the parsers of the two commands.

    python docs/man.py          # writes both (make docs)

tests/unit/test_man.py compares the files with what this makes. Only the text that no parser has is written here.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from orchestra import __version__  # noqa: E402
from orchestra.cli.helptexts import TEXTS  # noqa: E402
from orchestra.cli.main import parser_of  # noqa: E402
from orchestra.cli.table import ALIASES, GLOBALS, GROUPS, HIDDEN, SUMMARIES, VERBS  # noqa: E402
from orchestra.runtime.commandline import parser as runtime_parser  # noqa: E402

ENVIRONMENT = (
    ("COMPOSE_FILE", "compose files, separated by COMPOSE_PATH_SEPARATOR (a colon)"),
    ("COMPOSE_PROJECT_NAME", "as --project-name"),
    ("COMPOSE_PROFILES", "profiles, separated by commas"),
    ("COMPOSE_ENV_FILES", "files as of --env-file, separated by commas"),
    ("COMPOSE_DISABLE_ENV_FILE", "do not read .env"),
    ("COMPOSE_PROGRESS, COMPOSE_ANSI, COMPOSE_PARALLEL_LIMIT", "as --progress, --ansi and --parallel"),
    ("COMPOSE_REMOVE_ORPHANS, COMPOSE_IGNORE_ORPHANS", "remove orphans, or say nothing about them"),
    ("COMPOSE_STATUS_STDOUT", "progress on standard output"),
    ("COMPOSE_MENU", "as --menu of up"),
    ("ORCHESTRA_ROOT", "state directory of the engine, as --root"),
    ("ORCHESTRA_RUN", "where an engine with a root of its own keeps what need not outlive a reboot"),
    ("NO_COLOR", "no colours, unless --ansi always"),
    ("COLUMNS, LINES", "size of the terminal"),
    ("DOCKER_CONFIG", "folder of config.json with credentials of registries"),
    ("http_proxy, https_proxy, all_proxy, no_proxy", "proxies on the way to registries"),
    ("SOURCE_DATE_EPOCH", "time stamp of what is made, for images that can be made again"),
)
STATUS = (
    ("0", "good"),
    ("1", "any error"),
    ("125", "container run: the container could not be made or started"),
    ("126, 127", "exec, run, container run: the command cannot be run, or is not there"),
    ("130", "interrupted (Ctrl-C)"),
    ("141", "nobody reads the output any more"),
    (
        "other",
        "exec, run, attach, wait, container run, and up with --exit-code-from, --abort-on-container-exit or "
        "--abort-on-container-failure: the container's own code (128 and the signal's number after a signal)",
    ),
)
FILES = (
    ("compose.yaml, compose.yml, docker-compose.yaml, docker-compose.yml", "the compose file, looked for upwards"),
    (".env", "variables for the compose file"),
    ("/etc/orchestra/daemon.json", "settings of the engine"),
    ("/var/lib/orchestra, /run/orchestra", "images, volumes and containers; sockets and logs of the daemon"),
)


def escaped(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    text = "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in text)
    return f"\\&{text}" if text.startswith((".", "'")) else text


def value(action: argparse.Action) -> str:
    """What stands for an argument's value."""
    if isinstance(action.metavar, str):
        return action.metavar
    if action.choices is not None and action.option_strings:
        return "|".join(map(str, action.choices))
    return action.dest.upper() if action.option_strings else action.dest


def words(parser: argparse.ArgumentParser) -> str:
    """The positional arguments as the synopsis shows them."""
    forms = {"?": "[{}]", "*": "[{} ...]", "+": "{} ...", argparse.REMAINDER: "[{} ...]"}
    found = [a for a in parser._actions if not a.option_strings and a.help != argparse.SUPPRESS]
    return " ".join(forms.get(str(a.nargs), "{}").format(value(a)) for a in found)


def options(actions: list[argparse.Action]) -> list[str]:
    lines = []
    for action in actions:
        if not action.option_strings or action.help == argparse.SUPPRESS or action.dest == "help":
            continue
        names = ", ".join(f"\\fB{escaped(name)}\\fR" for name in sorted(action.option_strings, key=len))
        lines += [".TP", names + ("" if action.nargs == 0 else f" \\fI{escaped(value(action))}\\fR")]
        told = action.help or TEXTS.get(max(action.option_strings, key=len)) or "(see the OCI runtime specification)"
        lines.append(escaped(told.replace("%%", "%")))
    return lines


def pairs(rows: tuple[tuple[str, str], ...]) -> list[str]:
    return [line for name, text in rows for line in (".TP", f"\\fB{escaped(name)}\\fR", escaped(text))]


def head(name: str, summary: str) -> list[str]:
    title = f'.TH {name.upper()} 1 "" "orchestra {__version__}" "User Commands"'
    return ['.\\" Made by docs/man.py: do not edit.', title, ".SH NAME", f"{escaped(name)} \\- {escaped(summary)}"]


def command(name: str, target: str) -> list[str]:
    parser = parser_of(name, target)
    lines = [f'.SS "{escaped(name)}"', escaped(SUMMARIES.get(name, "")) + ".", ".PP"]
    lines.append(f"\\fBorchestra {escaped(name)}\\fR [options] {escaped(words(parser))}".rstrip())
    return lines + options(parser.described())


def orchestra() -> str:
    """orchestra.1"""
    lines = head("orchestra", "compose files on plain Linux")
    lines += [".SH SYNOPSIS", "\\fBorchestra\\fR [options] \\fICOMMAND\\fR [...]"]
    lines += [
        ".SH DESCRIPTION",
        "orchestra reads a Compose file and brings what runs in line with it, on a container runtime of its own.",
        "Verbs, flags and exit codes are those of docker compose; the groups "
        + escaped(", ".join(GROUPS))
        + " have docker's verbs for single objects.",
        ".PP",
        "A switch takes \\fB=true\\fR and \\fB=false\\fR, too (\\fB\\-\\-pause=false\\fR).",
    ]
    lines += [".SH OPTIONS", "They stand before the command, or behind it where it has no option of that name itself."]
    for names, meta, text in GLOBALS:
        shown = ", ".join(f"\\fB{escaped(name.strip())}\\fR" for name in names.split(","))
        lines += [".TP", shown + (f" \\fI{escaped(meta)}\\fR" if meta else ""), escaped(text)]
    lines.append(".SH COMMANDS")
    for name, target in VERBS.items():
        if name not in HIDDEN:
            lines += command(name, target)
    for group, verbs in GROUPS.items():
        lines.append(f".SH COMMANDS OF {group.upper()}")
        second = [f"{alias} is {word}" for alias, word in ALIASES.items() if word in verbs]
        if second:
            lines.append(escaped(f"Second names: {', '.join(second)}."))
        for word, target in verbs.items():
            lines += command(f"{group} {word}", target)
    lines += [".SH EXIT STATUS", *pairs(STATUS), ".SH ENVIRONMENT", *pairs(ENVIRONMENT), ".SH FILES", *pairs(FILES)]
    lines += [".SH SEE ALSO", "\\fBorchestra\\-runtime\\fR(1)"]
    return "\n".join(lines) + "\n"


def runtime() -> str:
    """orchestra-runtime.1"""
    top = runtime_parser()
    lines = head("orchestra-runtime", "run containers from OCI bundles")
    lines += [".SH SYNOPSIS", "\\fBorchestra\\-runtime\\fR [options] \\fICOMMAND\\fR [...]"]
    lines += [".SH DESCRIPTION", escaped(top.description or ""), "The command line is that of runc and crun."]
    lines += [".SH OPTIONS", *options(top._actions), ".SH COMMANDS"]
    verbs = next(a for a in top._actions if isinstance(a, argparse._SubParsersAction))
    for name, parser in verbs.choices.items():
        lines += [f'.SS "{escaped(name)}"', escaped(parser.description or ""), ".PP"]
        lines.append(f"\\fBorchestra\\-runtime {escaped(name)}\\fR [options] {escaped(words(parser))}".rstrip())
        lines += options(parser._actions)
    lines += [".SH SEE ALSO", "\\fBorchestra\\fR(1)"]
    return "\n".join(lines) + "\n"


PAGES = {"orchestra.1": orchestra, "orchestra-runtime.1": runtime}


def main() -> None:
    for name, make in PAGES.items():
        (ROOT / "docs" / name).write_text(make())


if __name__ == "__main__":
    main()
