"""Whatever stands in the files, loading gives a project or a ComposeError, in bounded time."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.compose_cases import Case, cases

from orchestra.compose import ComposeError, LoadOptions, load

RELAXED = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
CASES = cases()
PIECES = ["[", "]", "{", "}", "- ", ": ", "\n", "  ", "&a ", "*a", "<<: *a", "!reset ", "!override ", "null", "true",
          "5", "''", "[]", "{}", "${A", "$$", "${A:-b}", "services:", "extends: a", "include: [compose.yaml]", "5g",
          "1h", "80-82:90-92", "x-a: ", "profiles: [p]", "depends_on: [a]", "2001-01-01", "\t", "\x00", "é", "---\n"]


def mutate(text: str, seed: random.Random) -> str:
    """A few random edits: pieces put in, lines dropped, repeated, swapped, re-indented."""
    lines = text.split("\n")
    for _ in range(seed.randint(1, 4)):
        kind, at = seed.randrange(6), seed.randrange(len(lines))
        if kind == 0:
            place = seed.randint(0, len(lines[at]))
            lines[at] = lines[at][:place] + seed.choice(PIECES) + lines[at][place:]
        elif kind == 1 and len(lines) > 1:
            del lines[at]
        elif kind == 2:
            lines.insert(at, lines[seed.randrange(len(lines))])
        elif kind == 3:
            lines[at] = "  " + lines[at] if seed.random() < 0.5 else lines[at].removeprefix("  ")
        elif kind == 4 and ": " in lines[at]:
            lines[at] = lines[at].split(": ")[0] + ": " + seed.choice(PIECES)
        else:
            place = seed.randint(0, len(lines[at]))
            lines[at] = lines[at][:place]
    return "\n".join(lines)


def load_mutated(case: Case, seed: random.Random) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        top, cwd = case.copy(Path(scratch))
        files = [path for path in sorted(top.rglob("*")) if path.is_file()]
        if not files:
            return
        victim = seed.choice(files)
        try:
            text = victim.read_bytes().decode()
        except UnicodeDecodeError:
            return
        victim.write_text(mutate(text, seed))
        try:
            project = load(case.load_options(cwd))
        except ComposeError as error:
            assert str(error)
            assert error.to_dict()
        else:
            assert project.name


@RELAXED
@given(st.sampled_from(CASES), st.integers(0, 2**32))
def test_mutated_cases(case: Case, seed: int) -> None:
    load_mutated(case, random.Random(seed))


@RELAXED
@given(st.text() | st.binary())
def test_any_text(text: str | bytes) -> None:
    folder = tempfile.mkdtemp()
    try:
        load(LoadOptions(files=("-",), stdin=text, cwd=folder, project_name="p"))
    except ComposeError as error:
        assert str(error)
    finally:
        shutil.rmtree(folder)


def attribute_names() -> list[str]:
    """Every attribute the language has, from the model's own names."""
    import dataclasses

    from orchestra.compose import model

    found = {"services", "networks", "volumes", "secrets", "configs", "models", "include", "extends", "file", "service",
             "path", "env_file", "label_file", "config", "resources", "bind", "watch", "develop", "a", "b", "x-a"}
    for item in vars(model).values():
        if dataclasses.is_dataclass(item):
            found.update(field.name for field in dataclasses.fields(item))
    return sorted(found)


NAMES = attribute_names()
WORDS = ["", "a", "b", "5", "-1", "0", "1g", "5s", "10.0.0.0/24", "::1", "80:80", "[::]:80:80", "80-70", "a:b:c:d", "./x:/y",
         ":", "=", "A=1", "service:a", "container:x", "host", "none", "on-failure:x", "true", "$", "99999999999999999999",
         "1e400", "CMD", "/", "~", "~/x", "..", "\x00", "é", "a" * 300, "0x1F", "1.5", "all", "node.role==x", "default"]
leaf = st.none() | st.booleans() | st.integers(-3, 2**70) | st.floats() | st.sampled_from(WORDS) | st.text(max_size=4)
anything = st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(NAMES), inner, max_size=4), max_leaves=12)
service = st.dictionaries(st.sampled_from(NAMES), anything, max_size=5).map(lambda data: {"image": "x", **data})
document = st.fixed_dictionaries(
    {"services": st.dictionaries(st.sampled_from(["a", "b"]), service, max_size=2)},
    optional={key: st.dictionaries(st.sampled_from(["a", "b", "default"]), anything, max_size=2)
              for key in ("networks", "volumes", "secrets", "configs", "models", "x-a")})


@RELAXED
@given(st.lists(document, min_size=1, max_size=2), st.sampled_from([{}, {"no_normalize": True}, {"no_consistency": True},
                                                                    {"no_interpolate": True}, {"services": ("a",)},
                                                                    {"all_resources": True}]))
def test_any_structure(documents: list[object], flags: dict[str, object]) -> None:
    text = "\n---\n".join(json.dumps(item) for item in documents)
    folder = tempfile.mkdtemp()
    try:
        load(LoadOptions(files=("-",), stdin=text, cwd=folder, project_name="p", environ={"HOME": "/root"}, **flags))  # type: ignore[arg-type]
    except ComposeError as error:
        assert str(error)
    finally:
        shutil.rmtree(folder)
