from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import bundle
from support.runtimelab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not shutil.which("busybox") or not Path(bundle.BUSYBOX).exists():
        pytest.skip("needs a static busybox")
    found = Lab(tmp_path)
    try:
        yield found
    finally:
        found.close()
