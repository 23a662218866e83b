"""Short mount texts as long entries: ``[SOURCE:]TARGET[:OPTIONS]``."""

from __future__ import annotations

import posixpath

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

IDMAP = "x-orchestra-idmap"
"""Of ``bind``: what the short word ``idmap`` becomes (the long form is ``x-idmap: true``). docker compose passes
over the word, so ``config`` does not show it."""
_PROPAGATION = {"private", "rprivate", "shared", "rshared", "slave", "rslave"}


def parse(text: str) -> dict[str, Any]:
    """The long entry; raises ValueError with the words to show. Sources stay as written."""
    if not text:
        raise ValueError("an empty volume")
    if len(text) <= 2:
        return {"type": "volume", "target": text}
    parts = _sections(text)
    if len(parts) == 1:
        return {"type": "volume", "target": clean(parts[0]), "volume": {}}
    source, target = parts[0], parts[1]
    entry: dict[str, Any] = {"type": "bind" if is_path(source) else "volume", "source": source}
    entry["target"] = clean(target)
    if len(parts) > 2:
        _options(entry, parts[2])
    if entry["type"] == "bind":
        entry.setdefault("bind", {})["create_host_path"] = True
    else:
        entry.setdefault("volume", {})
    return entry


def _sections(text: str) -> list[str]:
    parts: list[str] = []
    word = ""
    for char in text:
        if char == ":" and _is_drive(word):
            word += char  # a Windows drive letter
        elif char == ":":
            if not word:
                raise ValueError(f"an empty section between colons in volume {text!r}")
            if len(parts) == 2:
                raise ValueError(f"too many colons in volume {text!r}")
            parts.append(word)
            word = ""
        else:
            word += char
    if not word:
        raise ValueError(f"an empty section between colons in volume {text!r}")
    parts.append(word)
    return parts


def _is_drive(word: str) -> bool:
    return len(word) == 1 and word.isascii() and word.isalpha()


def is_path(source: str) -> bool:
    """Whether a source is a host path and not the name of a volume."""
    if source[:1] in (".", "/", "~"):
        return True
    return len(source) > 1 and source[1] == ":" and source[0].isalpha() and source[0].isascii()


def clean(target: str) -> str:
    """``/a/../b`` as ``/b``; anything that is not an absolute path is left alone."""
    if not target:
        return target
    if ":" in target[:2]:
        return target
    found = posixpath.normpath(target)
    return found[1:] if found.startswith("//") else found


def _options(entry: dict[str, Any], text: str) -> None:
    for option in text.split(","):
        if option in ("ro", "rw"):
            if option == "ro":
                entry["read_only"] = True
            else:
                entry.pop("read_only", None)
        elif option in ("z", "Z"):
            entry.setdefault("bind", {})["selinux"] = option
        elif option == "nocopy":
            entry.setdefault("volume", {})["nocopy"] = True
        elif option in _PROPAGATION:
            entry.setdefault("bind", {})["propagation"] = option
        elif option == "idmap" and entry["type"] == "bind":
            entry.setdefault("bind", {})[IDMAP] = True
