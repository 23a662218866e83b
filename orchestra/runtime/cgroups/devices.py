"""Device rules: the OCI list → one normal form, which v1 writes into files and v2 turns into a program.

The normal form is a default and its exceptions, with the meaning of the kernel's devices controller:
an access is an exception when one single exception covers it (deny by default) or touches it (allow
by default). What a file-based controller cannot express is refused, so that v1 and v2 never differ.
"""

from __future__ import annotations

import functools
import json
import struct
from typing import Any

from orchestra.errors import UnsupportedError

Key = tuple[str, int, int]
WILD = -1

# Always usable: they hold nothing and every program expects them. mknod of anything is harmless,
# as opening the node is what is checked.
BASICS: tuple[dict[str, Any], ...] = (
    {"allow": True, "type": "c", "access": "m"},
    {"allow": True, "type": "b", "access": "m"},
    *(
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, WILD))
    ),
)


class Rules:
    """``allow`` is the default, ``exceptions`` maps (type, major, minor) to access letters."""

    def __init__(self, *, allow: bool, exceptions: dict[Key, str]) -> None:
        self.allow = allow
        self.exceptions = exceptions

    def permits(self, kind: str, major: int, minor: int, access: str) -> bool:
        """What the kernel would decide; the reference for tests."""
        hits = (
            set(letters)
            for (t, a, b), letters in self.exceptions.items()
            if t in (kind, "a") and a in (major, WILD) and b in (minor, WILD)
        )
        if self.allow:
            return not any(letters & set(access) for letters in hits)
        return any(set(access) <= letters for letters in hits)


def normalise(rules: list[dict[str, Any]] | None) -> Rules:
    """The OCI list in order, the harmless basics at its end; without a list only those."""
    return _normalise(json.dumps(rules or []))


@functools.lru_cache(maxsize=64)
def _normalise(text: str) -> Rules:
    """Nobody changes the answer: most containers have the same list."""
    rules: list[dict[str, Any]] = json.loads(text)
    state = Rules(allow=False, exceptions={})
    for rule in [*rules, *BASICS]:
        _add(state, rule)
    return state


def lines(rules: list[dict[str, Any]] | None) -> tuple[bool, tuple[str, ...]]:
    """(the default, the exceptions as the v1 files take them)"""
    return _lines(json.dumps(rules or []))


@functools.lru_cache(maxsize=64)
def _lines(text: str) -> tuple[bool, tuple[str, ...]]:
    state = _normalise(text)
    return state.allow, tuple(describe(key, access) for key, access in state.exceptions.items())


def _add(state: Rules, rule: dict[str, Any]) -> None:
    kind = str(rule.get("type") or "a")
    major, minor = _number(rule.get("major")), _number(rule.get("minor"))
    access = "".join(letter for letter in "rwm" if letter in str(rule.get("access") or "rwm"))
    allow = bool(rule.get("allow"))
    if kind not in ("a", "b", "c", "u", "p"):
        raise UnsupportedError(f"device type {kind!r} in a device rule is none of a, b, c, u")
    if kind == "p":
        return  # a FIFO is no device: the controllers never see it
    kind = "c" if kind == "u" else kind
    if kind == "a":
        if (major, minor) != (WILD, WILD) or access != "rwm":
            for each in ("b", "c"):
                _add(state, {**rule, "type": each})
            return
        state.allow = allow
        state.exceptions.clear()
        return
    key = (kind, major, minor)
    if allow != state.allow:
        state.exceptions[key] = _union(state.exceptions.get(key, ""), access)
        return
    _refuse_partial(state, key, access)
    left = "".join(letter for letter in state.exceptions.get(key, "") if letter not in access)
    if left:
        state.exceptions[key] = left
    else:
        state.exceptions.pop(key, None)


def _refuse_partial(state: Rules, key: Key, access: str) -> None:
    """Taking part of a wider exception back cannot be said in the kernel's terms (v1 would ignore it)."""
    if state.allow:
        return
    for (kind, major, minor), letters in state.exceptions.items():
        wider = kind == key[0] and major in (key[1], WILD) and minor in (key[2], WILD)
        if wider and (kind, major, minor) != key and set(letters) & set(access):
            text = describe(key, access)
            raise UnsupportedError(
                f"device rule deny {text} takes away part of {describe((kind, major, minor), letters)}",
                hint="deny it before the wider rule allows it, or allow single devices",
            )


def _number(value: Any) -> int:
    return WILD if value is None or int(value) < 0 else int(value)


def _union(left: str, right: str) -> str:
    return "".join(letter for letter in "rwm" if letter in left or letter in right)


def describe(key: Key, access: str) -> str:
    """The line the v1 files take: ``c 1:3 rwm``."""
    kind, major, minor = key
    return f"{kind} {'*' if major == WILD else major}:{'*' if minor == WILD else minor} {access}"


# The program for v2: struct bpf_cgroup_dev_ctx { u32 access_type, major, minor }; the low half of
# access_type is the type (block 1, char 2), the high half the access bits (mknod 1, read 2, write 4).

_LDX_W, _ALU_AND, _ALU_RSH, _MOV_REG, _MOV_IMM, _JNE_IMM, _JNE_REG, _JEQ_IMM, _EXIT = (
    0x61,
    0x54,
    0x74,
    0xBF,
    0xB7,
    0x55,
    0x5D,
    0x15,
    0x95,
)
_BITS = {"m": 1, "r": 2, "w": 4}
_TYPES = {"b": 1, "c": 2}


def program(rules: Rules) -> bytes:
    """eBPF instructions: r2 type, r3 access, r4 major, r5 minor; r0 = 1 permits."""
    code = [
        _op(_LDX_W, 2, 1, 0, 0),
        _op(_ALU_AND, 2, 0, 0, 0xFFFF),
        _op(_LDX_W, 3, 1, 0, 0),
        _op(_ALU_RSH, 3, 0, 0, 16),
        _op(_LDX_W, 4, 1, 4, 0),
        _op(_LDX_W, 5, 1, 8, 0),
    ]
    for (kind, major, minor), letters in rules.exceptions.items():
        mask = sum(_BITS[letter] for letter in letters)
        tests: list[tuple[int, int, int, int]] = [(_JNE_IMM, 2, 0, _TYPES[kind])]
        if major != WILD:
            tests.append((_JNE_IMM, 4, 0, major))
        if minor != WILD:
            tests.append((_JNE_IMM, 5, 0, minor))
        # after the tests: the access check and the verdict
        verdict = [_op(_MOV_IMM, 0, 0, 0, 0 if rules.allow else 1), _op(_EXIT, 0, 0, 0, 0)]
        check: list[bytes] = []
        if mask != 7:
            check = [_op(_MOV_REG, 1, 3, 0, 0), _op(_ALU_AND, 1, 0, 0, mask)]
            # allow by default: skip unless some bit is denied; deny by default: skip unless all are allowed
            check.append(_op(_JEQ_IMM, 1, 0, 2, 0) if rules.allow else _op(_JNE_REG, 1, 3, 2, 0))
        total = len(tests) + len(check) + len(verdict)
        for index, (op, register, source, value) in enumerate(tests):
            code.append(_op(op, register, source, total - index - 1, value))
        code += check + verdict
    code += [_op(_MOV_IMM, 0, 0, 0, 1 if rules.allow else 0), _op(_EXIT, 0, 0, 0, 0)]
    return b"".join(code)


def compiled(rules: list[dict[str, Any]] | None) -> bytes:
    """``program`` of ``normalise``."""
    return _compiled(json.dumps(rules or []))


@functools.lru_cache(maxsize=16)
def _compiled(text: str) -> bytes:
    return program(_normalise(text))


def _op(code: int, target: int, source: int, offset: int, value: int) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | target, offset, value)
