"""``env_file`` into ``environment`` and ``label_file`` into ``labels``, for active services.

What the file itself says in ``environment`` and ``labels`` wins; a key without value there takes the
file's. Variables inside a file are looked up in the project's environment, then in the service's, then
among earlier lines and files. Problems of several services are collected.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from orchestra.compose.diagnostics import ComposeError
from orchestra.compose.options import LoadContext, LoadOptions
from orchestra.compose.source import join, parse_env, read_text, shown_name
from orchestra.compose.tree import (
    Mapping,
    Node,
    Origin,
    Path,
    Scalar,
    Sequence,
    mapping,
    scalar_text,
    supersede,
)
from orchestra.errors import Location
from orchestra.record import record


@record
class _File:
    path: str
    required: bool
    format: str
    location: Location


class EnvFiles:
    """Reads the files of one project; each file's text is read once."""

    def __init__(self, options: LoadOptions, context: LoadContext, folder: str) -> None:
        self.options = options
        self.context = context
        self.folder = folder
        self.texts: dict[str, str] = {}

    def apply(self, root: Mapping, active: Iterable[str]) -> None:
        services = mapping(root, "services")
        for name in active:
            service = services.items.get(name) if services else None
            if not isinstance(service, Mapping):
                continue
            try:
                self._service(service, ("services", name))
            except ComposeError:
                continue  # recorded; the other services' problems are wanted too
        self.context.problems.check()

    def _service(self, service: Mapping, path: Path) -> None:
        if not self.context.no_env_resolution and "env_file" in service.items:
            self._merge(service, "env_file", "environment", path)
        if "label_file" in service.items:
            self._merge(service, "label_file", "labels", path)

    def _merge(self, service: Mapping, source: str, target: str, path: Path) -> None:
        own = _as_map(service.items.get(target))
        environment = {
            key: scalar_text(child.value)
            for key, child in own.items()
            if isinstance(child, Scalar) and child.value is not None
        }
        found: dict[str, Node] = {}
        for file in self._files(service.items[source], (*path, source)):
            for key, node in self._read(file, environment, found, source, (*path, source)).items():
                if key in found:
                    supersede(node, found[key])
                found[key] = node
        for key, node in own.items():
            if key in found:
                if isinstance(node, Scalar) and node.value is None:
                    continue
                supersede(node, found[key])
            found[key] = node
        service.pop(source)
        old = service.items.get(target)
        if not found and old is None:
            return
        made = Mapping(found, service.location, service.origin) if old is None else Mapping(found, like=old)
        if isinstance(old, Mapping):
            made.key_locations = dict(old.key_locations)
        service.set(target, made)

    def _files(self, node: Node, path: Path) -> list[_File]:
        items = node.items if isinstance(node, Sequence) else [node]
        found: list[_File] = []
        for item in items:
            if isinstance(item, Scalar) and isinstance(item.value, str):
                found.append(_File(item.value, True, "", item.location))
            elif isinstance(item, Mapping):
                required, kind = item.items.get("required"), item.items.get("format")
                name = item.items.get("path")
                found.append(
                    _File(
                        str(name.value) if isinstance(name, Scalar) else "",
                        not (isinstance(required, Scalar) and scalar_text(required.value).lower() == "false"),
                        str(kind.value) if isinstance(kind, Scalar) and kind.value else "",
                        name.location if name is not None else item.location,
                    )
                )
        return found

    def _read(
        self, file: _File, own: dict[str, str], earlier: dict[str, Node], kind: str, path: Path
    ) -> dict[str, Node]:
        problems = self.context.problems
        absolute = join(self.folder, file.path, self.context.home)
        if file.format not in ("", "raw"):
            raise problems.fail(
                f"unsupported env_file format {file.format!r}",
                file.location,
                path,
                hint="leave it out for the compose syntax, or write raw",
            )
        if not file.required and not os.path.exists(absolute):
            return {}
        text = self.texts.get(absolute)
        if text is None:
            text = self.texts[absolute] = read_text(
                absolute, problems, kind.replace("_", " "), file.location, path
            )
        shown = shown_name(absolute, self.options.cwd)
        problems.sources.setdefault(shown, text)

        def lookup(name: str) -> str | None:
            value = self.context.environment.get(name)
            return own.get(name) if value is None else value

        def before(name: str) -> str | None:
            node = earlier.get(name)
            return scalar_text(node.value) if isinstance(node, Scalar) else None

        origin = Origin(kind, shown)
        first, last = (lookup, before) if kind == "env_file" else (before, None)  # labels know labels only
        values = parse_env(text, shown, first, problems, file.format == "raw", last)
        return {
            key: Scalar(value, Location(shown, line, 1), origin, raw=value)
            for key, (value, line) in values.items()
        }


def _as_map(node: Node | None) -> dict[str, Node]:
    """A map as it is; a list of ``K=V`` split."""
    if isinstance(node, Mapping):
        return dict(node.items)
    found: dict[str, Node] = {}
    if isinstance(node, Sequence):
        for item in node.items:
            if isinstance(item, Scalar):
                key, equals, value = scalar_text(item.value).partition("=")
                found[key] = Scalar(value if equals else None, like=item)
    return found


def resolve_bare(root: Mapping, context: LoadContext) -> None:
    """Keys without value in ``environment`` and ``build.args`` take the project environment's value;
    secrets and configs from variables are looked up (each application in its own environment)."""
    services = mapping(root, "services")
    for service in services.items.values() if services else ():
        if not isinstance(service, Mapping):
            continue
        _fill(service.items.get("environment"), context)
        build = service.items.get("build")
        if isinstance(build, Mapping):
            _fill(build.items.get("args"), context)
    for section in ("secrets", "configs"):
        found = mapping(root, section)
        for key, item in found.items.items() if found else ():
            variable = item.items.get("environment") if isinstance(item, Mapping) else None
            if isinstance(variable, Scalar) and isinstance(variable.value, str):
                value = context.environment.get(variable.value)
                if value is not None:
                    context.file_values.setdefault((section, key), value)


def _fill(node: Node | None, context: LoadContext) -> None:
    if isinstance(node, Mapping):
        for key, child in node.items.items():
            if isinstance(child, Scalar) and child.value is None:
                value = context.environment.get(key)
                if value is not None:
                    child.value = value
                    child.variables = (key,)
    elif isinstance(node, Sequence):
        for child in node.items:
            if isinstance(child, Scalar) and isinstance(child.value, str) and "=" not in child.value:
                value = context.environment.get(child.value)
                if value is not None:
                    child.variables = (child.value,)
                    child.value = f"{child.value}={value}"
