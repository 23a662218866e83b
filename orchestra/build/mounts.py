"""``RUN --mount``: what each kind brings into the step's container, as OCI mounts.

bind      files of the context (as ``.dockerignore`` leaves them), a stage or an image; changes are lost
cache     a directory of the builder that outlives the build (``<builds>/mounts/<id>``)
tmpfs     an empty one
secret    one file (or variable), never in a layer nor in the cache key
ssh       the agent's socket
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestra.build import instructions as ins
from orchestra.build.copying import Item, Planner, Source, Target, digest, write_items
from orchestra.build.metadata import value
from orchestra.build.problems import BuildError
from orchestra.build.scratch import SECRET
from orchestra.build.state import State
from orchestra.build.view import Node, View
from orchestra.images.layer import ApplyOptions, apply
from orchestra.images.locks import acquire
from orchestra.images.rootfs import remove_tree
from orchestra.images.tarwrite import TarWriter

_TARGET = ("target", "dst", "destination")
_SOURCE = ("source", "src")


@dataclass(slots=True)
class Prepared:
    """``undo`` gives locks back and removes secrets."""

    mounts: list[dict[str, Any]] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    undo: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


def keys(state: State, one: ins.Run) -> list[str]:
    """What of the mounts counts for the cache, without making them."""
    found = []
    for mount in one.mounts:
        text = ",".join(f"{name}={text}" for name, text in sorted(mount.options))
        content = ""
        if mount.kind == "bind":
            view, node = _bind_source(state, one, mount)
            content = digest(_items(view, node))
        found.append(f"{mount.kind},{text},{content}")
    return found


def prepare(state: State, one: ins.Run) -> Prepared:
    """All mounts of a step. Close ``undo`` after it."""
    done = Prepared()
    try:
        for mount in one.mounts:
            _PREPARE[mount.kind](state, one, mount, done)
        if _remapped(state, one):
            done.mounts = [_mapped(mount) for mount in done.mounts]
    except BaseException:
        done.undo.close()
        raise
    return done


def _mapped(mount: dict[str, Any]) -> dict[str, Any]:
    """A bind mount for a user namespace: its ids through the map; secrets have the right owner already."""
    if mount["type"] != "bind" or os.path.basename(mount["source"]).startswith(SECRET):
        return mount
    return {**mount, "options": [*mount["options"], "idmap"]}


def _where(state: State, one: ins.Run, mount: ins.Mount, default: str = "") -> str:
    text = value(state, one, mount.get(*_TARGET, default=default))
    path = posixpath.normpath(posixpath.join("/", state.settings.working_dir or "/", text))
    if path in ("/", "//"):
        raise one.line.error(f"a {mount.kind} mount cannot be at /")
    return path


def _bind_source(state: State, one: ins.Run, mount: ins.Mount) -> tuple[View, Node]:
    name = mount.get("from")
    view = state.shared.stage_view(name, state.stage.index) if name else state.shared.context.view
    path = value(state, one, mount.get(*_SOURCE, default="/"))
    node = view.find(path)
    if node is None:
        raise one.line.error(
            f"{path!r} is not in {name or 'the build context'}", max(0, one.line.text.find(path))
        )
    return view, node


def _items(view: View, node: Node) -> list[Item]:
    return Planner(View([]), Target("/x", folder=False)).plan([Source(view, node, owners=True)])


def _bind(state: State, one: ins.Run, mount: ins.Mount, done: Prepared) -> None:
    view, node = _bind_source(state, one, mount)
    target = _where(state, one, mount)
    writable = (mount.has("rw") and mount.flag("rw")) or (mount.has("readwrite") and mount.flag("readwrite"))
    if not node.is_dir:
        done.mounts.append(_bound(node.real, target, writable=False))
        return
    places = list(node.places)
    if _remapped(state, one) and (writable or len(places) > 1):
        # an overlay in a user namespace would be of its own ids: the merged tree is copied instead
        done.mounts.append(_bound(str(_copied(state, view, node)), target, writable=writable))
        return
    if view.ignore is not None and view.ignore.patterns:
        places = [str(_copied(state, view, node))]
    if writable:
        folder = state.shared.folder("bind")
        (folder / "upper").mkdir()
        (folder / "work").mkdir()
        done.mounts.append(_overlay(places, target, folder))
    elif len(places) == 1:
        done.mounts.append(_bound(places[0], target, writable=False))
    else:
        done.mounts.append(_overlay(places, target, None))


def _copied(state: State, view: View, node: Node) -> Path:
    """A directory as its view shows it."""
    folder = state.shared.folder("context-part")
    archive = state.shared.folder("archive") / "tar"
    with open(archive, "wb") as out:
        writer = TarWriter(out.write)
        items = [item for item in _items(view, node) if item.node is not None]
        write_items(items, writer, None)
        writer.finish()
    with open(archive, "rb") as stream:
        apply(iter(lambda: stream.read(1 << 20), b""), folder, ApplyOptions.for_process())
    archive.unlink()
    return folder / "x"


def _remapped(state: State, one: ins.Run) -> tuple[int, int, int] | None:
    """The ids outside of the step's user namespace, if it has one."""
    request = state.shared.request
    return None if one.security == "insecure" or request.privileged else request.remap


def _bound(source: str, target: str, *, writable: bool) -> dict[str, Any]:
    options = ["rbind", "rw" if writable else "ro", "nosuid", "nodev"]
    return {"destination": target, "type": "bind", "source": source, "options": options}


def _overlay(places: list[str], target: str, scratch: Path | None) -> dict[str, Any]:
    lower = ":".join(place.replace("\\", "\\\\").replace(":", "\\:") for place in places)
    options = [f"lowerdir={lower}", "nosuid", "nodev"]
    if scratch is not None:
        options += [f"upperdir={scratch}/upper", f"workdir={scratch}/work"]
    else:
        options.append("ro")
    return {"destination": target, "type": "overlay", "source": "overlay", "options": options}


def _cache(state: State, one: ins.Run, mount: ins.Mount, done: Prepared) -> None:
    target = _where(state, one, mount)
    name = value(state, one, mount.get("id")) or target
    base = state.shared.paths.builds / "mounts"
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = base / hashlib.sha256(name.encode()).hexdigest()[:32]
    sharing = mount.get("sharing", default="shared")
    if sharing != "shared":
        folder = _locked(folder, done, private=sharing == "private")
    if not folder.exists():
        _make_cache(state, one, mount, folder)
    read_only = any(mount.has(key) and mount.flag(key) for key in ("ro", "readonly"))
    done.mounts.append(_bound(str(folder), target, writable=not read_only))


def _locked(folder: Path, done: Prepared, *, private: bool) -> Path:
    """``locked`` waits for the directory; ``private`` takes another one while it is taken."""
    for number in range(1000):
        candidate = folder if not number else folder.with_name(f"{folder.name}-{number}")
        fd = acquire(candidate.with_name(f"{candidate.name}.lock"), wait=not private)
        if fd is not None:
            done.undo.callback(os.close, fd)
            return candidate
    raise BuildError("too many private cache mounts at once")


def _make_cache(state: State, one: ins.Run, mount: ins.Mount, folder: Path) -> None:
    """A new cache directory appears at once, with its mode, owner and first content."""
    aside = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}")
    if mount.get("from"):
        view, node = _bind_source(state, one, mount)
        os.rename(_copied(state, view, node), aside)
    else:
        aside.mkdir()
    os.chmod(aside, int(mount.get("mode", default="0755"), 8))
    os.chown(aside, _number(one, mount, "uid"), _number(one, mount, "gid"))
    try:
        os.rename(aside, folder)
    except OSError:
        remove_tree(aside)  # another build was first


def _number(one: ins.Run, mount: ins.Mount, name: str) -> int:
    text = mount.get(name, default="0")
    if not text.isdigit():
        raise one.line.error(f"{name} of a {mount.kind} mount is a number, not {text!r}")
    return int(text)


def _tmpfs(state: State, one: ins.Run, mount: ins.Mount, done: Prepared) -> None:
    options = ["nosuid", "nodev", "mode=1777"]
    size = mount.get("size")
    if size:
        options.append(f"size={_bytes(one, size)}")
    target = _where(state, one, mount)
    done.mounts.append({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options})


def _bytes(one: ins.Run, text: str) -> int:
    units = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    bare = text.lower().removesuffix("b").removesuffix("i")
    unit = units.get(bare[-1:], 1)
    number = bare[:-1] if bare[-1:] in units else bare
    if not number.isdigit():
        raise one.line.error(f"invalid size {text!r}")
    return int(number) * unit


def _secret(state: State, one: ins.Run, mount: ins.Mount, done: Prepared) -> None:
    target = mount.get(*_TARGET)
    name = mount.get("id", *_SOURCE) or posixpath.basename(target)
    known = next((secret for secret in state.shared.request.secrets if secret.id == name), None)
    if known is None:
        if mount.has("required") and mount.flag("required"):
            raise one.line.error(
                f"no secret {name!r} was given", 0, f"give it with --secret id={name},src=FILE"
            )
        return
    try:
        data = Path(known.file).read_bytes() if known.value is None else known.value.encode()
    except OSError as error:
        raise BuildError(f"cannot read secret {name}: {known.file}: {error.strerror}") from None
    variable = mount.get("env")
    if variable:
        done.env[variable] = data.decode("utf-8", "surrogateescape")
        if not target:
            return
    folder = state.shared.paths.run
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{SECRET}{state.shared.scratch.name}-{secrets.token_hex(8)}"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as out:
        done.undo.callback(path.unlink, missing_ok=True)
        out.write(data)
    os.chmod(path, int(mount.get("mode", default="0400"), 8))
    first = _remapped(state, one) or (0, 0, 0)
    os.chown(path, first[0] + _number(one, mount, "uid"), first[1] + _number(one, mount, "gid"))
    done.mounts.append(_bound(str(path), _where(state, one, mount, f"/run/secrets/{name}"), writable=False))


def _ssh(state: State, one: ins.Run, mount: ins.Mount, done: Prepared) -> None:
    request = state.shared.request
    name = mount.get("id", default="default")
    given = dict(entry.partition("=")[::2] for entry in request.ssh)
    socket = given.get(name) or (request.environ.get("SSH_AUTH_SOCK", "") if name in given else "")
    if not socket or not Path(socket).is_socket():
        if mount.has("required") and mount.flag("required"):
            raise one.line.error(f"no ssh agent {name!r} was given", 0, f"give it with --ssh {name}")
        state.shared.warn(
            f"RUN --mount=type=ssh: no agent {name!r} was given (keys as files are not supported)"
        )
        return
    target = _where(state, one, mount, "/run/buildkit/ssh_agent.0")
    done.mounts.append(_bound(socket, target, writable=True))
    done.env["SSH_AUTH_SOCK"] = target


_PREPARE = {"bind": _bind, "cache": _cache, "tmpfs": _tmpfs, "secret": _secret, "ssh": _ssh}
