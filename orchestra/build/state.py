"""What one stage is at a moment of its build: layers, settings, arguments, history, and what they share.

:class:`Shared` is one build's surroundings (the same for all its stages, thread-safe); :class:`State`
belongs to one stage and its thread.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestra.build.cache import Cache
from orchestra.build.context import Context
from orchestra.build.problems import BuildError
from orchestra.build.request import BuildRequest
from orchestra.build.stages import Plan, Stage
from orchestra.build.view import View
from orchestra.events import Progress, Sink, Status
from orchestra.images import rootfs
from orchestra.images.commit import NewLayer
from orchestra.images.config import Settings, history_step
from orchestra.images.digest import Digest, chain_ids
from orchestra.images.layer import Applied
from orchestra.images.mediatype import Compression
from orchestra.paths import Paths

if TYPE_CHECKING:
    from orchestra.images.image import Image
    from orchestra.images.manifest import Platform
    from orchestra.images.store import ImageStore


@dataclass(slots=True)
class Shared:
    """``stage_view(name, before)``: the files of an earlier stage, image or named context, and a text
    that says which content it is. ``stop`` ends all stages."""

    request: BuildRequest
    store: ImageStore
    paths: Paths
    sink: Sink
    scratch: Path
    context: Context
    plan: Plan
    cache: Cache
    args: Mapping[str, str]
    platform: Platform
    now: float
    epoch: int | None
    stage_view: Callable[[str, int], View]
    base_image: Callable[[Stage], Image | None]
    stop: threading.Event = field(default_factory=threading.Event)
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def new_number(self) -> int:
        with self._lock:
            return next(self._numbers)

    def folder(self, name: str) -> Path:
        """A fresh directory of this build alone."""
        path = self.scratch / f"{name}-{self.new_number()}"
        path.mkdir(mode=0o700)
        return path

    def report(self, progress: Progress) -> None:
        with self._lock:
            self.sink(progress)

    def warn(self, text: str) -> None:
        self.report(Progress(f"Image {self.request.shown}", "Warning", Status.WARNING, text))


@dataclass(slots=True)
class State:
    shared: Shared
    stage: Stage
    base: Image | None = None
    settings: Settings = field(default_factory=Settings)
    layers: list[NewLayer] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    args: dict[str, str] = field(default_factory=dict)
    author: str = ""
    created: float = 0.0
    step: int = 0
    steps: int = 0

    def variables(self) -> dict[str, str]:
        """What ``$name`` means: ENV wins over ARG."""
        return {**self.args, **self.settings.env}

    @property
    def diff_ids(self) -> list[Digest]:
        base = list(self.base.diff_ids) if self.base else []
        return [*base, *(layer.diff_id for layer in self.layers)]

    @property
    def chain(self) -> list[Digest]:
        return chain_ids(self.diff_ids)

    @property
    def top(self) -> str:
        """The chain id of everything so far; what a step's cache key begins with."""
        chain = self.chain
        return chain[-1] if chain else "scratch"

    def directories(self) -> list[Path]:
        """The unpacked layers, lowest first; unpacks what is missing."""
        found = list(self.shared.store.layers(self.base)) if self.base else []
        chain = self.chain
        for number, layer in enumerate(self.layers, len(found)):
            found.append(self._unpacked(chain[number], layer, found[:number]))
        return found

    def view(self) -> View:
        return View(list(reversed(self.directories())))

    def _unpacked(self, chain_id: Digest, layer: NewLayer, lowers: list[Path]) -> Path:
        store = self.shared.store
        if not rootfs.keep_layer(store, chain_id):
            with rootfs.layer_lock(store, chain_id):
                if not rootfs.is_unpacked(store, chain_id):
                    with store.blobs.open(layer.descriptor.digest, layer.descriptor.size) as stream:
                        staged = rootfs.stage(
                            store, chain_id, layer.diff_id, stream, Compression.NONE, trusted=True
                        )
                    rootfs.publish(store, staged, lowers)
        return rootfs.layer_dir(store, chain_id) / "fs"

    def adopt(self, layer: NewLayer, folder: Path) -> None:
        """Take ``folder`` (with the layer's files in ``fs``) as the unpacked form of the topmost layer,
        which was just made of it."""
        store = self.shared.store
        chain = self.chain
        lowers = self.directories_below(len(chain) - 1)
        if not rootfs.keep_layer(store, chain[-1]):
            with rootfs.layer_lock(store, chain[-1]):
                if not rootfs.is_unpacked(store, chain[-1]):
                    applied = Applied()
                    applied.size = layer.descriptor.size
                    rootfs.publish(store, rootfs.Staged(chain[-1], layer.diff_id, folder, applied), lowers)
        with contextlib.suppress(FileNotFoundError):
            rootfs.remove_tree(folder)

    def directories_below(self, count: int) -> list[Path]:
        """The lowest ``count`` directories, which are unpacked already."""
        return [rootfs.layer_dir(self.shared.store, chain_id) / "fs" for chain_id in self.chain[:count]]

    def add(self, layer: NewLayer | None, text: str, created: float | None = None) -> None:
        """One step is done: its layer (None: no file changed) and its line of the history."""
        if layer is not None:
            self.layers.append(layer)
            self.created = max(self.created, created or 0.0)
        moment = created if created is not None else self.created
        self.history.append(history_step(moment, text, empty_layer=layer is None, author=self.author))

    def check_running(self) -> None:
        if self.shared.stop.is_set():
            raise BuildError("stopped")
