"""Records the command line of a docker compose binary, from its ``--help``, as facts: verbs, flags, short forms, kinds, defaults.

    python tests/support/record_flags.py docker-compose > tests/unit/cli/data/docker-compose-flags.json

Flags that the help leaves out but the binary takes are found by asking for each name in HIDDEN.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys

HIDDEN = {
    "": ["--insecure-registry", "--no-ansi", "--verbose", "--version", "--workdir"],
    "build": ["--compress", "--force-rm", "--no-rm", "--parallel", "--progress"],
    "exec": ["--interactive", "--tty"],
    "publish": ["--insecure-registry"],
    "pull": ["--no-parallel", "--parallel"],
    "rm": ["--all"],
    "run": ["--tty"],
    "start": ["--wait", "--wait-timeout"],
}
LINE = re.compile(r"^  (?:(-\w), )?\s*(--[\w-]+)(?: ([a-zA-Z]+))?(?:\s{2,}(.*))?$")


def asked(program: str, *words: str) -> str:
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def verbs(text: str) -> list[str]:
    found = []
    for part in re.split(r"\n\n", text):
        if re.match(r"(Management )?Commands:", part):
            found += [line.split()[0] for line in part.splitlines()[1:] if line.startswith("  ")]
    return found


def flags(text: str) -> dict[str, dict[str, str]]:
    """--name → {short, kind, default}; the help's prose is left out."""
    found: dict[str, dict[str, str]] = {}
    texts: dict[str, str] = {}
    last = ""
    for line in text.partition("\nOptions:\n")[2].splitlines():
        if not line.startswith(" "):
            break
        match = LINE.match(line)
        if match:
            short, last, kind, rest = match.groups()
            found[last] = {"short": short or "", "kind": kind or "bool"}
            texts[last] = rest or ""
        elif last:
            texts[last] += " " + line.strip()
    for name, words in texts.items():
        default = re.search(r'\(default "?([^")]*)"?\)', words)
        if default:
            found[name]["default"] = default[1]
    return found


def usage(text: str) -> str:
    """What stands behind the verb: ``[SERVICE...]``."""
    line = next((line for line in text.splitlines() if line.startswith("Usage:")), "")
    return re.sub(r"^Usage:\s+docker compose ?|\[OPTIONS\] ?", "", line).strip()


def hidden(program: str, words: list[str], known: dict[str, dict[str, str]]) -> list[str]:
    found = []
    for name in HIDDEN.get(" ".join(words), []):
        said = asked(program, *words, f"{name}=1", "--help")
        if name not in known and f"unknown flag: {name}" not in said:
            found.append(name)
    return found


def main(program: str) -> None:
    version = asked(program, "version", "--short").strip()
    top = asked(program, "--help")
    result: dict[str, object] = {"version": version, "global": {"flags": flags(top), "hidden": hidden(program, [], flags(top))}}
    found = {}
    pending = [[verb] for verb in verbs(top)]
    while pending:
        words = pending.pop(0)
        text = asked(program, *words, "--help")
        inner = verbs(text)
        pending += [[*words, verb] for verb in inner]
        if not inner:
            told = flags(text)
            found[" ".join(words)] = {"usage": usage(text), "flags": told, "hidden": hidden(program, words, told)}
    result["verbs"] = dict(sorted(found.items()))
    json.dump(result, sys.stdout, indent=1, sort_keys=True)
    print()


if __name__ == "__main__":
    main(sys.argv[1])
