"""Limits limit: memory, pids, cpus – and are reported as what they are."""

from __future__ import annotations

import pytest
from support.engine import Engine, eventually

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
