"""Limits limit: memory, pids, cpus – and are reported as what they are."""

from __future__ import annotations

import pytest
from support.engine import Engine, eventually

from orchestra.runtime.cgroups import probe

pytestmark = pytest.mark.root


def test_a_memory_eater_is_oom_killed_and_reported(engine: Engine) -> None:
    engine.write("""
        name: oom
        services:
          eater:
            image: busybox
            command: sh -c 'a=x; while true; do a="$$a$$a"; done'
            mem_limit: 32m
            memswap_limit: 32m
    """)
    engine.run("up", "-d")
    engine.wait_state("oom-eater-1", "exited")
    row = engine.ps()["oom-eater-1"]
    assert row["OOMKilled"] is True and row["ExitCode"] == 137
    assert "OOM" in row["Status"]
    assert engine.inspect("oom-eater-1")["State"]["OOMKilled"] is True


def test_a_forker_stops_at_its_pids_limit(engine: Engine) -> None:
    engine.write("""
        name: fork
        services:
          a:
            image: busybox
            command: sh -c 'i=0; while [ $$i -lt 50 ]; do sleep 1000 & i=$$((i+1)); done; echo all; wait'
            pids_limit: 10
    """)
    engine.run("up", "-d")
    eventually(lambda: "can't fork" in engine.run("logs").stderr, what="the shell complains")
    assert "all" not in engine.out("logs")


def test_cpu_and_shares_reach_the_kernel(engine: Engine) -> None:
    engine.write("""
        name: cpu
        services:
          a: {image: busybox, command: sleep 1000, init: true, cpus: 0.5, mem_limit: 64m, cpu_shares: 512}
    """)
    engine.run("up", "-d")
    host = engine.inspect("cpu-a-1")["HostConfig"]
    assert host["NanoCpus"] == 500_000_000 and host["Memory"] == 64 << 20 and host["CpuShares"] == 512
    pid = engine.inspect("cpu-a-1")["State"]["Pid"]
    with open(f"/proc/{pid}/cgroup") as stream:
        groups = dict(line.rstrip("\n").split(":", 2)[1:] for line in stream)
    cpu = next((path for names, path in groups.items() if "cpu" in names.split(",")), None)
    if cpu is not None:
        folder = next(f"/sys/fs/cgroup/{names}" for names in groups if "cpu" in names.split(","))
        with open(f"{folder}{cpu}/cpu.cfs_quota_us") as stream:
            assert int(stream.read()) == 50_000
    else:
        with open(f"/sys/fs/cgroup{groups['']}/cpu.max") as stream:
            assert stream.read().split()[0] == "50000"


def test_what_version_2_does_not_have_is_named(engine: Engine) -> None:
    if probe().kind != "v2":
        pytest.skip("this machine has cgroups of version 1")
    text = """\
name: two
services:
  a:
    image: busybox
    command: sleep 1000
    init: true
    mem_limit: 64m
    mem_swappiness: 10
    oom_kill_disable: true
    cpu_rt_runtime: 95000
    cpu_rt_period: 100000
    blkio_config:
      weight: 300
"""
    engine.write(text)
    said = engine.run("up", "-d").stderr
    numbered = {line.split(":")[0].strip(): number for number, line in enumerate(text.splitlines(), 1)}
    for word in ("mem_swappiness", "oom_kill_disable", "cpu_rt_runtime", "cpu_rt_period", "weight"):
        place = f"compose.yaml:{numbered[word]}:"
        assert any(place in line and f"{word} has no effect: " in line for line in said.splitlines()), (word, said)
    assert "mem_limit" not in said
    assert engine.state("two-a-1") == "running"
    assert len(engine.ps()["two-a-1"]["Warnings"]) == 5


def test_a_limit_that_the_kernel_refuses_is_named(engine: Engine) -> None:
    for limit, problem in (
        ('cpuset: "7777"', "error: cpuset: the kernel refuses"),
        ("blkio_config: {device_read_bps: [{path: /dev/null, rate: 1mb}]}", "error: blkio_config.device_read_bps: /dev/null is not a disk"),
    ):
        engine.write(f"name: no\nservices:\n  a:\n    image: busybox\n    {limit}\n")
        said = engine.run("up", "-d", code=1).stderr
        assert problem in said and "compose.yaml:5:" in said
    engine.run("down")
