"""System call filters: an OCI ``linux.seccomp`` object in, a BPF program for seccomp(2) out.

Per architecture a binary search over the call numbers, argument checks at its leaves. Meaning, where
the OCI spec leaves it open (it follows what libseccomp does): a rule without arguments wins over those
with; among those with arguments the first that fits; several conditions on one argument are
alternatives; a rule with the default action says nothing; a name the kernel does not have is skipped.

Beyond the rules: an architecture that is not listed is killed; x32 calls fail with ENOSYS unless listed;
where the default is an errno, calls newer than every named one fail with ENOSYS.
"""

from __future__ import annotations

import marshal
import os
from collections.abc import Iterable
from typing import Any

from orchestra.errors import OrchestraError, UnsupportedError
from orchestra.runtime.bpf import JEQ, JGE, JGT, Assembler
from orchestra.runtime.seccomp_numbers import X32_BIT, numbers
from orchestra.runtime.seccomp_table import rules as default_rules

Profile = dict[str, Any]

_AUDIT = {
    "x86_64": 0xC000003E,
    "i386": 0x40000003,
    "aarch64": 0xC00000B7,
    "arm": 0x40000028,
    "riscv64": 0xC00000F3,
}
_ARCHITECTURES = {
    "SCMP_ARCH_X86_64": "x86_64",
    "SCMP_ARCH_X86": "i386",
    "SCMP_ARCH_X32": "x32",
    "SCMP_ARCH_AARCH64": "aarch64",
    "SCMP_ARCH_ARM": "arm",
    "SCMP_ARCH_RISCV64": "riscv64",
}
_OTHERS = frozenset(  # they say nothing about this machine
    f"SCMP_ARCH_{name}"
    for name in [
        "MIPS",
        "MIPS64",
        "MIPS64N32",
        "MIPSEL",
        "MIPSEL64",
        "MIPSEL64N32",
        "PPC",
        "PPC64",
        "PPC64LE",
        "S390",
        "S390X",
        "PARISC",
        "PARISC64",
        "LOONGARCH64",
        "M68K",
        "SH",
        "SHEB",
    ]
)
_COMPATIBLE = {"x86_64": ("x86_64", "i386", "x32"), "aarch64": ("aarch64", "arm"), "riscv64": ("riscv64",)}
_DOCKER_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64"}
_ACTIONS = {
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_THREAD": 0,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x30000,
    "SCMP_ACT_ERRNO": 0x50000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_KILL_PROCESS, _ENOSYS = 0x80000000, 0x50000 | 38
_EPERM = 1
_NR, _ARCH, _ARGS = 0, 4, 16
_CACHE_SIZE = 32

_cache: dict[bytes, bytes] = {}


def native() -> str:
    """This machine's architecture in our words."""
    machine = os.uname().machine
    if machine not in _COMPATIBLE:
        raise UnsupportedError(f"seccomp: the architecture {machine} is not known")
    return machine


def compile_profile(seccomp: Profile, *, machine: str | None = None) -> bytes:
    """The program (an array of struct sock_filter). Programs are kept: a second call is cheap."""
    machine = machine or native()
    key = machine.encode() + marshal.dumps(seccomp, 2)
    if key not in _cache:
        while len(_cache) >= _CACHE_SIZE:
            del _cache[next(iter(_cache))]
        _cache[key] = _compile(seccomp, machine)
    return _cache[key]


def default_profile(capabilities: Iterable[str], *, machine: str | None = None) -> Profile:
    """The default policy for a container with these capabilities, as an OCI object."""
    held = {name if name.startswith("CAP_") else f"CAP_{name}" for name in capabilities}
    names = {arch: name for name, arch in _ARCHITECTURES.items()}
    listed = [names[arch] for arch in _COMPATIBLE[machine or native()] if arch != "x32"]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _EPERM,
        "architectures": listed,
        "syscalls": default_rules(held),
    }


def from_docker_profile(
    profile: Profile,
    capabilities: Iterable[str],
    *,
    machine: str | None = None,
    kernel: tuple[int, int] | None = None,
) -> Profile:
    """Docker's profile file (archMap, includes, excludes, minKernel) as an OCI object."""
    machine = machine or native()
    held = {name if name.startswith("CAP_") else f"CAP_{name}" for name in capabilities}
    kernel = kernel or _kernel()
    if profile.get("archMap") and profile.get("architectures"):
        raise OrchestraError("seccomp profile: both architectures and archMap are given")
    found: Profile = {
        key: profile[key] for key in ("defaultAction", "defaultErrnoRet", "flags") if key in profile
    }
    own = next(name for name, arch in _ARCHITECTURES.items() if arch == machine)
    listed = list(profile.get("architectures") or ())
    for entry in profile.get("archMap") or ():
        if entry.get("architecture") == own:
            listed = [own, *(entry.get("subArchitectures") or ())]
    if listed:
        found["architectures"] = listed
    rules = []
    for rule in profile.get("syscalls") or ():
        if rule.get("name") and rule.get("names"):
            raise OrchestraError("seccomp profile: a rule has both name and names")
        if _applies(rule, held, machine, kernel):
            kept = {key: rule[key] for key in ("action", "errnoRet", "args") if rule.get(key) is not None}
            rules.append({"names": rule.get("names") or [rule["name"]], **kept})
    found["syscalls"] = rules
    return found


def _applies(rule: Profile, held: set[str], machine: str, kernel: tuple[int, int]) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    arch = _DOCKER_ARCH[machine]
    if any(name not in held for name in includes.get("caps") or ()):
        return False
    if any(name in held for name in excludes.get("caps") or ()):
        return False
    if includes.get("arches") and arch not in includes["arches"]:
        return False
    if arch in (excludes.get("arches") or ()):
        return False
    if includes.get("minKernel") and kernel < _version(includes["minKernel"]):
        return False
    return not (excludes.get("minKernel") and kernel >= _version(excludes["minKernel"]))


def _version(text: str) -> tuple[int, int]:
    major, _, rest = text.partition(".")
    minor = "".join(letter for letter in rest.split(".")[0] if letter.isdigit())
    return int(major), int(minor or 0)


def _kernel() -> tuple[int, int]:
    return _version(os.uname().release)


def _action(name: str, number: int | None) -> int:
    if name == "SCMP_ACT_NOTIFY":
        raise UnsupportedError(
            "seccomp: the action SCMP_ACT_NOTIFY is not supported",
            hint="it needs a listener outside; answer the call by SCMP_ACT_ERRNO instead",
        )
    if name not in _ACTIONS:
        raise OrchestraError(f"seccomp: the action {name!r} is not known")
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        value = _EPERM if number is None else int(number)
        if not 0 <= value <= (4095 if name == "SCMP_ACT_ERRNO" else 0xFFFF):
            raise OrchestraError(f"seccomp: errnoRet {number} is out of range")
        return _ACTIONS[name] | value
    if number:
        raise OrchestraError(f"seccomp: errnoRet makes no sense with {name}")
    return _ACTIONS[name]


Condition = tuple[int, str, int, int]  # argument, operator, value, second value
Leaf = tuple[tuple[tuple[Condition, ...], int], ...]  # alternatives in order; () conditions always fit


def _rules(seccomp: Profile, default: int) -> tuple[dict[str, Leaf], set[str]]:
    """(leaf by name, all names that are mentioned)."""
    always: dict[str, int] = {}
    guarded: dict[str, list[tuple[tuple[Condition, ...], int]]] = {}
    mentioned: set[str] = set()
    for rule in seccomp.get("syscalls") or ():
        action = _action(str(rule.get("action")), rule.get("errnoRet"))
        names = rule.get("names") or ()
        mentioned.update(names)
        if action == default:
            continue
        alternatives = _alternatives(rule.get("args") or ())
        for name in names:
            if alternatives == [()]:
                always.setdefault(name, action)
            else:
                guarded.setdefault(name, []).extend((conditions, action) for conditions in alternatives)
    leaves: dict[str, Leaf] = {name: tuple(found) for name, found in guarded.items()}
    leaves.update({name: (((), action),) for name, action in always.items()})
    return leaves, mentioned


def _alternatives(args: Iterable[Profile]) -> list[tuple[Condition, ...]]:
    conditions: list[Condition] = []
    for arg in args:
        index, op = int(arg["index"]), str(arg["op"])
        if not 0 <= index <= 5:
            raise OrchestraError(f"seccomp: a call has no argument {index}")
        if op not in _OPERATORS:
            raise OrchestraError(f"seccomp: the operator {op!r} is not known")
        conditions.append((index, op, int(arg["value"]), int(arg.get("valueTwo") or 0)))
    if len({condition[0] for condition in conditions}) < len(conditions):
        return [(condition,) for condition in conditions]
    return [tuple(conditions)]


def _compile(seccomp: Profile, machine: str) -> bytes:
    if not seccomp.get("defaultAction"):
        raise OrchestraError("seccomp: defaultAction is missing")
    default = _action(str(seccomp["defaultAction"]), seccomp.get("defaultErrnoRet"))
    leaves, mentioned = _rules(seccomp, default)
    listed = seccomp.get("architectures") or []
    unknown = [name for name in listed if name not in _ARCHITECTURES and name not in _OTHERS]
    if unknown:
        raise OrchestraError(f"seccomp: the architecture {unknown[0]!r} is not known")
    wanted = {_ARCHITECTURES[name] for name in listed if name in _ARCHITECTURES} | {machine}
    assembler = Assembler()
    entry = assembler.ret(_KILL_PROCESS)
    for arch in reversed([arch for arch in _COMPATIBLE[machine] if arch in wanted and arch != "x32"]):
        ranges = _ranges(arch, leaves, mentioned, default)
        if arch == "x86_64":
            upper = _ranges("x32", leaves, mentioned, default) if "x32" in wanted else [(X32_BIT, None)]
            ranges = [*ranges, *[part for part in upper if part[0] >= X32_BIT]]
        tree = assembler.load(
            _NR, _Search(assembler, default, wide=arch in ("x86_64", "aarch64", "riscv64")).build(ranges)
        )
        entry = assembler.branch(JEQ, _AUDIT[arch], tree, entry)
    return assembler.program(assembler.load(_ARCH, entry))


Range = tuple[int, Leaf | None]  # from this number on; None is ENOSYS, () the default


def _ranges(arch: str, leaves: dict[str, Leaf], mentioned: set[str], default: int) -> list[Range]:
    """The whole number space in ascending ranges, neighbours alike joined."""
    table = numbers(arch)
    known = sorted((table[name], leaves.get(name, ())) for name in mentioned if name in table)
    start = X32_BIT if arch == "x32" else 0
    found: list[Range] = [(start, ())]
    expected = start
    for number, leaf in known:
        if number > expected and found[-1][1] != ():
            found.append((expected, ()))
        if found[-1][1] != leaf:
            if found[-1][0] == number:
                found[-1] = (number, leaf)
            else:
                found.append((number, leaf))
        expected = number + 1
    last: Leaf | None = () if default & 0xFFFF0000 != 0x50000 else None
    if found[-1][1] != last:
        found.append((expected, last))
    return found


class _Search:
    """Builds the decision tree of one architecture."""

    def __init__(self, assembler: Assembler, default: int, *, wide: bool) -> None:
        self.assembler = assembler
        self.default = default
        self.wide = wide
        self._leaves: dict[Leaf | None, int] = {}

    def build(self, ranges: list[Range]) -> int:
        if len(ranges) == 1:
            return self._leaf(ranges[0][1])
        middle = len(ranges) // 2
        right = self.build(ranges[middle:])
        left = self.build(ranges[:middle])
        return self.assembler.branch(JGE, ranges[middle][0], right, left)

    def _leaf(self, leaf: Leaf | None) -> int:
        if leaf is None:
            return self.assembler.ret(_ENOSYS)
        if leaf == ():
            return self.assembler.ret(self.default)
        if leaf[0][0] == ():
            return self.assembler.ret(leaf[0][1])
        if leaf not in self._leaves:
            place = self.assembler.ret(self.default)
            for conditions, action in reversed(leaf):
                yes = self.assembler.ret(action)
                for condition in reversed(conditions):
                    yes = self._check(condition, yes, place)
                place = yes
            self._leaves[leaf] = place
        return self._leaves[leaf]

    def _check(self, condition: Condition, yes: int, no: int) -> int:
        index, op, value, second = condition
        low = _ARGS + 8 * index
        kind, negated = _OPERATORS[op]
        if negated:
            yes, no = no, yes
        if kind == "mask":
            return self._masked(low, value, second, yes, no)
        high_value, low_value = value >> 32 & 0xFFFFFFFF, value & 0xFFFFFFFF
        code = {"eq": JEQ, "gt": JGT, "ge": JGE}[kind]
        place = self.assembler.load(low, self.assembler.branch(code, low_value, yes, no))
        if not self.wide:
            return place
        place = self.assembler.branch(JEQ, high_value, place, no)
        if kind != "eq":
            place = self.assembler.branch(JGT, high_value, yes, place)
        return self.assembler.load(low + 4, place)

    def _masked(self, low: int, mask: int, value: int, yes: int, no: int) -> int:
        place = yes
        for shift, offset in ((0, low), (32, low + 4)):
            part = mask >> shift & 0xFFFFFFFF
            if part and (self.wide or not shift):
                check = self.assembler.branch(JEQ, value >> shift & part, place, no)
                place = self.assembler.load(offset, self.assembler.mask(part, check))
        return place


_OPERATORS = {
    "SCMP_CMP_EQ": ("eq", False),
    "SCMP_CMP_NE": ("eq", True),
    "SCMP_CMP_GT": ("gt", False),
    "SCMP_CMP_LE": ("gt", True),
    "SCMP_CMP_GE": ("ge", False),
    "SCMP_CMP_LT": ("ge", True),
    "SCMP_CMP_MASKED_EQ": ("mask", False),
}
