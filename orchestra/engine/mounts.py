"""What is mounted into a container: resolved once at create into plain records, turned into OCI mounts at
each start.

A record is JSON: ``Type`` (bind, volume, tmpfs, image), ``Source``, ``Destination``, ``RW`` and, as they
apply, ``Name``, ``Driver``, ``Anonymous``, ``Propagation``, ``Recursive``, ``NoCopy``, ``Subpath``,
``Options``, ``CreateHostPath``, ``IdMap`` (a bind whose ids go through the map of the container's user namespace).
One target is mounted once; the order of precedence is: the
service's mounts, its tmpfs entries, volumes_from, the image's VOLUMEs.
"""

from __future__ import annotations

import os
import posixpath
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from orchestra.backend import ContainerSpec
from orchestra.compose.model import BindOptions, Mount, TmpfsOptions, VolumeOptions
from orchestra.errors import NotFoundError, OrchestraError

Record = dict[str, Any]
_TMPFS = ("nosuid", "nodev", "noexec")
_PROPAGATION = ("private", "rprivate", "slave", "rslave", "shared", "rshared")


def clean_target(path: str) -> str:
    if not path.startswith("/"):
        raise OrchestraError(f'invalid mount target "{path}": it must be absolute')
    target = posixpath.normpath("/" + path.lstrip("/"))
    if target == "/":
        raise OrchestraError("invalid mount target: nothing can be mounted at /")
    return target


def records(
    spec: ContainerSpec, image: Mapping[str, Any], others: Mapping[str, Sequence[Record]], warnings: list[str]
) -> list[Record]:
    """All mounts of a container. ``others`` are the records of the ``volumes_from`` containers."""
    found: dict[str, Record] = {}
    for mount in spec.mounts:
        record = _record(mount, spec.carried, warnings)
        if record:
            found[record["Destination"]] = record
    for entry in spec.service.tmpfs:
        record = tmpfs_entry(entry)
        found.setdefault(record["Destination"], record)
    for other, mode in spec.volumes_from:
        for record in others.get(other, ()):
            if record["Type"] in ("bind", "volume"):
                copied = {**record, "RW": record["RW"] and mode != "ro", "Anonymous": False, "NoCopy": True}
                found.setdefault(record["Destination"], copied)
    for path in sorted(image.get("Volumes") or ()):
        target = clean_target(path)
        if target not in found:
            found[target] = _volume(Mount("volume", target), spec.carried)
    return list(found.values())


def _record(mount: Mount, carried: Mapping[str, str], warnings: list[str]) -> Record | None:
    if mount.type == "bind":
        return _bind(mount, warnings)
    if mount.type == "volume":
        return _volume(mount, carried)
    if mount.type == "tmpfs":
        return _tmpfs(mount)
    if mount.type == "image":
        return {
            "Type": "image",
            "Source": mount.source,
            "Destination": clean_target(mount.target),
            "RW": False,
            "Subpath": mount.image_subpath,
        }
    warnings.append(f'volumes: type "{mount.type}" at {mount.target} is not supported and was ignored')
    return None


def _bind(mount: Mount, warnings: list[str]) -> Record:
    options = mount.bind or BindOptions()
    if options.propagation and options.propagation not in _PROPAGATION:
        raise OrchestraError(f'invalid bind propagation "{options.propagation}" at {mount.target}')
    if options.selinux:
        warnings.append(f'volumes: selinux relabelling "{options.selinux}" of {mount.source} was ignored')
    return {
        "Type": "bind",
        "Source": mount.source,
        "Destination": clean_target(mount.target),
        "RW": not mount.read_only,
        "Propagation": options.propagation or "rprivate",
        "Recursive": options.recursive,
        "CreateHostPath": options.create_host_path,
        **({"IdMap": True} if options.idmap else {}),
    }


def _volume(mount: Mount, carried: Mapping[str, str]) -> Record:
    target = clean_target(mount.target)
    options = mount.volume or VolumeOptions()
    name = mount.source or carried.get(target) or carried.get(mount.target) or secrets.token_hex(32)
    return {
        "Type": "volume",
        "Name": name,
        "Source": "",
        "Destination": target,
        "Driver": "local",
        "RW": not mount.read_only,
        "Anonymous": not mount.source,
        "NoCopy": options.nocopy,
        "Subpath": options.subpath,
    }


def _tmpfs(mount: Mount) -> Record:
    options = mount.tmpfs or TmpfsOptions()
    words = [*_TMPFS]
    if options.size:
        words.append(f"size={options.size}")
    words.append(f"mode={options.mode:o}" if options.mode is not None else "mode=1777")
    return {
        "Type": "tmpfs",
        "Source": "",
        "Destination": clean_target(mount.target),
        "RW": not mount.read_only,
        "Options": words,
    }


def tmpfs_entry(entry: str) -> Record:
    """``/path[:option,option]`` of the ``tmpfs`` key."""
    path, _, text = entry.partition(":")
    given = [word for word in text.split(",") if word]
    opposite = {"noexec": "exec", "nosuid": "suid", "nodev": "dev"}
    words = [word for word in _TMPFS if opposite[word] not in given] + [
        w for w in given if w not in ("ro", "rw")
    ]
    if not any(word.startswith("mode=") for word in given):
        words.append("mode=1777")
    return {
        "Type": "tmpfs",
        "Source": "",
        "Destination": clean_target(path),
        "RW": "ro" not in given,
        "Options": list(dict.fromkeys(words)),
    }


def prepare_bind(record: Record) -> None:
    """The source must be there; a missing directory is made when the file allows it."""
    source = record["Source"]
    if os.path.lexists(source):
        return
    if not record.get("CreateHostPath", True):
        raise NotFoundError(f"bind source path does not exist: {source}")
    try:
        os.makedirs(source, mode=0o755, exist_ok=True)
    except OSError as error:
        raise OrchestraError(f"cannot create bind source {source}: {error.strerror}") from None


def oci_mount(record: Record, image_layers: Callable[[str], list[str]]) -> dict[str, Any]:
    """One record as an OCI mount. ``image_layers`` gives the directories of an image mount, lowest
    first."""
    kind, target = record["Type"], record["Destination"]
    if kind == "tmpfs":
        words = [*record["Options"], "rw" if record["RW"] else "ro"]
        return {"destination": target, "type": "tmpfs", "source": "tmpfs", "options": words}
    if kind == "image":
        return _image_mount(target, image_layers(target))
    recursive = record.get("Recursive") or ""
    words = ["bind" if recursive == "disabled" else "rbind", record.get("Propagation") or "rprivate"]
    if record["RW"]:
        words.append("rw")
    else:
        words.append("ro" if recursive in ("writable", "disabled") else "rro")
    return {"destination": target, "type": "bind", "source": record["Source"], "options": words}


def _image_mount(target: str, layers: Sequence[str]) -> dict[str, Any]:
    if len(layers) == 1:
        return {
            "destination": target,
            "type": "bind",
            "source": layers[0],
            "options": ["rbind", "rro", "rprivate"],
        }
    options = [f"lowerdir={':'.join(reversed(layers))}", "ro", "nosuid", "nodev"]
    return {"destination": target, "type": "overlay", "source": "overlay", "options": options}


def in_order(mounts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Parents before children, else as given."""
    return sorted(mounts, key=lambda mount: str(mount["destination"]).rstrip("/").count("/"))


def public(record: Record) -> dict[str, Any]:
    """The record as users see it."""
    shown = ("Type", "Name", "Source", "Destination", "Driver", "RW", "Anonymous", "Propagation")
    return {key: record[key] for key in shown if key in record}
