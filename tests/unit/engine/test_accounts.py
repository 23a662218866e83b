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
