"""Capabilities, ``security_opt`` and the seccomp profile of a container.

Weaker than the defaults only on the user's word. AppArmor and SELinux labels are not applied: a named
warning says so.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestra.compose.model import Service
from orchestra.errors import OrchestraError
from orchestra.runtime import seccomp


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
    try:
        return seccomp.from_docker_profile(data, held)
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise OrchestraError(
            f"seccomp profile {path} is not of docker's form: {type(error).__name__} {error}"
        ) from None
