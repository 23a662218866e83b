"""What loading is told (:class:`LoadOptions`) and what it carries along (:class:`LoadContext`).

Nothing here reads the process: environment and working directory are handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from orchestra.compose.diagnostics import Problem, Problems
from orchestra.record import field, record, replace, shape


@record
class LoadOptions:
    """``files``: ``-f`` words (``-`` reads ``stdin``); empty means COMPOSE_FILE or the search upwards
    from ``cwd``. ``profiles``/``env_files`` empty mean COMPOSE_PROFILES/COMPOSE_ENV_FILES.
    ``services`` selects these and their dependencies (and activates their profiles). ``warn`` gets
    every warning of a successful load, sorted by place."""

    files: tuple[str, ...] = ()
    project_name: str | None = None
    project_directory: str | None = None
    profiles: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    cwd: str = "/"
    stdin: str | bytes | None = None
    services: tuple[str, ...] = ()
    all_resources: bool = False
    no_normalize: bool = False
    no_path_resolution: bool = False
    no_consistency: bool = False
    no_env_resolution: bool = False
    no_interpolate: bool = False
    compatibility: bool = False
    no_dependencies: bool = False  # with ``services``: these alone (``--no-deps``)
    warn: Callable[[Problem], None] | None = None


@shape
class LoadContext:
    """The state of one load. ``working_dir`` is the base of relative paths: absolute for the project,
    but relative (to the project's) for a file reached by ``extends``; so join and clean, never make
    absolute. ``environment`` is for interpolation. ``variable_origins`` tells where each variable was
    set (``shell``, or file:line). ``problems`` also holds the warnings."""

    working_dir: str
    environment: Mapping[str, str]
    problems: Problems
    project_name: str = ""
    no_normalize: bool = False
    no_path_resolution: bool = False
    no_consistency: bool = False
    no_env_resolution: bool = False
    no_interpolate: bool = False
    compatibility: bool = False
    profiles: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()
    home: str = ""
    variable_origins: dict[str, tuple[str, ...]] = field(default_factory=dict)
    file_values: dict[tuple[str, str], str] = field(default_factory=dict)
    """(``secrets`` or ``configs``, key) → the value of its ``environment`` variable, resolved in the
    environment of the file it came from (an included one has its own)."""
    scopes: dict[str, LoadContext] = field(default_factory=dict)
    """Included file (as shown) → its context, whose variables may be others (shared by all contexts)."""
    disabled: dict[str, str] = field(default_factory=dict)
    """Service → why it is not active (``profile`` or ``selection``); filled before binding."""

    def at(self, working_dir: str) -> LoadContext:
        """The same context with another base of relative paths."""
        return replace(self, working_dir=working_dir)
