"""Option words of mounts as the configuration has them."""

from __future__ import annotations

import pytest

from orchestra.runtime import mounts


@pytest.mark.parametrize(("words", "expected"), [
    (["lowerdir=/a:/b,upperdir=/u", "index=off"], ["lowerdir=/a:/b", "upperdir=/u", "index=off"]),
    (["lowerdir=/a\\,b:/c,upperdir=/u"], ["lowerdir=/a\\,b:/c", "upperdir=/u"]),
    (["upperdir=/x\\,y\\,z"], ["upperdir=/x\\,y\\,z"]),
])  # fmt: skip
def test_options_of_an_overlay_in_one_word_are_taken_apart(words: list[str], expected: list[str]) -> None:
    [mount] = mounts.parse([{"destination": "/", "type": "overlay", "source": "overlay", "options": words}], "/b")
    assert mount.words.data == expected
