"""Capabilities, ``security_opt`` and the seccomp profile of a container.

Weaker than the defaults only on the user's word. AppArmor and SELinux labels are not applied: a named
warning says so.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestra.compose.model import Service
from orchestra.errors import OrchestraError


@dataclass(frozen=True, slots=True)
class SecurityOptions:
    """``seccomp`` is '' (the default profile), 'unconfined' or a profile's file."""

    no_new_privileges: bool = False
    seccomp: str = ""
    unmask: bool = False
    writable_cgroups: bool = False


def security_options(entries: Sequence[str], warnings: list[str]) -> SecurityOptions:
    privileges, unmask, writable, seccomp = False, False, False, ""
    for entry in entries:
        separator = "=" if "=" in entry else ":"
        key, _, value = entry.partition(separator)
        if key == "no-new-privileges":
            privileges = value in ("", "true", "1")
        elif key == "seccomp":
            seccomp = "" if value == "builtin" else value
        elif key == "systempaths" and value == "unconfined":
            unmask = True
        elif key == "writable-cgroups":
            writable = value in ("", "true", "1")
        elif key == "apparmor" and value == "unconfined":
            continue
        elif key in ("apparmor", "label"):
            warnings.append(f'security_opt "{entry}" is not supported and was ignored')
        else:
            raise OrchestraError(f'invalid security_opt "{entry}"')
    return SecurityOptions(privileges, seccomp, unmask, writable)


def capabilities(
    service: Service,
    default: Iterable[str],
    available: Collection[str],
    known: Collection[str],
    warnings: list[str],
) -> list[str]:
    """The names the container may hold. ``available`` is what this process can hand on, ``known``
    every name there is."""
    if service.privileged:
        return sorted(available)
    add, drop = _names(service.cap_add, known, "cap_add"), _names(service.cap_drop, known, "cap_drop")
    if "ALL" in add:
        wanted = set(available) - drop
    elif "ALL" in drop:
        wanted = add
    else:
        wanted = (set(default) | add) - drop
    missing = sorted((add & wanted) - set(available))
    if missing:
        warnings.append(f"cap_add: this machine cannot give {', '.join(missing)}")
    return sorted(wanted & set(available))


def _names(words: Sequence[str], known: Collection[str], where: str) -> set[str]:
    found = set()
    for word in words:
        name = word.upper()
        name = name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}"
        if name != "ALL" and name not in known:
            raise OrchestraError(f'invalid {where}: unknown capability "{word}"')
        found.add(name)
    return found


def read_profile(path: str, held: Collection[str]) -> dict[str, Any]:
    """A seccomp profile's file (docker's form or OCI's) as an OCI ``linux.seccomp`` object."""
    try:
        data = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise OrchestraError(f"cannot read seccomp profile {path}: {error.strerror}") from None
    except ValueError as error:
        raise OrchestraError(f"seccomp profile {path} is not valid JSON: {error}") from None
    if not isinstance(data, dict) or not data.get("defaultAction"):
        raise OrchestraError(f"seccomp profile {path} has no defaultAction")
    return translate_profile(data, held, machine=platform.machine(), kernel=os.uname().release)


_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "i686": "x86",
    "ppc64le": "ppc64le",
    "s390x": "s390x",
}


def translate_profile(
    profile: Mapping[str, Any], held: Collection[str], *, machine: str, kernel: str
) -> dict[str, Any]:
    """Docker's conditional rules (includes, excludes, archMap) decided for this container."""
    found: dict[str, Any] = {"defaultAction": profile["defaultAction"]}
    for key in ("defaultErrnoRet", "flags"):
        if key in profile:
            found[key] = profile[key]
    architectures = list(profile.get("architectures") or ())
    for entry in profile.get("archMap") or ():
        if entry.get("architecture") == f"SCMP_ARCH_{machine.upper()}":
            architectures += [entry["architecture"], *(entry.get("subArchitectures") or ())]
    if architectures:
        found["architectures"] = architectures
    here = (set(held), _ARCHITECTURES.get(machine, machine), _version(kernel))
    rules = []
    for rule in profile.get("syscalls") or ():
        includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
        if (includes and not _holds(includes, here, every=True)) or _holds(excludes, here, every=False):
            continue
        names = list(rule.get("names") or ([rule["name"]] if rule.get("name") else []))
        kept = {key: rule[key] for key in ("action", "errnoRet", "args") if rule.get(key) is not None}
        rules.append({"names": names, **kept})
    found["syscalls"] = rules
    return found


def _holds(condition: Mapping[str, Any], here: tuple[set[str], str, tuple[int, ...]], *, every: bool) -> bool:
    held, machine, kernel = here
    answers = []
    if condition.get("caps"):
        answers += [cap in held for cap in condition["caps"]]
    if condition.get("arches"):
        answers.append(machine in condition["arches"])
    if condition.get("minKernel"):
        answers.append(kernel >= _version(str(condition["minKernel"])))
    return (all(answers) if every else any(answers)) if answers else False


def _version(text: str) -> tuple[int, ...]:
    numbers = []
    for part in text.split("-")[0].split(".")[:2]:
        numbers.append(int(part) if part.isdigit() else 0)
    return tuple(numbers)
