"""Bundles for tests of the runtime: a busybox root and a configuration with the defaults."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from orchestra.runtime import defaults

BUSYBOX = "/usr/bin/busybox"
_APPLETS = ("sh", "cat", "ls", "id", "echo", "true", "false", "sleep", "mount", "umount", "mkdir", "touch", "rm", "ln",
            "grep", "head", "hostname", "env", "pwd", "stat", "chmod", "chown", "mknod", "dd", "tty", "stty", "ps", "kill",
            "readlink", "test", "[", "ulimit", "nice", "su", "cp", "mv", "wc", "sort", "tr", "cut", "dmesg", "unshare", "nc",
            "ip", "sync", "chroot", "date", "uname", "seq", "trap", "printf", "od", "find", "df", "setsid", "timeout")


def make_root(place: Path) -> Path:
    """A root file system: one program, many names."""
    for name in ("bin", "dev", "proc", "sys", "tmp", "etc", "root", "home/user", "run", "var"):
        (place / name).mkdir(parents=True, exist_ok=True)
    (place / "tmp").chmod(0o1777)
    shutil.copy2(BUSYBOX, place / "bin/busybox")
    for applet in _APPLETS:
        if not (place / "bin" / applet).exists():
            os.symlink("busybox", place / "bin" / applet)
    (place / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n")
    (place / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")
    os.chown(place / "home/user", 1000, 1000)
    return place


def make_config(args: list[str], **process: Any) -> dict[str, Any]:
    """The defaults with a writable root and no terminal; ``process`` overrides of ``process``."""
    config = defaults.config(args)
    config["root"]["readonly"] = False
    config["process"].update({"terminal": False, **process})
    return config


def write(bundle: Path, config: dict[str, Any]) -> None:
    (bundle / "config.json").write_text(json.dumps(config))
