"""What a build is asked for, as a frozen value: made from the command line or from a compose ``build``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from orchestra.errors import UnsupportedError

if TYPE_CHECKING:
    from orchestra.compose.model import Build


@dataclass(frozen=True, slots=True)
class Secret:
    """The content of one build secret: of ``file``, or of the text ``value``."""

    id: str
    file: str = ""
    value: str | None = None


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """``context``: a directory, a git address, or ``-`` with a tar (or a Dockerfile) in ``stdin``.
    ``dockerfile``: a path, relative to the context where it is not absolute; ``inline`` its text.
    ``args`` values of None are taken from ``environ``. ``network``: ``host`` (default) or ``none``."""

    context: str = "."
    dockerfile: str = ""
    inline: str = ""
    args: Mapping[str, str | None] = field(default_factory=dict)
    target: str = ""
    tags: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    no_cache: bool = False
    no_cache_stages: tuple[str, ...] = ()
    pull: bool = False
    platform: str = ""
    network: str = ""
    extra_hosts: tuple[str, ...] = ()
    secrets: tuple[Secret, ...] = ()
    ssh: tuple[str, ...] = ()
    contexts: Mapping[str, str] = field(default_factory=dict)
    shm_size: int | None = None
    ulimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    privileged: bool = False
    parallel: int = 2
    environ: Mapping[str, str] = field(default_factory=dict)
    stdin: BinaryIO | None = None
    remap: tuple[int, int, int] | None = None
    """(first uid, first gid, how many): the ids outside of the user namespace that RUN steps get."""
    name: str = ""
    """What progress messages call it; the first tag otherwise."""

    @property
    def shown(self) -> str:
        return self.name or (self.tags[0] if self.tags else "build")


@dataclass(frozen=True, slots=True)
class ServiceImage:
    """What compose knows besides the ``build`` element."""

    tag: str
    platform: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[Secret, ...] = ()


def from_service(build: Build, image: ServiceImage) -> tuple[BuildRequest, list[str]]:
    """The request for a service's ``build``, and warnings about what has no effect here."""
    request = BuildRequest(
        context=build.context or ".",
        dockerfile=build.dockerfile,
        inline=build.dockerfile_inline,
        args=dict(build.args),
        target=build.target,
        tags=(image.tag, *build.tags),
        labels=dict(build.labels),
        no_cache=build.no_cache,
        no_cache_stages=build.no_cache_filter,
        pull=build.pull,
        platform=_platform(build, image),
        network=build.network,
        extra_hosts=build.extra_hosts,
        secrets=image.secrets,
        ssh=build.ssh,
        contexts=dict(build.additional_contexts),
        shm_size=build.shm_size,
        ulimits={name: (limit.soft, limit.hard) for name, limit in build.ulimits.items()},
        privileged=build.privileged,
        environ=image.environ,
        name=image.tag,
    )
    unused = {
        "cache_from": build.cache_from,
        "cache_to": build.cache_to,
        "provenance": build.provenance,
        "sbom": build.sbom,
        "isolation": build.isolation,
        "entitlements": build.entitlements,
    }
    return request, [
        f"build.{name} has no effect: builds are local" for name, value in unused.items() if value
    ]


def _platform(build: Build, image: ServiceImage) -> str:
    if image.platform:
        return image.platform
    if len(build.platforms) > 1:
        raise UnsupportedError(
            f"{image.tag}: one build makes an image for one platform, not for {', '.join(build.platforms)}",
            hint="set the service's platform",
        )
    return build.platforms[0] if build.platforms else ""
