"""Random trees → layer → extracted again → the same; and what layers say about overlays."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.trees import archive, snapshot

from orchestra.images import layer
from orchestra.images.compress import Compressor, chunks
from orchestra.images.diff import TreeOptions, changes, write_tree
from orchestra.images.layer import ApplyOptions
from orchestra.images.mediatype import Compression
from orchestra.images.problems import LayerError

ROOT = os.geteuid() == 0
OPTIONS = ApplyOptions(owners=ROOT, overlay="user.overlay.")

name = st.one_of(
    st.sampled_from(["a", "b", "c", "dir", "x" * 150, "ü", "sp ace", "new\nline", "wh.x"]),
    st.binary(min_size=1, max_size=8).map(lambda raw: os.fsdecode(raw.replace(b"/", b"_").replace(b"\0", b"0"))),
).filter(lambda text: text not in (".", "..") and not text.startswith(".wh."))  # fmt: skip
mode = st.sampled_from([0o644, 0o600, 0o755, 0o4755, 0o2711, 0o1777, 0o444, 0o000])
owner = st.sampled_from([0, 1, 1000, 65534, 70_000, 3_000_000])
mtime = st.one_of(
    st.integers(0, 2**33).map(lambda seconds: seconds * 10**9), st.integers(-(10**9) * 10**6, 4 * 10**18)
)
leaf = st.one_of(
    st.tuples(st.just("file"), mode, owner, mtime, st.binary(max_size=2000)),
    st.tuples(
        st.just("link"), st.just(0o777), owner, mtime, st.sampled_from(["a", "../x", "/etc", "y" * 120])
    ),
    st.tuples(st.just("fifo"), mode, owner, mtime, st.just(b"")),
    st.tuples(st.just("hard"), mode, owner, mtime, st.integers(0, 50)),
    st.tuples(st.just("sparse"), mode, owner, mtime, st.integers(0, 100_000)),
)
tree = st.recursive(
    st.dictionaries(name, leaf, max_size=4),
    lambda inner: st.dictionaries(
        name, st.one_of(leaf, st.tuples(st.just("dir"), mode, owner, mtime, inner)), max_size=4
    ),
    max_leaves=12,
)

# an argument that Python 3.11.4 brought; Debian 12 has 3.11.2
TRUSTED = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def build(folder: Path, tree: dict[str, Any], files: list[Path]) -> None:
    for child, (kind, bits, uid, when, content) in tree.items():
        path = folder / child
        try:
            if kind == "file":
                path.write_bytes(content)
                files.append(path)
            elif kind == "link":
                path.symlink_to(content)
            elif kind == "fifo":
                os.mkfifo(path)
            elif kind == "sparse":
                with open(path, "wb") as stream:
                    stream.truncate(content)
                files.append(path)
            elif kind == "hard":
                if not files:
                    continue
                os.link(files[content % len(files)], path)
                continue
            else:
                path.mkdir()
                build(path, content, files)
        except OSError:
            continue  # a name twice in another normalisation
        if ROOT:
            os.chown(path, uid, uid, follow_symlinks=False)
        if kind != "link":
            path.chmod(bits if ROOT or kind != "dir" else bits | 0o700)
            if kind in ("file", "sparse") and not ROOT:
                path.chmod(bits | 0o400)
            if kind in ("file", "dir"):
                os.setxattr(path, "user.test", b"\0value") if bits & 0o200 else None
        os.utime(path, ns=(when, when), follow_symlinks=False)


def xattrs_work(folder: Path) -> bool:
    try:
        os.setxattr(folder, "user.probe", b"1")
        os.removexattr(folder, "user.probe")
    except OSError:
        return False
    return True


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree, st.sampled_from(list(Compression)))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any], how: Compression) -> None:
    base = tmp_path_factory.mktemp("trip")
    if not xattrs_work(base):
        pytest.skip("no user attributes on this file system")
    source, target = base / "source", base / "target"
    source.mkdir()
    target.mkdir()
    build(source, tree, [])
    stream = io.BytesIO()
    packer = Compressor(how, stream.write)
    write_tree(source, packer.write, TreeOptions(exact_times=True))
    packer.finish()
    stream.seek(0)
    layer.apply(chunks(stream), target, OPTIONS)
    assert snapshot(target) == snapshot(source)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree)
def test_the_standard_library_reads_the_same(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any]
) -> None:
    base = tmp_path_factory.mktemp("std")
    source, target = base / "source", base / "target"
    source.mkdir()
    target.mkdir()
    if not xattrs_work(base):
        pytest.skip("no user attributes on this file system")
    build(source, tree, [])
    stream = io.BytesIO()
    write_tree(source, stream.write)
    stream.seek(0)
    with tarfile.open(fileobj=stream) as tar:
        members = {member.name: member for member in tar.getmembers()}
    paths = {os.path.relpath(os.path.join(folder, child), source)
             for folder, folders, files in os.walk(source) for child in [*folders, *files]}  # fmt: skip
    assert {child.rstrip("/") for child in members} == {".", *paths}


def apply(data: bytes, target: Path) -> layer.Applied:
    target.mkdir(exist_ok=True)
    return layer.apply(chunks(io.BytesIO(data)), target, OPTIONS)


def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = []
    for number, names in enumerate((["b", "a", "c"], ["c", "b", "a"])):
        folder = tmp_path / str(number)
        folder.mkdir()
        for child in names:
            (folder / child).write_text(child)
        stream = io.BytesIO()
        write_tree(folder, stream.write, TreeOptions(epoch=1000))
        digests.append(stream.getvalue())
    assert digests[0] == digests[1]


def test_later_members_win(tmp_path: Path) -> None:
    data = archive(
        ("a", "file", {"content": b"1"}), ("a", "file", {"content": b"22", "mode": 0o600}),
        ("d", "dir"), ("d/x", "file"), ("d", "file", {"content": b"now a file"}),
        ("f", "file"), ("f", "dir"), ("f/y", "file"),
        ("e", "dir", {"mode": 0o700}), ("e/z", "file"), ("e", "dir", {"mode": 0o750}),
    )  # fmt: skip
    apply(data, tmp_path / "t")
    target = tmp_path / "t"
    assert (target / "a").read_bytes() == b"22"
    assert (target / "d").read_bytes() == b"now a file"
    assert (target / "f/y").is_file()
    assert (target / "e/z").is_file() and stat.S_IMODE((target / "e").stat().st_mode) == 0o750


def test_implied_directories_are_reported(tmp_path: Path) -> None:
    result = apply(archive(("usr/share/x", "file"), ("etc", "dir")), tmp_path / "t")
    assert result.implied == [b"", b"usr", b"usr/share"]


def test_gnu_and_pax_sparse_files(tmp_path: Path) -> None:
    import shutil
    import subprocess

    if shutil.which("tar") is None:
        pytest.skip("no tar program")
    source = tmp_path / "s"
    source.mkdir()
    with open(source / "sparse", "wb") as stream:
        for block in range(0, 60, 2):
            stream.seek(block * 65536)
            stream.write(b"%064d" % block * 64)
        stream.truncate(70 * 65536)
    formats = {"gnu": ["--format=gnu"], "0.0": ["--format=posix", "--sparse-version=0.0"],
               "0.1": ["--format=posix", "--sparse-version=0.1"],
               "1.0": ["--format=posix", "--sparse-version=1.0"]}  # fmt: skip
    for label, options in formats.items():
        data = subprocess.run(
            ["tar", "-C", str(source), "-cS", *options, "sparse"], stdout=subprocess.PIPE, check=True
        ).stdout
        target = tmp_path / f"t{label}"
        apply(data, target)
        assert (target / "sparse").read_bytes() == (source / "sparse").read_bytes(), label
        assert (target / "sparse").stat().st_blocks <= (source / "sparse").stat().st_blocks + 64


def test_opaque_directories_and_whiteouts(tmp_path: Path) -> None:
    data = archive(
        ("d", "dir"), ("d/.wh..wh..opq", "file"), ("d/new", "file"), (".wh.gone", "file"),
        (".wh..wh.plnk", "dir"), (".wh.back", "file"), ("back", "dir"), ("kept", "file"), (".wh.kept", "file"),
    )  # fmt: skip
    target = tmp_path / "t"
    apply(data, target)
    info = (target / "gone").lstat()
    assert stat.S_ISCHR(info.st_mode) and info.st_rdev == 0
    assert os.getxattr(target / "d", "user.overlay.opaque") == b"y"
    assert os.getxattr(target / "back", "user.overlay.opaque") == b"y"
    assert (target / "kept").is_file()
    assert not list(target.glob("**/.wh*"))
    stream = io.BytesIO()
    write_tree(target, stream.write, TreeOptions(upper=True))
    with tarfile.open(fileobj=io.BytesIO(stream.getvalue())) as tar:
        names = tar.getnames()
    assert names == [".", "back", "back/.wh..wh..opq", "d", "d/.wh..wh..opq", "d/new", ".wh.gone", "kept"]


def test_changes(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    apply(
        archive(("etc/a", "file"), ("etc/b", "file"), ("o/x", "file"), ("o/y", "file"), ("k", "file")), lower
    )
    apply(
        archive(("etc/a", "file"), ("etc/.wh.b", "file"), ("etc/new", "file"), ("o/.wh..wh..opq", "file"),
                ("o/y", "file"), (".wh.never", "file"), ("k", "dir"), ("k/z", "file")),
        upper,
    )  # fmt: skip
    found = [(change.kind, change.path) for change in changes(upper, [lower])]
    assert found == [
        ("C", "/etc"), ("C", "/etc/a"), ("D", "/etc/b"), ("A", "/etc/new"), ("C", "/k"), ("A", "/k/z"),
        ("C", "/o"), ("D", "/o/x"), ("C", "/o/y"),
    ]  # fmt: skip


def test_faster_than_the_standard_library_at_reading() -> None:
    """Not a benchmark: a guard against an accidental slow path."""
    import time

    from orchestra.images import tar

    data = archive(*[(f"d/{n}", "file", {"content": b"x" * 100}) for n in range(2000)])
    ours, theirs = [], []
    for _ in range(5):
        begin = time.process_time()
        assert sum(1 for _ in tar.entries([data])) == 2000
        ours.append(time.process_time() - begin)
        begin = time.process_time()
        with tarfile.open(fileobj=io.BytesIO(data)) as archive_:
            assert sum(1 for _ in archive_) == 2000
        theirs.append(time.process_time() - begin)
    assert min(ours) < min(theirs)


def test_files_with_large_holes_stay_small(tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    layouts = {
        "middle": [(5 << 20, b"data")],
        "end": [(30 << 20, b"x" * 4096)],
        "start": [(0, b"y" * 100)],
        "none": [],
    }
    for label, parts in layouts.items():
        with open(source / label, "wb") as stream:
            for offset, data in parts:
                stream.seek(offset)
                stream.write(data)
            stream.truncate(40 << 20)
    if (source / "none").stat().st_blocks:
        pytest.skip("this file system has no sparse files")
    stream = io.BytesIO()
    write_tree(source, stream.write)
    assert len(stream.getvalue()) < 1 << 20
    apply(stream.getvalue(), tmp_path / "t")
    with tarfile.open(fileobj=io.BytesIO(stream.getvalue())) as tar:
        tar.extractall(tmp_path / "std", **TRUSTED)
    for label in layouts:
        want = (source / label).read_bytes()
        assert (tmp_path / "t" / label).read_bytes() == want, label
        assert (tmp_path / "std" / label).read_bytes() == want, label
        assert (tmp_path / "t" / label).stat().st_blocks < 1000


def test_a_file_with_the_name_of_a_whiteout_is_no_member_of_a_layer(tmp_path: Path) -> None:
    """It would delete its neighbour wherever the layer is unpacked. In a plain archive it is a file like others."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/.wh.neighbour").write_text("x")
    with pytest.raises(LayerError, match=r"/d/\.wh\.neighbour cannot be part of an image"):
        write_tree(tmp_path, io.BytesIO().write, TreeOptions(upper=True))
    write_tree(tmp_path, io.BytesIO().write, TreeOptions(upper=True, exclude=lambda path: path == b"d/.wh.neighbour"))
    plain = io.BytesIO()
    write_tree(tmp_path, plain.write, TreeOptions())
    assert b"d/.wh.neighbour" in plain.getvalue()
