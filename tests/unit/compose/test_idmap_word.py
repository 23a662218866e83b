"""The mode word ``idmap`` of bind mounts: kept in the model, not shown by ``config`` (docker compose passes over it)."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra.compose import LoadOptions, dump, load_full
from orchestra.compose.codec import project_from_dict, to_dict
from orchestra.compose.hash import service_hash


def loaded(folder: Path, volume: str, **more: bool):  # type: ignore[no-untyped-def]
    (folder / "compose.yaml").write_text(f"name: c\nservices:\n  a:\n    image: x\n    volumes:\n      - {volume}\nvolumes: {{data: }}\n")
    return load_full(LoadOptions(cwd=str(folder), environ={}, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("volume", "wanted"),
    [
        ("./d:/d", False),
        ("./d:/d:idmap", True),
        ("./d:/d:ro,idmap,rslave", True),
        ("./d:/d:bogus", False),
        ("{type: bind, source: ./d, target: /d, bind: {x-idmap: true}}", True),
        ("{type: bind, source: ./d, target: /d, bind: {x-idmap: false}}", False),
    ],
)
def test_the_model(tmp_path: Path, volume: str, wanted: bool) -> None:
    project = loaded(tmp_path, volume).project
    (mount,) = project.services["a"].volumes
    assert mount.bind is not None and mount.bind.idmap is wanted
    (again,) = project_from_dict(to_dict(project)).services["a"].volumes
    assert again.bind is not None and again.bind.idmap is wanted


def test_config_shows_what_docker_compose_shows(tmp_path: Path) -> None:
    plain, mapped = (dump.to_yaml(loaded(tmp_path, f"./d:/d{word}")) for word in ("", ":idmap"))
    assert plain == mapped and "idmap" not in mapped
    assert dump.to_json(loaded(tmp_path, "./d:/d")) == dump.to_json(loaded(tmp_path, "./d:/d:idmap"))
    assert "idmap" not in dump.to_yaml(loaded(tmp_path, "./d:/d:idmap", no_interpolate=True))
    assert "x-idmap: true" in dump.to_yaml(loaded(tmp_path, "{type: bind, source: ./d, target: /d, bind: {x-idmap: true}}"))


def test_a_volume_is_mapped_anyway(tmp_path: Path) -> None:
    (mount,) = loaded(tmp_path, "data:/d:idmap").project.services["a"].volumes
    assert mount.type == "volume" and mount.bind is None


def test_the_word_changes_the_container(tmp_path: Path) -> None:
    plain, mapped, long = (
        service_hash(loaded(tmp_path, text).project.services["a"])
        for text in ("./d:/d", "./d:/d:idmap", "{type: bind, source: ./d, target: /d, bind: {x-idmap: true}}")
    )
    assert plain not in (mapped, long)
