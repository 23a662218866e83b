"""The whole test suite as ``make test`` runs it.

Unit, property and conformance tests first (in parallel), then the real ones. A test that fails is run
once more alone: only one that fails twice fails the suite, and every first failure is printed, so that
a flaky test is seen without stopping everybody. At the end the machine is compared with how it was.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["tests/unit", "tests/property", "tests/conformance"]
REAL = ["tests/integration", "tests/scenarios"]


def run(title: str, *words: str) -> int:
    print(f"== {title}", flush=True)
    begun = time.monotonic()
    code = subprocess.run([sys.executable, "-m", "pytest", "-q", *words], cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode
    print(f"== {title}: exit {code} after {time.monotonic() - begun:.0f} s", flush=True)
    return code


def twice(title: str, *words: str) -> bool:
    """Run; what failed is run once more."""
    code = run(title, *words)
    if code == 1:
        quiet = [word for word in words if not word.startswith("-n")]
        code = run(f"{title}: failed ones again", "--last-failed", "--last-failed-no-failures=none", *quiet)
    return code in (0, 5)


def main() -> int:
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # a caller in the background may have them ignored
    sys.path.insert(0, str(ROOT / "tests"))
    from support import host

    existing = [[path for path in paths if (ROOT / path).is_dir()] for paths in (QUICK, REAL)]
    before = host.snapshot()
    good = twice("unit", "-n2", *existing[0])
    if os.geteuid() == 0:
        good = twice("real", "-x" if "--fast" in sys.argv else "--maxfail=40", *existing[1]) and good
        left = host.wait_clean(before)
        for line in left:
            print(f"left behind: {line}", flush=True)
        good = good and not left
    else:
        print("== not root: the tests with real containers were left out", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
