"""Builds that run nothing: COPY, ADD, WORKDIR and settings."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from orchestra.build.problems import BuildError
from orchestra.errors import OrchestraError

pytestmark = pytest.mark.root

SETTINGS = """
# syntax=docker/dockerfile:1
ARG BASE=busybox
FROM ${BASE} AS base
ARG VERSION=1
ENV APP=/srv VERSION=${VERSION:-0} OTHER="a b"
LABEL version=$VERSION "two words"=x
WORKDIR $APP
WORKDIR sub
USER 5:6
EXPOSE 80 53/udp $VERSION
VOLUME /data
STOPSIGNAL SIGQUIT
SHELL ["/bin/sh", "-ec"]
HEALTHCHECK --interval=5s --retries=2 CMD true
ENTRYPOINT ["/bin/sh"]
CMD -c 'echo hi'
ONBUILD COPY x /x
"""


def test_settings(builder) -> None:  # type: ignore[no-untyped-def]
    image = builder.build(SETTINGS, args={"VERSION": "7"}, tags=("a:1", "b"), labels={"extra": "1"})
    config = image.settings
    assert "VERSION=7" in config["Env"]
    assert "OTHER=a b" in config["Env"]
    assert config["Labels"] == {"version": "7", "two words": "x", "extra": "1"}
    assert config["WorkingDir"] == "/srv/sub"
    assert config["User"] == "5:6"
    assert sorted(config["ExposedPorts"]) == ["53/udp", "7/tcp", "80/tcp"]
    assert list(config["Volumes"]) == ["/data"]
    assert config["StopSignal"] == "SIGQUIT"
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000, "Retries": 2}
    assert config["Entrypoint"] == ["/bin/sh"]
    assert config["Cmd"] == ["/bin/sh", "-ec", "-c 'echo hi'"]
    assert config["OnBuild"] == ["COPY x /x"]
    assert builder.store.get("a:1").id == builder.store.get("b").id == image.id
    builder.write("x", "x")
    child = builder.build("FROM a:1")
    assert builder.text(child, "x") == "x"
    assert "OnBuild" not in child.settings


def test_copy_and_cache(builder) -> None:  # type: ignore[no-untyped-def]
    builder.write("a.txt", "a", 0o640)
    builder.write("src/deep/b", "b")
    builder.write("src/no.log", "no")
    builder.write(".dockerignore", "**/*.log\n")
    text = "FROM busybox\nCOPY --chown=3:4 a.txt /one/\nCOPY src /two\nLABEL a=1\n"
    image = builder.build(text)
    files = builder.files(image)
    assert sorted(files) == ["one", "one/a.txt", "two", "two/deep", "two/deep/b"]
    found = files["one/a.txt"].stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (3, 4, 0o640)
    os.utime(builder.context / "a.txt", (5, 5))
    again = builder.build(text)
    assert again.id == image.id
    assert builder.cached() == 2
    builder.write("a.txt", "changed")
    changed = builder.build(text)
    assert changed.id != image.id
    assert builder.cached() == 0
    builder.build(text, no_cache=True)
    assert builder.cached() == 0


def test_stages(builder) -> None:  # type: ignore[no-untyped-def]
    builder.write("f", "f")
    image = builder.build(
        "FROM busybox AS a\nCOPY f /out/f\nFROM scratch AS unused\nCOPY missing /\n"
        "FROM scratch\nCOPY --from=a /out/ /x/\nCOPY --from=busybox /bin/busybox /bin/\n"
    )
    assert len(image.diff_ids) == 2
    assert (builder.store.layers(image)[0] / "x/f").read_text() == "f"
    only = builder.build("FROM busybox AS a\nCOPY f /g\nFROM a AS b\nCOPY f /h", target="a")
    assert sorted(builder.files(only)) == ["g"]


def test_heredoc_files(builder) -> None:  # type: ignore[no-untyped-def]
    image = builder.build(
        "FROM busybox\nENV N=world\nCOPY <<one <<'two' /d/\nhello $N\none\nhello $N\ntwo\n"
        "COPY --chmod=755 <<EOF /run.sh\n#!/bin/sh\nEOF\n"
    )
    assert builder.text(image, "d/one") == "hello world\n"
    assert builder.text(image, "d/two") == "hello $N\n"
    assert stat.S_IMODE(builder.files(image)["run.sh"].stat().st_mode) == 0o755


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_add_unpacks(builder, mode: str) -> None:  # type: ignore[no-untyped-def]
    with tarfile.open(builder.context / "x.tar", mode) as archive:
        info = tarfile.TarInfo("dir/file")
        info.size, info.uid = 2, 42
        archive.addfile(info, io.BytesIO(b"hi"))
    image = builder.build("FROM busybox\nADD x.tar /a/\nCOPY x.tar /b/\n")
    assert builder.text(image, "a/dir/file") == "hi"
    assert builder.files(image)["a/dir/file"].stat().st_uid == 42
    assert "b/x.tar" in builder.files(image)


def test_add_downloads(builder) -> None:  # type: ignore[no-untyped-def]
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"hi")

        def log_message(self, *_args: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/dir/name.txt?x=1"
        good = "sha256:8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4"
        image = builder.build(f"FROM busybox\nADD --checksum={good} {url} /a/\n")
        assert builder.text(image, "a/name.txt") == "hi"
        with pytest.raises(BuildError, match="wrong digest"):
            builder.build(f"FROM busybox\nADD --checksum=sha256:{'0' * 64} {url} /a/\n")
        server.shutdown()
        thread.join()


def test_context_from_tar(builder) -> None:  # type: ignore[no-untyped-def]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in (("Dockerfile", b"FROM busybox\nCOPY f /f\n"), ("f", b"data")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    buffer.seek(0)
    image = builder.build("", context="-", stdin=buffer)
    assert builder.text(image, "f") == "data"
    image = builder.build("", context="-", stdin=io.BytesIO(b"FROM busybox\nLABEL a=b\n"))
    assert image.settings["Labels"] == {"a": "b"}


def test_hostile_context(builder, tmp_path) -> None:  # type: ignore[no-untyped-def]
    secret = tmp_path / "secret"
    secret.write_text("secret")
    os.symlink(secret, builder.context / "link")
    with pytest.raises(BuildError):
        builder.build("FROM busybox\nCOPY link /x\n")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("f")
        info.type, info.linkname = tarfile.LNKTYPE, str(secret)
        archive.addfile(info)
    buffer.seek(0)
    with pytest.raises(BuildError):
        builder.build("", context="-", stdin=buffer)


@pytest.mark.parametrize(
    ("dockerfile", "place"),
    [
        ("FROM busybox\nCOPY missing /x\n", "Dockerfile:2:6"),
        ("FROM busybox\nCOPY --chown=nobody-here f /x\n", "Dockerfile:2:1"),
        ("FROM busybox\nEXPOSE x\n", "Dockerfile:2:1"),
        ("FROM busybox\nSTOPSIGNAL NOPE\n", "Dockerfile:2:12"),
        ("FROM busybox\nWORKDIR /bin/sh\n", "Dockerfile:2:9"),
        ("FROM scratch\nRUN true\n", "Dockerfile:2:1"),
        ("FROM busybox\nRUN --network=none --security=insecure true\n", "Dockerfile:2:1"),
    ],
)
def test_located_errors(builder, dockerfile: str, place: str) -> None:  # type: ignore[no-untyped-def]
    builder.write("f", "f")
    with pytest.raises(OrchestraError) as caught:
        builder.build(dockerfile)
    assert str(caught.value.location).endswith(place)


def test_reproducible(builder) -> None:  # type: ignore[no-untyped-def]
    builder.write("f", "f")
    text = "FROM busybox\nCOPY f /x/\nWORKDIR /new\n"
    one = builder.build(text, args={"SOURCE_DATE_EPOCH": "1000"}, no_cache=True)
    os.utime(builder.context / "f")
    two = builder.build(text, args={"SOURCE_DATE_EPOCH": "1000"}, no_cache=True)
    assert one.digest == two.digest


def test_named_contexts(builder, tmp_path) -> None:  # type: ignore[no-untyped-def]
    other = tmp_path / "other"
    other.mkdir()
    (other / "o").write_text("o")
    contexts = {"extra": str(other), "alpine": "docker-image://busybox"}
    image = builder.build("FROM alpine\nCOPY --from=extra o /o\n", contexts=contexts)
    assert builder.text(image, "o") == "o"
