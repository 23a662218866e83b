"""Every kind of path and variable: its value, where it was set, and what that overrode."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra.compose import LoadOptions, load_full
from orchestra.compose.explain import Explanation, explain, missing_hint, variable
from orchestra.compose.loader import Loaded

FILES = {
    ".env": "TAG=1.0\nNAME=$TAG-x\nPORT=80\n",
    "base.yaml": """services:
  base:
    image: base:${TAG}
    restart: always
    environment: {FROM: base, LEVEL: info}
    labels: [a=1]
""",
    "a.env": "ENVFILE=one\nLEVEL=debug\nSHARED=a\n",
    "b.env": "SHARED=b\n",
    "l.labels": "com.x=lf\n",
    "inc/compose.yaml": 'services:\n  side: {image: "side:${SIDETAG:-9}", command: [a, b]}\n',
    "inc/.env": "SIDETAG=7\n",
    "compose.yaml": """name: ex
include: [inc/compose.yaml]
x-common: &common
  stop_signal: SIGINT
  logging: {driver: local}
services:
  web:
    <<: *common
    extends: {file: base.yaml, service: base}
    image: "web:${TAG}"
    ports: ["${PORT}:80", "443:443"]
    env_file: [a.env, b.env]
    label_file: l.labels
    environment:
      LEVEL: warn
      D: "${UNSET:-fallback}"
      BARE:
      dotted.key: v
    networks: [n]
    volumes: ["vol:/v", "./d:/d"]
    secrets: [s]
  same: {extends: web, hostname: h}
  off: {image: y, profiles: [p]}
networks: {n: {driver: bridge}}
volumes: {vol: {labels: {x: "1"}}}
secrets: {s: {file: ./s}}
configs: {c: {content: "hi ${TAG}"}}
""",
    "over.yaml": """services:
  web:
    image: web:over
    ports: ["8080:8080"]
    environment: [LEVEL=error, "NEW=1"]
    labels: {a: "2"}
networks: {n: {driver: macvlan}}
""",
}


@pytest.fixture
def loaded(tmp_path: Path) -> Loaded:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    environ = {"COMPOSE_FILE": "compose.yaml:over.yaml", "TAG": "2.0", "BARE": "shell's"}
    return load_full(LoadOptions(cwd=str(tmp_path), environ=environ, all_resources=True))


def asked(loaded: Loaded, path: str) -> Explanation:
    found = explain(loaded, path)
    assert found is not None, missing_hint(loaded, path)
    return found


BASE = "extends base (base.yaml) of file base.yaml"


@pytest.mark.parametrize(("path", "value", "origin", "place"), [
    ("name", "ex", "file compose.yaml", "compose.yaml:1"),
    ("services.web.image", "web:over", "file over.yaml", "over.yaml:3"),
    ("services.web.restart", "always", BASE, "base.yaml:4"),
    ("services.same.restart", "always", f"extends web of {BASE}", "base.yaml:4"),
    ("services.same.hostname", "h", "file compose.yaml", "compose.yaml:22"),
    ("services.web.stop_signal", "SIGINT", "file compose.yaml", "compose.yaml:4"),
    ("services.web.logging.driver", "local", "file compose.yaml", "compose.yaml:5"),
    ("services.web.environment.LEVEL", "error", "file over.yaml", "over.yaml:5"),
    ("services.web.environment.NEW", "1", "file over.yaml", "over.yaml:5"),
    ("services.web.environment.FROM", "base", BASE, "base.yaml:5"),
    ("services.web.environment.ENVFILE", "one", "env_file a.env", "a.env:1"),
    ("services.web.environment.SHARED", "b", "env_file b.env", "b.env:1"),
    ("services.web.environment.D", "fallback", "file compose.yaml", "compose.yaml:16"),
    ("services.web.environment.BARE", "shell's", "file compose.yaml", "compose.yaml:17"),
    ("services.web.environment.dotted.key", "v", "file compose.yaml", "compose.yaml:18"),
    ('services.web.environment["dotted.key"]', "v", "file compose.yaml", "compose.yaml:18"),
    ("services['web'].image", "web:over", "file over.yaml", "over.yaml:3"),
    ("services.web.labels.a", "2", "file over.yaml", "over.yaml:6"),
    ("services.web.labels.com.x", "lf", "label_file l.labels", "l.labels:1"),
    ("services.web.ports[0].published", "80", "file compose.yaml", "compose.yaml:11"),
    ("services.web.ports.2.target", 8080, "file over.yaml", "over.yaml:4"),
    ("services.web.volumes[0].source", "vol", "file compose.yaml", "compose.yaml:20"),
    ("services.web.networks.n", None, "file compose.yaml", "compose.yaml:19"),
    ("services.side.image", "side:7", "include inc/compose.yaml", "inc/compose.yaml:2"),
    ("services.side.command[1]", "b", "include inc/compose.yaml", "inc/compose.yaml:2"),
    ("services.off.profiles[0]", "p", "file compose.yaml", "compose.yaml:23"),
    ("x-common.stop_signal", "SIGINT", "file compose.yaml", "compose.yaml:4"),
    ("networks.n.driver", "macvlan", "file over.yaml", "over.yaml:7"),
    ("networks.n.name", "ex_n", "derived", "compose.yaml:24"),
    ("networks.default", {"name": "ex_default"}, "default", "compose.yaml:24"),
    ("volumes.vol.labels.x", "1", "file compose.yaml", "compose.yaml:25"),
    ("configs.c.content", "hi 2.0", "file compose.yaml", "compose.yaml:27"),
])
def test_value_and_place(loaded: Loaded, path: str, value: object, origin: str, place: str) -> None:
    now = asked(loaded, path).now
    assert (now.value, now.origin, f"{now.location.file}:{now.location.line}") == (value, origin, place)


@pytest.mark.parametrize(("path", "replaced"), [
    ("services.web.image", [("web:2.0", "file compose.yaml"), ("base:2.0", BASE)]),
    ("services.web.environment.LEVEL",
     [("warn", "file compose.yaml"), ("info", BASE), ("debug", "env_file a.env")]),
    ("services.web.environment.SHARED", [("a", "env_file a.env")]),
    ("services.web.labels.a", [("1", BASE)]),
    ("networks.n.driver", [("bridge", "file compose.yaml")]),
    ("services.web.restart", []),
])
def test_what_was_overridden(loaded: Loaded, path: str, replaced: list[tuple[str, str]]) -> None:
    assert [(item.value, item.origin) for item in asked(loaded, path).replaced] == replaced


def test_what_is_written_and_the_variables_of_it(loaded: Loaded) -> None:
    found = asked(loaded, "services.same.image")
    assert found.now.raw == "web:${TAG}"
    assert [(item.name, item.value, item.places) for item in found.variables] == [("TAG", "2.0", ("shell", ".env:1"))]
    unset = asked(loaded, "services.web.environment.D").variables
    assert [(item.name, item.value) for item in unset] == [("UNSET", None)]
    assert asked(loaded, "services.web.environment.BARE").variables[0].places == ("shell",)


def test_parts_of_maps_and_lists(loaded: Loaded) -> None:
    assert asked(loaded, "services.web.ports").parts == ("file over.yaml",)
    web = asked(loaded, "services.web")
    assert web.now.origin == "file compose.yaml"
    assert {"file over.yaml", BASE, "env_file a.env", "label_file l.labels"} <= set(web.parts)
    assert asked(loaded, "volumes.vol.labels").parts == ()


def test_variables_by_name(loaded: Loaded) -> None:
    assert variable(loaded, "TAG").places == ("shell", ".env:1")
    assert variable(loaded, "NAME").value == "2.0-x"
    assert variable(loaded, "PORT").places == (".env:3",)
    assert variable(loaded, "COMPOSE_PROJECT_NAME").value == "ex"
    assert variable(loaded, "NOPE").value is None


def test_an_included_file_has_its_own_variables(loaded: Loaded) -> None:
    assert variable(loaded, "SIDETAG").places == ("inc/.env:1",)
    assert [(item.value, item.places) for item in asked(loaded, "services.side.image").variables] == [
        ("7", ("inc/.env:1",))]


@pytest.mark.parametrize(("path", "hint"), [
    ("services.web.imag", "did you mean services.web.image?"),
    ("services.wbe.image", "did you mean services.web?"),
    ("service", "did you mean services?"),
    ("services.web.environment.LEVLE", "did you mean services.web.environment.LEVEL?"),
    ("TAGG", "did you mean the variable TAG?"),
    ("services.web.ports.9", "services.web.ports is a list: its items are services.web.ports[0] to [2]"),
    ("services.web.ports.published", "services.web.ports is a list: its items are services.web.ports[0] to [2]"),
    ("services.web.image.x", "services.web.image is a value, nothing is below it"),
    ("services.web.env_file", "it has been read: ask for a variable in services.web.environment"),
    ("services.web.label_file", "it has been read: ask for a label in services.web.labels"),
    ("services.web.extends", "it has been applied: ask for a value of services.web"),
    ("include", "it has been applied: ask for a value"),
    ("volumes.zzz", "there are: vol"),
    ("", "there are: configs, name, networks, secrets, services, volumes, x-common"),
    ("[", "there are: configs, name, networks, secrets, services, volumes, x-common"),
])
def test_a_missing_path(loaded: Loaded, path: str, hint: str) -> None:
    assert explain(loaded, path) is None
    assert missing_hint(loaded, path) == hint


def test_everything_is_data(loaded: Loaded) -> None:
    found = asked(loaded, "services.web.environment.LEVEL").to_dict()
    assert found["value"] == "error" and found["file"] == "over.yaml" and found["line"] == 5
    assert [item["value"] for item in found["replaced"]] == ["warn", "info", "debug"]
    assert found["parts"] == []
