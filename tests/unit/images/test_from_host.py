from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from orchestra.errors import NotFoundError, OrchestraError
from orchestra.images.elf import Libraries, read_cache, read_elf
from orchestra.images.fromhost import HostOptions, HostTree, collect_tree, from_host
from orchestra.images.hostfiles import interpreter_of
from orchestra.images.store import ImageStore

SH = shutil.which("sh", path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin") or "/bin/sh"


def test_elf_of_a_real_program() -> None:
    elf = read_elf(os.path.realpath(SH))
    assert elf is not None
    if not elf.needed:
        pytest.skip("the shell of this machine is static")
    found, missing = Libraries.of_host().closure(os.path.realpath(SH))
    assert elf.interpreter in found and not missing
    assert all(os.path.isfile(path) for path in found)


def test_not_elf(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    assert read_elf(str(tmp_path / "text")) is None
    (tmp_path / "damaged").write_bytes(b"\x7fELF\x02\x01" + b"\xff" * 100)
    with pytest.raises(OrchestraError, match="damaged ELF"):
        read_elf(str(tmp_path / "damaged"))


def test_no_cache(tmp_path: Path) -> None:
    assert read_cache(tmp_path / "none") == {}
    (tmp_path / "damaged").write_bytes(b"glibc-ld.so.cache1.1" + b"\xff\xff\xff\x7f" + bytes(30))
    assert read_cache(tmp_path / "damaged") == {}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("#!/bin/sh\n", ["/bin/sh"]),
        ("#! /usr/bin/perl -w\n", ["/usr/bin/perl"]),
        ("#!/usr/bin/env python3\n", ["/usr/bin/env", "python3"]),
        ("#!/usr/bin/env -S A=1 python3 -u\n", ["/usr/bin/env", "python3"]),
        ("echo\n", []),
        ("#!\n", []),
    ],
)
def test_interpreters(tmp_path: Path, line: str, words: list[str]) -> None:
    script = tmp_path / "script"
    script.write_text(line)
    assert interpreter_of(str(script)) == words


def test_links_of_the_host_are_kept(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/data").write_text("x")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "abs").symlink_to(tmp_path / "link/data")
    tree = HostTree()
    assert tree.take(str(tmp_path / "abs")) == str(tmp_path / "real/data")
    kinds = {path: item.member.kind for path, item in tree.items.items()}
    assert kinds[str(tmp_path / "abs")] == kinds[str(tmp_path / "link")] == b"2"
    assert kinds[str(tmp_path / "real/data")] == b"0"


def test_trees_follow_files_out(tmp_path: Path) -> None:
    (tmp_path / "certs").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store/a.pem").write_text("cert")
    (tmp_path / "certs/a").symlink_to("../store/a.pem")
    (tmp_path / "certs/broken").symlink_to("nowhere")
    tree = collect_tree(HostOptions(paths=[f"{tmp_path}/certs", f"{tmp_path}/store:/srv/store",
                                           f"{tmp_path}/store/a.pem:/etc/one"], base=False))  # fmt: skip
    assert tree.items[str(tmp_path / "store/a.pem")].source == str(tmp_path / "store/a.pem")
    assert tree.items["/srv/store/a.pem"].source and tree.items["/etc/one"].source
    assert tree.items[str(tmp_path / "certs/broken")].member.kind == b"2"


def test_missing_things() -> None:
    with pytest.raises(NotFoundError, match="no program"):
        collect_tree(HostOptions(bins=["surely-not-a-program"]))
    with pytest.raises(NotFoundError, match="cannot take"):
        collect_tree(HostOptions(paths=["/surely/not/a/path"]))
    for options in (HostOptions(folders=["/x:9"]), HostOptions(users=["x"])):
        with pytest.raises(OrchestraError, match="invalid"):
            collect_tree(options)


def test_an_image(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    options = HostOptions(bins=["sh"], folders=["/data:0750"], users=["app:1000"], files={"/etc/motd": b"hi"})
    image = from_host(store, "tools", options)
    again = from_host(store, "again", HostOptions(bins=["sh"], folders=["/data:0750"], users=["app:1000"],
                                                  files={"/etc/motd": b"hi"}))  # fmt: skip
    assert image.id == again.id
    root = store.layers(image)[0]
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    assert stat.S_IMODE((root / "data").stat().st_mode) == 0o750
    assert "app:x:1000:1000:" in (root / "etc/passwd").read_text()
    assert (root / "etc/motd").read_bytes() == b"hi"
    assert image.settings["Env"][0].startswith("PATH=")
