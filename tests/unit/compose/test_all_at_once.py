"""Problems of every stage are told together, sorted, without those that only follow from others."""

from __future__ import annotations

import pytest

from orchestra.compose import ComposeError, LoadOptions, load

TEXT = """services:
  web:
    image: x
    prots: ["80"]
    depends_on: [dbb]
    environment: [A = 1]
  db:
    imgae: y
    mem_limit: 12q
"""


def test_all_at_once() -> None:
    with pytest.raises(ComposeError) as caught:
        load(LoadOptions(files=("-",), stdin=TEXT, cwd="/", project_name="p"))
    found = [(p.location.line if p.location else 0, p.message) for p in caught.value.problems]
    assert [line for line, _ in found] == [4, 5, 6, 8, 9]
    assert "prots" in found[0][1] and "dbb" in found[1][1] and "imgae" in found[3][1] and "12q" in found[4][1]
