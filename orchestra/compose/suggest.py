"""Did you mean …? The nearest of the known words, if one is near enough."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word one slip away (case, a letter more, less or swapped, a separator), or None."""
    words = list(known)
    folded = _fold(word)
    for candidate in words:
        if _fold(candidate) == folded and candidate != word:
            return candidate
    letters = sorted(word)
    for candidate in words:
        if sorted(candidate) == letters and candidate != word:
            return candidate
    from difflib import get_close_matches

    close = get_close_matches(word[:100], words, 1, 0.72)
    return close[0] if close and close[0] != word else None


def hint(word: str, known: Iterable[str], *, otherwise: str | None = None) -> str | None:
    """``did you mean x?``, else ``otherwise``."""
    found = nearest(word, known)
    return f"did you mean {found}?" if found else otherwise


def _fold(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "").replace(".", "").rstrip("s")
