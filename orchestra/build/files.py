"""The steps that add files without running anything: COPY, ADD, WORKDIR. One layer each.

The layer is written from the sources straight into the store; nothing is copied before.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from pathlib import Path

from orchestra.build import instructions as ins
from orchestra.build.cache import Cached, key_of
from orchestra.build.context import is_git, open_named
from orchestra.build.copying import Item, Planner, Source, Target, digest, write_items
from orchestra.build.fetching import download, is_archive, is_url, unpack
from orchestra.build.ignore import IgnoreRules
from orchestra.build.metadata import value, workdir_path
from orchestra.build.owners import parse_mode, parse_owner
from orchestra.build.problems import BuildError
from orchestra.build.state import State
from orchestra.build.view import View
from orchestra.build.words import expand_text
from orchestra.images.commit import NewLayer, store_layer
from orchestra.images.tarwrite import TarWriter

_NANOSECOND = 1_000_000_000


def copy(state: State, one: ins.Copy) -> bool:
    """Returns whether the layer came from the cache."""
    try:
        return _copy(state, one)
    except BuildError as error:
        if error.location is None:
            error.location = one.line.at(0)
        raise


def workdir(state: State, one: ins.Workdir) -> bool:
    """Make the directory where it is missing; it belongs to root, whatever USER is (as with docker)."""
    path = workdir_path(state, one)
    state.settings.working_dir = path
    root = state.view()
    canonical, node = root.resolve(path)
    if node is not None:
        if not node.is_dir:
            raise one.line.error(f"WORKDIR {path} is a file", one.line.text.find(one.path))
        state.add(None, one.text)
        return False
    items = Planner(root, Target(canonical, folder=True, time=_time(state))).folders(canonical)
    return _layer(state, items, one.text)


def _copy(state: State, one: ins.Copy) -> bool:
    root = state.view()
    owner = parse_owner(value(state, one, one.chown), root) if one.chown else None
    mode = parse_mode(value(state, one, one.chmod)) if one.chmod else None
    written = value(state, one, one.target)
    words = [value(state, one, text) for text in one.sources]
    folder = written.endswith(("/", "/.")) or written in (".", "..", "") or len(words) + len(one.heredocs) > 1
    target = Target(
        posixpath.normpath(posixpath.join("/", state.settings.working_dir or "/", written)),
        folder=folder,
        parents=one.parents,
        owner=owner,
        mode=mode,
        exclude=IgnoreRules(one.exclude) if one.exclude else None,
        time=_time(state),
    )
    sources: list[Source] = []
    for word in words:
        sources += _sources(state, one, word)
    for document in one.heredocs:
        body = document.content
        if document.expand:
            body = expand_text(body, state.variables(), state.shared.plan.escape)
        sources.append(Source(name=document.name, data=body.encode()))
    items = Planner(root, target).plan(sources)
    return _layer(state, items, one.text)


def _sources(state: State, one: ins.Copy, word: str) -> list[Source]:
    if one.add and is_git(word):
        return [_git(state, word, keep=one.keep_git_dir)]
    if one.add and is_url(word):
        return [_download(state, one, word)]
    if one.checksum:
        raise BuildError("--checksum is for addresses, not for files of the context")
    view, owners = _origin(state, one)
    found = view.glob(word)
    if not found:
        place = f"--from={one.source_stage}" if one.source_stage else "the build context"
        hint = "is it excluded by .dockerignore?" if not one.source_stage else None
        error = BuildError(f"{word!r} is not in {place}", hint=hint)
        error.location = one.line.at(max(0, one.line.text.find(word)))
        raise error
    sources = []
    for path in found:
        node = view.find(path)
        if node is None:
            raise BuildError(f"the link {path!r} leads to nothing")
        if one.add and node.is_file and one.unpack is not False and is_archive(node.real):
            sources.append(_unpacked(state, node.real))
            continue
        written = word if "/./" in word and len(found) == 1 else path
        sources.append(Source(view, node, written, posixpath.basename(path), owners=owners))
    return sources


def _origin(state: State, one: ins.Copy) -> tuple[View, bool]:
    """The tree to copy from, and whether its owners are kept."""
    if not one.source_stage:
        return state.shared.context.view, False
    return state.shared.stage_view(one.source_stage, state.stage.index), True


def _unpacked(state: State, path: str) -> Source:
    folder = state.shared.folder("archive")
    unpack(path, folder)
    view = View([folder], overlay=False)
    return Source(view, view.root, owners=True)


def _download(state: State, one: ins.Copy, url: str) -> Source:
    path = download(url, state.shared.folder("download"), value(state, one, one.checksum))
    if one.unpack and is_archive(str(path)):
        return _unpacked(state, str(path))
    return _plain_file(path, 0o600)


def _plain_file(path: Path, mode: int) -> Source:
    path.chmod(mode)
    view = View([path.parent], overlay=False)
    node = view.child(view.root, path.name)
    assert node is not None
    return Source(view, node, path.name)


def _git(state: State, address: str, *, keep: bool) -> Source:
    view = open_named(address, state.shared.folder("git"))
    ignore = None if keep else IgnoreRules([".git"])
    plain = View(view.layers, ignore=ignore, overlay=False)
    return Source(plain, plain.root)


def _layer(state: State, items: list[Item], text: str) -> bool:
    """The layer of ``items``, from the cache or made now."""
    shared = state.shared
    if not items:
        state.add(None, text)
        return False
    key = key_of(kind="files", below=state.top, content=digest(items), epoch=shared.epoch)
    cached = None if _uncached(state) else shared.cache.get(key)
    if cached is not None and cached.layer is not None:
        state.add(cached.layer, text, cached.created)
        return True
    layer = _written(state, items)
    shared.cache.put(key, Cached(layer, shared.now))
    state.add(layer, text, shared.now)
    return False


def _written(state: State, items: list[Item]) -> NewLayer:
    def produce(sink: Callable[[bytes], object]) -> None:
        writer = TarWriter(sink)
        write_items(items, writer, state.shared.epoch)
        writer.finish()

    return store_layer(state.shared.store, produce)


def _uncached(state: State) -> bool:
    request = state.shared.request
    return request.no_cache or state.stage.label in request.no_cache_stages


def _time(state: State) -> int:
    return int(state.shared.now) * _NANOSECOND
