"""What there is of a project right now, collected once a round through the Backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestra.backend import Backend, ContainerInfo, NetworkInfo, VolumeInfo


@dataclass(frozen=True, slots=True)
class Observed:
    """``containers`` are the project's; ``networks`` and ``volumes`` everything on the machine, by
    name (external ones are looked up among them). ``images`` maps a service to its image's id."""

    containers: tuple[ContainerInfo, ...] = ()
    networks: Mapping[str, NetworkInfo] = field(default_factory=dict)
    volumes: Mapping[str, VolumeInfo] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)

    def of_service(self, name: str) -> list[ContainerInfo]:
        """The replicas of a service by number, one-off containers left out."""
        found = [c for c in self.containers if c.service == name and not c.oneoff]
        return sorted(found, key=lambda container: container.number)


def collect(backend: Backend, project: str, images: Mapping[str, str] | None = None) -> Observed:
    """Observe ``project`` through ``backend``."""
    return Observed(
        containers=tuple(backend.containers(project=project)),
        networks={network.name: network for network in backend.networks()},
        volumes={volume.name: volume for volume in backend.volumes()},
        images=dict(images or {}),
    )
