"""Networks get their subnets from the pools of the settings."""

from __future__ import annotations

import ipaddress
import json

import pytest
from support.engine import Engine

pytestmark = pytest.mark.root

FILE = """
services:
  a:
    image: busybox
    command: sleep 100000
    stop_grace_period: 0s
"""


def test_default_address_pools(engine: Engine) -> None:
    settings = engine.folder / "daemon.json"
    engine.environ["ORCHESTRA_SETTINGS"] = str(settings)
    settings.write_text(json.dumps({"default-address-pools": [{"base": "10.214.64.0/20", "size": 26}]}))
    (engine.folder / "compose.yaml").write_text(FILE)
    engine.run("up", "-d")
    text = engine.run("exec", "-T", "a", "ip", "-4", "-o", "addr", "show", "eth0").stdout
    address = ipaddress.ip_interface(text.split()[3])
    assert address.network.prefixlen == 26
    assert address.ip in ipaddress.ip_network("10.214.64.0/20")
    settings.write_text(json.dumps({"default-address-pools": [{"base": "10.214.64.0/20"}]}))
    failed = engine.run("network", "create", "other", code=1)
    assert "'size' is missing" in failed.stderr and str(settings) in failed.stderr
    engine.run("down")
