"""The RUN step: a container over the layers so far, and what it changed as a new layer.

The overlay is mounted by the container's own process inside its mount namespace (runner.py); here its
directories are made, and afterwards the upper one becomes both the layer's archive and its unpacked form.
Mount points that the runtime had to make are taken away again before that.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orchestra.build import instructions as ins
from orchestra.build import mounts, runner
from orchestra.build.cache import Cached, key_of
from orchestra.build.lexer import heredoc_marks
from orchestra.build.metadata import shell_of
from orchestra.build.owners import user_of
from orchestra.build.problems import BuildError
from orchestra.build.stages import PROXY_ARGS
from orchestra.build.state import State
from orchestra.build.view import View
from orchestra.events import Progress, Status
from orchestra.images.commit import NewLayer, layer_of_tree
from orchestra.images.config import DEFAULT_PATH
from orchestra.images.diff import TreeOptions
from orchestra.images.rootfs import lowerdirs, remove_tree

_TAIL = 20
_SCRIPT = "/dev/pipes"


def run(state: State, one: ins.Run, name: str) -> bool:
    """Returns whether the layer came from the cache."""
    try:
        return _step(state, one, name)
    except BuildError as error:
        if error.location is None and error.brief != "stopped":
            error.location = one.line.at(0)
        raise


def _step(state: State, one: ins.Run, name: str) -> bool:
    shared = state.shared
    network = _network(state, one)
    command, script = _command(state, one)
    key = key_of(
        kind="run", below=state.top, command=command, script=script, env=_environment(state),
        user=state.settings.user, cwd=state.settings.working_dir, network=network, security=one.security,
        mounts=mounts.keys(state, one), hosts=list(shared.request.extra_hosts), platform=str(shared.platform),
    )  # fmt: skip
    text = _history(state, command)
    cached = None if _uncached(state) else shared.cache.get(key)
    if cached is not None:
        state.add(cached.layer, text, cached.created)
        return True
    layer = _execute(state, one, name, command, script, network, text)
    shared.cache.put(key, Cached(layer, shared.now))
    return False


def _execute(
    state: State, one: ins.Run, name: str, command: list[str], script: str, network: str, text: str
) -> NewLayer | None:
    """Run it and add the step to the state."""
    store = state.shared.store
    lowers = state.directories()
    if not lowers:
        raise one.line.error("RUN needs a base image: there is nothing in scratch to run")
    view = View(list(reversed(lowers)))
    folder = store.blobs.ingest / f"build-{secrets.token_hex(8)}"
    work = folder / "work"  # beside the upper one: in a user namespace both come from one mount
    try:
        for path in (folder, folder / "fs", work):
            path.mkdir(mode=0o700)
        _look_like(folder / "fs", lowers[-1])
        with contextlib.ExitStack() as held:
            prepared = mounts.prepare(state, one)
            held.callback(prepared.undo.close)
            if script:
                prepared.mounts.append(_script_mount(state, script, command[0]))
            spec = _spec(state, one, view, command, network, prepared)
            spec.lowers, spec.upper, spec.work = lowerdirs(lowers), str(folder / "fs"), str(work)
            _run(state, one, name, spec)
            _remove_stubs(folder / "fs", view, runner.mount_points(spec))
        remove_tree(work)
        return _keep(state, folder, lowers[-1], text)
    finally:
        with contextlib.suppress(FileNotFoundError):
            remove_tree(folder)


def _run(state: State, one: ins.Run, name: str, spec: runner.Spec) -> None:
    tail: list[str] = []

    def output(line: str) -> None:
        tail.append(line)
        del tail[:-_TAIL]
        state.shared.report(Progress(name, "log", Status.WORKING, line))

    code = runner.run(spec, output, state.shared.stop)
    if state.shared.stop.is_set():
        raise BuildError("stopped")
    if code:
        raise BuildError(
            f"the command failed with {_meaning(code)}: {one.text[:200]}",
            details=tuple(tail),
            location=one.line.at(0),
        )


def _meaning(code: int) -> str:
    if code > 128:
        import signal

        with contextlib.suppress(ValueError):
            return f"exit status {code} ({signal.Signals(code - 128).name})"
    return f"exit status {code}"


def _keep(state: State, folder: Path, below: Path, text: str) -> NewLayer | None:
    """The upper directory as a layer, unless nothing changed."""
    shared = state.shared
    upper = folder / "fs"
    changed_root = _looks(upper) != _looks(below)
    if not any(upper.iterdir()) and not changed_root:
        state.add(None, text, shared.now)
        return None
    options = TreeOptions(upper=True, epoch=shared.epoch, root=changed_root)
    layer = layer_of_tree(shared.store, upper, options)
    state.add(layer, text, shared.now)
    state.adopt(layer, folder)
    return layer


def _looks(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid


def _look_like(path: Path, other: Path) -> None:
    found = other.stat()
    os.chown(path, found.st_uid, found.st_gid)
    os.chmod(path, stat.S_IMODE(found.st_mode))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def _network(state: State, one: ins.Run) -> str:
    """``host`` or ``none``; other networks belong to containers and not to builds."""
    wanted = one.network if one.network not in ("", "default") else state.shared.request.network
    if wanted in ("", "default", "host"):
        return "host"
    if wanted == "none":
        return "none"
    raise one.line.error(f"a build cannot use the network {wanted!r}", 0, "host or none")


def _command(state: State, one: ins.Run) -> tuple[list[str], str]:
    """The words to run, and the text of a script that is to be put at ``/dev/pipes/…``."""
    command = one.command
    if command.words is not None:
        return list(command.words), ""
    shell = shell_of(state)
    if not one.heredocs:
        return [*shell, command.shell], ""
    marks = heredoc_marks(command.shell, state.shared.plan.escape)
    document = one.heredocs[0]
    alone = len(marks) == 1 and command.shell.strip() == marks[0][1].group(0)
    if alone and document.content.startswith("#!"):
        return [f"{_SCRIPT}/{document.name}"], document.content
    if alone:
        return [*shell, document.content], ""
    bodies = "".join(f"{one.content}{one.name}\n" for one in one.heredocs)
    return [*shell, f"{command.shell}\n{bodies}"], ""


def _script_mount(state: State, script: str, target: str) -> dict[str, Any]:
    path = state.shared.folder("script") / "script"
    path.write_text(script)
    path.chmod(0o755)
    return {"destination": target, "type": "bind", "source": str(path), "options": ["bind", "ro"]}


def _environment(state: State) -> dict[str, str]:
    """What counts for the cache: ENV over ARG, without the proxies."""
    found = state.variables()
    return {name: found[name] for name in sorted(found) if name not in PROXY_ARGS or name in state.args}


def _spec(
    state: State, one: ins.Run, view: View, command: list[str], network: str, prepared: mounts.Prepared
) -> runner.Spec:
    request = state.shared.request
    if one.security == "insecure" and not request.privileged:
        raise one.line.error("RUN --security=insecure is not allowed", 0, "allow it with privileged: true")
    uid, gid, groups, home = user_of(state.settings.user, view)
    privileged = one.security == "insecure" or request.privileged
    ids = None if privileged else request.remap
    if ids and max(uid, gid, *groups) >= ids[2]:
        raise one.line.error(f"user {uid}:{gid} is not one of the {ids[2]} ids of userns-remap")
    env = {name: text for name, text in state.shared.args.items() if name in PROXY_ARGS}
    env |= {"PATH": DEFAULT_PATH, "HOME": home, **_environment(state), **prepared.env}
    return runner.Spec(
        command=command,
        env=env,
        cwd=posixpath.join("/", state.settings.working_dir or "/"),
        uid=uid,
        gid=gid,
        groups=groups,
        network=network,
        privileged=privileged,
        ids=ids,
        mounts=prepared.mounts,
        extra_hosts=list(request.extra_hosts),
        shm_size=request.shm_size,
        ulimits=dict(request.ulimits),
        scratch=state.shared.folder("run"),
    )


def _history(state: State, command: list[str]) -> str:
    pairs = [f"{name}={text}" for name, text in sorted(state.args.items())]
    head = f"|{len(pairs)} {' '.join(pairs)} " if pairs else ""
    return f"RUN {head}{' '.join(command)}"


def _uncached(state: State) -> bool:
    request = state.shared.request
    return request.no_cache or state.stage.label in request.no_cache_stages


def _remove_stubs(upper: Path, view: View, points: Iterable[str]) -> None:
    """Take away the empty files and directories that were only made to mount something on them, and
    directories that were copied up for nothing else."""
    for point in sorted(points, reverse=True):
        canonical, there = view.resolve(point)
        if there is None:
            _remove_empty(upper, canonical)
        parent = posixpath.dirname(canonical)
        while parent and not _drop_copied_up(upper, view, parent):
            parent = posixpath.dirname(parent)


def _remove_empty(upper: Path, path: str) -> None:
    real = upper / path
    with contextlib.suppress(OSError):
        found = real.lstat()
        if stat.S_ISDIR(found.st_mode):
            real.rmdir()
        elif stat.S_ISREG(found.st_mode) and not found.st_size:
            real.unlink()


def _drop_copied_up(upper: Path, view: View, path: str) -> bool:
    """Remove the directory ``path`` if it is empty and new, or empty and as it is below. Returns whether to
    stop going upwards."""
    real = upper / path
    try:
        found = real.lstat()
        if not stat.S_ISDIR(found.st_mode) or any(real.iterdir()):
            return True
        opaque = any(name.endswith("overlay.opaque") for name in os.listxattr(real, follow_symlinks=False))
        _, below = view.resolve(path, follow=False)
        same = below is None or (
            below.is_dir
            and not opaque
            and (below.stat.st_mode, below.stat.st_uid, below.stat.st_gid)
            == (found.st_mode, found.st_uid, found.st_gid)
        )
        if not same:
            return True
        real.rmdir()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
