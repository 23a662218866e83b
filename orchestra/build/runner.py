"""Running one command over an overlay, in a container of its own, by a small helper process.

``orchestra.runtime.create`` wants a single-threaded caller, which a build is not: so every RUN step starts
``runner_process.py`` with the container's OCI configuration on its standard input. Closing that pipe ends
the container, and so does the death of the builder. Output comes line by line.
"""

from __future__ import annotations

import codecs
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestra.build.problems import BuildError
from orchestra.linux import caps
from orchestra.runtime import defaults

_LINE_LIMIT = 16 << 10
_ENDING = 10.0
"""Seconds the helper has to end after its container."""


@dataclass(slots=True)
class Spec:
    """``lowers``: topmost first. ``scratch``: a fresh directory for the bundle and generated files."""

    command: list[str]
    env: dict[str, str]
    cwd: str
    uid: int
    gid: int
    groups: list[int]
    network: str
    scratch: Path
    privileged: bool = False
    mounts: list[dict[str, Any]] = field(default_factory=list)
    extra_hosts: list[str] = field(default_factory=list)
    shm_size: int | None = None
    ulimits: dict[str, tuple[int, int]] = field(default_factory=dict)
    lowers: list[str] = field(default_factory=list)
    upper: str = ""
    work: str = ""
    ids: tuple[int, int, int] | None = None  # (first uid, first gid, how many) of a user namespace


def run(spec: Spec, output: Callable[[str], None], stop: threading.Event) -> int:
    """The exit status (128 + signal for a signal)."""
    (spec.scratch / "rootfs").mkdir(exist_ok=True)
    request = {
        "config": config_of(spec),
        "container_id": f"build-{secrets.token_hex(6)}",
        "bundle": str(spec.scratch),
    }
    result_read, result_write = os.pipe()
    program = Path(__file__).with_name("runner_process.py")
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(program), str(result_write)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(result_write,),
            start_new_session=True,
        )
    finally:
        os.close(result_write)
    with open(result_read, "rb") as results:
        try:
            _send(process, request)
            _pump(process, output, stop)
            return _outcome(results.read(), process)
        finally:
            _end(process)


def _send(process: subprocess.Popen[bytes], request: dict[str, Any]) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it ended already; its output tells why


def _pump(process: subprocess.Popen[bytes], output: Callable[[str], None], stop: threading.Event) -> None:
    """Lines of the output until its end; an abort closes the control pipe and goes on to the end."""
    assert process.stdout is not None
    assert process.stdin is not None
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    fd = process.stdout.fileno()
    while True:
        ready, _, _ = select.select([fd], [], [], 0.2)
        if stop.is_set() and not process.stdin.closed:
            process.stdin.close()
        if not ready:
            continue
        data = os.read(fd, 64 << 10)
        rest += decoder.decode(data, not data)
        *lines, rest = rest.split("\n")
        if len(rest) > _LINE_LIMIT:
            lines, rest = [*lines, rest], ""
        for line in lines:
            output(line.rstrip("\r"))
        if not data:
            break
    if rest:
        output(rest)


def _outcome(data: bytes, process: subprocess.Popen[bytes]) -> int:
    try:
        result = json.loads(data)
    except ValueError:
        code = process.wait(_ENDING)
        raise BuildError(f"the helper of a RUN step ended without a result (status {code})") from None
    if "error" in result:
        error = result["error"]
        path = str(error.get("path") or "")
        place = f" {path}" if path and path not in error["step"] else ""
        raise BuildError(f"cannot start the command: {error['step']}{place}: {error['message']}")
    return int(result["exit"])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Whatever happened: the helper, and with it the container, is gone afterwards."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.close()
    except BrokenPipeError:
        pass
    try:
        process.wait(_ENDING)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    process.stdout.close()


# --- the configuration ---------------------------------------------------------------------------


_MORE_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_MKNOD", "CAP_NET_RAW")
"""What package managers use in builds, and docker gives them."""


def mount_points(spec: Spec) -> list[str]:
    """Where the runtime mounts something, and so may have made an empty file or directory."""
    return [str(mount["destination"]) for mount in config_of(spec)["mounts"] if mount["destination"] != "/"]


def config_of(spec: Spec) -> dict[str, Any]:
    """The container's OCI configuration."""
    names = (
        tuple(caps.names(caps.bounding()))
        if spec.privileged
        else (*defaults.CAPABILITIES, *_MORE_CAPABILITIES)
    )
    config: dict[str, Any] = {
        "ociVersion": "1.2.0",
        "process": {
            "terminal": False,
            "user": {"uid": spec.uid, "gid": spec.gid, "additionalGids": spec.groups},
            "args": spec.command,
            "env": [f"{name}={text}" for name, text in spec.env.items()],
            "cwd": spec.cwd,
            "capabilities": defaults.capabilities(names=names, root=spec.uid == 0),
            "noNewPrivileges": False,
            "rlimits": [
                {"type": f"RLIMIT_{name.upper()}", "soft": soft, "hard": hard}
                for name, (soft, hard) in spec.ulimits.items()
            ],
        },
        "root": {"path": str(spec.scratch / "rootfs"), "readonly": False},
        "hostname": "build",
        "mounts": [_root(spec), *defaults.mounts(shm_size=spec.shm_size or defaults.SHM_SIZE, cgroup=False)],
        "linux": {
            "namespaces": [{"type": kind} for kind in _namespaces(spec)],
            "maskedPaths": [] if spec.privileged else defaults.masked_paths(),
            "readonlyPaths": [] if spec.privileged else defaults.readonly_paths(),
        },
    }
    if spec.ids:
        _remap(config, spec.ids, own_network=spec.network == "none")
    config["mounts"] += [*_host_files(spec), *spec.mounts]
    if not spec.privileged:
        from orchestra.runtime.seccomp import default_profile

        config["linux"]["seccomp"] = default_profile(names)
    return config


def _remap(config: dict[str, Any], ids: tuple[int, int, int], *, own_network: bool) -> None:
    """In a user namespace; the layers keep the ids that they have inside."""
    uid, gid, size = ids
    config["linux"]["namespaces"].append({"type": "user"})
    for key, first in (("uidMappings", uid), ("gidMappings", gid)):
        config["linux"][key] = [{"containerID": 0, "hostID": first, "size": size}]
    config["mounts"][0]["options"].append("idmap")
    if not own_network:  # sysfs shows a network, and the host's may not be mounted from inside
        place = next(mount for mount in config["mounts"] if mount["destination"] == "/sys")
        place.update(
            type="bind", source="/sys", options=["rbind", "rslave", "nosuid", "noexec", "nodev", "ro"]
        )


def _namespaces(spec: Spec) -> list[str]:
    kinds = ["pid", "ipc", "uts", "mount"]
    return [*kinds, "network"] if spec.network == "none" else kinds


def _root(spec: Spec) -> dict[str, Any]:
    """The overlay; without features that would make the upper directory depend on the lower ones."""
    options = [f"lowerdir={':'.join(spec.lowers)}", f"upperdir={spec.upper}", f"workdir={spec.work}"]
    options += ["redirect_dir=off", "metacopy=off", "index=off", "volatile"]
    return {"destination": "/", "type": "overlay", "source": "overlay", "options": options}


def _host_files(spec: Spec) -> list[dict[str, Any]]:
    """``/etc/hosts`` and, with a network, ``/etc/resolv.conf``."""
    hosts = spec.scratch / "hosts"
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    for entry in spec.extra_hosts:
        name, _, address = entry.replace("=", ":", 1).partition(":")
        shown = "127.0.0.1" if address == "host-gateway" else address.strip("[]")
        lines.append(f"{shown}\t{name}")
    hosts.write_text("".join(f"{line}\n" for line in lines))
    found = [("/etc/hosts", hosts)]
    resolver = Path("/etc/resolv.conf")
    if spec.network != "none" and resolver.exists():
        found.append(("/etc/resolv.conf", Path(os.path.realpath(resolver))))
    return [
        {"destination": target, "type": "bind", "source": str(source), "options": ["bind", "ro"]}
        for target, source in found
    ]
