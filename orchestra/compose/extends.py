"""``extends``: a service as another one with changes.

A *frame* is one document set in which bases are looked up: the document being loaded, or a file named
by ``extends.file`` (loaded without validation, without its own ``include``, interpolated with the
project's environment, its relative paths resolved against its own folder). Bases are resolved in
place, so a chain is followed once. Cycles are errors that print the chain.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from orchestra.compose import merge
from orchestra.compose.diagnostics import ComposeError, Problems
from orchestra.compose.source import join
from orchestra.compose.tree import Mapping, Node, Origin, Path, Scalar, clone, kind_name
from orchestra.errors import Location
from orchestra.record import field, shape

MAX_CHAIN = 100


@shape
class Frame:
    """``services`` in which names are looked up; ``folder`` is absolute; ``tags`` the places of !reset
    and !override."""

    path: str
    shown: str
    folder: str
    services: Mapping
    tags: list[Path] = field(default_factory=list)


OpenFrame = Callable[[str, Location, Path], Frame]


class Extender:
    """``open_frame(absolute path, referrer, where)`` loads the file of an ``extends.file``."""

    def __init__(self, open_frame: OpenFrame, problems: Problems, home: str) -> None:
        self.open_frame = open_frame
        self.problems = problems
        self.home = home
        self.frames: dict[str, Frame] = {}

    def apply(self, frame: Frame) -> None:
        """Resolve every ``extends`` of the frame's services."""
        for name in list(frame.services.items):
            self.service(name, frame, ())

    def service(self, name: str, frame: Frame, chain: tuple[tuple[str, str], ...]) -> Node:
        """The service with its bases merged below it (also put back into the frame)."""
        node = frame.services.items[name]
        if not isinstance(node, Mapping) or "extends" not in node.items:
            return node
        link = (frame.shown, name)
        path: Path = ("services", name, "extends")
        if len(chain) >= MAX_CHAIN:
            raise self.problems.fail(
                f"a chain of more than {MAX_CHAIN} extends", node.items["extends"].location, path
            )
        if link in chain:
            steps = [*chain[chain.index(link) :], link]
            lines = tuple(f"{file}: service {service}" for file, service in steps)
            raise self.problems.fail(
                "extends goes round in a circle: " + " -> ".join(service for _, service in steps),
                node.items["extends"].location,
                path,
                notes=lines,
            )
        base_name, file, place = self._reference(node.items["extends"], path)
        target = frame if file is None else self._frame(file, frame, place, path)
        base = self._base(name, base_name, target, place, (*chain, link))
        return self._merge(name, node, base, base_name, frame, target)

    def _reference(self, node: Node, path: Path) -> tuple[str, Scalar | None, Location]:
        """(service, file, place of the service's name)."""
        if isinstance(node, Scalar):
            if isinstance(node.value, str):
                return node.value, None, node.location
            raise self.problems.fail(
                f"extends must be a service name or a mapping, not {kind_name(node)}", node.location, path
            )
        if not isinstance(node, Mapping):
            raise self.problems.fail(
                f"extends must be a service name or a mapping, not {kind_name(node)}", node.location, path
            )
        service, file = node.items.get("service"), node.items.get("file")
        for key in node.items:
            if key not in ("service", "file"):
                raise self.problems.fail(
                    f"additional property {key!r} is not allowed in extends",
                    node.key_location(key),
                    (*path, key),
                )
        if not isinstance(service, Scalar) or not isinstance(service.value, str):
            raise self.problems.fail("extends.service is required", node.location, path)
        if file is None or (isinstance(file, Scalar) and file.value is None):
            return service.value, None, service.location
        if not isinstance(file, Scalar) or not isinstance(file.value, str):
            raise self.problems.fail("extends.file must be a string", file.location, (*path, "file"))
        return service.value, file, service.location

    def _frame(self, file: Scalar, frame: Frame, place: Location, path: Path) -> Frame:
        absolute = join(frame.folder, str(file.value), self.home)
        if absolute == frame.path:
            return frame
        found = self.frames.get(absolute)
        if found is None:
            found = self.frames[absolute] = self.open_frame(absolute, file.location, (*path, "file"))
        return found

    def _base(
        self, name: str, base_name: str, target: Frame, place: Location, chain: tuple[tuple[str, str], ...]
    ) -> Node:
        if base_name in target.services.items:
            return self.service(base_name, target, chain)
        raise self._missing(name, base_name, target, place)

    def _missing(self, name: str, base_name: str, target: Frame, place: Location) -> ComposeError:
        known = ", ".join(sorted(target.services.items)[:10])
        return self.problems.fail(
            f"service {name!r} extends {base_name!r}, which {target.shown} does not define",
            place,
            ("services", name, "extends"),
            hint=f"it defines: {known}" if known else "it defines no service",
        )

    def _merge(
        self, name: str, node: Mapping, base: Node, base_name: str, frame: Frame, target: Frame
    ) -> Node:
        detail = base_name if target is frame else f"{base_name} ({target.shown})"
        copy = clone(base, Origin("extends", detail))
        own = [path[2:] for path in frame.tags if path[:2] == ("services", name) and len(path) > 2]
        if isinstance(copy, Mapping):
            merge.apply_tags(copy, node, own)
            copy.pop("extends")
        node.pop("extends")
        place = frame.services.key_location(name)
        merged: Node = node
        if not (isinstance(copy, Scalar) and copy.value is None):
            merged = merge.merge_at(copy, node, ("services", name), self.problems)
        merged.location = node.location
        merge.unique_service(merged)
        frame.services.set(name, merged, place)
        return merged


def absolute_files(services: Mapping, folder: str, home: str) -> None:
    """Make every ``extends.file`` absolute, so that resolving paths later leaves it alone."""
    for service in services.items.values():
        extends = service.items.get("extends") if isinstance(service, Mapping) else None
        file = extends.items.get("file") if isinstance(extends, Mapping) else None
        if isinstance(file, Scalar) and isinstance(file.value, str):
            file.value = os.path.abspath(join(folder, file.value, home))
