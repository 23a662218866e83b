"""Filters: decisions of the default policy, the meaning of every rule form, and the same decisions as
libseccomp where that is installed."""

from __future__ import annotations

import ctypes
import os
import random
from typing import Any

import pytest
from support.bpfmachine import data, run

from orchestra.errors import OrchestraError, UnsupportedError
from orchestra.runtime import seccomp
from orchestra.runtime.seccomp_numbers import numbers

X86, I386, ARM64 = 0xC000003E, 0x40000003, 0xC00000B7
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x50001, 0x50026, 0x80000000
NR = numbers("x86_64")
NR32 = numbers("i386")


def compiled(*rules: dict[str, Any], default: str = "SCMP_ACT_ERRNO", **more: Any) -> bytes:
    profile = {"defaultAction": default, "syscalls": list(rules), "architectures": ["SCMP_ARCH_X86_64"], **more}
    return seccomp.compile_profile(profile, machine="x86_64")


def default(*capabilities: str, machine: str = "x86_64") -> bytes:
    return seccomp.compile_profile(seccomp.default_profile(capabilities, machine=machine), machine=machine)


def ask(program: bytes, name: str, *args: int) -> int:
    return run(program, data(NR[name], X86, *args))


@pytest.mark.parametrize(("name", "verdict"), [
    ("read", ALLOW), ("execve", ALLOW), ("openat2", ALLOW), ("ptrace", ALLOW), ("landlock_restrict_self", ALLOW),
    ("mount", EPERM), ("bpf", EPERM), ("keyctl", EPERM), ("io_uring_setup", EPERM), ("unshare", EPERM),
    ("setns", EPERM), ("chroot", EPERM), ("userfaultfd", EPERM), ("clone3", ENOSYS), ("reboot", EPERM),
    ("open_by_handle_at", EPERM), ("kexec_load", EPERM), ("init_module", EPERM), ("perf_event_open", EPERM),
])
def test_default_policy(name: str, verdict: int) -> None:
    assert ask(default("CAP_CHOWN"), name) == verdict


@pytest.mark.parametrize(("capability", "name"), [
    ("CAP_SYS_CHROOT", "chroot"), ("CAP_SYS_ADMIN", "mount"), ("SYS_ADMIN", "clone3"), ("CAP_BPF", "bpf"),
    ("CAP_SYS_TIME", "settimeofday"), ("CAP_SYS_MODULE", "finit_module"), ("CAP_SYSLOG", "syslog"),
])
def test_capabilities_open_calls(capability: str, name: str) -> None:
    assert ask(default(), name) != ALLOW
    assert ask(default(capability), name) == ALLOW


def test_clone_with_namespaces_is_refused() -> None:
    program = default()
    assert ask(program, "clone", 17) == ALLOW
    assert ask(program, "clone", 0x3D0F00) == ALLOW  # a thread
    for flag in (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert ask(program, "clone", 17 | flag) == EPERM
    assert ask(default("CAP_SYS_ADMIN"), "clone", 17 | 0x10000000) == ALLOW


def test_socket_families() -> None:
    program = default("CAP_SYS_ADMIN")
    refused = [family for family in range(48) if ask(program, "socket", family) != ALLOW]
    assert refused == [38, 40]
    assert ask(program, "socket", 1 << 32 | 40) == EPERM  # the kernel looks at the lower half only
    assert ask(program, "socket", 1 << 32 | 2) == ALLOW
    assert run(program, data(NR32["socketcall"], I386, 1)) == EPERM
    assert run(program, data(NR32["socketcall"], I386, 3)) == ALLOW
    assert run(program, data(NR32["socket"], I386, 40)) == EPERM
    assert run(program, data(NR32["socket"], I386, 2)) == ALLOW


def test_personality() -> None:
    program = default()
    for value, verdict in ((0, ALLOW), (8, ALLOW), (0x20008, ALLOW), (0xFFFFFFFF, ALLOW), (0x40000, EPERM)):
        assert ask(program, "personality", value) == verdict


def test_unknown_numbers_and_architectures() -> None:
    program = default()
    assert run(program, data(max(NR.values()) + 1, X86)) == ENOSYS
    assert run(program, data(100_000, X86)) == ENOSYS
    assert run(program, data(0x40000000 | NR["read"], X86)) == ENOSYS  # x32
    assert run(program, data(0xFFFFFFFF, X86)) == ENOSYS
    assert run(program, data(NR["read"], ARM64)) == KILL
    assert run(program, data(NR32["read"], I386)) == ALLOW
    assert run(program, data(NR32["mount"], I386)) == EPERM


def test_arm() -> None:
    program = default(machine="aarch64")
    assert run(program, data(numbers("aarch64")["read"], ARM64)) == ALLOW
    assert run(program, data(numbers("aarch64")["mount"], ARM64)) == EPERM
    assert run(program, data(numbers("arm")["set_tls"], 0x40000028)) == ALLOW
    assert run(program, data(NR["read"], X86)) == KILL


OPERATORS = {
    "SCMP_CMP_EQ": lambda a, v, w: a == v, "SCMP_CMP_NE": lambda a, v, w: a != v,
    "SCMP_CMP_LT": lambda a, v, w: a < v, "SCMP_CMP_LE": lambda a, v, w: a <= v,
    "SCMP_CMP_GT": lambda a, v, w: a > v, "SCMP_CMP_GE": lambda a, v, w: a >= v,
    "SCMP_CMP_MASKED_EQ": lambda a, v, w: a & v == w & v,
}
VALUES = [0, 1, 5, 0xFFFFFFFF, 1 << 32, 5 << 32 | 5, (1 << 64) - 1, 1 << 63]


@pytest.mark.parametrize("op", OPERATORS)
def test_operators_on_64_bits(op: str) -> None:
    for value in VALUES:
        for second in VALUES[:6]:
            program = compiled({"names": ["read"], "action": "SCMP_ACT_ALLOW",
                                "args": [{"index": 2, "value": value, "valueTwo": second, "op": op}]})
            for given in VALUES:
                wanted = ALLOW if OPERATORS[op](given, value, second) else EPERM
                assert ask(program, "read", 0, 0, given) == wanted, (value, second, given)


def test_conditions_are_all_needed_and_alternatives_are_not() -> None:
    def equal(index: int, value: int) -> dict[str, Any]:
        return {"index": index, "value": value, "op": "SCMP_CMP_EQ"}

    both = compiled({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [equal(0, 1), equal(1, 2)]})
    assert [ask(both, "read", *pair) == ALLOW for pair in ((1, 2), (1, 0), (0, 2))] == [True, False, False]
    either = compiled({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [equal(0, 1), equal(0, 2)]})
    assert [ask(either, "read", value) == ALLOW for value in (1, 2, 3)] == [True, True, False]


def test_actions() -> None:
    def verdict(action: str, number: int | None = None) -> int:
        rule = {"names": ["read"], "action": action}
        return ask(compiled(rule | ({"errnoRet": number} if number is not None else {}), default="SCMP_ACT_ALLOW"),
                   "read")

    assert verdict("SCMP_ACT_KILL") == verdict("SCMP_ACT_KILL_THREAD") == 0
    assert verdict("SCMP_ACT_KILL_PROCESS") == KILL
    assert verdict("SCMP_ACT_TRAP") == 0x30000
    assert verdict("SCMP_ACT_ERRNO") == EPERM
    assert verdict("SCMP_ACT_ERRNO", 13) == 0x5000D
    assert verdict("SCMP_ACT_TRACE", 7) == 0x7FF00007
    assert verdict("SCMP_ACT_LOG") == 0x7FFC0000
    with pytest.raises(UnsupportedError, match="NOTIFY"):
        verdict("SCMP_ACT_NOTIFY")
    for bad in ("ALLOW", "SCMP_ACT_X"):
        with pytest.raises(OrchestraError):
            verdict(bad)


def test_precedence() -> None:
    args = [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]
    program = compiled({"names": ["read"], "action": "SCMP_ACT_LOG", "args": args},
                       {"names": ["read", "no_such_call"], "action": "SCMP_ACT_ALLOW"})
    assert ask(program, "read", 1) == ALLOW
    program = compiled({"names": ["read"], "action": "SCMP_ACT_LOG", "args": args},
                       {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": args})
    assert ask(program, "read", 1) == 0x7FFC0000


def test_a_deny_list_lets_new_calls_through_but_not_x32() -> None:
    program = compiled({"names": ["mount"], "action": "SCMP_ACT_ERRNO"}, default="SCMP_ACT_ALLOW")
    assert run(program, data(5000, X86)) == ALLOW
    assert run(program, data(0x40000000 | NR["mount"], X86)) == ENOSYS


def test_x32_when_listed() -> None:
    program = compiled({"names": ["read", "ioctl"], "action": "SCMP_ACT_ALLOW"},
                       architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X32", "SCMP_ARCH_S390X"])
    assert run(program, data(0x40000000, X86)) == ALLOW
    assert run(program, data(0x40000000 | 514, X86)) == ALLOW
    assert run(program, data(0x40000000 | 16, X86)) == EPERM


def test_misspelt_architectures_and_a_missing_default() -> None:
    with pytest.raises(OrchestraError, match="SCMP_ARCH_X68_64"):
        compiled(architectures=["SCMP_ARCH_X68_64"])
    with pytest.raises(OrchestraError, match="defaultAction is missing"):
        seccomp.compile_profile({"syscalls": []})


def test_docker_profile_file() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
                    {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW"},
            {"name": "write", "action": "SCMP_ACT_ALLOW"},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        ],
    }
    found = seccomp.from_docker_profile(profile, ["CAP_CHOWN"], machine="x86_64", kernel=(4, 4))
    assert found["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert [rule["names"] for rule in found["syscalls"]] == [["read"], ["write"], ["arch_prctl"], ["clone3"]]
    found = seccomp.from_docker_profile(profile, ["SYS_ADMIN"], machine="aarch64", kernel=(6, 1))
    assert [rule["names"] for rule in found["syscalls"]] == [["read"], ["write"], ["ptrace"], ["mount"]]
    seccomp.compile_profile(found, machine="aarch64")


def test_many_rules_need_long_jumps() -> None:
    rules = [{"names": [name], "action": "SCMP_ACT_ALLOW",
              "args": [{"index": place % 6, "value": place << 33 | place, "op": "SCMP_CMP_GE"}]}
             for place, name in enumerate(sorted(NR))]
    program = compiled(*rules)
    for place, name in enumerate(sorted(NR)):
        args = [0] * 6
        assert ask(program, name, *args) == (ALLOW if place == 0 else EPERM)
        args[place % 6] = place << 33 | place
        assert ask(program, name, *args) == ALLOW


# The same decisions as libseccomp

class _Compare(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def _library() -> Any:
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError:
        pytest.skip("libseccomp is not installed")
    library.seccomp_init.restype = ctypes.c_void_p
    return library


def _reference(library: Any, profile: dict[str, Any]) -> bytes:
    words = {"SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5,
             "SCMP_CMP_GT": 6, "SCMP_CMP_MASKED_EQ": 7}
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(EPERM)))
    assert library.seccomp_arch_add(context, ctypes.c_uint32(I386)) == 0
    for rule in profile["syscalls"]:
        action = ALLOW if rule["action"] == "SCMP_ACT_ALLOW" else 0x50000 | rule["errnoRet"]
        if action == EPERM:
            continue
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number == -1:
                continue
            args = (_Compare * 6)(*[_Compare(arg["index"], words[arg["op"]], arg["value"], arg.get("valueTwo", 0))
                                    for arg in rule.get("args") or ()])
            library.seccomp_rule_add_array(context, ctypes.c_uint32(action), number,
                                           ctypes.c_uint(len(rule.get("args") or ())), args)
    fd = os.memfd_create("filter")
    try:
        assert library.seccomp_export_bpf(context, fd) == 0
        return os.pread(fd, 1 << 20, 0)
    finally:
        os.close(fd)
        library.seccomp_release(context)


def test_differs_nowhere_from_libseccomp() -> None:
    library = _library()
    chance = random.Random(7)
    for capabilities in ([], ["CAP_SYS_ADMIN"], ["CAP_SYS_PTRACE", "CAP_SYS_TIME"]):
        profile = seccomp.default_profile(capabilities, machine="x86_64")
        ours, theirs = seccomp.compile_profile(profile, machine="x86_64"), _reference(library, profile)
        for arch, table in ((X86, NR), (I386, NR32)):
            for name, number in table.items():
                if library.seccomp_syscall_resolve_name(name.encode()) == -1 or name == "socketcall":
                    continue
                for _ in range(6):
                    args = [chance.choice((0, 1, 17, 38, 40, 0x10000011, 0x20008, 0xFFFFFFFF,
                                           *([1 << 32 | 40] if arch == X86 else []))) for _ in range(6)]
                    asked = data(number, arch, *args)
                    assert run(ours, asked) == run(theirs, asked), (capabilities, arch, name, args)
