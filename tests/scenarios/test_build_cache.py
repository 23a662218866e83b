"""The build cache outlives the images made with it, shows in ``system df`` and goes with ``system prune``."""

from __future__ import annotations

import json

import pytest
from support.engine import Engine

pytestmark = pytest.mark.root

DOCKERFILE = """FROM busybox
RUN cat /proc/sys/kernel/random/uuid >/stamp
CMD ["cat", "/stamp"]
"""


def build(engine: Engine) -> str:
    done = engine.run("image", "build", "-t", "cached", ".", "--progress", "plain")
    return done.stdout + done.stderr


def cache(engine: Engine) -> dict[str, str]:
    text = engine.run("system", "df", "--format", "json").stdout
    rows = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    return next(row for row in rows if row["Type"] == "Build Cache")


def test_the_cache_outlives_images_until_it_is_pruned(engine: Engine) -> None:
    (engine.folder / "Dockerfile").write_text(DOCKERFILE)
    assert "CACHED" not in build(engine)
    first = engine.run("container", "run", "--rm", "cached").stdout
    row = cache(engine)
    assert (int(row["TotalCount"]), int(row["Active"])) == (1, 1)
    assert row["Reclaimable"].startswith("0B")

    engine.run("image", "rm", "cached")
    engine.run("image", "prune", "-f")
    row = cache(engine)
    assert (int(row["TotalCount"]), int(row["Active"])) == (1, 0)
    assert not row["Reclaimable"].startswith("0B")
    assert "CACHED" in build(engine)
    assert engine.run("container", "run", "--rm", "cached").stdout == first

    engine.run("system", "prune", "-f")  # what an image shares stays
    assert int(cache(engine)["TotalCount"]) == 1
    engine.run("image", "rm", "cached")
    engine.run("system", "prune", "-f")
    assert int(cache(engine)["TotalCount"]) == 0
    assert "CACHED" not in build(engine)
    assert engine.run("container", "run", "--rm", "cached").stdout != first
