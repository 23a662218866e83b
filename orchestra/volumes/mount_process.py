"""The helper that makes one mount of the host and ends: a mount(2) that waits for a server cannot be left
otherwise than by killing its process. Standard library and ``orchestra.linux`` only.

It reads JSON: ``place``, ``type``, ``source``, ``words`` (of the option ``o``) and ``versions`` (of NFS,
one after the other until the server speaks one). It prints JSON: ``{}``, or ``{"error": text, "errno": number}``.
"""

from __future__ import annotations

import errno
import json
import os
import sys
from typing import Any

from orchestra.linux import constants as C
from orchestra.linux import mount as mounting

ATTRIBUTES = {
    "nosuid": C.MOUNT_ATTR_NOSUID,
    "nodev": C.MOUNT_ATTR_NODEV,
    "noexec": C.MOUNT_ATTR_NOEXEC,
    "noatime": C.MOUNT_ATTR_NOATIME,
    "nodiratime": C.MOUNT_ATTR_NODIRATIME,
    "strictatime": C.MOUNT_ATTR_STRICTATIME,
    "nosymfollow": C.MOUNT_ATTR_NOSYMFOLLOW,
}
PLAIN = ("defaults", "rw", "suid", "dev", "exec", "atime", "diratime", "relatime", "symfollow")
# what a server, or a kernel built without it, answers to a version of the protocol that it does not speak
_OTHER_VERSION = (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP)


def parameters(source: str, words: list[str]) -> tuple[list[tuple[str, str | None]], int]:
    """The filesystem's parameters and the attributes of the mount."""
    found: list[tuple[str, str | None]] = [("source", source)]
    attributes = 0
    for word in words:
        if word in ATTRIBUTES:
            attributes |= ATTRIBUTES[word]
        elif word not in PLAIN:
            key, equals, value = word.partition("=")
            found.append((key, value if equals else None))
            if word == "ro":
                attributes |= C.MOUNT_ATTR_RDONLY
    return found, attributes


def mount(request: dict[str, Any]) -> None:
    versions = list(request.get("versions") or [""])
    for index, version in enumerate(versions):
        words = [*request["words"], f"vers={version}"] if version else request["words"]
        options, attributes = parameters(request["source"], words)
        try:
            tree = mounting.filesystem(request["type"], options, attributes)
            break
        except OSError as problem:
            if problem.errno not in _OTHER_VERSION or index == len(versions) - 1:
                raise
    target = os.open(request["place"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    mounting.attach(tree, target)


def main() -> None:
    answer: dict[str, Any] = {}
    try:
        mount(json.loads(sys.stdin.buffer.read()))
    except OSError as problem:
        answer = {"error": problem.strerror or str(problem), "errno": problem.errno or 0}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)
