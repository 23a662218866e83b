"""Building a service of a compose project: its ``build`` element as a request."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestra.build.context import is_git
from orchestra.build.problems import BuildError
from orchestra.build.request import BuildRequest, Secret, ServiceImage, from_service
from orchestra.events import Progress, Sink, Status, nowhere

if TYPE_CHECKING:
    from orchestra.compose.model import Project, Service
    from orchestra.images.image import Image
    from orchestra.images.store import ImageStore
    from orchestra.paths import Paths


def build_service(
    project: Project,
    service: Service,
    *,
    store: ImageStore,
    paths: Paths,
    sink: Sink = nowhere,
    remap: tuple[int, int, int] | None = None,
) -> Image:
    """Build and tag the image of ``service``; ``remap`` as in BuildRequest."""
    from orchestra.build.builder import build

    request, warnings = request_of(project, service)
    request = replace(request, remap=remap)
    for text in warnings:
        sink(Progress(f"Image {request.shown}", "Warning", Status.WARNING, text))
    return build(request, store, paths, sink)


def check_service(project: Project, service: Service) -> None:
    """Read the Dockerfile and find its mistakes, without building."""
    import tempfile
    from pathlib import Path

    from orchestra.build.context import open_context
    from orchestra.build.parser import parse
    from orchestra.build.stages import make_plan
    from orchestra.images.manifest import Platform

    request, _ = request_of(project, service)
    with tempfile.TemporaryDirectory(prefix="orchestra-check-") as folder:
        context = open_context(request, Path(folder))
        parsed = parse(context.dockerfile, context.dockerfile_name)
        args = {name: text for name, text in request.args.items() if text is not None}
        platform = Platform.parse(request.platform) if request.platform else Platform.host()
        make_plan(parsed, args=args, target=request.target, platform=platform, file=context.dockerfile_name)


def request_of(project: Project, service: Service) -> tuple[BuildRequest, list[str]]:
    """The build request of ``service``, and warnings."""
    if service.build is None:
        raise BuildError(f"service {service.name} has no build section")
    tag = service.image or f"{project.name}-{service.name}"
    secrets = tuple(_secret(project, grant.source, grant.target) for grant in service.build.secrets)
    image = ServiceImage(tag, service.platform, project.environment, secrets)
    request, warnings = from_service(service.build, image)
    contexts = {name: _context(project, name, value) for name, value in request.contexts.items()}
    return replace(request, contexts=contexts), warnings


def _secret(project: Project, source: str, target: str) -> Secret:
    found = project.secrets.get(source)
    if found is None:
        raise BuildError(f"build secret {source!r} is not defined")
    name = target.rpartition("/")[2] or source
    if found.file:
        return Secret(name, file=found.file)
    text = found.content if found.content is not None else found.value
    if text is None and found.environment:
        text = project.environment.get(found.environment)
        if text is None:
            raise BuildError(f"build secret {source!r}: the variable {found.environment} is not set")
    if text is not None:
        return Secret(name, value=text)
    raise BuildError(f"build secret {source!r} has neither file, environment nor content")


def _context(project: Project, name: str, value: str) -> str:
    """``service:x`` is the image of that service."""
    if not value.startswith("service:") or is_git(value):
        return value
    other = project.services.get(value.partition(":")[2]) or project.disabled.get(value.partition(":")[2])
    if other is None:
        raise BuildError(f"additional context {name}: no service {value.partition(':')[2]!r}")
    return f"docker-image://{other.image or f'{project.name}-{other.name}'}"
