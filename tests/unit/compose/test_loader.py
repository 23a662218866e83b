"""Loading through the whole pipeline: places, notes, bounds and provenance of what goes wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from orchestra.compose import ComposeError, LoadOptions, load, load_full
from orchestra.compose.explain import explain, variable
from orchestra.compose.interpolate import variables

BASE = "services:\n  a:\n    image: x\n"


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def options(folder: Path, **fields: Any) -> LoadOptions:
    environ = {"HOME": "/home/user", **fields.pop("environ", {})}
    return LoadOptions(cwd=str(folder), environ=environ, **fields)


def refusal(folder: Path, texts: dict[str, str], **fields: Any) -> ComposeError:
    write(folder, texts)
    with pytest.raises(ComposeError) as caught:
        load(options(folder, **fields))
    return caught.value


def test_problems_of_one_file_come_together_sorted(tmp_path: Path) -> None:
    error = refusal(tmp_path, {"compose.yaml": "services:\n  a:\n    image: ${X?no}\n    imagee: y\n    tty: maybe\n  a: {}\n"})
    lines = [(item.location.line, item.location.column) for item in error.problems if item.location]
    assert lines == sorted(lines)
    assert {line for line, _ in lines} >= {3, 4, 5, 6}
    first = str(error).split("\n")
    assert first[0].startswith("compose.yaml:3:12: error: required variable X")
    assert first[1].strip() == "image: ${X?no}"
    assert first[2].index("^") == first[1].index("$")
    assert error.to_dict()["problems"]


def test_a_failed_value_is_reported_once(tmp_path: Path) -> None:
    error = refusal(tmp_path, {"compose.yaml": BASE + "    scale: abc\n"})
    assert len(error.problems) == 1


def test_location_of_an_extended_value_is_in_its_file(tmp_path: Path) -> None:
    error = refusal(tmp_path, {
        "compose.yaml": "services:\n  a:\n    extends: {file: sub/b.yaml, service: q}\n",
        "sub/b.yaml": "services:\n  q:\n    image: x\n    foo: 1\n"})
    assert error.location is not None
    assert (error.location.file, error.location.line) == ("sub/b.yaml", 4)


def test_extends_cycle_prints_the_chain(tmp_path: Path) -> None:
    error = refusal(tmp_path, {
        "compose.yaml": "services: {a: {extends: {file: b.yaml, service: b}}}\n",
        "b.yaml": "services: {b: {extends: {file: compose.yaml, service: a}}}\n"})
    assert "a -> b -> a" in error.brief
    assert error.problems[0].notes == (
        "compose.yaml: service a", "b.yaml: service b", "compose.yaml: service a")


def test_include_cycle_prints_the_chain(tmp_path: Path) -> None:
    error = refusal(tmp_path, {"compose.yaml": "include: [s/c.yaml]\n", "s/c.yaml": "include: [../compose.yaml]\n"})
    assert error.brief == "include goes round in a circle"
    assert len(error.problems[0].notes) == 2


def test_include_bomb_is_bounded(tmp_path: Path) -> None:
    files = {f"c{n}.yaml": f"include: [c{n + 1}.yaml, ./c{n + 1}.yaml]\n" for n in range(30)}
    files["c30.yaml"] = BASE
    assert "too many includes" in refusal(tmp_path, files, files=("c0.yaml",)).brief


def test_long_extends_chain_ends(tmp_path: Path) -> None:
    text = "services:\n  s0: {image: x}\n" + "".join(f"  s{n}: {{extends: s{n - 1}}}\n" for n in range(1, 90))
    write(tmp_path, {"compose.yaml": text})
    assert load(options(tmp_path)).services["s89"].image == "x"


@pytest.mark.parametrize(("name", "words"), [("loop.yaml", "symbolic links"), ("folder", "directory"), ("none", "not found")])
def test_unreadable_files(tmp_path: Path, name: str, words: str) -> None:
    os.symlink("loop.yaml", tmp_path / "loop.yaml")
    (tmp_path / "folder").mkdir()
    for text in (f"include: [{name}]\n", f"services: {{a: {{extends: {{file: {name}, service: b}}}}}}\n",
                 f"services: {{a: {{image: x, env_file: {name}}}}}\n"):
        error = refusal(tmp_path, {"compose.yaml": text})
        assert words in error.brief
        assert error.location is not None and error.location.line == 1
    assert words in refusal(tmp_path, {}, files=(name,)).brief


def test_files_beyond_the_bound_are_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, {}, files=("/dev/zero",))
    assert "larger than 100 MB" in error.brief


def test_chains_and_ranges_are_bounded(tmp_path: Path) -> None:
    text = "services:\n  s500: {image: x}\n" + "".join(f"  s{n}: {{extends: s{n + 1}}}\n" for n in reversed(range(500)))
    write(tmp_path, {"compose.yaml": text})
    assert "s0" in load(options(tmp_path)).services
    text = "services:\n" + "".join(f"  s{n}: {{extends: s{n + 1}}}\n" for n in range(500)) + "  s500: {image: x}\n"
    assert "a chain of more than" in refusal(tmp_path, {"compose.yaml": text}).brief
    ports = ", ".join(f"'10.0.0.{n}:1-65535:1-65535'" for n in range(9))
    assert "ports" in refusal(tmp_path, {"compose.yaml": BASE + f"    ports: [{ports}]\n"}).brief


def test_null_byte_in_a_path(tmp_path: Path) -> None:
    refusal(tmp_path, {"compose.yaml": 'include: ["a\\0b"]\n'})
    refusal(tmp_path, {"compose.yaml": 'services: {a: {extends: {file: "a\\0b", service: b}}}\n'})


def test_remote_files_are_refused_by_name(tmp_path: Path) -> None:
    for remote in ("oci://x/y", "https://github.com/x/y.git", "git@github.com:x/y"):
        assert "remote" in refusal(tmp_path, {"compose.yaml": f"include: ['{remote}']\n"}).brief


def test_env_file_problems_of_all_services(tmp_path: Path) -> None:
    error = refusal(tmp_path, {
        "compose.yaml": BASE + "    env_file: one\n  b: {image: x, env_file: two}\n", "two": "A=1\nB!\n"})
    assert [item.location and item.location.line for item in error.problems] == [4, 2]


def test_warnings_are_told_sorted(tmp_path: Path) -> None:
    write(tmp_path, {"compose.yaml": "version: '3'\n" + BASE + "    user: $NOPE$NOPE\n"})
    told: list[str] = []
    load(options(tmp_path, warn=lambda problem: told.append(problem.text().split("\n")[0])))
    assert told[0].startswith("compose.yaml:1:1: warning: the attribute version is obsolete")
    assert told[1].startswith('compose.yaml:5:11: warning: the "NOPE" variable is not set')
    assert len(told) == 2


def test_disabled_services_stay_known(tmp_path: Path) -> None:
    write(tmp_path, {"compose.yaml": BASE + "  p: {image: x, profiles: [p]}\n  b: {image: x, depends_on: [a]}\n"})
    project = load(options(tmp_path))
    assert set(project.services) == {"a", "b"} and set(project.disabled) == {"p"}
    project = load(options(tmp_path, services=("b",)))
    assert set(project.services) == {"a", "b"}
    project = load(options(tmp_path, services=("b",), no_dependencies=True))
    assert set(project.services) == {"b"}
    assert set(load(options(tmp_path, services=("p",))).services) == {"p"}


def test_unknown_service_gets_a_suggestion(tmp_path: Path) -> None:
    write(tmp_path, {"compose.yaml": "services: {web: {image: x}}\n"})
    with pytest.raises(ComposeError) as caught:
        load(options(tmp_path, services=("wbe",)))
    assert caught.value.brief == "no such service: wbe"
    assert caught.value.hint is not None and "web" in caught.value.hint


def test_all_resources(tmp_path: Path) -> None:
    write(tmp_path, {"compose.yaml": BASE + "networks: {n: }\nvolumes: {v: }\n"})
    assert set(load(options(tmp_path)).networks) == {"default"}
    project = load(options(tmp_path, all_resources=True))
    assert set(project.networks) >= {"n"} and set(project.volumes) == {"v"}


FILES = {
    "compose.yaml": "services:\n  web:\n    extends: base\n    environment:\n      DEBUG: ${LEVEL:-0}\n  base:\n"
                    "    image: x\n    user: one\n    environment: [DEBUG=base, OTHER=1]\n    env_file: e\n"
                    "    labels: {com.example.x: y}\n",
    "b.yaml": "services:\n  web:\n    environment: [DEBUG=2]\n    user: two\n",
    "e": "DEBUG=file\nONLY=here\n",
    ".env": "LEVEL=5\nSHELL_TOO=x\n",
}


def test_explain_tells_the_history_of_a_value(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    loaded = load_full(options(tmp_path, files=("compose.yaml", "b.yaml"), environ={"SHELL_TOO": "sh"}))
    found = explain(loaded, "services.web.environment.DEBUG")
    assert found is not None
    assert (found.now.value, found.now.location.file, found.now.location.line) == ("2", "b.yaml", 3)
    assert [item.location.file for item in found.replaced] == ["compose.yaml", "compose.yaml", "e"]
    assert "extends base" in found.replaced[1].origin
    user = explain(loaded, "services.web.user")
    assert user is not None and [item.value for item in user.replaced] == ["one"]
    only = explain(loaded, "services.base.environment.ONLY")
    assert only is not None and str(only.now.location) == "e:2:1" and only.now.origin == "env_file e"
    assert explain(loaded, "services.nope.user") is None
    dotted = explain(loaded, "services.web.labels.com.example.x")
    assert dotted is not None and dotted.now.value == "y"
    assert found.to_dict()["replaced"]


def test_variables_know_where_they_were_set(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    loaded = load_full(options(tmp_path, files=("compose.yaml",), environ={"SHELL_TOO": "sh"}))
    assert variable(loaded, "LEVEL").places == (".env:1",)
    assert variable(loaded, "SHELL_TOO").places == ("shell", ".env:2")
    assert variable(loaded, "NOPE").value is None
    debug = explain(loaded, "services.web.environment.DEBUG")
    assert debug is not None and [item.name for item in debug.variables] == ["LEVEL"]


def test_variables_of_an_uninterpolated_load(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    loaded = load_full(options(tmp_path, files=("compose.yaml",), no_interpolate=True))
    assert variables(loaded.tree)["LEVEL"][:2] == (":-", "0")


def test_included_value_says_so(tmp_path: Path) -> None:
    write(tmp_path, {"compose.yaml": "include: [s/c.yaml]\n", "s/c.yaml": BASE + "    build: .\n    user: ${U}\n", "s/.env": "U=inc\n"})
    loaded = load_full(options(tmp_path))
    found = explain(loaded, "services.a.user")
    assert found is not None and found.now.origin == "include s/c.yaml" and found.now.value == "inc"
    build = loaded.project.services["a"].build
    assert build is not None and build.context == str(tmp_path / "s")


def test_parent_wins_over_included_resource(tmp_path: Path) -> None:
    write(tmp_path, {"compose.yaml": "include: [c.yaml]\n" + BASE + "    ports: !reset []\n",
                     "c.yaml": "services: {a: {image: y, user: k, ports: ['80']}, b: {image: z}}\n"})
    project = load(options(tmp_path))
    service = project.services["a"]
    assert (service.image, service.user, service.ports) == ("x", "k", ())
    assert "b" in project.services


def test_secret_of_an_include_uses_its_own_environment(tmp_path: Path) -> None:
    write(tmp_path, {"compose.yaml": "include: [s/c.yaml]\n", "s/.env": "TOKEN=t\n",
                     "s/c.yaml": BASE + "    secrets: [s]\nsecrets: {s: {environment: TOKEN}}\n"})
    assert load_full(options(tmp_path)).context.file_values == {("secrets", "s"): "t"}


def test_an_empty_file_is_refused_unless_others_say_something(tmp_path: Path) -> None:
    assert "empty" in refusal(tmp_path, {"compose.yaml": "# nothing\n"}).brief
    write(tmp_path, {"a.yaml": BASE, "b.yaml": ""})
    assert "a" in load(options(tmp_path, files=("a.yaml", "b.yaml"))).services
    assert "services must be a mapping" in refusal(tmp_path, {"b.yaml": "services:\n"}, files=("a.yaml", "b.yaml")).brief


def test_standard_input(tmp_path: Path) -> None:
    project = load(options(tmp_path, files=("-",), stdin=BASE.encode(), project_name="p"))
    assert (project.name, project.working_dir) == ("p", str(tmp_path))
    error = refusal(tmp_path, {}, files=("-",), stdin=b"a: \xff\n")
    assert "UTF-8" in error.brief


def test_tree_stays_a_tree_through_extends(tmp_path: Path) -> None:
    write(tmp_path, {"compose.yaml": "x-l: &l {a: b}\nservices:\n  a: {image: x, labels: *l}\n  b: {extends: a, labels: {c: d}}\n  c: {extends: a}\n"})
    services = load(options(tmp_path)).services
    labels = {name: dict(service.labels) for name, service in services.items()}
    assert labels == {"a": {"a": "b"}, "b": {"a": "b", "c": "d"}, "c": {"a": "b"}}
