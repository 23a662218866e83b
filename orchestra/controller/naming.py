"""Names and labels of a project's containers, networks and volumes: docker compose's."""

from __future__ import annotations

import json
from collections.abc import Mapping

from orchestra import __version__, labels
from orchestra.compose.hash import aspects, network_hash, service_hash, volume_hash
from orchestra.compose.model import Network, Project, Service, Volume

ASPECTS = "io.orchestra.aspects"
"""Label with a digest for each attribute, so that a plan can say which one changed."""


def container_name(project: str, service: Service, number: int) -> str:
    """``container_name`` if the service has one, else ``<project>-<service>-<number>``."""
    return service.container_name or f"{project}-{service.name}-{number}"


def image_name(project: Project, service: Service) -> str:
    """The image a service runs: its own name, or ``<project>-<service>`` for a built one."""
    return service.image or f"{project.name}-{service.name}"


def container_labels(
    project: Project, service: Service, number: int, image_id: str, *, oneoff: bool = False
) -> dict[str, str]:
    """User's labels and the reserved ones (which win)."""
    depends = ",".join(
        f"{name}:{dep.condition}:{'true' if dep.restart else 'false'}"
        for name, dep in service.depends_on.items()
    )
    return {
        **service.labels,
        labels.PROJECT: project.name,
        labels.SERVICE: service.name,
        labels.NUMBER: str(number),
        labels.ONEOFF: "True" if oneoff else "False",
        labels.CONFIG_HASH: service_hash(service),
        labels.IMAGE: image_id,
        labels.WORKING_DIR: project.working_dir,
        labels.CONFIG_FILES: ",".join(project.files),
        labels.DEPENDS_ON: depends,
        labels.VERSION: __version__,
        ASPECTS: json.dumps(aspects(service), separators=(",", ":")),
        **({labels.ENVIRONMENT_FILE: ",".join(project.env_files)} if project.env_files else {}),
    }


def network_labels(project: Project, network: Network) -> Mapping[str, str]:
    return {
        **network.labels,
        labels.PROJECT: project.name,
        labels.NETWORK: network.key,
        labels.CONFIG_HASH: network_hash(network),
        labels.VERSION: __version__,
    }


def volume_labels(project: Project, volume: Volume) -> Mapping[str, str]:
    return {
        **volume.labels,
        labels.PROJECT: project.name,
        labels.VOLUME: volume.key,
        labels.CONFIG_HASH: volume_hash(volume),
        labels.VERSION: __version__,
    }


def visible_labels(all_labels: Mapping[str, str]) -> dict[str, str]:
    """Without those of our own that only the reconciler reads."""
    return {key: value for key, value in all_labels.items() if key != ASPECTS}
