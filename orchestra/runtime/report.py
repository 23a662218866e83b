"""What ``orchestra-runtime`` has to say: errors and warnings, into the file of ``--log`` and on standard error.

Under containerd and Podman the standard error of ``create`` and ``exec`` is the container's own. A warning
is no output of the container, so it goes into the log alone where there is one; an error goes to both.
"""

from __future__ import annotations

import json
import os
import time
from argparse import Namespace
from collections.abc import Callable

Warn = Callable[[str], None]


def write(path: str, form: str, level: str, text: str) -> bool:
    """One entry; ``form`` is ``text`` or ``json``. False when it could not be written."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if form == "json":
        line = json.dumps({"level": level, "msg": text, "time": now})
    else:
        line = f'time="{now}" level={level} msg={json.dumps(text)}'
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError:
        return False
    return True


def warner(options: Namespace) -> Warn:
    """Where the warnings of this command go."""

    def warn(text: str) -> None:
        if not options.log or not write(options.log, options.log_format, "warning", text):
            os.write(2, f"orchestra-runtime: warning: {text}\n".encode())

    return warn
