"""What every verb gets: streams, environment, paths, the daemon's client and the loaded project."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence

from orchestra.errors import OrchestraError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TextIO

    from orchestra.cli.client import Client
    from orchestra.cli.main import Globals
    from orchestra.compose.model import Project
    from orchestra.compose.options import LoadOptions
    from orchestra.events import Progress
    from orchestra.paths import Paths


NO_FILE = "no compose file found"


def unread(fd: int) -> bool:
    """Whether ``fd`` is a pipe or socket that nobody reads any more."""
    import select

    poll = select.poll()
    poll.register(fd, 0)
    return bool(poll.poll(0))


class Context:
    """One command's surroundings. ``options`` are the global options."""

    def __init__(
        self, options: Globals, environ: dict[str, str], cwd: str, stdout: TextIO, stderr: TextIO
    ) -> None:
        self.options, self.environ, self.cwd = options, environ, cwd
        self.stdout, self.stderr = stdout, stderr
        self._renderer: Any = None
        self._hushed: tuple[str, ...] = ()
        self._paths: Paths | None = None
        self._client: Client | None = None

    @classmethod
    def make(cls, options: Globals, environ: dict[str, str]) -> Context:
        try:
            cwd = os.getcwd()
        except FileNotFoundError as error:
            raise OrchestraError("the current directory does not exist any more") from error
        return cls(options, environ, cwd, sys.stdout, sys.stderr)

    def refresh(self) -> None:
        """After the options changed. Raises OrchestraError for a value that none of them takes."""
        self._paths = self._client = None
        self.ansi()
        if self.progress_kind() == "tty" and self.ansi() == "never":
            raise OrchestraError("--progress tty needs ANSI control sequences, --ansi never forbids them")
        self.parallel()
        if self.options.verbose:
            self.warn("--verbose has no effect; --debug shows tracebacks")

    @property
    def paths(self) -> Paths:
        """The engine's places. Made when asked for: verbs that only read files need none."""
        if self._paths is None:
            from orchestra.paths import Paths

            self._paths = Paths.from_environment(self.environ, root=self.options.root)
        return self._paths

    @property
    def client(self) -> Client:
        if self._client is None:
            from orchestra.cli.client import Client

            self._client = Client(self.paths, self.environ)
        return self._client

    # the project

    def load_options(self, services: Sequence[str] = (), **flags: Any) -> LoadOptions:
        """The global options as LoadOptions; ``flags`` are further fields of it."""
        from orchestra.compose.options import LoadOptions

        options = self.options
        stdin_text = None
        if "-" in options.file:
            stdin_text = sys.stdin.buffer.read()
        return LoadOptions(
            files=tuple(options.file),
            project_name=options.project_name,
            project_directory=options.project_directory,
            profiles=tuple(options.profile),
            env_files=tuple(options.env_file),
            environ=self.environ,
            cwd=self.cwd,
            services=tuple(services),
            all_resources=options.all_resources,
            compatibility=options.compatibility,
            stdin=stdin_text,
            **flags,
        )

    def load(self, services: Sequence[str] = (), **flags: Any) -> Project:
        """Load the project; its warnings are printed to standard error. Raises ComposeError."""
        from orchestra.compose import load

        return load(self.load_options(services, warn=self._warn_problem, **flags))

    def _warn_problem(self, problem: Any) -> None:
        self.warn(f"{problem.location}: {problem.message}" if problem.location else problem.message)

    def names(self) -> tuple[str, set[str] | None]:
        """The project's name and its services (active or not; None without a file): enough for the verbs
        that look, and much cheaper than the whole project."""
        from orchestra.compose.diagnostics import ComposeError
        from orchestra.compose.loader import load_full

        name = self.options.project_name or self.environ.get("COMPOSE_PROJECT_NAME") or ""
        try:
            loaded = load_full(self.load_options())
        except ComposeError as error:
            if NO_FILE in error.brief and name and not self.options.file:
                return name, None
            raise
        for warning in loaded.warnings:
            self._warn_problem(warning)
        services = loaded.tree.items.get("services")
        found = set(getattr(services, "items", ()))
        return loaded.context.project_name, found | set(loaded.context.disabled)

    def load_or_name(self, services: Sequence[str] = ()) -> tuple[str, Project | None]:
        """The project, or only its name when ``-p`` is given and there is no compose file."""
        from orchestra.compose.diagnostics import ComposeError

        name = self.options.project_name or self.environ.get("COMPOSE_PROJECT_NAME") or ""
        if name and not self.options.file and not self.environ.get("COMPOSE_FILE"):
            try:
                project = self.load(services)
            except ComposeError as error:
                if NO_FILE not in error.brief:
                    raise
                return name, None
            return project.name, project
        project = self.load(services)
        return project.name, project

    # output

    def truth(self, name: str) -> bool:
        """Whether an environment variable is a yes."""
        return self.environ.get(name, "").lower() in ("1", "t", "true", "y", "yes")

    def warn(self, text: str) -> None:
        try:
            kind = self.progress_kind()
        except OrchestraError:
            kind = "plain"
        if kind != "json":
            print(f"warning: {text}", file=self.stderr)
            return
        import json

        print(json.dumps({"level": "warning", "msg": text}), file=self.stderr)

    def report(self, error: OrchestraError) -> None:
        """An error, as the chosen progress format shows it (plain, when that itself is the error)."""
        try:
            kind, color = self.progress_kind(), self.color(self.stderr)
        except OrchestraError:
            kind, color = "plain", False
        if kind == "json":
            import json

            print(json.dumps({"error": True, "message": str(error), **error.to_dict()}), file=self.stderr)
            return
        rendered = getattr(error, "render", None)
        if rendered is not None:
            print(rendered(color=color), file=self.stderr)
        else:
            head = f"{error.location}: error: {error.brief}" if error.location else f"error: {error.brief}"
            print("\n".join([head, *(f"  {line}" for line in error.details)]), file=self.stderr)
        if error.hint and rendered is None:
            print(f"hint: {error.hint}", file=self.stderr)

    def ansi(self) -> str:
        chosen = (
            self.options.ansi
            or self.environ.get("COMPOSE_ANSI")
            or ("never" if self.options.no_ansi else "auto")
        )
        if chosen not in ("auto", "never", "always"):
            raise OrchestraError(f"invalid --ansi value {chosen}: must be never, always or auto")
        return chosen

    def color(self, stream: TextIO) -> bool:
        """Whether colours go to ``stream``: --ansi, NO_COLOR, TERM=dumb and whether it is a terminal."""
        chosen = self.ansi()
        if chosen != "auto":
            return chosen == "always"
        return stream.isatty() and not self.environ.get("NO_COLOR") and self.environ.get("TERM") != "dumb"

    def progress_kind(self) -> str:
        """auto resolved to tty or plain; tty, plain, json, quiet as asked."""
        kind = self.options.progress or self.environ.get("COMPOSE_PROGRESS") or "auto"
        if kind not in ("auto", "tty", "plain", "json", "quiet"):
            raise OrchestraError(
                f"unsupported --progress value {kind}: must be auto, tty, plain, json or quiet"
            )
        if kind == "auto":
            return "tty" if self.stderr.isatty() and self.color(self.stderr) else "plain"
        return kind

    def renderer(self) -> Any:
        """The progress renderer: an object with ``show(dict)`` and ``close()``."""
        if self._renderer is None:
            from orchestra.cli.render.progress import make

            stream = self.stdout if self.truth("COMPOSE_STATUS_STDOUT") else self.stderr
            self._renderer = make(
                self.progress_kind(),
                stream,
                dry_run=self.options.dry_run,
                hushed=self._hushed,
                color=self.color(stream),
            )
        return self._renderer

    def hush(self, args: Any) -> None:
        """``--quiet-pull``: no layers; ``--quiet-build`` (``watch --quiet``): no steps."""
        building = getattr(args, "quiet_build", False) or getattr(args, "quiet", False)
        layers = ("Layer ",) if getattr(args, "quiet_pull", False) else ()
        self._hushed = (*layers, *(("[",) if building else ()))

    def close_progress(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def progress_sink(self) -> Callable[[Progress], None]:
        """For work done in this process: a Sink that draws."""
        renderer = self.renderer()

        def sink(progress: Progress) -> None:
            renderer.show(progress.to_dict())

        return sink

    def call(
        self, op: str, args: dict[str, Any] | None = None, *, fds: Iterable[int] = (), start: bool = True
    ) -> Any:
        """Ask the daemon, drawing its progress."""
        renderer = self.renderer()
        try:
            return self.client.call(op, args, progress=renderer.show, fds=fds, start=start)
        finally:
            self.close_progress()

    def call_into_output(self, op: str, args: dict[str, Any]) -> Any:
        """An operation that writes to standard output itself. Raises BrokenPipeError when nobody reads it."""
        self.stdout.flush()
        try:
            return self.client.call(op, args, fds=[1])
        except OrchestraError:
            if unread(1):
                raise BrokenPipeError from None
            raise

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A table on standard output: by rich on a terminal, aligned text elsewhere."""
        from orchestra.cli.render.table import print_table

        print_table(
            self.stdout,
            columns,
            rows,
            pretty=self.stdout.isatty() and self.ansi() != "never" and self.environ.get("TERM") != "dumb",
            color=self.color(self.stdout),
        )

    def parallel(self) -> int:
        """The bound of concurrent operations; 0 is the default, a large number for -1."""
        text = self.options.parallel or self.environ.get("COMPOSE_PARALLEL_LIMIT") or "0"
        try:
            number = int(text)
        except ValueError:
            raise OrchestraError(f"--parallel must be a number, not {text}") from None
        return 64 if number < 0 else number
