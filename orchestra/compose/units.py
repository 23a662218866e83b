"""Durations, byte sizes, numbers and command lines as the Compose Specification writes them.

Pure functions; each raises :class:`ValueError` whose text can be shown to the user.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
    "w": 604_800_000_000_000,
}
# Texts, compiled when first used: most files need few of them.
_DURATION = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d|w)"
_SIZE = r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+|[0-9]+\.) ?([A-Za-z]*)"
_POWERS = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_LARGEST = 2**63 - 1


def _scaled(digits: str, unit: int) -> Any:
    """An exact product; the decimal module is loaded for fractions only."""
    if digits.isdigit():
        return int(digits) * unit
    from decimal import Decimal

    return Decimal(digits) * unit


def duration(text: str) -> int:
    """``1h30m``, ``1.5s`` or ``2d`` in nanoseconds; a bare number has no unit and is refused."""
    sign, rest = 1, text
    if rest[:1] in ("+", "-"):
        sign, rest = (-1 if rest[0] == "-" else 1), rest[1:]
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(f"invalid duration {text!r}")
    if len(rest) > 200:
        raise ValueError("invalid duration: it is too long")
    pattern = re.compile(_DURATION)
    total: Any = 0
    place = 0
    while place < len(rest):
        match = pattern.match(rest, place)
        if match is None:
            if re.fullmatch(r"[0-9.]+", rest[place:]):
                raise ValueError(f"missing unit in duration {text!r}")
            raise ValueError(f"invalid duration {text!r}")
        total += _scaled(match[1], _NANOSECONDS[match[2]])
        place = match.end()
    if total > _LARGEST:
        raise ValueError(f"duration {text!r} is too long")
    return sign * int(total)


def duration_text(nanoseconds: int) -> str:
    """The canonical form: ``1m30s``, ``24h0m0s``, ``1.5s``, ``250ms``."""
    if nanoseconds == 0:
        return "0s"
    sign, rest = ("-", -nanoseconds) if nanoseconds < 0 else ("", nanoseconds)
    if rest < 1_000_000_000:
        for unit, size in (("ms", 1_000_000), ("µs", 1_000), ("ns", 1)):
            if rest >= size:
                return f"{sign}{_fraction(rest, size)}{unit}"
    minutes, remainder = divmod(rest, 60_000_000_000)
    seconds = f"{_fraction(remainder, 1_000_000_000)}s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    return f"{sign}{minutes}m{seconds}" if minutes else f"{sign}{seconds}"


def _fraction(value: int, size: int) -> str:
    whole, part = divmod(value, size)
    if not part:
        return str(whole)
    return f"{whole}.{str(part).zfill(len(str(size)) - 1).rstrip('0')}"


def size(value: object) -> int:
    """Bytes of ``1.5g``, ``64MiB`` or a whole number (units are powers of 1024; below zero is unlimited)."""
    if isinstance(value, bool):
        raise ValueError(f"invalid size: {value!r}")
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if value != value or abs(value) > _LARGEST:
            raise ValueError(f"invalid size: {value!r}")
        return int(value)
    text = str(value)
    if re.fullmatch(r"-[0-9]{1,18}", text):
        return int(text)
    match = re.fullmatch(_SIZE, text) if len(text) < 200 else None
    if match is None:
        raise ValueError(f"invalid size: {text!r}")
    suffix = match[2].lower()
    rest = suffix[1:]
    if suffix[:1] not in _POWERS or rest not in ("", "b", "ib") or (suffix[:1] == "b" and rest):
        raise ValueError(f"invalid size {text!r}: unknown unit {match[2]!r}")
    result = int(_scaled(match[1], 1024 ** _POWERS[suffix[:1]]))
    if result > _LARGEST:
        raise ValueError(f"size {text!r} is too large")
    return result


def whole(value: object) -> int:
    """A whole number, also written as text or as ``3.0``."""
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is no whole number")
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if value == value and abs(value) < 1e300 and value == int(value):
            return int(value)
        raise ValueError(f"{value!r} is no whole number")
    text = str(value)
    if not re.fullmatch(r"[-+]?[0-9]{1,19}", text):
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


def natural(value: object) -> int:
    """A whole number that is not negative."""
    found = whole(value)
    if found < 0:
        raise ValueError(f"{found} is negative")
    return found


def number(value: object) -> float | int:
    """Any number, also written as text."""
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is no number")
    if isinstance(value, int | float):
        return tidy(value)
    text = str(value)
    if len(text) > 100 or not re.fullmatch(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?", text):
        raise ValueError(f"{text!r} is no number")
    return tidy(float(text))


def tidy(value: float | int) -> float | int:
    """``2.0`` as ``2``."""
    if isinstance(value, float) and value == value and abs(value) < 1e15 and value == int(value):
        return int(value)
    return value


def truth(value: object) -> bool:
    """true or false, also written as text."""
    if isinstance(value, bool):
        return value
    word = str(value).lower()
    if word in ("true", "yes", "on", "y", "1", "t"):
        return True
    if word in ("false", "no", "off", "n", "0", "f", ""):
        return False
    raise ValueError(f"{value!r} is no boolean")


def mode(value: object) -> int:
    """File permission bits: a number, or octal text."""
    if isinstance(value, bool):
        raise ValueError(f"{value!r} is no file mode")
    if isinstance(value, int | float):
        return whole(value)
    text = str(value)
    digits = text[2:] if text[:2].lower() == "0o" else text
    if not re.fullmatch(r"[0-7]{1,11}", digits):
        raise ValueError(f"{text!r} is no octal file mode")
    return int(digits, 8)


def count(value: object) -> int:
    """A number of devices: ``all`` is -1."""
    if isinstance(value, str) and value.lower() == "all":
        return -1
    try:
        return whole(value)
    except ValueError:
        raise ValueError(f"{value!r} is neither a number nor 'all'") from None


_SPECIAL = frozenset("'\"\\ \t\r\n")


def split_command(text: str) -> list[str]:
    """Words of a command line: quotes and backslashes as in a shell, nothing is expanded."""
    if not any(char in _SPECIAL for char in text):
        return [text] if text else []
    words: list[str] = []
    word: list[str] = []
    started, quote, place = False, "", 0
    while place < len(text):
        char = text[place]
        if quote == "'":
            if char == "'":
                quote = ""
            else:
                word.append(char)
        elif char == "\\":
            place += 1
            if place == len(text):
                raise ValueError("a backslash ends the command line")
            if quote == '"' and text[place] not in '"\\$`\n':
                word.append("\\")
            word.append(text[place])
            started = True
        elif quote:
            if char == '"':
                quote = ""
            else:
                word.append(char)
        elif char in "'\"":
            quote, started = char, True
        elif char in " \t\r\n":
            if started or word:
                words.append("".join(word))
            word, started = [], False
        else:
            word.append(char)
        place += 1
    if quote:
        raise ValueError(f"the command line lacks a closing {quote}")
    if started or word:
        words.append("".join(word))
    return words
