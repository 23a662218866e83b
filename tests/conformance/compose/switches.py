"""The switches of ``config``: ``python switches.py`` records docker compose's answers in ``switches.json``.

Each entry is [case of the corpus, global words, words behind ``config``]. An answer is the text printed
(``$DIR`` for the copy's path), or null where docker compose refuses. The words of ``differs`` tell why an
answer of ours is another one on purpose; it is kept in ``ours``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from support.compose_cases import Case, cases

ANSWERS = Path(__file__).with_name("switches.json")
MON, DEV, CI, WP, AIR, KAFKA, MERGE, HOME, NEXT, SUPA = (
    "real-monitoring", "real-dev-overrides", "real-ci-farm", "real-wordpress-fleet", "real-airflow", "real-kafka",
    "real-merge-stack", "real-homeassistant", "real-nextcloud", "real-supabase")
LISTS = ("--services", "--volumes", "--networks", "--profiles", "--images", "--environment")
WORDS: list[tuple[str, str, str]] = [
    *((case, "", kind) for case in (MON, DEV, CI) for kind in LISTS),
    *((case, "", "") for case in (MON, DEV, WP, AIR, KAFKA, MERGE, HOME, NEXT, SUPA)),
    *((case, "", "--variables") for case in (MON, DEV, WP, AIR, SUPA, NEXT)),
    (CI, "", "--models"), (MON, "", "--models"), (MON, "", "-q"),
    (MON, "--profile probes", "--services"), (MON, "--profile *", "--services"), (MON, "--profile nope", "--services"),
    (MON, "--profile batch --profile probes", "--images"), (MON, "--all-resources", "--volumes"),
    (MON, "-p other", ""), (MON, "-p other", "--volumes"), (MON, "-p other", "--format json"), (MON, "-p Other", "-q"),
    (MON, "", "grafana"), (MON, "", "--format json grafana"), (MON, "", "--services grafana"), (MON, "", "blackbox"),
    (MON, "", "--images prometheus"), (MON, "", "--volumes loki"), (MON, "", "--networks loki"), (MON, "", "nope"),
    (MON, "", "--profiles loki"), (MON, "", "--quiet nope"),
    (MON, "", "--no-normalize"), (MON, "", "--no-normalize --format json"), (MON, "", "--no-path-resolution"),
    (MON, "", "--no-path-resolution --format json"), (MON, "", "--no-consistency"), (MON, "", "--no-interpolate"),
    (MON, "", "--no-interpolate --no-normalize"), (MON, "", "--no-interpolate --no-path-resolution"),
    (MON, "", "--no-interpolate --services"), (MON, "", "--no-interpolate --images"), (MON, "", "--no-interpolate --volumes"),
    (MON, "", "--no-interpolate --format json"), (MON, "", "--no-interpolate loki"), (MON, "", "--no-env-resolution"),
    (DEV, "", "--no-env-resolution"), (DEV, "", "--no-normalize --no-path-resolution --no-env-resolution"),
    (DEV, "", "--no-path-resolution"), (DEV, "", "--no-interpolate"), (DEV, "", "--no-normalize"), (DEV, "", "worker"),
    (DEV, "--profile test", "--services"), (DEV, "--project-directory deploy", "-q"), (DEV, "-p x_y-1", "--images"),
    (DEV, "", "--no-consistency --no-normalize --services"),
    (AIR, "", "--no-interpolate"), (AIR, "", "--no-interpolate --no-normalize"), (AIR, "--profile flower", "--services flower"),
    (AIR, "", "airflow-cli --services"), (AIR, "--profile debug", "airflow-cli"),
    (KAFKA, "", "--no-normalize kafka1"), (KAFKA, "", "--no-interpolate"), (KAFKA, "--profile tools", "--services"),
    (KAFKA, "--compatibility", "--images"), (CI, "--compatibility", "--images"), (CI, "", "--no-path-resolution builder"),
    (CI, "", "--no-normalize --no-path-resolution toolchain"), (CI, "", "--no-interpolate"), (CI, "", "gpu-runner"),
    (WP, "--project-directory db", "--images"), (WP, "", "--no-path-resolution"), (WP, "", "--no-interpolate"),
    (WP, "--env-file fleet.env", "--images"), (WP, "--profile admin", "--networks"), (WP, "", "shop --format json"),
    (MERGE, "", "--no-normalize"), (MERGE, "", "--no-interpolate"), (MERGE, "", "app --no-consistency"),
    (MERGE, "", "--no-normalize --no-consistency --format json"), (HOME, "", "--no-normalize deluge"), (HOME, "", "deluge"),
    (NEXT, "", "cron"), (NEXT, "", "--no-interpolate --no-env-resolution"), (NEXT, "--profile backup", "backup"),
    (SUPA, "", "--no-interpolate"), (SUPA, "", "kong --no-consistency"), (SUPA, "", "--environment"),
    ("model-cycle", "", "-q"), ("model-depends-missing", "", "--no-consistency"), ("real-elk", "", "--no-interpolate"),
    ("real-elk", "", ""), ("model-depends-missing", "", "-q"), ("real-elk", "", "--images"), ("real-elk", "", "--volumes"),
]


def words(case: Case, before: str, after: str) -> list[str]:
    """The arguments that both programs get."""
    found: list[str] = []
    for flag, key in (("-f", "files"), ("--env-file", "env_files"), ("--profile", "profiles")):
        if flag in before.split():
            continue
        for value in case.options.get(key, []):
            found += [flag, value]
    return [*found, *before.split(), "config", *after.split()]


def key(entry: tuple[str, str, str]) -> str:
    return f"{entry[0]}: {entry[1]} config {entry[2]}".replace("  ", " ")


def portable_text(text: str, top: Path) -> str:
    return text.replace(str(top), "$DIR").replace(str(top.parent), "$UP")


def answer(program: list[str], case: Case, before: str, after: str, environ: dict[str, str]) -> str | None:
    """What a program prints on standard output, or None if it refuses."""
    with tempfile.TemporaryDirectory() as scratch:
        top, cwd = case.copy(Path(scratch).resolve())
        done = subprocess.run([*program, *words(case, before, after)], cwd=cwd, capture_output=True, timeout=60,
                              env={**environ, **case.environ()})
        return portable_text(done.stdout.decode(), top) if done.returncode == 0 else None


def reason(case: str, before: str, after: str) -> str:
    """Why our answer is another one (asked only where it is)."""
    switches = after.split()
    chosen = [word for word in switches if not word.startswith("--") and word != "json"]
    for flag, text in REASONS.items():
        if flag in switches and (flag == "--images" or "--no-interpolate" not in switches):
            return text
    if chosen and any(kind in switches for kind in (*LISTS, "--no-interpolate")):
        return "service arguments select for every kind of output; docker compose ignores them in lists and with --no-interpolate"
    if "--no-interpolate" in switches:
        return ("with --no-interpolate a value that holds a variable stays as written and all else is canonical; docker compose "
                "takes a path that begins with a variable for a volume, leaves some short forms, and drops unset build arguments")
    return OTHERS[case]


REASONS = {
    "--variables": "--variables tells a default or alternate value that any use of the variable has; docker compose shows one use only",
    "--no-env-resolution": "--no-env-resolution keeps env_file and does not read it; docker compose 2.40 reads it all the same",
    "--images": "--images leaves out services of a provider, and with --no-interpolate does not look at profiles",
}
OTHERS = {
    HOME: "an undefined reference of a service that was not asked for does not matter",
}


def main() -> None:
    from record import binary

    program, known = [binary()], {case.name: case for case in cases()}
    old: dict[str, Any] = json.loads(ANSWERS.read_text()) if ANSWERS.exists() else {}
    found: dict[str, Any] = {}
    for entry in WORDS:
        theirs = answer(program, known[entry[0]], entry[1], entry[2], {"PATH": "/usr/bin:/bin"})
        found[key(entry)] = {**old.get(key(entry), {}), "theirs": theirs}
    ANSWERS.write_text(json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
