"""The ``image`` verbs against a store of their own, through the real command line."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from support.trees import archive

from orchestra.cli.main import main
from orchestra.images.commit import extend, store_layer
from orchestra.images.config import Settings, history_step
from orchestra.images.image import Image
from orchestra.images.store import ImageStore


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageStore:
    monkeypatch.setenv("ORCHESTRA_ROOT", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)
    return ImageStore(tmp_path / "root/lib/images")


def make(store: ImageStore, *names: str, content: bytes = b"1", created: float = 1000.0) -> Image:
    layer = store_layer(store, lambda sink: sink(archive(("file", "file", {"content": content}))))
    steps = [history_step(created, "ADD  file\n in /"), history_step(created, "CMD x", empty_layer=True)]
    return extend(store, None, [layer], Settings(cmd=["x"], labels={"a": "b"}), history=steps,
                  created=created, names=names)  # fmt: skip


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["image", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_ls(store: ImageStore, capsys: pytest.CaptureFixture[str]) -> None:
    one = make(store, "one", "reg.example/x/two:2")
    make(store, content=b"2")
    code, out, _ = run(capsys, "ls")
    lines = [re.split(r"\s{3,}", line) for line in out.splitlines()]
    assert code == 0
    assert lines[0] == ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]
    assert sorted(line[:2] for line in lines[1:]) == [
        ["<none>", "<none>"], ["one", "latest"], ["reg.example/x/two", "2"],
    ]  # fmt: skip
    assert run(capsys, "ls", "-q", "one")[1] == one.short_id + "\n"
    assert run(capsys, "ls", "-q", "--no-trunc", "--filter", "dangling=false")[1] == one.id + "\n"
    assert len(run(capsys, "ls", "-q", "-f", "label=a=b")[1].splitlines()) == 2
    assert run(capsys, "ls", "-f", "reference=*two*", "--format", "{{.Repository}}:{{.Tag}}")[1] == (
        "one:latest\nreg.example/x/two:2\n"
    )
    rows = [json.loads(line) for line in run(capsys, "ls", "--format", "json")[1].splitlines()]
    assert {row["Tag"] for row in rows} == {"latest", "2", "<none>"}
    code, _, err = run(capsys, "ls", "-f", "nonsense=1")
    assert code == 1 and "invalid filter" in err and "Traceback" not in err


def test_tag_inspect_history_rm(store: ImageStore, capsys: pytest.CaptureFixture[str]) -> None:
    image = make(store, "one")
    assert run(capsys, "tag", "one", "other:3")[0] == 0
    (details,) = json.loads(run(capsys, "inspect", "one")[1])
    assert details["Id"] == image.id and details["RepoTags"] == ["one:latest", "other:3"]
    assert (details["Config"]["Cmd"] == ["x"] and details["Size"] == 2048 * 5) or details["Size"] > 0
    assert run(capsys, "inspect", "-f", "{{.Config.Cmd}}", "one")[1] == "[x]\n"
    out = run(capsys, "history", "--no-trunc", "one")[1].splitlines()
    assert out[1].startswith(image.id) and "CMD x" in out[1] and "ADD file in /" in out[2]
    assert run(capsys, "rm", "other:3")[1] == "Untagged: other:3\n"
    code, out_text, err = run(capsys, "rm", "missing", "one")
    assert code == 1 and "no such image: missing" in err
    assert out_text == f"Untagged: one:latest\nDeleted: {image.id}\n"
    assert run(capsys, "rm", "-f", "missing")[0] == 0


def test_rm_of_an_image_in_use(store: ImageStore, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    image = make(store, "one")
    (tmp_path / "root/run").mkdir(parents=True)
    (tmp_path / "root/run/images-in-use.json").write_text(json.dumps([image.id]))
    code, _, err = run(capsys, "rm", "one")
    assert code == 1 and "in use by a container" in err
    assert run(capsys, "rm", "-f", "one")[1] == "Untagged: one:latest\n"
    assert run(capsys, "prune", "-a", "-f")[1] == "Total reclaimed space: 0B\n"


def test_save_load_import(store: ImageStore, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    image = make(store, "one")
    assert run(capsys, "save", "-o", "one.tar", "one")[0] == 0
    run(capsys, "prune", "-a", "-f")
    assert store.list() == []
    assert run(capsys, "load", "-i", "one.tar")[1] == "Loaded image: one:latest\n"
    assert store.get("one").id == image.id
    (tmp_path / "root.tar").write_bytes(archive(("etc", "dir")))
    code, out, _ = run(capsys, "import", "-c", 'CMD ["a"]', "-m", "note", "root.tar", "imported:1")
    assert code == 0 and store.get("imported:1").id == out.strip()
    code, _, err = run(capsys, "load", "-i", "missing.tar")
    assert code == 1 and "cannot read missing.tar" in err
    code, _, err = run(capsys, "save", "-o", "x.tar", "missing")
    assert code == 1 and not (tmp_path / "x.tar").exists()
    assert [path.name for path in tmp_path.glob("x.tar*")] == []


def test_prune_asks(
    store: ImageStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = make(store)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert run(capsys, "prune")[0] == 1
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    code, out, _ = run(capsys, "prune")
    assert code == 0 and f"deleted: {image.id}" in out and "Total reclaimed space:" in out


def test_from_host(store: ImageStore, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(
        capsys, "from-host", "tools:1", "--bin", "sh", "--cmd", "sh -c 'echo hi'", "--entrypoint", '["/bin/env"]',
        "-e", "A=1", "--expose", "80", "-l", "x=y", "--volume", "/data", "-u", "5", "-w", "/w", "--healthcheck",
        "--interval=5s CMD true", "--stop-signal", "SIGINT", "--mkdir", "/data:0700",
    )  # fmt: skip
    assert code == 0, err
    settings = store.get(out.strip()).settings
    assert settings["Cmd"] == ["sh", "-c", "echo hi"] and settings["Entrypoint"] == ["/bin/env"]
    assert "A=1" in settings["Env"] and settings["Labels"] == {"x": "y"}
    assert settings["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000}
    assert (settings["User"], settings["WorkingDir"], settings["StopSignal"]) == ("5", "/w", "SIGINT")
    code, _, err = run(capsys, "from-host", "nothing")
    assert code == 1 and "nothing to put into the image" in err


def test_bootstrap_needs_a_tool(
    store: ImageStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_args, **_more: None)
    code, _, err = run(capsys, "bootstrap", "debian:bookworm")
    assert code == 1 and "neither mmdebstrap nor debootstrap" in err
    monkeypatch.setattr("shutil.which", lambda name, **_more: f"/usr/bin/{name}")
    for base in ("windows:11", "debian", "debian:../x"):
        assert run(capsys, "bootstrap", base)[0] == 1
    assert run(capsys, "bootstrap", "debian:bookworm", "--include", "a b")[0] == 1
