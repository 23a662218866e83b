"""Write ``docs/compose-differences.md`` from the ``difference.json`` files of the corpus."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import switches
from support.compose_cases import cases

PAGE = Path(__file__).resolve().parents[3] / "docs/compose-differences.md"
HEAD = """# Where loading differs from docker compose on purpose

docker compose here is 2.40. Each difference has a case below `tests/conformance/compose/cases/` with a
`difference.json`, or (for the switches of `config`) an entry in `switches.json` beside them; every other case of the corpus gives the same model or the same refusal. Written by
`tests/conformance/compose/differences.py`.

| reason | cases |
|---|---|
"""
TAIL = """| A number that is not finite (`.inf`, `.nan`) is an error anywhere; docker compose fails only when it prints JSON | unit tests |
| A bare date below an `x-` key stays the text that was written; docker compose prints a timestamp | unit tests |
| `--hash` prints digests of our own, which leave out what does not shape a container | unit tests |
| `--resolve-image-digests` and `--lock-image-digests` take the digests of the local store; docker compose asks the registry | unit tests |
"""


def page() -> str:
    rows: dict[str, list[str]] = {}
    for case in cases():
        difference = case.read("difference.json")
        if difference is not None:
            rows.setdefault(difference["reason"], []).append(f"`{case.name}`")
    for name, answer in json.loads(switches.ANSWERS.read_text()).items():
        if "differs" in answer:
            rows.setdefault(answer["differs"], []).append(f"`{name}`")
    lines = [f"| {reason[0].upper()}{reason[1:]} | {', '.join(names)} |\n" for reason, names in rows.items()]
    return HEAD + "".join(lines) + TAIL


if __name__ == "__main__":
    PAGE.write_text(page())
