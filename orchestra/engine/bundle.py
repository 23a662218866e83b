"""The OCI bundle of a container for one start: everything computed here, nothing decided later.

Written to ``<run>/containers/<id>/config.json``; the root is an overlay that the runtime mounts in the
container's own mount namespace (``mounts[0]`` at ``/``), so the host never has a mount of it.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from orchestra.engine import devices as devices_of
from orchestra.engine import process as processes
from orchestra.engine import quota, security, userns
from orchestra.engine import resources as limits_of
from orchestra.engine.accounts import Identity, resolve
from orchestra.engine.container import Container
from orchestra.engine.layers import LayerView
from orchestra.engine.machine import machine
from orchestra.engine.mounts import in_order, oci_mount
from orchestra.engine.namespaces import PidOf, mode_of, namespaces, shared_with
from orchestra.engine.parts import Parts
from orchestra.engine.sharing import ALONE, Placement
from orchestra.engine.userns import Range
from orchestra.errors import OrchestraError
from orchestra.images import shifted
from orchestra.linux import caps, fs
from orchestra.runtime import defaults, seccomp

INITS = (
    "/usr/bin/catatonit",
    "/usr/libexec/podman/catatonit",
    "/usr/bin/tini-static",
    "/usr/bin/tini",
    "/usr/bin/dumb-init",
    "/usr/bin/docker-init",
    "/sbin/docker-init",
    "/usr/local/bin/tini",
)
INIT_TARGET = "/dev/init"


@dataclass(frozen=True, slots=True)
class Pieces:
    """What the caller has prepared: layer directories (lowest first), the files of /etc and the mounts of
    volumes and secrets."""

    layers: Sequence[Path]
    etc: Mapping[str, str]  # container path → host path
    mounts: Sequence[Mapping[str, Any]]
    pid_of: PidOf
    ids: Range | None = None  # of its user namespace
    borrowed: Mapping[str, str] = field(default_factory=dict)  # path → where on the host it is for the start
    mapped: bool = True  # whether ids of mounts are mapped; else the files have those of ``ids`` on disk
    placed: Placement = ALONE  # whose user namespace is joined


def write(parts: Parts, container: Container, pieces: Pieces, warnings: list[str]) -> dict[str, Any]:
    """Compute and write the configuration; returns it. Raises OrchestraError for what cannot be."""
    config = build(parts, container, pieces, warnings)
    folder = parts.bundle_text(container.id)
    data = encoded(config)
    try:
        _put(f"{folder}/config.json", data)
    except FileNotFoundError:
        make_folder(folder)
        _put(f"{folder}/config.json", data)
    return config


def make_folder(place: str) -> None:
    """Private to its owner; what is missing above it, too."""
    try:
        os.mkdir(place, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        Path(place).mkdir(mode=0o700, parents=True, exist_ok=True)


def _put(place: str, data: bytes) -> None:
    """Not atomic: it is read when it is whole, by a start that follows, and by nobody after a crash of this one."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(place, flags, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)


def encoded(config: dict[str, Any]) -> bytes:
    """``config`` as JSON. The usual seccomp profile, more than half of it, is not encoded again."""
    held = tuple(config["process"]["capabilities"]["bounding"])
    if config["linux"].get("seccomp") is not _default_profile(held):
        return json.dumps(config).encode()
    linux = {key: value for key, value in config["linux"].items() if key != "seccomp"}
    rest = {key: value for key, value in config.items() if key != "linux"}
    text = json.dumps({**rest, "linux": linux})  # so that it ends with the two braces
    return b"".join((text[:-2].encode(), b', "seccomp": ', _profile_text(held), b"}}"))


def build(parts: Parts, container: Container, pieces: Pieces, warnings: list[str]) -> dict[str, Any]:
    spec, service = container.spec, container.spec.service
    options = security.security_options(service.security_opt, warnings)
    held = security.capabilities(service, defaults.CAPABILITIES, _available(), tuple(caps.NAMES), warnings)
    process = _process(parts, container, pieces, held, options, warnings)
    nodes, rules = devices_of.devices(service, warnings)
    host = machine()
    found = limits_of.resources(service, cpus=host.cpus, swap=host.swap, warnings=warnings)
    found["devices"] = [*defaults.device_rules(), *rules]
    linux: dict[str, Any] = {
        "namespaces": [*namespaces(spec.namespaces, pieces.pid_of), *_user_namespace(pieces)],
        "resources": found,
        "cgroupsPath": cgroup_path(parts, container),
        "devices": nodes,
        **(pieces.ids.mappings() if pieces.ids else {}),
    }
    if not service.privileged and not options.unmask:
        linux["maskedPaths"], linux["readonlyPaths"] = list(host.masked), defaults.readonly_paths()
    profile = _seccomp(options, held, privileged=service.privileged)
    if profile is not None:
        limited = quota.size_of(service.storage_opt) > 0
        linux["seccomp"] = quota.keep_inside(profile) if limited else profile
    linux["sysctl"] = _sysctls(container, pieces.ids)
    config: dict[str, Any] = {
        "ociVersion": "1.2.0",
        "process": process,
        "root": {"path": str(parts.paths.mountpoint), "readonly": service.read_only},
        "mounts": _mounts(parts, container, pieces, options, warnings),
        "linux": linux,
        "annotations": {**service.annotations},
    }
    if mode_of(spec.namespaces, "uts") == "" and not shared_with(spec.namespaces, "uts"):
        config["hostname"] = parts.hostname(container)
        if service.domainname:
            config["domainname"] = service.domainname
    _other_warnings(container, warnings)
    return config


def _user_namespace(pieces: Pieces) -> list[dict[str, Any]]:
    if pieces.placed.user_of:
        return [{"type": "user", "path": f"/proc/{pieces.pid_of(pieces.placed.user_of)}/ns/user"}]
    return [{"type": "user"}] if pieces.ids else []


def cgroup_path(parts: Parts, container: Container) -> str:
    """``/<scope>/<group>/<id>``, or below the service's cgroup_parent."""
    parent = container.spec.service.cgroup_parent
    if parent:
        base = "/" + parent.strip("/")
        if any(part in ("", ".", "..") for part in base.split("/")[1:]):
            raise OrchestraError(f"invalid cgroup_parent {parent!r}")
        return f"{base}/{container.id}"
    return f"/{parts.paths.scope}/{container.group}/{container.id}"


def identity_of(
    container: Container,
    pieces_layers: Sequence[Path],
    upper: Path | str,
    user: str,
    groups: Sequence[str] = (),
) -> Identity:
    """Names are looked up in the container's own passwd and group."""
    if not os.path.lexists(f"{upper}/etc"):  # nothing of its own there yet: the same for all of the image
        return _of_image(tuple(str(layer) for layer in pieces_layers), user, tuple(groups))
    view = LayerView([*pieces_layers, Path(upper)])
    return resolve(view.read, user, groups)


@lru_cache(maxsize=256)
def _of_image(layers: tuple[str, ...], user: str, groups: tuple[str, ...]) -> Identity:
    """Layers do not change: their directories are named by their content."""
    return resolve(LayerView([Path(layer) for layer in layers]).read, user, groups)


def _process(
    parts: Parts,
    container: Container,
    pieces: Pieces,
    held: list[str],
    options: security.SecurityOptions,
    warnings: list[str],
) -> dict[str, Any]:
    service, image = container.spec.service, container.image
    upper = f"{parts.folder_text(container.id)}/upper"
    identity = identity_of(
        container, pieces.layers, upper, processes.user_of(service, image), service.group_add
    )
    userns.check_user(identity, pieces.ids)
    arguments = processes.arguments(service, image)
    if service.init:
        program = init_of(parts)
        if program:
            arguments = [INIT_TARGET, "--", *arguments]
        else:
            warnings.append(
                "init: there is no catatonit, tini or dumb-init on this machine; started without an init process"
            )
    cwd = processes.working_dir(service, image)
    process: dict[str, Any] = {
        "terminal": service.tty,
        "user": processes.user_object(identity),
        "args": arguments,
        "env": processes.environment(service, image, identity, hostname=parts.hostname(container)),
        "cwd": cwd,
        "capabilities": processes.effective_capabilities(held, root=identity.uid == 0),
        "rlimits": processes.rlimits(service, _ceiling(), warnings) if service.ulimits else [],
        "noNewPrivileges": options.no_new_privileges,
    }
    if service.oom_score_adj is not None:
        process["oomScoreAdj"] = service.oom_score_adj
    return process


@cache
def init_program() -> str:
    """A well-kept init on this machine that runs without libraries of the image: a static one first."""
    for path in INITS:
        if os.path.isfile(path) and os.access(path, os.X_OK) and _is_static(path):
            return path
    return ""


def init_of(parts: Parts) -> str:
    """The init that ``init: true`` runs: the machine's, else our own (made for x86-64; see
    runtime/tinyinit), put where it is executable. '' where there is none."""
    found = init_program()
    if found or os.uname().machine != "x86_64":
        return found
    place = parts.paths.run / "init"
    if not place.exists():
        source = Path(__file__).parents[1] / "runtime" / "tinyinit" / "init.x86_64"
        fs.write_file(place, source.read_bytes(), 0o755)
    return str(place)


def _is_static(path: str) -> bool:
    """An ELF program without an interpreter runs in any image."""
    from orchestra.engine.static import has_interpreter

    return not has_interpreter(path)


def _mounts(
    parts: Parts, container: Container, pieces: Pieces, options: security.SecurityOptions, warnings: list[str]
) -> list[dict[str, Any]]:
    service, modes = container.spec.service, container.spec.namespaces
    root = _root(parts, container, pieces.layers)
    found: list[dict[str, Any]] = userns.map_root(root) if pieces.ids and pieces.mapped else [root]
    basic = defaults.mounts(
        shm_size=service.shm_size or defaults.SHM_SIZE,
        writable_cgroup=service.privileged or options.writable_cgroups,
    )
    for mount in basic:
        if mount["destination"] == "/sys" and service.privileged:
            mount["options"] = [word for word in mount["options"] if word != "ro"]
        if mount["destination"] == "/sys" and mode_of(modes, "network") == "host":
            mount.update(
                type="bind",
                source="/sys",
                options=[
                    "rbind",
                    "rslave",
                    "nosuid",
                    "noexec",
                    "nodev",
                    "rw" if service.privileged else "ro",
                ],
            )
        if mount["destination"] == "/sys" and "network" in pieces.placed.foreign:
            # sysfs shows a network, and may be mounted by root over that only
            words = ["rbind", "rprivate", "nosuid", "noexec", "nodev", "rro"]
            mount.update(type="bind", source=pieces.borrowed["/sys"], options=words)
    basic = [kept for mount in basic if (kept := _shared_ipc(mount, container, pieces))]
    given = [dict(mount) for mount in pieces.mounts]
    for path, source in pieces.etc.items():
        if not any(mount["destination"] == path for mount in given):
            basic.append(
                {"destination": path, "type": "bind", "source": source, "options": ["bind", "rprivate"]}
            )
    if service.init and (program := init_of(parts)):
        basic.append(
            {
                "destination": INIT_TARGET,
                "type": "bind",
                "source": program,
                "options": ["bind", "ro", "nosuid", "nodev"],
            }
        )
    targets = {mount["destination"] for mount in given}
    layers = _image_mount_layers(parts, pieces)
    records = [
        oci_mount(r, layers(r))
        for r in container.state.mounts
        if r["Destination"] not in targets and r["Type"] in ("tmpfs", "image")
    ]
    if pieces.ids:
        records = userns.map_mounts(records, mapped=pieces.mapped)
    taken = targets | {mount["destination"] for mount in records}
    found += [mount for mount in basic if mount["destination"] not in taken]
    return found + in_order([*given, *records])


def _image_mount_layers(parts: Parts, pieces: Pieces) -> Any:
    ids = pieces.ids

    def of_record(record: Mapping[str, Any]) -> Any:
        def directories(_target: str) -> list[str]:
            image = parts.images.get(str(record["Source"]))
            paths = parts.images.layers(image)
            if ids and not pieces.mapped:
                paths = shifted.layers(parts.images, image, ids.triple)
            if record.get("Subpath"):
                found = LayerView(paths).directories(str(record["Subpath"]))
                if not found:
                    raise OrchestraError(f"image {record['Source']} has no directory {record['Subpath']}")
                return found
            return [str(path) for path in paths]

        return directories

    return of_record


def borrowings(container: Container, placed: Placement) -> list[tuple[str, str]]:
    """(container, path) of the mounts that are taken over from containers whose namespaces are shared."""
    modes, found = container.spec.namespaces, []
    if other := shared_with(modes, "ipc"):
        found.append((other, "/dev/shm"))
    if "network" in placed.foreign:
        found.append((shared_with(modes, "network"), "/sys"))
    return found


def _shared_ipc(mount: dict[str, Any], container: Container, pieces: Pieces) -> dict[str, Any] | None:
    """/dev/shm and /dev/mqueue belong to the IPC namespace: the host's or another container's when joined.
    A mount of /dev/mqueue shows the namespace that it is made in; root of another user namespace may not."""
    if mount["destination"] not in ("/dev/shm", "/dev/mqueue"):
        return mount
    mode = mode_of(container.spec.namespaces, "ipc")
    other = shared_with(container.spec.namespaces, "ipc")
    if mode == "host":
        if os.path.isdir(mount["destination"]):
            return {
                **mount,
                "type": "bind",
                "source": mount["destination"],
                "options": ["rbind", "rprivate", "nosuid", "nodev", "noexec"],
            }
    elif other:
        if mount["destination"] == "/dev/mqueue":
            return None if "ipc" in pieces.placed.foreign else mount
        words = ["rbind", "rprivate", "nosuid", "nodev", "noexec"]
        return {**mount, "type": "bind", "source": pieces.borrowed["/dev/shm"], "options": words}
    return mount


def _root(parts: Parts, container: Container, layers: Sequence[Path]) -> dict[str, Any]:
    folder = parts.folder_text(container.id)
    lower = ":".join(str(path) for path in reversed(layers))
    options = [
        f"lowerdir={lower}",
        f"upperdir={folder}/upper",
        f"workdir={folder}/work",
        "volatile",
        "redirect_dir=off",
        "metacopy=off",
    ]
    return {"destination": "/", "type": "overlay", "source": "overlay", "options": options}


def make_upper(parts: Parts, container: Container, layers: Sequence[Path]) -> None:
    """The container's own layer, with the look of the image's root; after a crash of the machine an
    overlay that was mounted ``volatile`` is refused until its mark is taken away."""
    folder = parts.folder_text(container.id)
    if not os.path.isdir(f"{folder}/upper"):
        from orchestra.images.rootfs import dress_upper

        upper = Path(folder, "upper")
        size = quota.size_of(container.spec.service.storage_opt)
        if size > 0:
            quota.limit(parts.paths, Path(folder), size)
        else:
            upper.mkdir(mode=0o755)
        dress_upper(upper, layers)
    make_folder(f"{folder}/work")
    mark = f"{folder}/work/work/incompat"
    if os.path.isdir(f"{mark}/volatile"):
        shutil.rmtree(mark, ignore_errors=True)


def _seccomp(
    options: security.SecurityOptions, held: list[str], *, privileged: bool
) -> dict[str, Any] | None:
    if options.seccomp == "unconfined" or (privileged and not options.seccomp):
        return None
    if options.seccomp:
        return security.read_profile(options.seccomp, held)
    return _default_profile(tuple(held))


@cache
def _default_profile(held: tuple[str, ...]) -> dict[str, Any]:
    return seccomp.default_profile(held)


@cache
def _profile_text(held: tuple[str, ...]) -> bytes:
    return json.dumps(_default_profile(held)).encode()


def _sysctls(container: Container, ids: Range | None) -> dict[str, str]:
    spec = container.spec
    own_net = mode_of(spec.namespaces, "network") in ("", "none")
    found = dict(defaults.sysctls(network=own_net))
    if ids and own_net:
        found["net.ipv4.ping_group_range"] = f"0 {ids.size - 1}"  # the kernel takes mapped ids only
    for key, value in spec.service.sysctls.items():
        if key.startswith("net.") and mode_of(spec.namespaces, "network") == "host":
            raise OrchestraError(f"sysctl {key} cannot be set with the host's network")
        found[key] = value
    return found


def _other_warnings(container: Container, warnings: list[str]) -> None:
    """Attributes that reach the engine and have no effect, by name."""
    service = container.spec.service
    texts = {
        "isolation": service.isolation,
        "runtime": service.runtime,
        "credential_spec": service.credential_spec,
        "models": service.models,
        "use_api_socket": service.use_api_socket,
    }
    for name, value in texts.items():
        if value:
            warnings.append(f"{name} is not supported and has no effect")
    driver = service.logging.driver if service.logging else ""
    if driver and driver not in ("json-file", "local", "none"):
        warnings.append(f'logging: driver "{driver}" is not supported; the output is kept in a local log')
    for option in sorted(service.logging.options if service.logging else ()):
        if option not in ("max-size", "max-file", "mode", "max-buffer-size", "compress"):
            warnings.append(f'logging: option "{option}" has no effect')


@cache
def _available() -> frozenset[str]:
    return frozenset(caps.names(caps.bounding() & caps.effective()))


@cache
def _ceiling_of_process() -> tuple[tuple[str, int], ...]:
    found = []
    for name in (
        "AS",
        "CORE",
        "CPU",
        "DATA",
        "FSIZE",
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
    ):
        number = getattr(resource, f"RLIMIT_{name}", None)
        if number is not None:
            hard = resource.getrlimit(number)[1]
            if hard != resource.RLIM_INFINITY:
                found.append((name, hard))
    return tuple(found)


def _ceiling() -> dict[str, int | None]:
    """The highest hard limits that may be set: no bound with CAP_SYS_RESOURCE, ours without."""
    if "CAP_SYS_RESOURCE" in caps.names(caps.effective()):
        return {}
    return dict(_ceiling_of_process())
