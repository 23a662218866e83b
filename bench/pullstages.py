"""One pull of an image in this process, with the time spent in each of its stages; JSON to stdout.

    python bench/pullstages.py ROOT REFERENCE

Run by bench/registry.py with the interpreter of the measured copy. The real code runs; what it calls of the
libraries is wrapped here, so that the product pays nothing. Times are wall time inside the wrapped calls, summed
over the threads, waiting for the interpreter's lock at their end included: stages overlap, so that together they
may be more than the whole.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

from orchestra.images import blobs, compress, digest, layer, tar
from orchestra.images.registry.transfer import pull
from orchestra.images.store import open_store
from orchestra.paths import Paths


class Clock:
    """Seconds and bytes by stage."""

    def __init__(self) -> None:
        self.found: dict[str, list[float]] = {}
        self.lock = threading.Lock()

    def add(self, stage: str, begin: float, size: int) -> None:
        spent = time.perf_counter() - begin
        with self.lock:
            entry = self.found.setdefault(stage, [0.0, 0.0])
            entry[0] += spent
            entry[1] += size


CLOCK = Clock()


class Wrapped:
    """Anything, with some of its names replaced."""

    def __init__(self, inner: Any, **replaced: Any) -> None:
        self.__dict__.update(replaced, inner=inner)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def timed(stage: str, function: Any, size: Any) -> Any:
    """``size`` tells the bytes from the result and the arguments."""

    def call(*arguments: Any, **named: Any) -> Any:
        begin = time.perf_counter()
        result = function(*arguments, **named)
        CLOCK.add(stage, begin, size(result, *arguments))
        return result

    return call


def instrument() -> None:
    http.client.HTTPResponse.read1 = timed("download", http.client.HTTPResponse.read1, lambda result, *_: len(result))  # type: ignore[method-assign]

    def unzip(*arguments: Any) -> Any:
        inner = zlib.decompressobj(*arguments)
        return Wrapped(inner, decompress=timed("decompress", inner.decompress, lambda result, *_: len(result)))

    compress.zlib = Wrapped(zlib, decompressobj=unzip)  # type: ignore[attr-defined]

    def new(*arguments: Any, **named: Any) -> Any:
        inner = hashlib.new(*arguments, **named)
        return Wrapped(inner, update=timed("hash", inner.update, lambda _, data: len(data)))

    digest.hashlib = Wrapped(hashlib, new=new)  # type: ignore[attr-defined]

    def fdopen(*arguments: Any, **named: Any) -> Any:
        inner = os.fdopen(*arguments, **named)
        return Wrapped(inner, write=timed("write the blob", inner.write, lambda result, *_: result))

    blobs.os = Wrapped(os, fdopen=fdopen)  # type: ignore[attr-defined]
    write = timed("write the files", os.write, lambda result, *_: result)
    pwrite = timed("write the files", os.pwrite, lambda result, *_: result)
    tar.os = Wrapped(os, write=write, pwrite=pwrite)  # type: ignore[attr-defined]
    names = ("open", "close", "mkdir", "symlink", "link", "mknod", "chown", "fchown", "chmod", "fchmod", "utime", "setxattr", "readlink")
    made = {name: timed("create and dress the files", getattr(os, name), lambda *_: 0) for name in names}
    layer.os = Wrapped(os, **made)  # type: ignore[attr-defined]


def main() -> None:
    root, reference = sys.argv[1:]
    store = open_store(Paths(f"{root}/lib", f"{root}/run", None))
    Path(root, "run").mkdir(parents=True, exist_ok=True)
    instrument()
    begin = time.perf_counter()
    pull(store, reference, environ={"HOME": "/nonexistent", "PATH": os.environ["PATH"]})
    print(json.dumps({"whole": time.perf_counter() - begin, "stages": CLOCK.found}))


if __name__ == "__main__":
    main()
