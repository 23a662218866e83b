"""Numbered schema changes. ``ALL[n]`` holds the statements that lead from version n to n + 1.

A migration that was ever released is never edited; a new one is appended.
"""

from __future__ import annotations

from orchestra.store.migrations.m0001_initial import STATEMENTS as _INITIAL

ALL: tuple[tuple[str, ...], ...] = (_INITIAL,)
