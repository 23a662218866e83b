"""Times, ages, sizes and states in the words docker uses."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from orchestra.errors import OrchestraError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def ago(seconds: float) -> str:
    """``5 minutes``, ``About an hour`` … (docker's HumanDuration)."""
    steps = int(seconds)
    if steps < 1:
        return "Less than a second"
    if steps == 1:
        return "1 second"
    if steps < 60:
        return f"{steps} seconds"
    minutes = steps // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    days = int(seconds // 86400)
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    if days < 730:
        return f"{days // 30} months"
    return f"{days // 365} years"


def status(info: Mapping[str, Any], now: float | None = None) -> str:
    """The STATUS column: ``Up 5 minutes (healthy)``, ``Exited (1) 3 seconds ago``, ``Created``."""
    now = time.time() if now is None else now
    state = info["state"]
    if state in ("running", "paused"):
        text = f"Up {ago(max(0.0, now - info['started']))}"
        if state == "paused":
            return f"{text} (Paused)"
        if info["health"] == "starting":
            return f"{text} (health: starting)"
        return f"{text} ({info['health']})" if info["health"] else text
    if state == "restarting":
        return f"Restarting ({info['exit_code']}) {ago(max(0.0, now - info['finished']))} ago"
    if state == "exited":
        oom = ", OOM killed" if info.get("oom_killed") else ""
        return f"Exited ({info['exit_code']}{oom}) {ago(max(0.0, now - info['finished']))} ago"
    return str(state).capitalize()


def ports(info: Mapping[str, Any], *, exposed: bool = False) -> str:
    """The PORTS column: ``0.0.0.0:8080->80/tcp, [::]:8080->80/tcp``."""
    found = []
    for url, target, published, protocol in info["publishers"]:
        if published:
            host = f"[{url}]" if ":" in url else url or "0.0.0.0"
            found.append(f"{host}:{published}->{target}/{protocol}")
        else:
            found.append(f"{target}/{protocol}")
    return ", ".join(found)


def command(info: Mapping[str, Any], *, full: bool = False) -> str:
    """The COMMAND column, quoted and cut to 20 characters unless ``full``."""
    text = " ".join(info["command"]).replace("\n", " ")
    if not full and len(text) > 20:
        text = text[:19] + "…"
    return f'"{text}"'


def size(count: float) -> str:
    """Decimal units as docker prints them: ``12.3MB``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f}B" if unit == "B" else f"{count:.3g}{unit}"
        count /= 1000
    return ""


def binary_size(count: float) -> str:
    """Binary units: ``12.3MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.0f}B" if unit == "B" else f"{count:.4g}{unit}"
        count /= 1024
    return ""


def rfc3339(seconds: float) -> str:
    """``2026-01-02T03:04:05.123456789Z``."""
    whole = int(seconds)
    nanos = round((seconds - whole) * 1e9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{nanos:09d}Z"


def local_stamp(seconds: float) -> str:
    """``2026-01-02 03:04:05 +0000 UTC``."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))


def duration(text: str) -> float:
    """Seconds of ``1m30s``, ``90``, ``1.5h``. Raises OrchestraError."""
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise OrchestraError(f"invalid duration {text!r}", hint="write for example 90s, 1m30s or 2h")
    return float(sum(float(number) * UNITS[unit] for number, unit in parts))


def moment(text: str, now: float | None = None) -> float:
    """Unix seconds of a time stamp (RFC 3339, unix seconds) or of a duration ago (``42m``)."""
    if re.fullmatch(r"\d{9,}(\.\d+)?", text):
        return float(text)
    if re.match(r"\d{4}-\d\d-\d\d", text):
        from datetime import datetime

        cleaned = re.sub(r"(\.\d{6})\d+", r"\1", text.replace("Z", "+00:00"))
        try:
            return datetime.fromisoformat(cleaned).timestamp()
        except ValueError:
            raise OrchestraError(
                f"invalid time {text!r}", hint="write for example 2026-01-02T03:04:05Z or 42m"
            ) from None
    return (time.time() if now is None else now) - duration(text)


def split_image(name: str) -> tuple[str, str]:
    """Repository and tag as the user wrote them."""
    base, _, _digest = name.partition("@")
    head, colon, tag = base.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (base, "latest")
