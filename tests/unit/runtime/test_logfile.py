"""Log files: what is written comes back, across rotations, kills and full disks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestra.runtime import logfile
from orchestra.runtime.logfile import STDERR, STDOUT, Writer, read


def lines(path: Path, **options: object) -> list[tuple[int, bytes]]:
    return [(stream, line) for _at, stream, line in read(str(path), **options)]  # type: ignore[arg-type]


def test_streams_keep_their_lines_together(tmp_path: Path) -> None:
    log = tmp_path / "log"
    writer = Writer(str(log))
    writer.write(STDOUT, b"one\ntw")
    writer.write(STDERR, b"bad\r\nwor")
    writer.write(STDOUT, b"o\n\nlast")
    writer.write(STDERR, b"se\n")
    assert lines(log) == [(1, b"one\n"), (2, b"bad\r\n"), (1, b"two\n"), (1, b"\n"), (2, b"worse\n"), (1, b"last")]
    assert log.read_bytes() == b"one\ntwbad\r\nworo\n\nlastse\n"


@pytest.mark.parametrize("tail", [0, 1, 3, 99])
def test_tail(tmp_path: Path, tail: int) -> None:
    writer = Writer(str(tmp_path / "log"), max_size=50, max_file=9)
    for number in range(40):
        writer.write(STDOUT, b"line %d\n" % number)
    wanted = [b"line %d\n" % number for number in range(40)][max(0, 40 - tail):] if tail else []
    assert [line for _s, line in lines(tmp_path / "log", tail=tail)] == wanted[-tail or 99:]


def test_rotation_is_at_newlines_and_bounded(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path / "log"), max_size=100, max_file=3)
    for number in range(100):
        writer.write(STDOUT, b"number %d\nand more\n" % number)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["log", "log.1", "log.1.idx", "log.2", "log.2.idx", "log.idx"]
    for path in tmp_path.glob("log*"):
        if not path.name.endswith("idx"):
            assert path.stat().st_size <= 100
            assert path.read_bytes().endswith(b"\n")
    assert lines(tmp_path / "log")[-1] == (1, b"and more\n")
    logfile.remove(str(tmp_path / "log"))
    assert not list(tmp_path.iterdir())


def test_one_file_only(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path / "log"), max_size=30, max_file=1)
    for _ in range(20):
        writer.write(STDOUT, b"0123456789\n")
    assert (tmp_path / "log").stat().st_size <= 30


def test_a_big_chunk_is_split(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path / "log"), max_size=1000, max_file=100)
    data = b"".join(b"%06d\n" % number for number in range(2000))
    writer.write(STDOUT, data)
    assert b"".join(line for _s, line in lines(tmp_path / "log")) == data
    assert all(path.stat().st_size <= 1000 for path in tmp_path.glob("log.[0-9]"))


def test_an_endless_line_is_cut(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path / "log"), max_size=1000, max_file=100)
    for _ in range(40):
        writer.write(STDOUT, b"x" * 100_000)
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < 1_200_000
    assert sum(len(line) for _s, line in lines(tmp_path / "log")) == 4_000_000


def test_since_and_until(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer(str(tmp_path / "log"))
    for second in range(100):
        monkeypatch.setattr(logfile.time, "time_ns", lambda second=second: second * 10**9)
        writer.write(STDOUT, b"%d\n" % second)
    found = [line for _s, line in lines(tmp_path / "log", since=50.0, until=52.5)]
    assert found == [b"50\n", b"51\n", b"52\n"]


def test_follow_goes_across_rotations(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path / "log"), max_size=40, max_file=4)
    sent: list[bytes] = []

    def more() -> bool:
        if len(sent) == 30:
            return False
        for _ in range(2):
            sent.append(b"line %d\n" % len(sent))
            writer.write(STDOUT, sent[-1])
        return True

    assert [line for _s, line in lines(tmp_path / "log", follow=more, poll=0)] == sent


def test_a_killed_writer_is_mended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    writer = Writer(str(log))
    writer.write(STDOUT, b"one\n")
    writer.close()
    with log.open("ab") as file:
        file.write(b"two\n")
    with (tmp_path / "log.idx").open("ab") as file:
        file.write(b"half")
    Writer(str(log)).write(STDOUT, b"three\n")
    assert [line for _s, line in lines(log)] == [b"one\n", b"two\n", b"three\n"]


def test_a_full_disk_drops_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    writer = Writer(str(log))
    writer.write(STDOUT, b"before\n")
    real = os.write

    def full(fd: int, data: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(logfile.os, "write", full)
    writer.write(STDOUT, b"lost\n")
    writer.write(STDOUT, b"lost\n")
    monkeypatch.setattr(logfile.os, "write", real)
    writer.write(STDOUT, b"after\n")
    assert [line for _s, line in lines(log)] == [
        b"before\n", b"orchestra: 10 bytes of this log are lost: No space left on device\n", b"after\n"]
    assert writer.dropped == 10


def test_nothing_there(tmp_path: Path) -> None:
    assert lines(tmp_path / "log") == []
    assert lines(tmp_path / "log", tail=3) == []
