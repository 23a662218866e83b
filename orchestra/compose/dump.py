"""The canonical document as YAML or JSON text, in docker compose's order and layout.

Literal ``$`` is doubled, so that the text loads back to the same model. The YAML emitter writes exactly
the plain data that :func:`document` makes (maps with text keys, lists, scalars).
"""

from __future__ import annotations

import json
import re

from orchestra.compose import canon
from orchestra.compose.normalize_volumes import IDMAP
from orchestra.compose.tree import mapping, plain, scalar_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestra.compose.loader import Loaded

SECTIONS = ("services", "networks", "volumes", "secrets", "configs", "models")


def document(loaded: Loaded, *, strict: bool = False) -> dict[str, Any]:
    """The active part of a loaded project as plain data; ``strict`` is the JSON form."""
    tree, context = loaded.tree, loaded.context
    if context.no_interpolate:
        data = plain(tree)
        services = data.get("services") or {}
        data["services"] = {
            name: _hidden(item) for name, item in services.items() if name not in context.disabled
        }
        found: dict[str, Any] = _sorted(data)
        return found
    made: dict[str, Any] = {"name": context.project_name, "services": {}}
    for section in SECTIONS:
        items = mapping(tree, section)
        for key in sorted(items.items) if items else ():
            if section == "services" and key in context.disabled:
                continue
            data = plain(items.items[key]) if items else None
            made.setdefault(section, {})[key] = (
                _hidden(canon.service(data or {}, strict=strict))
                if section == "services"
                else canon.resource(section, data, strict=strict)
            )
    made.update({key: plain(tree.items[key]) for key in sorted(tree.items) if key.startswith("x-")})
    return dict(sorted(made.items())) if strict else made


def _hidden(service: Any) -> Any:
    """Without what docker compose does not keep of short texts. ``service`` is changed."""
    volumes = service.get("volumes") if isinstance(service, dict) else None
    for mount in volumes if isinstance(volumes, list) else ():
        if isinstance(mount, dict) and isinstance(mount.get("bind"), dict):
            mount["bind"].pop(IDMAP, None)
    return service


def _sorted(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _sorted(data[key]) for key in sorted(data)}
    return [_sorted(item) for item in data] if isinstance(data, list) else data


_HTML = {"&": "\\u0026", "<": "\\u003c", ">": "\\u003e", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def to_json(loaded: Loaded) -> str:
    """Docker compose's JSON, its escapes of ``&``, ``<`` and ``>`` included."""
    text = json.dumps(_final(loaded, strict=True), indent=2, ensure_ascii=False)
    for char, escape in _HTML.items():
        text = text.replace(char, escape)
    return text + "\n"


def to_yaml(loaded: Loaded) -> str:
    return yaml_text(_final(loaded, strict=False))


def _final(loaded: Loaded, *, strict: bool) -> dict[str, Any]:
    data = document(loaded, strict=strict)
    if not loaded.context.no_interpolate:
        data = {key: _doubled(value) for key, value in data.items()}
    return data


def _doubled(data: Any) -> Any:
    """Every ``$`` of a value as ``$$``; keys are never interpolated, so they stay."""
    if isinstance(data, str):
        return data.replace("$", "$$") if "$" in data else data
    if isinstance(data, dict):
        return {key: _doubled(value) for key, value in data.items()}
    return [_doubled(value) for value in data] if isinstance(data, list) else data


# -- YAML --------------------------------------------------------------------------------------


def yaml_text(data: dict[str, Any]) -> str:
    """Plain data as block-style YAML with an indentation of two."""
    lines: list[str] = []
    if not data:
        return "{}\n"
    _map(data, 0, lines, "")
    return "\n".join(lines) + "\n"


def _map(data: dict[str, Any], depth: int, lines: list[str], first: str) -> None:
    """``first`` is what stands before the first key (the dash of a list item)."""
    indent = "  " * depth
    if _UNUSUAL.search("\n".join(data)):
        data = _natural(data)
    for key, value in data.items():
        if key.startswith("x-"):
            value = _sorted(value)
        lead = first if first else indent
        first = ""
        _entry(f"{lead}{_key(key)}:", value, depth, lines)


_UNUSUAL = re.compile("[A-Z0-9]")
_LETTERS_LAST = {code: code + 0x100 for code in (*range(65, 91), *range(97, 123))}
_PARTS = re.compile("[0-9]+|.", re.DOTALL)


def _natural(data: dict[str, Any]) -> dict[str, Any]:
    """A sorted map in the order of docker compose's YAML: numbers by value, letters last. (Maps in an
    order of their own, those of attributes, stay.)"""
    keys = list(data)
    if keys != sorted(keys):
        return data
    keys.sort(key=_natural_key if any(map(str.isdigit, "".join(keys))) else _letters_last)
    return {key: data[key] for key in keys}


def _letters_last(key: str) -> str:
    return key.translate(_LETTERS_LAST)


def _natural_key(key: str) -> list[tuple[int, int, int]]:
    """Other characters before numbers before letters; behind a digit, letters and the end come first."""
    found: list[tuple[int, int, int]] = []
    behind_digit = False
    for part in _PARTS.findall(key):
        if part.isdecimal() and part.isascii():
            found.append((1, int(part[:300]), len(part)))
            behind_digit = True
        else:
            letter = part.isalpha()
            found.append(((-1 if behind_digit else 2) if letter else 0, ord(part), 0))
            behind_digit = False
    return found


def _entry(head: str, value: Any, depth: int, lines: list[str]) -> None:
    if isinstance(value, dict) and value:
        lines.append(head)
        _map(value, depth + 1, lines, "")
    elif isinstance(value, list) and value:
        lines.append(head)
        _list(value, depth + 1, lines, "")
    else:
        lines.append(f"{head} {_scalar(value, depth)}")


def _list(items: list[Any], depth: int, lines: list[str], first: str) -> None:
    indent = "  " * depth
    for item in items:
        lead = f"{first or indent}- "
        first = ""
        if isinstance(item, dict) and item:
            _map(item, depth + 1, lines, lead)
        elif isinstance(item, list) and item:
            _list(item, depth + 1, lines, lead)
        else:
            lines.append(lead + _scalar(item, depth))


def _key(text: str) -> str:
    if len(text) > 1000 or "\n" in text:
        return _double(text)
    return _text(text)


def _scalar(value: Any, depth: int) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        if "\n" in value and _literal_fits(value):
            return _literal(value, depth)
        return _text(value)
    if isinstance(value, float) and value != value:
        return ".nan"
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return ".inf" if value > 0 else "-.inf"
    if isinstance(value, dict):
        return "{}"
    return "[]" if isinstance(value, list) else scalar_text(value)


_INDICATORS = frozenset("#,[]{}&*!|>'\"%@`")
_OLD_WORDS = frozenset(
    (
        "y",
        "Y",
        "yes",
        "Yes",
        "YES",
        "on",
        "On",
        "ON",
        "n",
        "N",
        "no",
        "No",
        "NO",
        "off",
        "Off",
        "OFF",
        "<<",
        "=",
        "true",
        "True",
        "TRUE",
        "false",
        "False",
        "FALSE",
        "null",
        "Null",
        "NULL",
        "~",
        "",
        ".nan",
        ".NaN",
        ".NAN",
        ".inf",
        ".Inf",
        ".INF",
        "+.inf",
        "+.Inf",
        "+.INF",
        "-.inf",
        "-.Inf",
        "-.INF",
    )
)
_NUMBER = re.compile(
    r"[-+]?(?:0b[01]+|0o?[0-7]+|0x[0-9a-fA-F]+|[0-9][0-9]*|(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[0-9][0-9]*(?::[0-5]?[0-9])+(?:\.[0-9]*)?)",
    re.IGNORECASE,
)
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt\s].*)?", re.DOTALL)
_PRINTABLE = re.compile(r"[\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd]*")


def _is_other_type(text: str) -> bool:
    """Whether a reader might take the plain text for something else."""
    if text in _OLD_WORDS:
        return True
    if text[0] in "0123456789+-.":
        bare = text.replace("_", "")
        return bool(_NUMBER.fullmatch(bare) or _DATE.fullmatch(text))
    return False


def _text(text: str) -> str:
    if _is_other_type(text):
        return _double(text)
    if "\n" in text or not _PRINTABLE.fullmatch(text):
        return _double(text)
    if _plain_fits(text):
        return text
    return "'" + text.replace("'", "''") + "'"


def _plain_fits(text: str) -> bool:
    first = text[0]
    if first in _INDICATORS or text[0] == " " or text[-1] == " " or text.startswith(("---", "...")):
        return False
    if first in "-?:" and (len(text) == 1 or text[1] == " "):
        return False
    return not (text.endswith(":") or ": " in text or " #" in text)


def _double(text: str) -> str:
    """JSON's escapes are YAML's, but for what JSON writes as two surrogates."""
    parts = ['"']
    for char in text:
        escaped = _ESCAPES.get(char)
        if escaped:
            parts.append(escaped)
        elif _PRINTABLE.fullmatch(char) and char not in "\n\x85":
            parts.append(char)
        else:
            code = ord(char)
            parts.append(
                f"\\x{code:02X}" if code < 0x100 else f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"
            )
    parts.append('"')
    return "".join(parts)


_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\n": "\\n",
    "\t": "\\t",
    "\r": "\\r",
    "\0": "\\0",
    "\a": "\\a",
    "\b": "\\b",
    "\x1b": "\\e",
    "\v": "\\v",
    "\f": "\\f",
    "\x85": "\\N",
    "\xa0": "\\_",
    "\u2028": "\\L",
    "\u2029": "\\P",
}


def _literal_fits(text: str) -> bool:
    """Whether ``|`` keeps the text; blanks at its end and unprintable characters need quotes."""
    return (
        _PRINTABLE.fullmatch(text) is not None
        and not text.endswith(" ")
        and "\n" in text.rstrip("\n") + "\n"
        and text.strip("\n ") != ""
    )


def _literal(text: str, depth: int) -> str:
    body = text.rstrip("\n")
    trailing = len(text) - len(body)
    chomp = "-" if trailing == 0 else "" if trailing == 1 else "+"
    hint = "2" if text[0] in " \n" else ""
    indent = "  " * (depth + 1)
    lines = [f"{indent}{line}" if line else "" for line in body.split("\n")]
    lines += [""] * (trailing - 1)
    return f"|{hint}{chomp}\n" + "\n".join(lines)
