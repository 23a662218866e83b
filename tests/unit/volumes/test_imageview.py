from __future__ import annotations

from pathlib import Path

import pytest

from orchestra.errors import OrchestraError
from orchestra.volumes.imageview import ImageView


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    low, high = tmp_path / "low", tmp_path / "high"
    (low / "run/data").mkdir(parents=True)
    (low / "run/data/old").write_text("low")
    (low / "run/data/both").write_text("low")
    (low / "file").write_text("low")
    (low / "etc").mkdir()
    (high / "run/data").mkdir(parents=True)
    (high / "run/data/both").write_text("high")
    (high / "var").mkdir()
    (high / "var/run").symlink_to("/run")
    (high / "var/up").symlink_to("../../../../run/data")
    (high / "loop").symlink_to("/loop")
    (high / "etc").write_text("a file now")
    return [low, high]


def test_links_are_resolved_within_the_image(layers: list[Path]) -> None:
    view = ImageView(layers)
    for path in ("/run/data", "/var/run/data", "/var/up", "/var/../run/./data", "/../../run/data"):
        place = view.resolve(path)
        assert place is not None and place.is_directory
        assert view.names(place) == ["both", "old"]
    assert view.resolve("/var/run/nope") is None
    assert view.resolve("/file/x") is None
    etc = view.resolve("/etc")
    assert etc is not None and not etc.is_directory
    with pytest.raises(OrchestraError, match="too many symbolic links"):
        view.resolve("/loop")
    with pytest.raises(OrchestraError):
        ImageView([])


def test_copies_are_merged(layers: list[Path], tmp_path: Path) -> None:
    (layers[0] / "run/data/sub").mkdir(mode=0o750)
    (layers[0] / "run/data/sub/link").symlink_to("/etc/passwd")
    (layers[0] / "run/data/sub/hard").hardlink_to(layers[0] / "run/data/old")
    view = ImageView(layers)
    place = view.resolve("/run/data")
    assert place is not None
    target = tmp_path / "copy"
    view.copy_tree(place, target)
    assert (target / "both").read_text() == "high" and (target / "old").read_text() == "low"
    assert (target / "sub").stat().st_mode & 0o777 == 0o750
    assert (target / "sub/link").readlink() == Path("/etc/passwd")
    assert (target / "sub/hard").samefile(target / "old")
    assert (target / "old").stat().st_mtime_ns == (layers[0] / "run/data/old").stat().st_mtime_ns
