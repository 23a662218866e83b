"""What cannot be honoured is said, by name and with its place (docs/attributes.md, state "warning" and "partly")."""

from __future__ import annotations

import pytest
from support.engine import Engine

pytestmark = pytest.mark.root

ALL = """
name: warn
services:
  a:
    image: busybox
    command: sleep 1000
    init: true
    runtime: other
    isolation: hyperv
    use_api_socket: true
    credential_spec: {file: x.json}
    security_opt: [apparmor=some, "label=type:x"]
    logging: {driver: syslog, options: {tag: x}}
    pull_refresh_after: 24h
    models: [brain]
    volumes:
      - {type: bind, source: ., target: /b, bind: {selinux: z}}
    networks:
      default:
        driver_opts: {some.option: "1"}
    deploy:
      mode: global
      endpoint_mode: vip
      labels: {a: b}
      update_config: {parallelism: 2}
      rollback_config: {parallelism: 2}
      placement: {max_replicas_per_node: 1}
      resources:
        reservations:
          cpus: "0.5"
          generic_resources:
            - discrete_resource_spec: {kind: ssd, value: 1}
networks:
  default:
    ipam: {driver: other, options: {x: "1"}}
models:
  brain: {model: some/model}
"""

SAID = (
    "runtime", "isolation", "use_api_socket", "credential_spec", "apparmor", "label", '"syslog"', 'option "tag"',
    "pull_refresh_after", "models", "selinux", "driver_opts", "deploy.mode", "deploy.endpoint_mode", "deploy.labels", "deploy.update_config",
    "deploy.rollback_config", "deploy.placement", "reservations.cpus", "generic_resources", "ipam.driver", "ipam.options",
)  # fmt: skip


def test_attributes_without_effect_are_named(engine: Engine) -> None:
    engine.write(ALL)
    done = engine.run("up", "-d")
    lines = done.stderr.splitlines()
    missing = [word for word in SAID if not any(word in line for line in lines)]
    assert missing == [], done.stderr
    numbered = {text.split(":")[0].strip(): number for number, text in enumerate(ALL.splitlines(), 1)}
    for word in ("placement", "endpoint_mode", "isolation", "runtime"):
        assert any(f"compose.yaml:{numbered[word]}:" in line and word in line for line in lines), (word, done.stderr)
    row = engine.ps()["warn-a-1"]
    assert any("isolation" in warning for warning in row["Warnings"])
    again = engine.run("up", "-d").stderr
    assert "deploy.placement" not in again  # nothing is made, nothing is said again
    engine.run("down", "-t", "1")


def test_a_name_that_is_none_is_told_at_once(engine: Engine) -> None:
    engine.write("name: warn\nservices:\n  a: {image: busybox, command: sleep 1000, init: true, cap_add: [NO_SUCH_CAPABILITY]}\n")
    assert "NO_SUCH_CAPABILITY" in engine.run("up", "-d", code=None).stderr
