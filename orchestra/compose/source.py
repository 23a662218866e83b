"""Files and environment of a project: which files, which directory, which variables, which name.

Reads files, never the process: working directory and environment come with the options. Files are
bounded by :data:`MAX_BYTES`; what cannot be read is a located problem.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping

from orchestra.compose import dotenv
from orchestra.compose.diagnostics import Problems
from orchestra.compose.interpolate import Lookup
from orchestra.compose.options import LoadOptions
from orchestra.compose.tree import Path
from orchestra.errors import Location
from orchestra.record import field, record, shape

MAX_BYTES = 100_000_000
NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDES = (
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
)
TRUE = frozenset({"1", "t", "T", "true", "True", "TRUE"})
KEPT = ("shell", "parent")  # variables of these no env file replaces
_REMOTE = re.compile(r"(oci|https?|ssh|git)://|git@|github\.com/")


@record
class Source:
    """A compose file: its absolute ``path`` (``-`` for standard input), the name shown, the text."""

    path: str
    shown: str
    text: str


@shape
class Surroundings:
    """What is known before any compose file is read. ``origins``: variable → where it was set, the
    winner first."""

    working_dir: str
    files: tuple[str, ...]
    environment: dict[str, str]
    origins: dict[str, tuple[str, ...]] = field(default_factory=dict)
    env_files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()


def shown_name(path: str, cwd: str) -> str:
    """The path as messages show it: relative when it lies below ``cwd``."""
    if cwd != "/" and path.startswith(cwd.rstrip("/") + "/"):
        return path[len(cwd.rstrip("/")) + 1 :]
    return path


def join(base: str, path: str, home: str = "") -> str:
    """``path`` below ``base`` unless absolute, cleaned; ``~`` is ``home``."""
    if home and (path == "~" or path.startswith("~/")):
        path = home + path[1:]
    return os.path.normpath(os.path.join(base, path))


def read_text(
    path: str,
    problems: Problems,
    what: str,
    referrer: Location | None = None,
    where: Path = (),
    limit: int = MAX_BYTES,
) -> str:
    """The text of a file, or a located problem raised at the place that names it."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(limit + 1)
    except (OSError, ValueError) as error:
        raise problems.fail(f"{what} {path}: {_reason(error)}", referrer, where) from None
    if len(data) > limit:
        raise problems.fail(f"{what} {path}: larger than {limit // 1_000_000} MB", referrer, where)
    return decode(data, path, problems, what)


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, OSError):
        if error.errno == errno.ENOENT:
            return "not found"
        if error.errno == errno.ELOOP:
            return "too many levels of symbolic links"
        return (error.strerror or str(error)).lower()
    return "no valid file name"


def decode(data: bytes, path: str, problems: Problems, what: str) -> str:
    """UTF-8 (a byte order mark is dropped) or UTF-16 with a mark."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise problems.fail(f"{what} is no UTF-8 text", Location(path, line, column)) from None


def read_source(
    path: str,
    options: LoadOptions,
    problems: Problems,
    *,
    what: str = "compose file",
    referrer: Location | None = None,
    where: Path = (),
) -> Source:
    """A compose file; ``-`` is the text given as standard input."""
    if path == "-":
        data = options.stdin if options.stdin is not None else ""
        if isinstance(data, bytes):
            data = decode(data, "-", problems, what)
        if len(data) > MAX_BYTES:
            raise problems.fail(f"{what} on standard input: larger than {MAX_BYTES // 1_000_000} MB")
        problems.sources.setdefault("-", data)
        return Source("-", "-", data)
    if _REMOTE.match(path):
        raise problems.fail(
            f"{what} {path}: remote files are not supported",
            referrer,
            where,
            hint="fetch it yourself and name the local file",
        )
    text = read_text(path, problems, what, referrer, where)
    shown = shown_name(path, options.cwd)
    problems.sources.setdefault(shown, text)
    return Source(path, shown, text)


def is_remote(path: str) -> bool:
    return _REMOTE.match(path) is not None


# -- where the project is ----------------------------------------------------------------------


def surroundings(options: LoadOptions, problems: Problems) -> Surroundings:
    """Files, directory, environment and profiles, by flags, variables and ``.env``."""
    found = Surroundings("", (), dict(options.environ))
    found.origins = dict.fromkeys(found.environment, ("shell",))
    directory = join(options.cwd, options.project_directory) if options.project_directory else ""
    files = tuple(path if path == "-" else _given(options.cwd, path) for path in options.files)
    named = _env_files(options)
    for name in named:
        add_env_file(found.environment, found.origins, name, options, problems)
    found.env_files = named
    if not named:
        _default_env(found, directory or _folder(files) or options.cwd, options, problems)
    if not files:
        files = _from_variable(found.environment, options.cwd)
    if not files:
        files = _search(directory or options.cwd, options, problems)
    found.files = files
    found.working_dir = directory or _folder(files) or options.cwd
    if not named:
        _default_env(found, found.working_dir, options, problems)
    found.profiles = options.profiles or tuple(
        word.strip() for word in found.environment.get("COMPOSE_PROFILES", "").split(",") if word.strip()
    )
    return found


def _given(cwd: str, path: str) -> str:
    return path if is_remote(path) else join(cwd, path)


def _folder(files: tuple[str, ...]) -> str:
    return next((os.path.dirname(path) for path in files if path != "-" and not is_remote(path)), "")


def _env_files(options: LoadOptions) -> tuple[str, ...]:
    named = options.env_files or tuple(
        word.strip() for word in options.environ.get("COMPOSE_ENV_FILES", "").split(",") if word.strip()
    )
    return tuple(join(options.cwd, path) for path in named)


def _default_env(found: Surroundings, folder: str, options: LoadOptions, problems: Problems) -> None:
    """The ``.env`` of ``folder``; variables known already keep their value."""
    if options.environ.get("COMPOSE_DISABLE_ENV_FILE", "") in TRUE:
        return
    path = os.path.join(folder, ".env")
    if path in found.env_files or not os.path.exists(path) or os.path.isdir(path):
        return
    add_env_file(found.environment, found.origins, path, options, problems, later_wins=False)
    found.env_files = (*found.env_files, path)


def add_env_file(
    environment: dict[str, str],
    origins: dict[str, tuple[str, ...]],
    path: str,
    options: LoadOptions,
    problems: Problems,
    *,
    later_wins: bool = True,
    referrer: Location | None = None,
    where: Path = (),
) -> None:
    """Read an env file into ``environment``: the shell's variables stay, other files' are replaced
    when ``later_wins``."""
    text = read_text(path, problems, "env file", referrer, where)
    shown = shown_name(path, options.cwd)
    problems.sources.setdefault(shown, text)

    def fixed(name: str) -> str | None:
        """What the file's own keys give way to: all known, or what files do not replace."""
        known = origins.get(name, ())
        return environment.get(name) if not later_wins or (known and known[0] in KEPT) else None

    for name, (value, line) in parse_env(text, shown, fixed, problems, earlier=environment.get).items():
        place = f"{shown}:{line}"
        known = origins.get(name, ())
        if not known or (later_wins and known[0] not in KEPT):
            environment[name] = value
            origins[name] = (place, *known)
        else:
            origins[name] = (*known, place)


def parse_env(
    text: str,
    shown: str,
    lookup: Lookup,
    problems: Problems,
    raw: bool = False,
    earlier: Lookup | None = None,
) -> dict[str, tuple[str, int]]:
    """The grammar of :mod:`~orchestra.compose.dotenv`, its errors and warnings located."""

    def missing(name: str, line: int) -> None:
        problems.warn(
            f'the "{name}" variable is not set, defaulting to a blank string', Location(shown, line)
        )

    try:
        if not raw:
            return dotenv.parse(text, lookup, missing, earlier)
        return dotenv.parse_raw(text, lambda name: _either(name, lookup, earlier))
    except dotenv.DotenvError as error:
        raise problems.fail(error.message, Location(shown, error.line)) from None


def _from_variable(environment: Mapping[str, str], cwd: str) -> tuple[str, ...]:
    text = environment.get("COMPOSE_FILE", "")
    if not text:
        return ()
    separator = environment.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
    return tuple(path if path == "-" else _given(cwd, path) for path in text.split(separator) if path)


def _search(folder: str, options: LoadOptions, problems: Problems) -> tuple[str, ...]:
    """The first folder upwards with a compose file, and the override beside it."""
    start = folder
    if not os.path.isdir(folder):
        raise problems.fail(f"project directory {folder}: not found")
    place = ""
    while place != folder:
        place, folder = folder, os.path.dirname(folder)
        candidates = [name for name in NAMES if os.path.isfile(os.path.join(place, name))]
        if not candidates:
            continue
        if len(candidates) > 1:
            problems.warn(
                f"several compose files found: {', '.join(candidates)}; using {candidates[0]}",
                Location(shown_name(os.path.join(place, candidates[0]), options.cwd)),
            )
        chosen = [os.path.join(place, candidates[0])]
        overrides = [name for name in OVERRIDES if os.path.isfile(os.path.join(place, name))]
        if len(overrides) > 1:
            problems.warn(
                f"several override files found: {', '.join(overrides)}; using {overrides[0]}",
                Location(shown_name(os.path.join(place, overrides[0]), options.cwd)),
            )
        return tuple(chosen + [os.path.join(place, name) for name in overrides[:1]])
    raise problems.fail(
        "no compose file found",
        Location(start),
        hint="looked for compose.yaml, compose.yml, docker-compose.yml and docker-compose.yaml here and in "
        "every parent folder; name one with -f",
    )


# -- the name ----------------------------------------------------------------------------------


def normal_name(text: str) -> str:
    """Lower case, illegal characters dropped."""
    return re.sub(r"[^a-z0-9_-]", "", text.lower()).lstrip("_-")


def checked_name(text: str, whence: str, problems: Problems) -> str:
    """A name given by flag or variable: must comply already."""
    if text != normal_name(text) or not text:
        raise problems.fail(
            f"invalid project name {text!r} ({whence}): must consist only of lowercase alphanumeric "
            "characters, hyphens and underscores, and start with a letter or number",
            hint=f"try {normal_name(text)!r}" if normal_name(text) else None,
        )
    return text


def _either(name: str, lookup: Lookup, earlier: Lookup | None) -> str | None:
    value = lookup(name)
    return earlier(name) if value is None and earlier is not None else value
