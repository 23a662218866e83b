"""The builder's view of layers shows what an overlay mount of them shows."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestra.build.view import View

pytestmark = pytest.mark.root
NAMES = ["a", "b", "c", "d"]


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="orchestra-view-", dir="/var/tmp"))
    yield path
    shutil.rmtree(path)


def fill(place: Path, chance: random.Random, depth: int = 0) -> None:
    """Files, directories (some opaque), links and whiteouts at random."""
    for name in NAMES:
        path = place / name
        kind = chance.choice(["none", "none", "file", "dir", "dir", "opaque", "link", "whiteout"])
        if kind in ("dir", "opaque") and depth < 3:
            path.mkdir()
            if kind == "opaque":
                os.setxattr(path, "trusted.overlay.opaque", b"y")
            fill(path, chance, depth + 1)
        elif kind == "file":
            path.write_text(str(chance.random()))
        elif kind == "link":
            path.symlink_to(chance.choice(["a", "../b", "/c/d", "nowhere"]))
        elif kind == "whiteout":
            os.mknod(path, 0o600 | 0o020000, 0)


def listed(view: View) -> list[str]:
    found = []
    for relative, node in view.walk(view.root):
        if node.is_dir:
            found.append(f"d {relative} ")
        elif node.is_link:
            found.append(f"l {relative} {node.target}")
        else:
            found.append(f"f {relative} {Path(node.real).read_text()}")
    return sorted(found)


SCRIPT = """
mount -t overlay overlay -o "lowerdir=$1" "$2" && cd "$2" &&
find . -mindepth 1 -type d -printf 'd %P \\n' -o -type l -printf 'l %P %l\\n' -o -type f -printf 'f %P ' -exec cat {} \\; \\
  -printf '\\n'
"""


@pytest.mark.skipif(not shutil.which("unshare"), reason="unshare is not installed")
@pytest.mark.parametrize("seed", range(12))
def test_same_as_overlay(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    layers = []
    for number in range(4):
        layer = folder / str(number)
        layer.mkdir()
        fill(layer, chance)
        layers.append(layer)
    target = folder / "merged"
    target.mkdir()
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", SCRIPT, "sh", ":".join(map(str, layers)), str(target)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert listed(View(layers)) == sorted(done.stdout.splitlines())
