"""What is read from /proc, the capability table, signal sets."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from orchestra.linux import caps, pidfd, procfs, signals

MOUNTS = """\
22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw
27 1 254:0 /sub\\040dir /mnt/a\\040b rw,nosuid master:1 propagate_from:2 - ext4 /dev/v\\134da rw,discard
broken
"""


def test_mountinfo() -> None:
    first, second = procfs.parse_mountinfo(MOUNTS)
    assert (first.id, first.parent, first.target, first.fstype) == (22, 27, "/proc", "proc")
    assert first.propagation == ("shared:5",)
    assert (second.root, second.target, second.source) == ("/sub dir", "/mnt/a b", "/dev/v\\da")
    assert second.propagation == ("master:1", "propagate_from:2")
    assert second.options == ("rw", "nosuid")


def test_this_process() -> None:
    me = os.getpid()
    assert procfs.alive(me, procfs.start_time(me))
    assert not procfs.alive(me, 1)
    assert procfs.parent(me) == os.getppid()
    assert procfs.state(me) == "R"
    assert procfs.command_line(me)
    assert procfs.start_time(2**22 + 5) is None
    assert procfs.status()["Pid"] == str(me)


def test_capability_table() -> None:
    assert len(caps.NAMES) == 41
    assert caps.NUMBERS["CAP_SYS_ADMIN"] == 21 and caps.NUMBERS["CAP_CHECKPOINT_RESTORE"] == 40
    assert caps.names(caps.mask(["CAP_CHOWN", "CAP_BPF"])) == ["CAP_CHOWN", "CAP_BPF"]
    with pytest.raises(KeyError):
        caps.mask(["CAP_ODD"])


def test_signal_sets() -> None:
    assert signals.mask_of([1, 64]) == b"\x01\0\0\0\0\0\0\x80"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    fd = signals.signalfd([signal.SIGUSR1])
    try:
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)  # not to another thread of the runner
        assert signals.read_signals(fd) == [(signal.SIGUSR1, os.getpid())]
        assert signals.read_signals(fd) == []
    finally:
        os.close(fd)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_pidfd_of_a_child() -> None:
    child = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 3"], {})
    fd = pidfd.open_pid(child)
    try:
        assert pidfd.wait(fd, 30)
        assert not pidfd.alive(fd)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        info = pidfd.info(fd)
        assert info is None or info.exit_status in (None, 3 << 8)
        with pytest.raises(ProcessLookupError):
            pidfd.send_signal(fd, 9)
    finally:
        os.close(fd)
