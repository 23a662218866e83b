"""Owners on disk of containers' layers and of volumes, where ids of mounts are not mapped (see ``ownership``)."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

from orchestra.engine import userns
from orchestra.engine.container import Container
from orchestra.engine.ownership import bring, now
from orchestra.engine.parts import Parts
from orchestra.errors import ConflictError, UnsupportedError
from orchestra.images.shifted import Ids
from orchestra.linux import fs
from orchestra.paths import Paths
from orchestra.volumes.manager import Volumes


class Owners:
    """``may_map`` tells whether the kernel maps the ids of mounts; a value, so that a test can say no."""

    def __init__(
        self, parts: Parts, volumes: Volumes, may_map: Callable[[Paths], bool] = userns.may_map
    ) -> None:
        self.parts, self.volumes, self._may_map = parts, volumes, may_map
        self._lock = threading.Lock()

    def _layer(self, container: Container) -> tuple[Path, Path]:
        folder = self.parts.folder(container.id)
        return folder / "upper", folder / "ids"

    def of(self, container: Container) -> Ids | None:
        """The range whose ids the container's layer has on disk."""
        return now(self._layer(container)[1])

    def for_start(self, container: Container, ids: Ids | None) -> Ids | None:
        """Its layer for a start with these ids; those that it has on disk from now on (None: as inside)."""
        given = None if ids is None or self._may_map(self.parts.paths) else ids
        if given:
            self.note()
        elif not os.path.lexists(f"{self.parts.folder_text(container.id)}/ids"):
            return None  # as inside already
        bring(*self._layer(container), given)
        return given

    def note(self) -> None:
        """Which ranges are in use, for those who prune the images' store."""
        with self._lock:
            held = {c.state.ids for c in self.parts.registry.all() if c.state.ids}
            names = sorted("-".join(map(str, ids)) for ids in held)
            fs.write_file(self.parts.paths.run / "ranges-in-use.json", json.dumps(names).encode())

    def ended(self, container: Container) -> None:
        """It has no ids any more."""
        if self.of(container):
            self.note()

    def plain(self, container: Container) -> None:
        """The layer of a stopped container as it is inside."""
        bring(*self._layer(container), None)

    def need_mapping(self, target: str) -> None:
        if not self._may_map(self.parts.paths):
            raise UnsupportedError(
                f"volumes: idmap at {target}: there are no id-mapped mounts here",
                hint='set userns_mode to "host"',
            )

    # volumes

    def _volume(self, name: str) -> tuple[Path, Path] | None:
        """None for one whose contents are not in its own directory."""
        volume = self.volumes.get(name)
        return (volume.mountpoint, volume.mountpoint.parent / "ids") if volume.plain else None

    def give_volume(self, container: Container | None, name: str, ids: Ids | None) -> Ids | None:
        """A volume for a container that starts (None: for its contents as they are inside)."""
        found = self._volume(name)
        if found is None:
            return None
        given = None if ids is None or self._may_map(self.parts.paths) else ids
        with self._lock:
            current = now(found[1])
            if current != given:
                self._check_free(container, name)
            bring(*found, given)
        return given

    def _check_free(self, container: Container | None, name: str) -> None:
        for other in self.parts.registry.all():
            if other is not container and other.running and _uses(other, name):
                raise ConflictError(
                    f"volume {name} is in use by {other.name} with other ids, and ids of mounts cannot be mapped here",
                    hint='give all its containers the same ids: "userns-remap": "default" in the settings',
                )

    def plain_volume(self, name: str) -> None:
        """Its contents as they are inside."""
        if self.volumes.exists(name):
            self.give_volume(None, name, None)

    def may_fill(self, name: str) -> bool:
        """Whether an image's contents may be copied into the volume if it is empty."""
        found = self._volume(name)
        if found is None or now(found[1]) is None:
            return True
        if not self.volumes.is_empty(name):
            return False
        try:
            self.give_volume(None, name, None)
        except ConflictError:
            return False
        return True


def _uses(container: Container, name: str) -> bool:
    return any(r["Type"] == "volume" and r["Name"] == name for r in container.state.mounts)


__all__ = ["Owners"]
