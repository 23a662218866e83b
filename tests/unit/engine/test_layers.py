"""Layer directories read as one tree, never leaving it."""

from __future__ import annotations

from pathlib import Path

from orchestra.engine.layers import LayerView


def make(tmp_path: Path) -> LayerView:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    low, high = tmp_path / "low", tmp_path / "high"
    (low / "etc").mkdir(parents=True)
    (low / "etc/passwd").write_text("low")
    (low / "etc/only-low").write_text("x")
    (low / "lib").mkdir()
    (low / "lib/a").write_text("a")
    (high / "etc").mkdir(parents=True)
    (high / "etc/passwd").write_text("high")
    (high / "etc/absolute").symlink_to("/etc/only-low")
    (high / "etc/up").symlink_to("../../../../../../etc/only-low")
    (high / "etc/escape").symlink_to(outside / "secret")
    (high / "etc/loop").symlink_to("loop")
    (high / "lib64").symlink_to("lib")
    return LayerView([low, high])


def test_the_higher_layer_wins_and_directories_merge(tmp_path: Path) -> None:
    view = make(tmp_path)
    assert view.read("/etc/passwd") == b"high"
    assert view.read("etc/only-low") == b"x"
    assert view.is_directory("/etc")
    assert [Path(one).parent.name for one in view.directories("/etc")] == ["low", "high"]
    assert view.directories("/etc/passwd") == []


def test_links_stay_inside(tmp_path: Path) -> None:
    view = make(tmp_path)
    assert view.read("/etc/absolute") == b"x"
    assert view.read("/etc/up") == b"x"
    assert view.read("/lib64/a") == b"a"
    assert view.read("/etc/escape") is None
    assert view.read("/etc/loop") is None
    assert view.read("/etc/passwd/x") is None
    assert view.read("/etc") is None
