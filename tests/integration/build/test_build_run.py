"""RUN steps in containers."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestra.build.problems import BuildError
from orchestra.build.request import Secret

pytestmark = pytest.mark.root


def test_run(builder) -> None:  # type: ignore[no-untyped-def]
    text = (
        "FROM busybox\nARG WHO=world\nENV A=1\nWORKDIR /w\n"
        'RUN echo "hello $WHO $A" > out && echo shown && mkdir -p d && chmod 700 d\n'
        'RUN ["/bin/sh", "-c", "rm out && echo 2 > two"]\n'
    )
    image = builder.build(text)
    assert "shown" in builder.output()
    layers = builder.store.layers(image)
    assert len(layers) == 4
    assert (layers[2] / "w/out").read_text() == "hello world 1\n"
    assert stat.S_ISCHR((layers[3] / "w/out").lstat().st_mode)
    assert (layers[3] / "w/two").read_text() == "2\n"
    names = {path.relative_to(layers[2]).as_posix() for path in layers[2].rglob("*")}
    assert names == {"w", "w/out", "w/d"}
    assert builder.build(text).id == image.id
    assert builder.cached() == 3
    changed = builder.build(text, args={"WHO": "you"})
    assert changed.id != image.id
    assert builder.cached() == 1


def test_nothing_changed_makes_no_layer(builder) -> None:  # type: ignore[no-untyped-def]
    image = builder.build("FROM busybox\nRUN true\nRUN cat /etc/resolv.conf /etc/hosts > /dev/null\n")
    assert len(image.diff_ids) == 1
    assert [step.get("empty_layer") for step in image.config["history"][1:]] == [True, True]


def test_failure(builder) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(BuildError, match="exit status 3") as caught:
        builder.build("FROM busybox\n\nRUN echo last words >&2; exit 3\n")
    assert str(caught.value.location).endswith("Dockerfile:3:1")
    assert caught.value.details == ("last words",)
    with pytest.raises(BuildError, match="SIGKILL"):
        builder.build("FROM busybox\nRUN sh -c 'kill -9 $$' ; exit $?\n")
    with pytest.raises(BuildError, match="cannot start") as caught:
        builder.build('FROM busybox\nRUN ["/no/such"]\n')
    assert str(caught.value.location).endswith("Dockerfile:2:1")


def test_user_and_home(builder) -> None:  # type: ignore[no-untyped-def]
    image = builder.build(
        "FROM busybox\nRUN mkdir -m 777 /d && echo me:x:77:77::/home/me:/bin/sh >> /etc/passwd\nUSER me\n"
        "RUN id -u > /d/uid && echo $HOME > /d/home && touch /d/mine\n"
    )
    assert builder.text(image, "d/uid") == "77\n"
    assert builder.text(image, "d/home") == "/home/me\n"
    assert builder.files(image)["d/mine"].stat().st_uid == 77


def test_heredocs(builder) -> None:  # type: ignore[no-untyped-def]
    image = builder.build(
        "FROM busybox\nRUN <<EOF\nA=1\necho $A > /one\nEOF\n"
        "RUN cat <<X > /two\nb $((1+1))\nX\n"
        "RUN <<EOF\n#!/bin/sh -e\necho script > /three\nEOF\n"
    )
    assert builder.text(image, "one") == "1\n"
    assert builder.text(image, "two") == "b 2\n"
    assert builder.text(image, "three") == "script\n"
    assert not any(name.startswith("dev") for name in builder.files(image))


class TestMounts:
    def test_bind(self, builder) -> None:  # type: ignore[no-untyped-def]
        builder.write("src/a", "a")
        builder.write("src/hidden", "h")
        builder.write(".dockerignore", "**/hidden\n")
        text = (
            "FROM busybox AS s\nRUN echo s > /from-stage\nFROM busybox\n"
            "RUN --mount=target=/src,source=src ls /src > /list; ! touch /src/x\n"
            "RUN --mount=target=/m,source=/src,rw echo b > /m/b && cat /m/a /m/b > /both\n"
            "RUN --mount=from=s,target=/st cp /st/from-stage /copied\n"
            "RUN --mount=from=s,source=/from-stage,target=/file cp /file /copied2\n"
        )
        image = builder.build(text)
        assert builder.text(image, "list") == "a\n"
        assert builder.text(image, "both") == "ab\n"
        assert builder.text(image, "copied") == "s\n"
        assert builder.text(image, "copied2") == "s\n"
        assert sorted(builder.files(image)) == ["both", "copied", "copied2", "list"]
        assert not (builder.context / "src/b").exists()
        builder.write("src/a", "other")
        builder.build(text)
        assert builder.cached() == 1

    def test_cache(self, builder) -> None:  # type: ignore[no-untyped-def]
        line = "RUN --mount=type=cache,target=/c,sharing={} echo x >> /c/log && wc -l < /c/log > /n{}\n"
        image = builder.build("FROM busybox\n" + line.format("shared", 1) + line.format("locked", 2))
        assert builder.text(image, "n1").strip() == "1"
        assert builder.text(image, "n2").strip() == "2"
        assert sorted(builder.files(image)) == ["n1", "n2"]

    def test_tmpfs_and_secret(self, builder) -> None:  # type: ignore[no-untyped-def]
        builder.write("key", "s3cret")
        text = (
            "FROM busybox\nRUN --mount=type=tmpfs,target=/t --mount=type=secret,id=key,uid=5,mode=0440 "
            "touch /t/x && wc -c < /run/secrets/key > /size && stat -c %u:%a /run/secrets/key > /mode\n"
            "RUN --mount=type=secret,id=tok,env=TOKEN echo ${#TOKEN} > /length\n"
        )
        secrets = (Secret("key", file=str(builder.context / "key")), Secret("tok", value="12345"))
        image = builder.build(text, secrets=secrets)
        assert builder.text(image, "size").strip() == "6"
        assert builder.text(image, "mode").strip() == "5:440"
        assert builder.text(image, "length").strip() == "5"
        assert sorted(builder.files(image)) == ["length", "mode", "size"]
        assert not [name for name in os.listdir(builder.paths.run) if "secret" in name]

    def test_required_secret(self, builder) -> None:  # type: ignore[no-untyped-def]
        with pytest.raises(BuildError, match="no secret 'key'"):
            builder.build("FROM busybox\nRUN --mount=type=secret,id=key,required=true true\n")


def test_network(builder) -> None:  # type: ignore[no-untyped-def]
    image = builder.build(
        "FROM busybox\nRUN --network=none ls /sys/class/net > /none\nRUN cat /etc/hosts > /hosts\n",
        extra_hosts=("db:10.1.2.3",),
    )
    assert builder.text(image, "none").split() == ["lo"]
    assert "10.1.2.3\tdb" in builder.text(image, "hosts")


def test_stages_run_side_by_side(builder) -> None:  # type: ignore[no-untyped-def]
    """Two stages meet through the network namespace they share: neither could alone."""
    image = builder.build(
        "FROM busybox AS a\nRUN --mount=type=cache,id=meet,target=/m touch /m/a; "
        "for i in $(seq 300); do [ -e /m/b ] && exit 0; sleep 0.1; done; exit 1\n"
        "FROM busybox AS b\nRUN --mount=type=cache,id=meet,target=/m touch /m/b; "
        "for i in $(seq 300); do [ -e /m/a ] && exit 0; sleep 0.1; done; exit 1\n"
        "FROM busybox\nCOPY --from=a /etc/passwd /a\nCOPY --from=b /etc/passwd /b\n"
    )
    assert sorted(builder.files(image)) == ["a", "b"]


def test_failure_ends_other_stages(builder) -> None:  # type: ignore[no-untyped-def]
    begin = time.monotonic()
    with pytest.raises(BuildError, match="exit status 9"):
        builder.build(
            "FROM busybox AS a\nRUN sleep 100\nFROM busybox AS b\nRUN exit 9\n"
            "FROM busybox\nCOPY --from=a /etc/passwd /a\nCOPY --from=b /etc/passwd /b\n"
        )
    assert time.monotonic() - begin < 60


def test_background_process_does_not_hang(builder) -> None:  # type: ignore[no-untyped-def]
    done = threading.Event()

    def work() -> None:
        builder.build("FROM busybox\nRUN (sleep 1000 &) ; echo done\n")
        done.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(60)
    assert done.is_set()


def test_changes_of_the_image(builder) -> None:  # type: ignore[no-untyped-def]
    """Deleted directories, replaced ones, links and modes survive the way into a layer and out of it."""
    image = builder.build(
        "FROM busybox\nRUN mkdir -p /d/sub && echo 1 > /d/sub/f && echo 2 > /d/g\n"
        "RUN rm -r /d && mkdir /d && echo 3 > /d/h && ln -s h /d/l && ln /d/h /d/hard && chmod 4755 /d/h\n"
        "RUN ls /d > /list && stat -c %a:%h /d/h > /stat\n"
    )
    assert builder.text(image, "list").split() == ["h", "hard", "l"]
    assert builder.text(image, "stat").strip() == "4755:2"


def test_many_layers(builder) -> None:  # type: ignore[no-untyped-def]
    lines = "".join(f"COPY <<EOF /many/{number}\n{number}\nEOF\n" for number in range(130))
    image = builder.build(f"FROM busybox\n{lines}RUN ls /many | wc -l > /count\n")
    assert len(image.diff_ids) == 132
    assert builder.text(image, "count").strip() == "130"


def test_killed_builder_leaves_nothing_behind(builder, tmp_path) -> None:  # type: ignore[no-untyped-def]
    mark = f"987{os.getpid() % 10000:04}"
    builder.write("Dockerfile", f"FROM busybox\nRUN --mount=type=secret,id=s sleep {mark}\n")
    code = (
        "import sys\nfrom pathlib import Path\nfrom orchestra.build.builder import build\n"
        "from orchestra.build.request import BuildRequest, Secret\n"
        "from orchestra.images.store import ImageStore\nfrom orchestra.paths import Paths\n"
        "paths = Paths(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "request = BuildRequest(context=sys.argv[3], secrets=(Secret('s', value='x'),))\n"
        "build(request, ImageStore(paths.images), paths, print)\n"
    )
    arguments = [str(builder.paths.lib), str(builder.paths.run), str(builder.context)]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: running(mark))
    finally:
        process.kill()
        process.wait()
    eventually(lambda: not running(mark))
    builder.build("FROM busybox\nLABEL a=b\n")
    assert not [name for name in os.listdir(builder.paths.run) if "secret" in name]
    builder.store.gc()
    eventually(lambda: not os.listdir(builder.paths.images / "ingest"))


def running(mark: str) -> bool:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[:2] == [b"sleep", mark.encode()]:
                return True
    return False


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)
