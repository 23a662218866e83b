"""What can go wrong in a build, as errors a user may see; most stand at a place of the Dockerfile."""

from __future__ import annotations

from orchestra.errors import OrchestraError


class BuildError(OrchestraError):
    """A build that cannot go on: the context, a step that failed."""


class DockerfileError(BuildError):
    """The Dockerfile is wrong at ``location``."""
