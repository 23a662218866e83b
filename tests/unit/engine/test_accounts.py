"""Users and groups by the container's own files."""

from __future__ import annotations

import pytest

from orchestra.engine.accounts import Identity, resolve
from orchestra.errors import OrchestraError

FILES = {
    "/etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n#no:x:9:9::/:\nweb:x:33:34::/srv:/bin/false\nshort:x:5\n",
    "/etc/group": b"root:x:0:\nweb:x:34:\nlog:x:4:web,other\nbad\n",
}


def test_names_numbers_and_groups() -> None:
    assert resolve(FILES.get, "") == Identity(0, 0, (0,), "/root", "root")
    assert resolve(FILES.get, "web") == Identity(33, 34, (34, 4), "/srv", "web")
    assert resolve(FILES.get, "33") == Identity(33, 34, (34, 4), "/srv", "web")
    assert resolve(FILES.get, "web:log") == Identity(33, 4, (4,), "/srv", "web")
    assert resolve(FILES.get, "1000:2000") == Identity(1000, 2000, (2000,), "/", "")
    assert resolve(FILES.get, "web", ["99", "log"]).groups == (34, 4, 99)


def test_without_files() -> None:
    assert resolve({}.get, "") == Identity()
    assert resolve({}.get, "7") == Identity(7, 0, (0,), "/", "")


@pytest.mark.parametrize("user", ["nobody-here", "web:nogroup", "99999999999", "no"])
def test_unknown_ones_are_errors(user: str) -> None:
    with pytest.raises(OrchestraError):
        resolve(FILES.get, user)


@pytest.mark.parametrize("user", ["\u00b2", "\u0664", "9" * 5000, "odd", "1:\u00b2", "x:big", "member"])
def test_numbers_that_are_none(user: str) -> None:
    """An error, not a bug, whatever an image's files hold."""
    files = {
        "/etc/passwd": "odd:x:\u00b2:5::/:\nx:x:1:1::/:\nmember:x:2:2::/:\n".encode(),
        "/etc/group": "big:x:99999999999:member\nsup:x:\u00b2:member\n".encode(),
    }
    with pytest.raises(OrchestraError):
        resolve(files.get, user)


def test_lines_end_with_a_newline_only() -> None:
    files = {"/etc/passwd": b"x:x:1:1:a\x0bb\x1cc:/home/x:/bin/sh\n", "/etc/group": b""}
    assert resolve(files.get, "x").home == "/home/x"
