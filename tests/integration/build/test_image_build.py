"""``orchestra image build`` as a command."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.root


def run(builder, *words: str, data: bytes | None = None) -> subprocess.CompletedProcess[str]:  # type: ignore[no-untyped-def]
    environ = {
        **os.environ, "ORCHESTRA_ROOT": str(builder.paths.lib.parent), "WORD": "s3cret", "NO_COLOR": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "orchestra", "image", "build", *words],
        cwd=builder.context, env=environ, input=data, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    return subprocess.CompletedProcess(words, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_flags(builder) -> None:  # type: ignore[no-untyped-def]
    builder.write(
        "sub/Other",
        "FROM busybox AS one\nARG A\nRUN --mount=type=secret,id=w wc -c /run/secrets/w; "
        "echo $A > /a\nFROM one\nRUN exit 1\n",
    )
    done = run(
        builder,
        "-t",
        "x:1",
        "-f",
        "sub/Other",
        "--build-arg",
        "A=5",
        "--target",
        "one",
        "--label",
        "k=v",
        "--secret",
        "id=w,env=WORD",
        "--iidfile",
        "id",
        ".",
    )
    assert done.returncode == 0, done.stderr
    assert "6 /run/secrets/w" in done.stderr
    image = builder.store.get("x:1")
    assert (builder.context / "id").read_text() == image.id
    assert image.settings["Labels"] == {"k": "v"}
    assert builder.text(image, "a") == "5\n"
    quiet = run(
        builder, "-q", "-f", "sub/Other", "--build-arg", "A=5", "--target", "one", "--label", "k=v", "."
    )
    assert quiet.stdout.strip() == image.id


def test_errors(builder) -> None:  # type: ignore[no-untyped-def]
    builder.write("Dockerfile", "FROM busybox\nRUN echo last words; exit 4\n")
    done = run(builder, ".")
    assert done.returncode == 1
    assert "Dockerfile:2:1" in done.stderr
    assert "exit status 4" in done.stderr
    assert "Traceback" not in done.stderr
    assert run(builder, "missing-folder").returncode == 1
    assert run(builder, "--secret", "nonsense", ".").returncode != 0


def test_dockerfile_on_standard_input(builder) -> None:  # type: ignore[no-untyped-def]
    done = run(builder, "-t", "y:1", "-", data=b"FROM busybox\nLABEL a=b\n")
    assert done.returncode == 0, done.stderr
    assert builder.store.get("y:1").settings["Labels"] == {"a": "b"}
    builder.write("f", "f")
    done = run(builder, "-t", "z:1", "-f", "-", ".", data=b"FROM busybox\nCOPY f /f\n")
    assert done.returncode == 0, done.stderr
