"""More layers than a mount's option page holds, and files larger than a tar's usual header can say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.engine import Engine
from support.trees import archive

from orchestra.images import layer
from orchestra.images.commit import extend, store_layer
from orchestra.images.compress import Compressor, chunks
from orchestra.images.config import Settings
from orchestra.images.diff import TreeOptions, write_tree
from orchestra.images.mediatype import Compression
from orchestra.images.store import open_store
from orchestra.paths import Paths

pytestmark = pytest.mark.root


@pytest.mark.parametrize("count", [125, 300])
def test_many_layers_run(engine: Engine, count: int) -> None:
    store = open_store(Paths(f"{engine.root}/lib", f"{engine.root}/run", None))
    base = store.get("busybox")
    made = []
    for number in range(count):
        data = archive((f"many/f{number}", "file", {"content": b"%d" % number}), ("last", "file", {"content": b"%d\n" % number}))
        made.append(store_layer(store, lambda sink, data=data: sink(data)))
    extend(store, base, made, Settings.from_dict(base.settings), history=[], created=0, names=["deep:1"])
    script = "ls /many | wc -l; cat /last; rm /many/f0; echo new > /many/f1; cat /many/f1; ls /many | wc -l"
    done = engine.run("container", "run", "--rm", "--network", "none", "deep:1", "sh", "-c", script)
    assert done.stdout.split() == [str(count), str(count - 1), "new", str(count - 1)]


def test_files_beyond_eight_gigabytes(tmp_path: Path) -> None:
    """12 GB of holes with data at both ends: through a layer (compressed) and back, quickly and small."""
    source, target, packed = tmp_path / "source", tmp_path / "target", tmp_path / "layer.tar.gz"
    source.mkdir()
    target.mkdir()
    size = 12 << 30
    with open(source / "huge", "wb") as stream:
        stream.write(b"begin")
        stream.seek(9 << 30)
        stream.write(b"middle")
        stream.seek(size - 3)
        stream.write(b"end")
    with open(packed, "wb") as out:
        press = Compressor(Compression.GZIP, out.write)
        write_tree(source, press.write, TreeOptions())
        press.finish()
    assert packed.stat().st_size < 1 << 20
    with open(packed, "rb") as stream:
        layer.apply(chunks(stream), target)
    found = (target / "huge").stat()
    assert found.st_size == size and found.st_blocks * 512 < 1 << 20
    fd = os.open(target / "huge", os.O_RDONLY)
    try:
        assert [os.pread(fd, count, at) for count, at in ((5, 0), (6, 9 << 30), (3, size - 3))] == [b"begin", b"middle", b"end"]
    finally:
        os.close(fd)
