from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from orchestra.build.builder import build
from orchestra.build.request import BuildRequest
from orchestra.events import Progress
from orchestra.images.fromhost import HostOptions, from_host
from orchestra.images.image import Image
from orchestra.images.store import ImageStore
from orchestra.paths import Paths


@dataclass
class Builder:
    """A private engine with the image ``busybox``, and a context directory."""

    paths: Paths
    store: ImageStore
    context: Path
    seen: list[Progress] = field(default_factory=list)

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def build(self, dockerfile: str, **options: object) -> Image:
        self.write("Dockerfile", dockerfile)
        self.seen.clear()
        request = BuildRequest(context=str(self.context), environ={"HOME": "/nonexistent"})
        return build(replace(request, **options), self.store, self.paths, self.seen.append)  # type: ignore[arg-type]

    def output(self) -> list[str]:
        return [progress.details for progress in self.seen if progress.text == "log"]

    def cached(self) -> int:
        return sum(progress.text == "CACHED" for progress in self.seen)

    def files(self, image: Image) -> dict[str, Path]:
        """Everything above the base image, by name (a later layer wins)."""
        found: dict[str, Path] = {}
        for layer in self.store.layers(image)[1:]:
            for path in layer.rglob("*"):
                found[str(path.relative_to(layer))] = path
        return found

    def text(self, image: Image, name: str) -> str:
        return self.files(image)[name].read_text()


@pytest.fixture(scope="session")
def base_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="orchestra-build-", dir="/var/tmp"))
    from_host(ImageStore(folder / "lib/images"), "busybox", HostOptions(bins=("busybox",)))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def builder(base_store: Path, tmp_path: Path) -> Iterator[Builder]:
    root = Path(tempfile.mkdtemp(prefix="orchestra-build-", dir="/var/tmp"))
    shutil.copytree(base_store, root, dirs_exist_ok=True, symlinks=True)
    paths = Paths(root / "lib", root / "run", "buildtest")
    paths.make()
    context = tmp_path / "context"
    context.mkdir()
    yield Builder(paths, ImageStore(paths.images), context)
    mounts = Path("/proc/self/mountinfo").read_text()
    assert str(root) not in mounts
    left = [name for name in os.listdir(paths.builds) if name not in ("cache", "mounts")]
    assert left == []
    assert os.listdir(paths.images / "ingest") == []
    shutil.rmtree(root)
