"""Fuzz the Compose language: ``python tests/property/compose/fuzz.py [seconds] [seed]``.

Takes cases of the conformance corpus, edits their files at random (bytes, lines, words, whole parts of
other cases) and their options, and takes them through load, config output in both formats, the second
load of that output, the hashes and the explanations. A find is anything but an answer or a ComposeError,
more than ``SECONDS`` for one input, or more memory than ``MEMORY``. Each find is printed once (by the
place where it happened) and kept as a directory, whose name is printed: make a case
of the corpus of it. The exit code is 1 if there was any.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from support.compose_cases import Case, cases
from test_load_anything import NAMES, PIECES, WORDS, mutate

from orchestra.compose import ComposeError, LoadOptions, dump, explain, load_full
from orchestra.compose.tree import Mapping, Node, Sequence
from orchestra.errors import OrchestraError

SECONDS = 5
MEMORY = 1 << 30
PLACES = 3000
FLAGS = ("no_normalize", "no_path_resolution", "no_consistency", "no_env_resolution", "no_interpolate",
         "all_resources", "compatibility")
BYTES = [b"\xff", b"\x00", b"\xef\xbb\xbf", b"\r", b"\x85", "\u2028".encode(), b"\t", b"\x1b", "\U0001f600".encode(), b"%",
         b"|", b">-\n", b"?", b"!!binary ", b"!!set", b"@", b"`", b"\\x", b'"', b"'", b"#", b"<<: [*a, *b]", b"${A:?b}",
         b"${A:-${B:-${C}}}", b"${", b"}", b"$", b"~", b"*a", b"&a"]


class Slow(BaseException):
    """The input took too long (no Exception, so that nothing swallows it)."""


def _alarm(*_: object) -> None:
    raise Slow


def edit(data: bytes, others: list[bytes], seed: random.Random) -> bytes:
    """A few random changes of the structure (mostly), or one to three of the text."""
    if seed.random() < 0.7:
        data = _structured(data, seed)
        if seed.random() < 0.8:
            return data
    for _ in range(seed.randint(1, 3)):
        kind = seed.randrange(7)
        at = seed.randint(0, len(data))
        if kind == 0:
            data = data[:at] + seed.choice(BYTES) + data[at:]
        elif kind == 1:
            data = data[:at] + data[at + seed.randint(1, 40):]
        elif kind == 2:
            data = data[:at] + data[seed.randint(0, at):at] * seed.randint(1, 3) + data[at:]
        elif kind == 3:
            data = _splice(data, seed.choice(others), seed)
        elif kind == 4:
            data = _value(data, seed)
        else:
            try:
                data = mutate(data.decode(), seed).encode("utf-8", "surrogatepass")
            except UnicodeDecodeError:
                data = data[:at]
    return data


def _structured(data: bytes, seed: random.Random) -> bytes:
    """Values and keys of a YAML document replaced, moved, repeated and dropped; what is no YAML stays."""
    import yaml

    try:
        document = yaml.safe_load(data)
    except Exception:  # PyYAML fails in many ways
        return data
    if not isinstance(document, dict):
        return data
    places: list[tuple[Any, Any]] = []
    _places(document, places, 0)
    if len(places) >= PLACES:
        return data
    for _ in range(seed.randint(1, 5)):
        holder, key = seed.choice(places)
        other, name = seed.choice(places)
        try:
            _change(holder, key, other[name], seed)
        except (KeyError, IndexError):
            continue
    if seed.random() < 0.5:
        return yaml.safe_dump(document, sort_keys=False).encode("utf-8", "surrogatepass")
    return json.dumps(document, default=str, skipkeys=True).encode()


def _places(data: Any, found: list[tuple[Any, Any]], depth: int) -> None:
    """Every place of a document; ``PLACES`` of them at most (bombs and cycles are left alone)."""
    for key in data if isinstance(data, dict) else range(len(data)):
        if len(found) >= PLACES or depth > 60:
            found.extend([(data, key)] * PLACES)
            return
        found.append((data, key))
        if isinstance(data[key], (dict, list)):
            _places(data[key], found, depth + 1)


def _change(holder: Any, key: Any, other: Any, seed: random.Random) -> None:
    kind = seed.randrange(7)
    if kind == 0:
        holder[key] = seed.choice(WORDS)
    elif kind == 1:
        holder[key] = json.loads(json.dumps(other, default=str, skipkeys=True))
    elif kind == 2:
        del holder[key]
    elif kind == 3 and isinstance(holder, dict):
        holder[seed.choice(NAMES)] = json.loads(json.dumps(other, default=str, skipkeys=True))
    elif kind == 4:
        holder[key] = seed.choice([None, True, 0, -1, 5, 2**63, 1.5, [], {}, [None], {"a": None}, [[]], [{}]])
    elif kind == 5:
        holder[key] = [holder[key]] * seed.randint(1, 3)
    else:
        holder[key] = {seed.choice([*NAMES, *WORDS]): holder[key]}


def _splice(data: bytes, other: bytes, seed: random.Random) -> bytes:
    """Lines of another file put in."""
    lines, theirs = data.split(b"\n"), other.split(b"\n")
    first = seed.randrange(len(theirs))
    at = seed.randint(0, len(lines))
    lines[at:at] = theirs[first:first + seed.randint(1, 8)]
    return b"\n".join(lines)


def _value(data: bytes, seed: random.Random) -> bytes:
    """A key or a value replaced by another word of the language."""
    lines = data.split(b"\n")
    at = seed.randrange(len(lines))
    head, colon, tail = lines[at].partition(b":")
    if colon:
        if seed.random() < 0.3:
            indent = head[: len(head) - len(head.lstrip())]
            head = indent + seed.choice(NAMES).encode()
        else:
            word = seed.choice([*WORDS, *PIECES])
            tail = b" " + (word if seed.random() < 0.5 else json.dumps(word)).encode("utf-8", "surrogatepass")
        lines[at] = head + colon + tail
    return b"\n".join(lines)


def _paths(node: Node, path: str, found: list[str]) -> None:
    if len(found) > 400:
        return
    if isinstance(node, Mapping):
        for key, child in node.items.items():
            found.append(f"{path}.{key}" if path else str(key))
            _paths(child, found[-1], found)
    elif isinstance(node, Sequence):
        for index, child in enumerate(node.items):
            found.append(f"{path}.{index}")
            _paths(child, found[-1], found)


def exercise(options: LoadOptions, seed: random.Random) -> None:
    """Everything ``orchestra config`` does with a project; raises what is a find."""
    from orchestra.compose.hash import service_hash

    try:
        loaded = load_full(options)
    except ComposeError as error:
        assert str(error)
        json.dumps(error.to_dict())
        for problem in error.problems:
            problem.text()
        return
    for warning in loaded.warnings:
        warning.text()
    for service in loaded.project.services.values():
        service_hash(service)
    try:
        dump.to_json(loaded)
        text = dump.to_yaml(loaded)
    except OrchestraError:
        return
    if not (options.no_interpolate or options.no_normalize or options.no_consistency or options.no_path_resolution):
        _again(text, options, loaded)
    paths: list[str] = []
    _paths(loaded.tree, "", paths)
    for path in seed.sample(paths, min(len(paths), 6)):
        found = explain.explain(loaded, path)
        if found is not None:
            json.dumps(found.to_dict())
    path = seed.choice(["", ".", "services..", "services.x[", "services.a.ports[99]", "[0]", *(f"{path}.x" for path in paths[:9])])
    if explain.explain(loaded, path) is None:
        assert explain.missing_hint(loaded, path)


def _again(text: str, options: LoadOptions, loaded: Any) -> None:
    """The output loads, or is refused in words."""
    try:
        load_full(LoadOptions(files=("-",), stdin=text, cwd=options.cwd, environ={"HOME": "/root"},
                              project_name=loaded.project.name, profiles=("*",), all_resources=True))
    except ComposeError as error:
        assert str(error)


def one(case: Case, corpus: list[bytes], seed: random.Random, scratch: Path) -> None:
    top, cwd = case.copy(scratch)
    files = [path for path in sorted(top.rglob("*")) if path.is_file() and not path.is_symlink()]
    if not files:
        return
    for victim in seed.sample(files, min(len(files), seed.choice([1, 1, 1, 2]))):
        victim.write_bytes(edit(victim.read_bytes(), corpus, seed))
    fields = {key: tuple(value) if isinstance(value, list) else value
              for key, value in case.options.items() if key not in ("cwd", "environ")}
    for flag in FLAGS:
        if seed.random() < 0.08:
            fields[flag] = True
    exercise(LoadOptions(cwd=str(cwd), environ=case.environ(), **fields), seed)


def signature(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    last = next((frame for frame in reversed(frames) if "orchestra" in frame.filename), frames[-1])
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.name}"


def main() -> int:
    seconds, number = float((sys.argv[1:2] or ["60"])[0]), int((sys.argv[2:3] or ["1"])[0])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, _alarm)
    all_cases = cases()
    corpus = [path.read_bytes() for case in all_cases for path in sorted((case.folder / "input").rglob("*"))
              if path.is_file()]
    seen: dict[str, int] = {}
    count, longest, end = 0, 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        seed = random.Random(number + count)
        case = seed.choice(all_cases)
        scratch = Path(tempfile.mkdtemp(prefix="orchestra-fuzz-"))
        keep, started = False, time.process_time()
        signal.setitimer(signal.ITIMER_REAL, SECONDS * 12)
        try:
            one(case, corpus, seed, scratch)
            signal.setitimer(signal.ITIMER_REAL, 0)
            if time.process_time() - started > SECONDS:
                raise Slow
        except BaseException as error:
            signal.setitimer(signal.ITIMER_REAL, 0)
            if isinstance(error, KeyboardInterrupt):
                raise
            name = signature(error)
            keep = name not in seen
            seen[name] = seen.get(name, 0) + 1
            if keep:
                print(f"===== {name}: seed {number + count}, case {case.name}, kept in {scratch}", flush=True)
                traceback.print_exc(limit=-6)
        longest = max(longest, time.process_time() - started)
        count += 1
        if not keep:
            shutil.rmtree(scratch, ignore_errors=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{count} inputs, {sum(seen.values())} finds in {len(seen)} places {seen}, "
          f"longest {longest:.1f} s of processor time, at most {peak} MB")
    return 1 if seen else 0


if __name__ == "__main__":
    os.environ.pop("COMPOSE_FILE", None)
    sys.exit(main())
