"""Container output on the terminal: prefixes padded to the longest name, rotating colours."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from orchestra.cli.render.words import rfc3339

COLORS = ("36", "33", "32", "35", "34", "36;1", "33;1", "32;1", "35;1", "34;1")


class LogPrinter:
    """Writes whole lines; several threads may call it. stdout lines go to ``out``, stderr lines to
    ``err``. When nobody takes them any more (``logs -f | head``), the rest is dropped and ``failed`` tells why:
    ``check`` raises it in the thread that ends the command."""

    def __init__(
        self,
        out: BinaryIO,
        err: BinaryIO,
        *,
        color: bool = False,
        prefix: bool = True,
        timestamps: bool = False,
    ) -> None:
        self.out, self.err = out, err
        self.color, self.prefix, self.timestamps = color, prefix, timestamps
        self.failed: OSError | None = None
        self._lock = threading.Lock()
        self._names: dict[str, int] = {}
        self._width = 0
        self._open: dict[tuple[str, str], bytes] = {}

    def register(self, name: str) -> None:
        """Make room for a name (its colour is given by order of registration)."""
        with self._lock:
            if name not in self._names:
                self._names[name] = len(self._names)
                self._width = max(self._width, len(name))

    def line(self, name: str, stamp: float, stream: str, text: str, partial: bool = False) -> None:
        """One line of ``name``; parts of a line are put together before they are shown."""
        self.register(name)
        data = text.encode("utf-8", "surrogateescape")
        key = (name, stream)
        with self._lock:
            data = self._open.pop(key, b"") + data
            if partial and len(data) < 1 << 16:
                self._open[key] = data
                return
            target = self.err if stream == "stderr" else self.out
            self._write(target, self._head(name) + self._stamp(stamp) + data + b"\n")

    def flush(self, name: str | None = None) -> None:
        """Print what is left of lines without an end."""
        with self._lock:
            for key in [key for key in self._open if name is None or key[0] == name]:
                data = self._open.pop(key)
                target = self.err if key[1] == "stderr" else self.out
                self._write(target, self._head(key[0]) + data + b"\n")

    def status(self, name: str, text: str) -> None:
        """A line of ours about a container: ``web-1 exited with code 0``."""
        self.register(name)
        with self._lock:
            self._write(self.out, f"{name} {text}\n".encode())

    def check(self) -> None:
        """Raises OSError when the output could not be written."""
        if self.failed is not None:
            raise self.failed

    def _write(self, target: BinaryIO, data: bytes) -> None:
        if self.failed is not None:
            return
        try:
            target.write(data)
            target.flush()
        except OSError as error:
            self.failed = error

    def _head(self, name: str) -> bytes:
        if not self.prefix:
            return b""
        head = f"{name:<{self._width}}  | "
        if self.color:
            head = f"\033[{COLORS[self._names[name] % len(COLORS)]}m{head}\033[0m"
        return head.encode()

    def _stamp(self, stamp: float) -> bytes:
        return rfc3339(stamp).encode() + b" " if self.timestamps else b""


def printer(context: Any, args: Any) -> LogPrinter:
    """The printer for a verb's --no-color, --no-log-prefix and --timestamps."""
    context.stdout.flush()
    return LogPrinter(
        sys.stdout.buffer,
        sys.stderr.buffer,
        color=context.color(context.stdout) and not getattr(args, "no_color", False),
        prefix=not getattr(args, "no_log_prefix", False),
        timestamps=bool(getattr(args, "timestamps", False)),
    )


def short_name(info: dict[str, Any]) -> str:
    """The container's name without its project, as log prefixes show it."""
    head = f"{info['project']}-"
    name: str = info["name"]
    return name.removeprefix(head) if info["project"] else name


OnData = Callable[[dict[str, Any]], None]
