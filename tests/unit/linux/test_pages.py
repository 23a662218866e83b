"""Memory shared with forked processes: contents stay what they are, pages come back, odd mappings are left alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from orchestra.linux import pages

FOLDER = Path(pages.__file__).parent
made_for = pytest.mark.skipif(os.uname().machine != "x86_64", reason="made for x86-64")


def in_a_process(text: str) -> str:
    """What it prints. In a process of its own: its memory is replaced for good."""
    program = "import gc, json, mmap, os, random, signal\nfrom orchestra.linux import pages\n" + textwrap.dedent(text)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@made_for
def test_the_machine_code_is_that_of_its_source(tmp_path: Path) -> None:
    if not shutil.which("as") or not shutil.which("objcopy"):
        pytest.skip("needs binutils")
    made = tmp_path / "pages.o"
    subprocess.run(["as", "--64", "-o", str(made), str(FOLDER / "pages.S")], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", str(made), str(tmp_path / "pages")], check=True)
    assert (tmp_path / "pages").read_bytes() == (FOLDER / "pages.x86_64").read_bytes()


@made_for
def test_pages_that_are_as_they_were_come_back() -> None:
    said = in_a_process("""
        def own(pid):
            with open(f"/proc/{pid}/smaps_rollup") as file:
                return next(int(line.split()[1]) for line in file if line.startswith("Anonymous:"))
        held = [bytearray(os.urandom(3 << 10)) for _ in range(2000)]  # 6 MB
        gc.collect(); gc.freeze()
        print(pages.keep())
        asked, answers = os.pipe(), os.pipe()
        pid = os.fork()
        if pid == 0:
            for piece in held:
                piece[0] ^= 1
            os.write(answers[1], b"x"); os.read(asked[0], 1)
            for piece in held:
                piece[0] ^= 1
            count = pages.give_back()
            os.write(answers[1], b"x"); os.read(asked[0], 1)
            os._exit(0 if count > 1000 else 1)
        os.read(answers[0], 1); touched = own(pid); os.write(asked[1], b"x")
        os.read(answers[0], 1); left = own(pid); os.write(asked[1], b"x")
        print(touched - left > 5000, os.waitpid(pid, 0)[1])
    """)
    assert said.split() == ["True", "True", "0"]


@made_for
def test_nothing_changes_for_who_works_on() -> None:
    """Objects of all sizes grow, move and die before and after, here and in children of children."""
    said = in_a_process("""
        rng = random.Random(7)
        held = {n: [bytes([n % 251]) * rng.randrange(1, 400) for _ in range(rng.randrange(1, 300))] for n in range(300)}
        big = list(range(40_000))
        blob = bytearray(b"a" * (1 << 20))
        def check():
            for n, pieces in held.items():
                assert all(piece == bytes([n % 251]) * len(piece) for piece in pieces)
            assert big[:40_000] == list(range(40_000)) and blob.count(b"a") == 1 << 20
        def work():
            for _ in range(6):
                for n in rng.sample(list(held), 40):
                    held[n] = [bytes([n % 251]) * rng.randrange(1, 5000) for _ in range(rng.randrange(1, 60))]
                big.extend(range(30_000))
                blob.extend(b"b" * 300_000)
                json.loads(json.dumps({str(n): [len(p) for p in pieces] for n, pieces in held.items()}))
                check()
                pages.give_back()
                check()
                del big[40_000:], blob[1 << 20:]
        gc.collect(); gc.freeze()
        assert pages.keep()
        for depth in range(3):
            work()
            gc.collect()
            pid = os.fork()
            if pid:
                work()
                os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        work()
        print("fine")
    """)
    assert said == "fine\n"


@made_for
def test_what_a_fork_must_not_share_is_left_alone() -> None:
    """Memory that a fork wipes (random numbers are made from such) is wiped still."""
    said = in_a_process("""
        secret = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        secret.madvise(18)  # MADV_WIPEONFORK
        secret[:6] = b"secret"
        assert pages.keep()
        pid = os.fork()
        if pid == 0:
            os._exit(0 if secret[:6] == bytes(6) else 1)
        print(os.waitpid(pid, 0)[1], secret[:6])
    """)
    assert said == "0 b'secret'\n"


@made_for
def test_a_mapping_at_the_place_of_an_old_one_is_not_touched() -> None:
    said = in_a_process("""
        first = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        first[:] = b"x" * (1 << 20)
        assert pages.keep()
        first.close()
        others = [mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(4)]
        for other in others:
            other[:] = b"x" * (1 << 20)
        pages.give_back()
        print(all(other[:] == b"x" * (1 << 20) for other in others))
    """)
    assert said == "True\n"


def test_without_a_copy_nothing_happens() -> None:
    assert in_a_process("print(pages.give_back())") == "0\n"


@made_for
def test_several_threads_and_a_second_time_are_refused() -> None:
    said = in_a_process("""
        import threading
        wait = threading.Event()
        thread = threading.Thread(target=wait.wait); thread.start()
        print(pages.keep())
        wait.set(); thread.join()
        while len(os.listdir("/proc/self/task")) > 1:
            pass
        print(pages.keep(), pages.keep())
    """)
    assert said.split() == ["False", "True", "False"]


@made_for
def test_the_file_cannot_be_changed_and_takes_no_more_than_it_holds() -> None:
    said = in_a_process("""
        assert pages.keep()
        path = f"/proc/self/fd/{pages._image}"
        try:
            os.pwrite(pages._image, b"x", 0)
        except PermissionError:
            print("sealed")
        print(os.fstat(pages._image).st_blocks * 512 < 30 << 20)
    """)
    assert said.split() == ["sealed", "True"]
