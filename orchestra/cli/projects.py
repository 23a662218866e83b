"""Little helpers that the project verbs share: options to data, containers of services."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from orchestra.errors import NotFoundError, OrchestraError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestra.cli.context import Context
    from orchestra.compose.model import Project


def project_data(project: Project) -> dict[str, Any]:
    """The project as the daemon takes it."""
    from orchestra.compose.codec import to_dict

    data: dict[str, Any] = to_dict(project)
    return data


def image_options(args: Namespace) -> dict[str, Any]:
    pull = getattr(args, "pull", "") or ""
    return {
        "pull": "" if pull == "policy" else pull,
        "build": bool(getattr(args, "build", False)) or pull == "build",
        "no_build": bool(getattr(args, "no_build", False)),
    }


def scales(words: Sequence[str], project: Project) -> dict[str, int]:
    """``SERVICE=N`` words. Raises OrchestraError."""
    found = {}
    for word in words:
        name, sep, number = word.partition("=")
        if not sep or not number.isdigit():
            raise OrchestraError(f"invalid scale {word!r}", hint="write SERVICE=N with N from 0")
        if name not in project.services:
            raise NotFoundError(f"no such service: {name}")
        found[name] = int(number)
    return found


def timeout_of(args: Namespace) -> float | None:
    value = getattr(args, "timeout", None)
    return None if value is None else float(value)


@contextmanager
def all_profiles(context: Context) -> Iterator[None]:
    """Load with every profile active: what stops or removes concerns everything that may run."""
    before = list(context.options.profile)
    if not before and not context.environ.get("COMPOSE_PROFILES"):
        context.options.profile = ["*"]
    try:
        yield
    finally:
        context.options.profile = before


def project_name(context: Context) -> tuple[str, Project | None]:
    """The project's name (and the project when there is a file)."""
    with all_profiles(context):
        return context.load_or_name()


def names(context: Context) -> tuple[str, set[str] | None]:
    """The project's name and all its services' names (None without a file)."""
    with all_profiles(context):
        return context.names()


def containers(
    context: Context, services: Sequence[str] = (), *, oneoff: bool = False
) -> tuple[str, list[dict[str, Any]]]:
    """The project's containers, of the named services; raises NotFoundError for an unknown one."""
    name, services_of_file = names(context)
    found = [c for c in context.client.call("containers", {"project": name}) if oneoff or not c["oneoff"]]
    known = {c["service"] for c in found} | (services_of_file or set())
    for service in services:
        if service not in known:
            raise NotFoundError(f"no such service: {service}")
    if services:
        found = [c for c in found if c["service"] in services]
    return name, sorted(found, key=lambda c: (c["service"], c["number"], c["name"]))


def one_container(context: Context, service: str, index: int = 0, *, running: bool = True) -> dict[str, Any]:
    """The container of a service that exec, cp, port … mean: the lowest number, or ``index``."""
    _, found = containers(context, [service], oneoff=True)
    regular = [c for c in found if not c["oneoff"]] or found
    if index:
        regular = [c for c in regular if c["number"] == index]
        if not regular:
            raise NotFoundError(f'service "{service}" has no container number {index}')
    alive = [c for c in regular if c["state"] in ("running", "paused", "restarting")]
    if running and not alive:
        raise NotFoundError(
            f'service "{service}" is not running', hint=f"start it: orchestra up -d {service}"
        )
    chosen = alive or regular
    if not chosen:
        raise NotFoundError(f'service "{service}" has no container')
    return min(chosen, key=lambda c: int(c["number"]))
