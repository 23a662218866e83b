"""Images of services: built, watched, pushed, pulled by policy."""

from __future__ import annotations

import signal

import pytest
from support.engine import Engine, eventually
from support.registry import Registry

pytestmark = pytest.mark.root

DOCKERFILE = """FROM busybox
WORKDIR /app
COPY src/ /app/
RUN echo built > /built
CMD ["sh", "-c", "cat /app/text; exec sleep 1000"]
"""
BUILT = """
    name: b
    services:
      web:
        build: .
        init: true
        develop:
          watch:
            - {path: ./src, action: sync, target: /app}
            - {path: ./Dockerfile, action: rebuild}
"""


def test_build_and_watch(engine: Engine) -> None:
    engine.write(BUILT)
    engine.write("one\n", "src/text")
    (engine.folder / "Dockerfile").write_text(DOCKERFILE)
    engine.run("up", "-d", "--build")
    assert engine.out("exec", "-T", "web", "cat", "/app/text", "/built") == "one\nbuilt\n"
    watching = engine.popen("watch", "--no-up")
    assert watching.stderr is not None
    assert "Watch enabled" in watching.stderr.readline()
    engine.write("two\n", "src/text")
    # the file is replaced, not written in place: for a moment there is none
    eventually(
        lambda: engine.run("exec", "-T", "web", "cat", "/app/text", code=None).stdout == "two\n", what="the file is synced"
    )
    (engine.folder / "Dockerfile").write_text(DOCKERFILE.replace("echo built", "echo rebuilt"))
    eventually(lambda: "rebuilt" in engine.run("exec", "-T", "web", "cat", "/built", code=None).stdout, what="the image is rebuilt")
    watching.send_signal(signal.SIGINT)
    assert watching.wait(30) == 130
    watching.stderr.close()
    assert watching.stdout is not None
    watching.stdout.close()
    engine.run("down", "-t", "2", "--rmi", "all")
    assert "b-web" not in engine.out("image", "ls")


def test_a_broken_dockerfile_says_where(engine: Engine) -> None:
    engine.write(BUILT)
    engine.write("x\n", "src/text")
    (engine.folder / "Dockerfile").write_text("FROM busybox\nRUN exit 7\n")
    done = engine.run("build", code=1)
    assert "Dockerfile:2" in done.stderr and "7" in done.stderr


def test_push_and_pull_by_policy(engine: Engine) -> None:
    with Registry() as registry:
        name = f"{registry.host}/team/app:1"
        engine.write(f"""
            name: r
            services:
              app: {{image: "{name}", build: ., command: sleep 1000, init: true}}
        """)
        (engine.folder / "Dockerfile").write_text("FROM busybox\nRUN echo first > /version\n")
        engine.run("build")
        engine.run("push")
        engine.run("image", "rm", name)
        engine.write(f"""
            name: r
            services:
              app: {{image: "{name}", command: sleep 1000, init: true}}
        """)
        engine.run("up", "-d")
        assert engine.out("exec", "-T", "app", "cat", "/version") == "first\n"
        assert "nothing to do" in engine.run("up", "-d").stderr
        engine.run("pull")
        never = engine.run("up", "-d", "--pull", "never")
        assert "nothing to do" in never.stderr
        engine.run("down", "-t", "2")
        engine.run("image", "rm", name)
        assert "no such image" in engine.run("up", "-d", "--pull", "never", code=1).stderr
