"""The types of an OCI configuration that came from outside: checked before anything looks into it.

``orchestra-runtime`` calls this for config.json, for the process object of ``exec`` and for the resources of
``update``; what the engine makes itself is not checked again. A null counts as absent, as in the Go programs
that write these files; keys that the specification does not know are left alone. In the shapes below, ``""`` names the keys of
an object that must be there, ``"*"`` stands for any key.
"""

from __future__ import annotations

import json
from typing import Any

from orchestra.errors import OrchestraError

MAX_SIZE = 16 << 20
_MAX_TEXT = 1 << 20

_TEXT = "text"
_BOOL = "true or false"
_INT = (-(2**63), 2**63 - 1)
_UINT16 = (0, 2**16 - 1)
_UINT32 = (0, 2**32 - 1)
_UINT64 = (0, 2**64 - 1)
_LIMIT = (-1, 2**64 - 1)
_TEXTS: Any = [_TEXT]
_MAP = {"*": _TEXT}

_HOOK = {"path": _TEXT, "args": _TEXTS, "env": _TEXTS, "timeout": _INT}
_IDS = [{"containerID": _UINT32, "hostID": _UINT32, "size": _UINT32}]
_CAPABILITIES = dict.fromkeys(("bounding", "effective", "inheritable", "permitted", "ambient"), _TEXTS)

PROCESS: Any = {
    "terminal": _BOOL,
    "consoleSize": {"height": _UINT16, "width": _UINT16},
    "user": {
        "uid": _UINT32,
        "gid": _UINT32,
        "umask": (0, 0o7777),
        "additionalGids": [_UINT32],
        "username": _TEXT,
    },
    "args": _TEXTS,
    "env": _TEXTS,
    "cwd": _TEXT,
    "capabilities": _CAPABILITIES,
    "rlimits": [{"type": _TEXT, "soft": _LIMIT, "hard": _LIMIT}],
    "noNewPrivileges": _BOOL,
    "apparmorProfile": _TEXT,
    "selinuxLabel": _TEXT,
    "oomScoreAdj": (-1000, 1000),
    "scheduler": {
        "policy": _TEXT,
        "nice": (-(2**31), 2**31 - 1),
        "priority": (-(2**31), 2**31 - 1),
        "flags": _TEXTS,
        "runtime": _UINT64,
        "deadline": _UINT64,
        "period": _UINT64,
    },
    "ioPriority": {"class": _TEXT, "priority": (0, 7)},
    "execCPUAffinity": {"initial": _TEXT, "final": _TEXT},
}
_DEVICE_NUMBERS: Any = {"major": _INT, "minor": _INT}
_BLOCK_DEVICE: Any = {"": ("major", "minor"), **_DEVICE_NUMBERS}
_THROTTLE = [{**_BLOCK_DEVICE, "": ("major", "minor", "rate"), "rate": _UINT64}]
RESOURCES: Any = {
    "devices": [{**_DEVICE_NUMBERS, "allow": _BOOL, "type": _TEXT, "access": _TEXT}],
    "memory": {
        **dict.fromkeys(("limit", "reservation", "swap", "kernel", "kernelTCP"), _INT),
        "swappiness": _UINT64,
        **dict.fromkeys(("disableOOMKiller", "useHierarchy", "checkBeforeUpdate"), _BOOL),
    },
    "cpu": {
        **dict.fromkeys(("shares", "period", "burst", "realtimePeriod"), _UINT64),
        **dict.fromkeys(("quota", "realtimeRuntime", "idle"), _INT),
        "cpus": _TEXT,
        "mems": _TEXT,
    },
    "pids": {"limit": _INT},
    "blockIO": {
        "weight": _UINT16,
        "leafWeight": _UINT16,
        "weightDevice": [{**_BLOCK_DEVICE, "weight": _UINT16, "leafWeight": _UINT16}],
        **{f"throttle{way}{unit}Device": _THROTTLE for way in ("Read", "Write") for unit in ("Bps", "IOPS")},
    },
    "hugepageLimits": [{"": ("pageSize", "limit"), "pageSize": _TEXT, "limit": _UINT64}],
    "network": {
        "classID": _UINT32,
        "priorities": [{"": ("name", "priority"), "name": _TEXT, "priority": _UINT32}],
    },
    "rdma": {"*": {"hcaHandles": _UINT32, "hcaObjects": _UINT32}},
    "unified": _MAP,
}
_SECCOMP: Any = {
    "defaultAction": _TEXT,
    "defaultErrnoRet": _UINT32,
    "architectures": _TEXTS,
    "flags": _TEXTS,
    "listenerPath": _TEXT,
    "listenerMetadata": _TEXT,
    "syscalls": [
        {
            "names": _TEXTS,
            "action": _TEXT,
            "errnoRet": _UINT32,
            "args": [{"index": _UINT32, "value": _UINT64, "valueTwo": _UINT64, "op": _TEXT}],
        }
    ],
}
_LINUX: Any = {
    "namespaces": [{"type": _TEXT, "path": _TEXT}],
    "uidMappings": _IDS,
    "gidMappings": _IDS,
    "timeOffsets": {"*": {"secs": _INT, "nanosecs": _UINT32}},
    "devices": [
        {**_DEVICE_NUMBERS, "path": _TEXT, "type": _TEXT, "fileMode": _UINT32, "uid": _UINT32, "gid": _UINT32}
    ],
    "cgroupsPath": _TEXT,
    "resources": RESOURCES,
    "rootfsPropagation": _TEXT,
    "seccomp": _SECCOMP,
    "sysctl": _MAP,
    "maskedPaths": _TEXTS,
    "readonlyPaths": _TEXTS,
    "mountLabel": _TEXT,
    "personality": {"domain": _TEXT, "flags": _TEXTS},
}
CONFIG: Any = {
    "ociVersion": _TEXT,
    "process": PROCESS,
    "root": {"path": _TEXT, "readonly": _BOOL},
    "hostname": _TEXT,
    "domainname": _TEXT,
    "mounts": [
        {
            "destination": _TEXT,
            "type": _TEXT,
            "source": _TEXT,
            "options": _TEXTS,
            "uidMappings": _IDS,
            "gidMappings": _IDS,
        }
    ],
    "hooks": {
        kind: [_HOOK]
        for kind in (
            "prestart",
            "createRuntime",
            "createContainer",
            "startContainer",
            "poststart",
            "poststop",
        )
    },
    "annotations": _MAP,
    "linux": _LINUX,
}


def read(data: bytes, name: str, shape: Any) -> dict[str, Any]:
    """The object in ``data``, checked; ``name`` is what a message calls it."""
    if len(data) > MAX_SIZE:
        raise OrchestraError(f"{name} has more than {MAX_SIZE >> 20} MiB")
    try:
        found = json.loads(data)
    except ValueError as problem:
        raise OrchestraError(f"{name} is not valid JSON: {problem}") from None
    except RecursionError:
        raise OrchestraError(f"{name} is not valid JSON: it is nested too deeply") from None
    if not isinstance(found, dict):
        raise OrchestraError(f"{name} is not an object")
    try:
        check(found, shape)
    except OrchestraError as problem:
        raise OrchestraError(f"{name}: {problem.brief}") from None
    return found


def check(value: object, shape: Any, place: str = "") -> None:
    """``OrchestraError`` that names the place of the first value of a wrong type."""
    if value is None:
        return
    if isinstance(shape, dict):
        _object(value, shape, place)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise _wrong(place, "a list", value)
        for index, entry in enumerate(value):
            if entry is None:
                raise _wrong(f"{place}[{index}]", "a value", entry)
            check(entry, shape[0], f"{place}[{index}]")
    elif isinstance(shape, tuple):
        if not isinstance(value, int) or isinstance(value, bool):
            raise _wrong(place, "a whole number", value)
        if not shape[0] <= value <= shape[1]:
            raise OrchestraError(f"{place}: {_shown(value)} is not within {shape[0]} and {shape[1]}")
    elif shape is _BOOL:
        if not isinstance(value, bool):
            raise _wrong(place, _BOOL, value)
    else:
        _text(value, place)


def _object(value: object, shape: dict[str, Any], place: str) -> None:
    if not isinstance(value, dict):
        raise _wrong(place, "an object", value)
    for key in shape.get("", ()):
        if value.get(key) is None:
            raise OrchestraError(f"{place}.{key} is missing")
    each = shape.get("*")
    for key, entry in value.items():
        wanted = each or shape.get(key)
        if wanted is None or not key:
            continue
        if each:
            _text(key, f"a key of {place}")
            if entry is None:
                raise _wrong(f"{place}.{key}", "a value", entry)
        check(entry, wanted, f"{place}.{key}" if place else key)


def _text(value: object, place: str) -> None:
    if not isinstance(value, str):
        raise _wrong(place, _TEXT, value)
    if "\0" in value:
        raise OrchestraError(f"{place}: a NUL byte in {_shown(value)}")
    if len(value) > _MAX_TEXT:
        raise OrchestraError(f"{place}: more than {_MAX_TEXT} characters")
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise OrchestraError(f"{place}: {_shown(value)} is no valid Unicode") from None


def _wrong(place: str, wanted: str, value: object) -> OrchestraError:
    return OrchestraError(f"{place} must be {wanted}, not {_shown(value)}")


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
