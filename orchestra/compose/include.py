"""``include``: other applications loaded with their own folder and variables, then imported.

Each entry is a load of its own (same pipeline, own project directory, own ``.env`` that the including
project's environment overrides); its resources are put into the including document, whose own
definitions of the same names are merged over the imported ones. Its ``name`` and ``x-`` keys stay out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise

from orchestra.compose import merge
from orchestra.compose.diagnostics import Problems
from orchestra.compose.options import LoadContext, LoadOptions
from orchestra.compose.source import Source, add_env_file, is_remote, join, read_source
from orchestra.compose.tree import Mapping, Node, Path, Scalar, Sequence, kind_name, plain
from orchestra.errors import Location
from orchestra.record import record, replace

SECTIONS = ("services", "networks", "volumes", "secrets", "configs", "models")
MAX_INCLUDES = 1000
MAX_CHAIN = 50


@record
class Application:
    """One load: ``folder`` is the absolute base of relative paths, ``chain`` the absolute paths of the
    files that led here by ``include``."""

    sources: tuple[Source, ...]
    context: LoadContext
    folder: str
    chain: tuple[str, ...] = ()


@record
class Entry:
    paths: tuple[tuple[str, Location], ...]
    project_directory: str | None
    env_files: tuple[tuple[str, Location], ...] | None
    location: Location


LoadModel = Callable[[Application], Mapping]


class Includer:
    """``load_model`` loads an application to its merged, canonical tree."""

    def __init__(self, load_model: LoadModel, options: LoadOptions, problems: Problems) -> None:
        self.load_model = load_model
        self.options = options
        self.problems = problems
        self.count = 0

    def apply(self, document: Mapping, tags: list[Path], parent: Application, file: str) -> None:
        """Replace ``include`` of a document of ``parent`` (read from ``file``) by what it names."""
        node = document.pop("include")
        if node is None or (isinstance(node, Scalar) and node.value is None):
            return
        if not isinstance(node, Sequence):
            raise self.problems.fail(
                f"include must be a list, not {kind_name(node)}", node.location, ("include",)
            )
        for index, item in enumerate(node.items):
            entry = self._entry(item, ("include", index))
            child = self._application(entry, parent, ("include", index), file)
            self._import(self.load_model(child), document, tags)

    def _entry(self, node: Node, path: Path) -> Entry:
        if isinstance(node, Scalar) and isinstance(node.value, str):
            return Entry(((node.value, node.location),), None, None, node.location)
        if not isinstance(node, Mapping):
            raise self.problems.fail(
                f"an include is a path or a mapping, not {kind_name(node)}", node.location, path
            )
        for key in node.items:
            if key not in ("path", "project_directory", "env_file") and not key.startswith("x-"):
                raise self.problems.fail(
                    f"additional property {key!r} is not allowed in include",
                    node.key_location(key),
                    (*path, key),
                )
        paths = self._texts(node.items.get("path"), (*path, "path"))
        if not paths:
            raise self.problems.fail("include.path is required", node.location, path)
        directory = node.items.get("project_directory")
        if directory is not None and not (isinstance(directory, Scalar) and isinstance(directory.value, str)):
            raise self.problems.fail("include.project_directory must be a string", directory.location, path)
        env_files = None
        if "env_file" in node.items:
            env_files = self._texts(node.items["env_file"], (*path, "env_file")) or None
        folder = str(directory.value) if isinstance(directory, Scalar) else None
        return Entry(paths, folder or None, env_files, node.location)

    def _texts(self, node: Node | None, path: Path) -> tuple[tuple[str, Location], ...]:
        items = node.items if isinstance(node, Sequence) else [] if node is None else [node]
        found: list[tuple[str, Location]] = []
        for item in items:
            if not isinstance(item, Scalar) or not isinstance(item.value, str):
                if isinstance(item, Scalar) and item.value is None and item is node:
                    continue
                raise self.problems.fail(f"expected a path, found {kind_name(item)}", item.location, path)
            found.append((item.value, item.location))
        return tuple(found)

    def _application(self, entry: Entry, parent: Application, path: Path, file: str) -> Application:
        home = parent.context.home
        self.count += 1
        if self.count > MAX_INCLUDES or len(parent.chain) > MAX_CHAIN:
            raise self.problems.fail("too many includes", entry.location, path)
        absolute = [
            (text if is_remote(text) else join(parent.folder, text, home), place)
            for text, place in entry.paths
        ]
        chain = (*parent.chain, file)
        if absolute[0][0] in chain:
            steps = [*chain[chain.index(absolute[0][0]) :], absolute[0][0]]
            raise self.problems.fail(
                "include goes round in a circle",
                entry.location,
                path,
                notes=tuple(f"{a} includes {b}" for a, b in pairwise(steps)),
            )
        sources = tuple(
            read_source(name, self.options, self.problems, what="included file", referrer=place, where=path)
            for name, place in absolute
        )
        folder = (
            join(parent.folder, entry.project_directory, home)
            if entry.project_directory
            else os.path.dirname(absolute[0][0])
        )
        context = self._context(entry, parent, folder, path)
        context.scopes.update((item.shown, context) for item in sources)
        return Application(sources, context, folder, chain)

    def _context(self, entry: Entry, parent: Application, folder: str, path: Path) -> LoadContext:
        environment = dict(parent.context.environment)
        origins: dict[str, tuple[str, ...]] = {
            name: ("parent", *places) for name, places in parent.context.variable_origins.items()
        }
        origins |= {name: ("parent",) for name in environment if name not in origins}
        for name, place in self._env_files(entry, parent, folder):
            if os.path.isdir(name):
                raise self.problems.fail(f"env file {name}: is a directory", place, path)
            add_env_file(environment, origins, name, self.options, self.problems, referrer=place, where=path)
        cleaned = {
            name: places[1:] if places[:1] == ("parent",) else places for name, places in origins.items()
        }
        base = folder
        if parent.context.no_path_resolution:
            above = parent.context.working_dir if parent.chain else ""  # relative to the project's folder
            base = os.path.normpath(os.path.join(above, os.path.relpath(folder, parent.folder)))
        return replace(parent.context, working_dir=base, environment=environment, variable_origins=cleaned)

    def _env_files(self, entry: Entry, parent: Application, folder: str) -> list[tuple[str, Location]]:
        if entry.env_files is None:
            default = os.path.join(folder, ".env")
            return [(default, entry.location)] if os.path.isfile(default) else []
        return [
            (join(parent.folder, text, parent.context.home), place)
            for text, place in entry.env_files
            if text != "/dev/null"
        ]

    def _import(self, child: Mapping, document: Mapping, tags: list[Path]) -> None:
        for section in SECTIONS:
            found = child.items.get(section)
            if not isinstance(found, Mapping) or not found.items:
                continue
            target = document.items.get(section)
            if target is None or (isinstance(target, Scalar) and target.value is None):
                target = Mapping({}, found.location, found.origin)
                document.set(section, target, found.location)
            if not isinstance(target, Mapping):
                raise self.problems.fail(
                    f"{section} must be a mapping, not {kind_name(target)}", target.location, (section,)
                )
            for name, imported in found.items.items():
                self._resource(section, name, imported, found.key_location(name), document, target, tags)

    def _resource(
        self,
        section: str,
        name: str,
        imported: Node,
        place: Location,
        document: Mapping,
        target: Mapping,
        tags: list[Path],
    ) -> None:
        own = target.items.get(name)
        if own is None:
            if (section, name) not in tags:
                target.set(name, imported, place)
            return
        if isinstance(own, Scalar) and own.value is None:
            target.set(name, imported, place)
            return
        if (section, name) in tags or plain(own) == plain(imported):
            return
        inner = [tag[2:] for tag in tags if tag[:2] == (section, name)]
        merge.apply_tags(imported, own, inner)
        target.set(name, merge.merge_at(imported, own, (section, name), self.problems))
