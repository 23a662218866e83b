"""The OCI ``process`` of a container: image config and service in, arguments, environment and user out.

Pure apart from the reader of the image's passwd and group files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestra.backend import ExecSpec
from orchestra.compose.model import Service
from orchestra.engine.accounts import Identity
from orchestra.errors import OrchestraError

_LIMITS = frozenset(
    [
        "AS",
        "CORE",
        "CPU",
        "DATA",
        "FSIZE",
        "LOCKS",
        "MEMLOCK",
        "MSGQUEUE",
        "NICE",
        "NOFILE",
        "NPROC",
        "RSS",
        "RTPRIO",
        "RTTIME",
        "SIGPENDING",
        "STACK",
    ]
)
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def arguments(service: Service, image: Mapping[str, Any]) -> list[str]:
    """Docker's rule: an own entrypoint drops the image's command, ``[]`` clears."""
    entrypoint = service.entrypoint
    command = list(service.command or ())
    if not entrypoint:
        if not command:
            command = list(image.get("Cmd") or ())
        if entrypoint is None:
            entrypoint = tuple(image.get("Entrypoint") or ())
    found = [*entrypoint, *command]
    if not found:
        raise OrchestraError(
            f"no command specified for {service.name or service.image}",
            hint="set `command:` (the image names no command of its own)",
        )
    return found


def environment(
    service: Service, image: Mapping[str, Any], identity: Identity, *, hostname: str
) -> list[str]:
    """PATH, HOSTNAME, TERM and HOME as docker gives them, then the image's, then the service's."""
    found = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if service.tty:
        found["TERM"] = "xterm"
    for line in image.get("Env") or ():
        name, _, value = str(line).partition("=")
        found[name] = value
    for name, given in service.environment.items():
        if given is not None:
            found[name] = given
    found.setdefault("HOME", identity.home)
    return [f"{name}={value}" for name, value in found.items()]


def working_dir(service: Service, image: Mapping[str, Any]) -> str:
    text = service.working_dir or str(image.get("WorkingDir") or "") or "/"
    return text if text.startswith("/") else f"/{text}"


def user_of(service: Service, image: Mapping[str, Any]) -> str:
    return service.user or str(image.get("User") or "")


def stop_signal(service: Service, image: Mapping[str, Any]) -> str:
    return service.stop_signal or str(image.get("StopSignal") or "") or "SIGTERM"


def user_object(identity: Identity) -> dict[str, Any]:
    return {"uid": identity.uid, "gid": identity.gid, "umask": 0o022, "additionalGids": list(identity.groups)}


def rlimits(service: Service, ceiling: Mapping[str, int | None], warnings: list[str]) -> list[dict[str, Any]]:
    """``ulimits`` as OCI rlimits. ``ceiling`` maps a name to the highest hard limit this process may
    set (missing: any); what lies above is lowered with a warning."""
    found = []
    for name, limit in sorted(service.ulimits.items()):
        word = name.removeprefix("RLIMIT_").upper()
        if word not in _LIMITS:
            raise OrchestraError(f"invalid ulimit type: {name}")
        soft, hard = _unlimited(limit.soft), _unlimited(limit.hard)
        if soft > hard:
            raise OrchestraError(f"ulimits.{name}: the soft limit {soft} is above the hard limit {hard}")
        most = ceiling.get(word)
        if most is not None and hard > most:
            shown = "unlimited" if hard == _INFINITY else str(hard)
            warnings.append(f"ulimits.{name}: {shown} is above this machine's limit, {most} is used instead")
            soft, hard = min(soft, most), most
        found.append({"type": f"RLIMIT_{word}", "soft": soft, "hard": hard})
    return found


_INFINITY = 2**64 - 1


def _unlimited(value: int) -> int:
    return _INFINITY if value < 0 else value


def exec_process(
    base: Mapping[str, Any], spec: ExecSpec, identity: Identity, *, capabilities: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The process of an exec: the container's own, with what the exec says instead."""
    replaced = ("args", "user", "terminal", "consoleSize")
    process = {key: value for key, value in base.items() if key not in replaced}
    variables = dict(line.split("=", 1) for line in base.get("env", ()))
    if spec.user:
        variables["HOME"] = identity.home
    if spec.tty:
        variables.setdefault("TERM", "xterm")
    variables.update(spec.environment)
    process["env"] = [f"{name}={value}" for name, value in variables.items()]
    process["args"] = list(spec.command)
    process["user"] = user_object(identity)
    process["cwd"] = spec.working_dir or base.get("cwd", "/")
    process["terminal"] = spec.tty
    if spec.tty and spec.size:
        process["consoleSize"] = {"height": spec.size[0], "width": spec.size[1]}
    if capabilities is not None:
        process["capabilities"] = dict(capabilities)
    return process


def effective_capabilities(names: Sequence[str], *, root: bool) -> dict[str, list[str]]:
    """The five sets: a user other than root keeps the bounding set only, as with docker."""
    held = list(names) if root else []
    return {
        "bounding": list(names),
        "permitted": held,
        "effective": held,
        "inheritable": [],
        "ambient": [],
    }
