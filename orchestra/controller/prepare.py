"""Images of a project's services: local, pulled or built, by each service's policy.

The result is what reconciliation needs: service name → image id. Pulls and builds of different
services run side by side; one image wanted by several services is fetched once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from orchestra.backend import Backend
from orchestra.compose.model import Project, Service
from orchestra.controller.naming import image_name
from orchestra.errors import Location, NotFoundError, OrchestraError
from orchestra.events import Progress, Sink, Status

Puller = Callable[[str, str, Sink], str]
"""(reference, platform, sink) → image id"""
Builder = Callable[[Project, Service, Sink], str]
"""Builds a service's image → image id"""

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """``pull`` is a policy for this run ('' = the services' own)."""

    pull: str = ""
    build: bool = False
    no_build: bool = False


class Images:
    """Makes images available through the functions it is given."""

    def __init__(
        self, backend: Backend, pull: Puller, build: Builder, pulled_at: Callable[[str], float]
    ) -> None:
        self.backend, self._pull, self._build, self._pulled_at = backend, pull, build, pulled_at

    def prepare(
        self, project: Project, names: Iterable[str], options: ImageOptions, sink: Sink
    ) -> dict[str, str]:
        """service name → image id. Raises the first error; the others are finished first."""
        wanted: dict[str, list[str]] = {}
        for name in names:
            service = project.services[name]
            if service.provider:
                raise OrchestraError(
                    f"service {name}: providers are not supported",
                    location=_place(project, f"services.{name}.provider"),
                    hint="run the provider yourself and take the service out of the file",
                )
            wanted.setdefault(image_name(project, service), []).append(name)
        found: dict[str, str] = {}
        if len(wanted) == 1 or all(self._is_there(project, names[0], options) for names in wanted.values()):
            results = [self._one(project, names, options, sink) for names in wanted.values()]
        else:
            with ThreadPoolExecutor(4, thread_name_prefix="image") as pool:
                futures = [pool.submit(self._one, project, names, options, sink) for names in wanted.values()]
            results = [future.result() for future in futures]
        for image_id, names_of in zip(results, wanted.values(), strict=True):
            found.update(dict.fromkeys(names_of, image_id))
        return found

    def _is_there(self, project: Project, name: str, options: ImageOptions) -> bool:
        service = project.services[name]
        policy = options.pull or service.pull_policy
        return (
            policy in ("", "missing", "never")
            and not options.build
            and self.backend.image(image_name(project, service)) is not None
        )

    def _one(self, project: Project, names: list[str], options: ImageOptions, sink: Sink) -> str:
        builders = [n for n in names if project.services[n].build]
        service = project.services[builders[0] if builders else names[0]]
        text = image_name(project, service)
        local = self.backend.image(text)
        policy = options.pull or service.pull_policy or ("build" if options.build and service.build else "")
        if service.build and (options.build or service.pull_policy == "build") and not options.no_build:
            return self._build(project, service, sink)
        after = service.pull_refresh_after if policy == "refresh" else ""
        if self._wants_pull(f"every_{after}" if after else policy, text, local is not None) and not (
            service.build and not service.image
        ):
            return self._fetch(project, service, text, local, sink)
        if local is not None:
            return local[0]
        if service.build:
            if options.no_build:
                raise NotFoundError(
                    f"no such image: {text}",
                    hint="take --no-build away to build it",
                    location=_place(project, f"services.{service.name}.build"),
                )
            return self._build(project, service, sink)
        raise NotFoundError(
            f"no such image: {text} (pull policy is {policy or 'never'})",
            location=_place(project, f"services.{service.name}.image"),
        )

    def _wants_pull(self, policy: str, text: str, present: bool) -> bool:
        if policy == "always":
            return True
        if policy in ("never", "build"):
            return False
        age = refresh_seconds(policy)
        if age is not None and present:
            return time.time() - self._pulled_at(text) > age
        return not present

    def _fetch(
        self, project: Project, service: Service, text: str, local: tuple[str, object] | None, sink: Sink
    ) -> str:
        try:
            return self._pull(text, service.platform, sink)
        except OrchestraError as error:
            if service.build:
                return local[0] if local else self._build(project, service, sink)
            sink(Progress(f"Image {text}", "Error", Status.ERROR, error.brief))
            place = error.location or _place(project, f"services.{service.name}.image")
            raise OrchestraError(
                error.brief, details=error.details, hint=error.hint, location=place
            ) from error


def refresh_seconds(policy: str) -> float | None:
    """The age after which ``daily``, ``weekly`` or ``every_<duration>`` pull again; None otherwise."""
    if policy == "daily":
        return 86400.0
    if policy == "weekly":
        return 604800.0
    if policy.startswith("every_"):
        parts = re.findall(r"(\d+)([smhdw])", policy.removeprefix("every_"))
        return float(sum(int(count) * UNITS[unit] for count, unit in parts))
    return None


def _place(project: Project, path: str) -> Location | None:
    found: Mapping[str, tuple[str, int, int]] = project.locations
    place = found.get(path)
    return Location(*place) if place else None
