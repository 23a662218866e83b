"""What cannot be honoured is said, by name."""

from __future__ import annotations

import pytest
from support.engine import Engine

pytestmark = pytest.mark.root


def test_attributes_without_effect_are_named(engine: Engine) -> None:
    engine.write("""
        name: warn
        services:
          a:
            image: busybox
            command: sleep 1000
            init: true
            runtime: other
            storage_opt: {size: 1G}
            security_opt: [apparmor=some]
            logging: {driver: syslog}
            cap_add: [NO_SUCH_CAPABILITY]
    """)
    done = engine.run("up", "-d", code=None)
    assert "NO_SUCH_CAPABILITY" in done.stderr
    engine.write((engine.folder / "compose.yaml").read_text().replace("    cap_add: [NO_SUCH_CAPABILITY]\n", ""))
    done = engine.run("up", "-d")
    for word in ("runtime", "storage_opt", "apparmor", "syslog"):
        assert f"warning: warn-a-1: {word}" in done.stderr or word in done.stderr, word
    row = engine.ps()["warn-a-1"]
    assert any("storage_opt" in warning for warning in row["Warnings"])
