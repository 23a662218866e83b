"""Starts and exec beside crun on cgroup version 2. No test: collected when it is named, in the machine that has crun.

    sh tests/vm/run.sh -s tests/vm/figures.py
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))

pytestmark = pytest.mark.root


def test_figures() -> None:
    import runtime as bench

    work, run = Path(tempfile.mkdtemp(dir="/tmp")), Path(tempfile.mkdtemp(dir="/tmp"))
    ours = bench.Ours(work, run)
    peers: list[bench.Peer] = []
    try:
        warm = ours.create("sleep", "100000")
        ours.start(warm)
        image = ours.engine.image("busybox")
        assert image
        layer = ours.engine.images.layers(ours.engine.images.get(image[0]))[0]
        shutil.copytree(layer, work / "root", symlinks=True)
        peers = [bench.Peer("crun", work, ours.bundle(warm), work / "root")]
        rows = [
            ("start of one container", dict(bench.starts(ours, peers, 7)), "ms", 1000.0),
            ("exec of true", dict(bench.execs(ours, peers, 7)), "ms", 1000.0),
        ]
        print("\n".join(["", *bench.compare(["orchestra", "crun"], rows)]), flush=True)
    finally:
        for peer in peers:
            peer.close()
        ours.close()
