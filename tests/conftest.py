"""Fixtures of the whole suite."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.engine import Engine

for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_number) == signal.SIG_IGN:  # a caller in the background has them ignored
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture
def engine() -> Iterator[Engine]:
    """A private engine with the image ``busybox``; everything of it is gone afterwards."""
    from support.engine import engine as make

    with make() as made:
        yield made
