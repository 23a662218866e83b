"""Archives that want to get out of their directory, or to break the reader."""

from __future__ import annotations

import io
import os
import stat
import struct
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.trees import archive

from orchestra.errors import OrchestraError
from orchestra.images import layer, tar
from orchestra.images.compress import chunks
from orchestra.images.layer import ApplyOptions, Limits

OPTIONS = ApplyOptions(owners=False, overlay="user.overlay.")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "victim").write_text("untouched")
    inside = tmp_path / "inside"
    inside.mkdir()
    return inside


def apply(data: bytes, root: Path, options: ApplyOptions = OPTIONS) -> layer.Applied:
    return layer.apply(chunks(io.BytesIO(data)), root, options)


def intact(root: Path) -> None:
    outside = root.parent / "outside"
    assert sorted(os.listdir(root.parent)) == ["inside", "outside"]
    assert os.listdir(outside) == ["victim"]
    assert (outside / "victim").read_text() == "untouched"
    assert stat.S_IMODE((outside / "victim").stat().st_mode) == 0o644


FILE: dict[str, Any] = {"content": b"evil", "mode": 0o666}


@pytest.mark.parametrize("members", [
    [("../outside/victim", "file", FILE)],
    [("a/../../outside/victim", "file", FILE)],
    [("..", "dir", {"mode": 0o777})],
    [("../new", "file", FILE)],
    [("a", "link", {"link": ".."}), ("b", "hard", {"link": "../outside/victim"})],
    [("b", "hard", {"link": "/../outside/victim"})],
    [(".wh...", "file")],
    [(".wh..", "file")],
    [("x/.wh...", "file")],
])  # fmt: skip
def test_refused(root: Path, members: list[Any]) -> None:
    with pytest.raises(OrchestraError):
        apply(archive(*members), root)
    intact(root)


@pytest.mark.parametrize("members", [
    [("/etc/passwd", "file", FILE)],
    [("out", "link", {"link": "../outside"}), ("out/victim", "file", FILE)],
    [("out", "link", {"link": "/"}), ("out/new", "file", FILE)],
    [("a", "link", {"link": "b"}), ("b", "link", {"link": "../../../outside"}), ("a/victim", "file", FILE)],
    [("victim", "link", {"link": "../outside/victim"}), ("victim", "file", FILE)],
    [("d", "link", {"link": "../outside"}), ("d", "dir", {"mode": 0o777}), ("d/victim", "file", FILE)],
    [("d", "dir"), ("d/x", "file", FILE), ("d", "link", {"link": "../outside"}), ("d/victim", "file", FILE)],
    [("l", "link", {"link": "../outside/victim"}), ("h", "hard", {"link": "l"}), ("h", "file", FILE)],
    [("out", "link", {"link": "../outside"}), ("out/.wh.victim", "file")],
    [("out", "link", {"link": "../outside"}), ("out/.wh..wh..opq", "file")],
    [("out", "link", {"link": "/../../outside"}), ("out", "link", {"link": "x"})],
])  # fmt: skip
def test_kept_inside(root: Path, members: list[Any]) -> None:
    apply(archive(*members), root)
    intact(root)


def test_a_hard_link_through_a_link_to_the_outside(root: Path) -> None:
    members = [("out", "link", {"link": "../outside"}), ("h", "hard", {"link": "out/victim"})]
    with pytest.raises(OrchestraError, match="not in the layer"):
        apply(archive(*members), root)
    intact(root)


def test_link_loops_end(root: Path) -> None:
    members = [("a", "link", {"link": "b"}), ("b", "link", {"link": "a"}), ("a/x", "file", FILE)]
    with pytest.raises(OrchestraError, match="too many symbolic links"):
        apply(archive(*members), root)


def test_absolute_names_are_relative(root: Path) -> None:
    apply(archive(("/abs/file", "file", FILE)), root)
    assert (root / "abs/file").read_bytes() == b"evil"


def test_links_inside_lead_on(root: Path) -> None:
    apply(archive(("usr/lib", "dir"), ("lib", "link", {"link": "/usr/lib"}), ("lib/x", "file", FILE)), root)
    assert (root / "usr/lib/x").read_bytes() == b"evil"
    assert (root / "lib").is_symlink()


def test_overlay_attributes_are_never_taken(root: Path) -> None:
    headers = {"SCHILY.xattr.user.overlay.redirect": "/../../outside", "SCHILY.xattr.user.fine": "1"}
    result = apply(archive(("d", "dir", {"pax_headers": headers})), root)
    assert os.listxattr(root / "d") in (["user.fine"], [])
    assert any("overlayfs" in text for text in result.warnings)


def test_whiteout_devices_are_not_smuggled_in(root: Path) -> None:
    result = apply(archive(("x", "char", {"devmajor": 0, "devminor": 0})), root)
    assert not (root / "x").exists() and result.warnings


def test_bounds(root: Path) -> None:
    many = archive(*[(f"f{n}", "file", FILE) for n in range(20)])
    with pytest.raises(OrchestraError, match="more than 10 members"):
        apply(many, root, ApplyOptions(False, "user.overlay.", Limits(entries=10)))
    big = archive(("big", "file", {"content": bytes(5000)}))
    with pytest.raises(OrchestraError, match="more than 1000 bytes"):
        apply(big, root, ApplyOptions(False, "user.overlay.", Limits(size=1000)))


def test_long_names(root: Path) -> None:
    name = "/".join(["d" * 200] * 5) + "/f"
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        target = root / str(form)
        target.mkdir()
        apply(archive((name, "file", FILE), form=form), target)
        assert (target / name).read_bytes() == b"evil"
    with pytest.raises(OrchestraError):
        apply(archive(("x" * 300, "file", FILE)), root)
    with pytest.raises(OrchestraError):
        apply(archive(("d/" * 3000 + "x", "file", FILE)), root)


def test_many_directories_do_not_exhaust_descriptors(root: Path) -> None:
    members = [(f"d{n}/s/x", "file", FILE) for n in range(300)]
    members += [(f"d{n}/s/y", "hard", {"link": f"d{299 - n}/s/x"}) for n in range(300)]
    before = len(os.listdir("/proc/self/fd"))
    apply(archive(*members), root)
    assert len(os.listdir("/proc/self/fd")) == before
    assert (root / "d7/s/y").stat().st_ino == (root / "d292/s/x").stat().st_ino


@pytest.mark.parametrize("cut", [1, 100, 511, 512, 700, 1023])
def test_truncated(root: Path, cut: int) -> None:
    data = archive(("file", "file", {"content": bytes(600)}))
    if cut == 512:
        with pytest.raises(OrchestraError):
            apply(data[:600], root)
        return
    with pytest.raises(OrchestraError):
        apply(data[:cut], root)


def header(name: bytes = b"x", size: bytes = b"00000000000\0", kind: bytes = b"0") -> bytes:
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[124:136] = size.ljust(12, b"\0")[:12]
    block[136:148] = b"00000000000\0"
    block[148:156] = b"        "
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("data", [
    b"not a tar at all" * 64,
    header(size=b"\xff" * 12),
    header(size=b"\x80" + b"\x7f" * 11),
    header(size=b"zzzz"),
    header(size=b"7" * 12, kind=b"x"),
    header(size=b"00000000005\0", kind=b"x") + b"99 a=b\n".ljust(512, b"\0"),
    header(size=b"00000000012\0", kind=b"x") + b"10 size=-1\n".ljust(512, b"\0") + header(),
    header(size=b"00000000010\0", kind=b"x") + b"8 path=\n\0".ljust(512, b"\0"),
    header(kind=b"S"),
    header(size=b"00000010000\0", kind=b"L"),
], ids=range(10))  # fmt: skip
def test_damaged_headers(root: Path, data: bytes) -> None:
    try:
        apply(data + bytes(1024), root)
    except OrchestraError:
        pass
    intact(root)


def test_a_sparse_file_that_lies(root: Path) -> None:
    block = bytearray(header(b"sparse", b"00000001000\0", b"S"))
    block[386:398], block[398:410] = b"77777777777\0", b"00000001000\0"
    block[483:495] = b"00000001000\0"
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    with pytest.raises(OrchestraError, match="sparse"):
        apply(bytes(block) + bytes(2048), root)


def test_gzip_that_ends_early_or_is_damaged(root: Path) -> None:
    import gzip

    packed = gzip.compress(archive(("f", "file", {"content": os.urandom(100_000)})))
    for data in (
        packed[:-200],
        packed[:50_000],
        packed[:5000] + b"garbage" + packed[5007:],
        packed + b"tail",
    ):
        with pytest.raises(OrchestraError):
            apply(data, root)


def test_a_gzip_bomb_is_stopped_by_the_bound(root: Path) -> None:
    import gzip

    big = header(b"bomb", b"%011o\0" % (1 << 30)) + bytes(1 << 20)
    with pytest.raises(OrchestraError, match="more than"):
        apply(gzip.compress(big), root, ApplyOptions(False, "user.overlay.", Limits(size=1 << 20)))


names = st.lists(
    st.sampled_from(["a", "b", "..", ".", "", "etc", ".wh.a", ".wh..wh..opq", ".wh...", "outside"]),
    min_size=1, max_size=4,
).map("/".join)  # fmt: skip
member = st.tuples(names, st.sampled_from(["file", "dir", "link", "hard", "fifo"]), names)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(member, max_size=8))
def test_no_combination_gets_out(tmp_path_factory: pytest.TempPathFactory, members: list[Any]) -> None:
    base = tmp_path_factory.mktemp("hostile")
    (base / "outside").mkdir()
    (base / "outside" / "victim").write_text("untouched")
    (base / "outside" / "victim").chmod(0o644)
    (base / "inside").mkdir()
    data = archive(*[(name, kind, {"link": link, "content": b"evil" if kind == "file" else b"", "mode": 0o777})
                     for name, kind, link in members])  # fmt: skip
    try:
        apply(data, base / "inside")
    except OrchestraError:
        pass
    intact(base / "inside")


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 1500), st.binary(max_size=20))
def test_any_bytes_end_in_an_error_or_not_at_all(prefix: bytes, at: int, patch: bytes) -> None:
    data = bytearray(
        archive(("a/b", "file", {"content": b"x" * 300, "pax_headers": {"SCHILY.xattr.user.a": "b"}}))
    )
    data[at : at + len(patch)] = patch
    for candidate in (bytes(data), prefix + bytes(data), prefix):
        try:
            for entry in tar.entries([candidate]):
                entry.read(1 << 20)
        except OrchestraError:
            pass


def test_base256_numbers() -> None:
    block = bytearray(header(b"big"))
    block[108:116] = b"\x80" + struct.pack(">Q", 3_000_000_000)[1:]
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    (entry,) = tar.entries([bytes(block) + bytes(1024)])
    assert entry.uid == 3_000_000_000


@pytest.mark.parametrize("records", [
    {"uid": "-5"}, {"uid": "99999999999"}, {"gid": "4294967295"}, {"mtime": "9" * 40}, {"mtime": "-" + "9" * 30},
    {"mtime": "nan"}, {"uid": "1" * 5000}, {"SCHILY.xattr.": "x"}, {"SCHILY.xattr.nonsense": "x"},
    {"SCHILY.xattr.user.\0a": "x"}, {"SCHILY.xattr.user." + "n" * 300: "x"}, {"SCHILY.xattr.user.a": "v" * 70000},
    {"path": ""}, {"path": "\0"}, {"linkpath": "\0"}, {"size": "999999999999999999"}, {"size": "x"},
    {"LIBARCHIVE.xattr.user.a": "!"}, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"},
    {"GNU.sparse.map": "0,1,5"}, {"GNU.sparse.map": "5,10,0,3", "GNU.sparse.size": "50"},
])  # fmt: skip
def test_impossible_values(root: Path, records: dict[str, str]) -> None:
    """Refused, or taken without harm; never a crash."""
    for kind in ("file", "dir", "link", "char", "fifo"):
        target = root / kind
        target.mkdir()
        try:
            apply(archive(("x", kind, {"link": "y", "pax_headers": records})), target,
                  ApplyOptions(os.geteuid() == 0, "user.overlay."))  # fmt: skip
        except OrchestraError:
            pass
    intact(root)


def test_endless_headers_end(root: Path) -> None:
    meta = header(size=b"00000000010\0", kind=b"g") + b"8 a=bbb\n".ljust(512, b"\0")
    with pytest.raises(OrchestraError, match="too many extended headers"):
        apply(meta * 100, root)
    options = ApplyOptions(False, "user.overlay.", Limits(size=10_000))
    with pytest.raises(OrchestraError, match="more than 10000 bytes"):
        apply((meta + header()) * 20, root, options)
    with pytest.raises(OrchestraError, match="more than 10000 bytes"):
        apply(header(b"one") + bytes(20_000), root, options)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 511), st.binary(min_size=1, max_size=16), st.sampled_from("0123456xgLKS7"))
def test_any_header_is_applied_or_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, patch: bytes, kind: str
) -> None:
    base = tmp_path_factory.mktemp("header")
    (base / "outside").mkdir()
    (base / "outside" / "victim").write_text("untouched")
    (base / "outside" / "victim").chmod(0o644)
    (base / "inside").mkdir()
    block = bytearray(header(b"name", kind=kind.encode()))
    block[at : at + len(patch)] = patch
    block = block[:512]
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    try:
        apply(bytes(block) + bytes(2048), base / "inside")
    except OrchestraError:
        pass
    intact(base / "inside")
