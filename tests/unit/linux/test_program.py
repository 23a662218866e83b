"""Programs of system calls: the machine code is that of its source, calls, jumps, failures, descriptors."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from orchestra.linux import program as programs
from orchestra.linux.program import CHANNEL, NR, ROOM, Program, Values

FOLDER = Path(programs.__file__).parent
pytestmark = pytest.mark.skipif(not programs.available(), reason="made for x86-64, with executable memory")


def carry_out(program: Program, values: Values, *words: bytes) -> tuple[list[bytes], int]:
    """(what it said, its exit status)"""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid, pidfd = program.run(values, ours.fileno(), theirs.fileno())
    theirs.close()
    os.close(pidfd)
    for word in words:
        ours.send(word)
    said = []
    ours.settimeout(20)
    while data := ours.recv(4096):
        said.append(data)
    ours.close()
    return said, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def finish(program: Program, code: int) -> None:
    program.call(60, code)  # exit


def test_the_machine_code_is_that_of_its_source(tmp_path: Path) -> None:
    if not shutil.which("as") or not shutil.which("objcopy"):
        pytest.skip("needs binutils")
    made = tmp_path / "stub.o"
    subprocess.run(["as", "--64", "-o", str(made), str(FOLDER / "stub.S")], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", str(made), str(tmp_path / "stub")], check=True)
    assert (tmp_path / "stub").read_bytes() == (FOLDER / "stub.x86_64").read_bytes()


def test_it_executes_a_program_with_arguments_and_environment() -> None:
    values = Values()
    reader, writer = os.pipe()
    out = values.fd(writer)
    argv, envp = values.pointers([b"sh", b"-c", b'echo "$1 $A"', b"x", b"one"]), values.pointers([b"A=two"])
    program = Program(len(values))
    program.call(NR.dup2, out, 1)
    program.call(NR.execve, b"/bin/sh", argv, envp)
    said, code = carry_out(program, values)
    os.close(writer)
    assert (said, code, os.read(reader, 100)) == ([], 0, b"one two\n")
    os.close(reader)


def test_one_program_runs_with_different_values() -> None:
    values = Values()
    word = values.text(b"hello")
    program = Program(len(values))
    program.call(NR.write, CHANNEL, word, 5)
    finish(program, 0)
    assert carry_out(program, values) == ([b"hello"], 0)
    others = Values()
    others.text(b"world")
    assert carry_out(program, others) == ([b"world"], 0)


def test_results_are_arguments_of_later_calls(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    values = Values()
    path = values.text(os.fsencode(tmp_path / "file"))
    program = Program(len(values))
    file = program.call(NR.openat, -100, path, os.O_RDONLY, 0, keep=True)
    size = program.call(NR.read, file, ROOM, 100, keep=True)
    program.call(NR.write, CHANNEL, ROOM, size)
    finish(program, 3)
    assert carry_out(program, values) == ([b"content"], 3)


def test_a_failure_is_told_with_its_call_and_ends_it() -> None:
    program = Program(0)
    program.call(NR.write, CHANNEL, b"before", 6)
    program.call(NR.chdir, b"/no/such/folder", step="change to it")
    program.call(NR.write, CHANNEL, b"after", 5)
    said, code = carry_out(program, Values())
    assert (said[0], code, len(said)) == (b"before", 1, 2)
    found = programs.failure(said[1])
    assert found == (errno.ENOENT, 1)
    assert program.steps[found[1]] == "change to it"
    assert programs.failure(b'{"ready": true}') is None


@pytest.mark.parametrize(("path", "expected"), [(b"/no/such", [b"c"]), (b"/", [b"a", b"c"])])
def test_soft_errors_leave_calls_out(path: bytes, expected: list[bytes]) -> None:
    program = Program(0)
    program.call(NR.chdir, path, soft=(errno.EACCES, errno.ENOTDIR, errno.ENOENT), skip=1)
    program.call(NR.write, CHANNEL, b"a", 1)
    program.call(NR.write, CHANNEL, b"c", 1)
    finish(program, 0)
    assert carry_out(program, Values()) == (expected, 0)


def test_a_success_jumps() -> None:
    program = Program(0)
    program.call(NR.chdir, b"/no", soft=(errno.ENOENT,), jump=2)
    program.call(NR.chdir, b"/", jump=1)
    program.call(NR.write, CHANNEL, b"never", 5)
    program.call(NR.write, CHANNEL, b"end", 3)
    finish(program, 0)
    assert carry_out(program, Values()) == ([b"end"], 0)


def test_it_waits_for_a_word_and_leaves_when_nobody_is_there_any_more() -> None:
    def make() -> Program:
        program = Program(0)
        program.call(NR.read, CHANNEL, ROOM, 64, answered=True)
        program.call(NR.write, CHANNEL, ROOM, 2)
        finish(program, 0)
        return program

    assert carry_out(make(), Values(), b"go") == ([b"go"], 0)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid, pidfd = make().run(Values(), ours.fileno(), theirs.fileno())
    theirs.close()
    ours.close()
    os.close(pidfd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def open_fds() -> dict[str, str]:
    """Without the files of programs, which stay."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            found[name] = os.readlink(f"/proc/self/fd/{name}")
    return {name: place for name, place in found.items() if not place.startswith(("/memfd:orchestra-init", "/proc/"))}


def test_it_has_only_the_descriptors_it_was_given() -> None:
    before = open_fds()
    reader, writer = os.pipe()
    extra = os.open("/dev/null", os.O_RDONLY)
    values = Values()
    out = values.fd(writer)
    argv = values.pointers([b"ls", b"-l", b"/proc/self/fd"])
    program = Program(len(values))
    program.call(NR.dup2, out, 1)
    program.call(NR.close, out)
    program.call(NR.close_range, 3, 0xFFFFFFFF, 4)
    program.call(NR.execve, b"/bin/ls", argv, values_of_nothing(program))
    said, code = carry_out(program, values)
    os.close(writer)
    with open(reader) as file:
        listed = [line for line in file.read().splitlines() if "->" in line]
    os.close(extra)
    assert (said, code) == ([], 0)
    assert not [line for line in listed if "socket:" in line or "memfd" in line], listed
    assert open_fds() == before


def values_of_nothing(program: Program) -> int:
    return program.blob(bytes(8))


@pytest.mark.parametrize("break_it", [lambda values: values.fd(10_000), lambda values: [values.fd(0) for _ in range(20)]])
def test_nothing_stays_open_when_it_cannot_be_made(break_it: Callable[[Values], object]) -> None:
    before = open_fds()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    values = Values()
    values.fd(os.open("/dev/null", os.O_RDONLY), own=True)
    with pytest.raises((OSError, ValueError)):
        break_it(values)
        Program(len(values)).run(values, ours.fileno(), theirs.fileno())
    values.close()
    ours.close()
    theirs.close()
    assert open_fds() == before


def test_more_than_can_be_told_is_an_error() -> None:
    values = Values()
    values.pointers([bytes([65]) * 100_000] * 3)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, pytest.raises(OSError, match="too long"):
        Program(len(values)).run(values, ours.fileno(), theirs.fileno())
    assert carry_out_nothing() == ([], 0)


def carry_out_nothing() -> tuple[list[bytes], int]:
    program = Program(0)
    finish(program, 0)
    return carry_out(program, Values())


@pytest.mark.parametrize("count", [0, 2000])
def test_it_has_what_it_is_given_however_much_is_open(count: int) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < count + 200:
        pytest.skip("needs more descriptors than this process may have")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(limits[0], count + 200), limits[1]))
    kept: list[int] = []
    reader, writer = os.pipe()
    try:
        kept += [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) for _ in range(count)]
        reader, writer, low = os.dup(reader), os.dup(writer), (reader, writer)
        for fd in low:
            os.close(fd)
        values = Values()
        outs = [values.fd(writer) for _ in range(10)]
        program = Program(len(values))
        for out in outs:
            program.call(NR.write, out, b"x", 1)
        finish(program, 0)
        for _ in range(2):
            others = Values()
            for _ in outs:
                others.fd(writer)
            assert carry_out(program, others) == ([], 0)
        assert os.read(reader, 100) == b"x" * 20
    finally:
        for fd in (*kept, reader, writer):
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_clone_that_is_refused_is_an_error_and_leaves_nothing() -> None:
    before = open_fds()
    program = Program(0)
    finish(program, 0)
    ours, theirs = socket.socketpair()
    with pytest.raises(OSError) as caught:
        program.run(Values(), ours.fileno(), theirs.fileno(), 0x10000)  # CLONE_THREAD without what it needs
    assert caught.value.errno == errno.EINVAL
    ours.close()
    theirs.close()
    assert open_fds() == before


def test_too_many_results() -> None:
    program = Program(0)
    with pytest.raises(ValueError, match="too many"):
        for _ in range(300):
            program.call(NR.umask, 0, keep=True)


def test_as_a_file_of_its_own(tmp_path: Path) -> None:
    program = Program(0)
    program.call(NR.write, 1, b"hello", 5)
    finish(program, 7)
    (tmp_path / "it").write_bytes(program.file(Values()))
    (tmp_path / "it").chmod(0o700)
    done = subprocess.run([tmp_path / "it"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (7, b"hello")
    with pytest.raises(ValueError, match="no values"):
        Program(1).file(Values())


def test_it_forks() -> None:
    """The child goes on, the parent jumps; the pid is where the call was told to put it."""
    program = Program(0)
    program.call(56, 0x00100000 | 17, 0, ROOM, 0, 0, fork=True, jump=2)  # clone, CLONE_PARENT_SETTID, SIGCHLD
    program.call(NR.write, CHANNEL, b"child", 5)
    finish(program, 3)
    program.call(61, -1, 0, 0, 0)  # wait4
    program.call(NR.write, CHANNEL, ROOM, 4)
    finish(program, 4)
    said, code = carry_out(program, Values())
    assert (said[0], code, len(said)) == (b"child", 4, 2)
    assert int.from_bytes(said[1], "little") > 1
