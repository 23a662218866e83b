"""The settings file: dockerd's keys, each fault told with the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra.engine import settings
from orchestra.errors import OrchestraError
from orchestra.network.ipam import DEFAULT_POOLS, Pool


def test_address_pools(tmp_path: Path) -> None:
    place = tmp_path / "daemon.json"
    assert settings.pools(place) == DEFAULT_POOLS
    place.write_text('{"default-address-pools": [{"base": "10.9.0.0/16", "size": 24}, {"base": "fd00::/48", "size": 64}]}')
    assert settings.pools(place) == (Pool("10.9.0.0/16", 24), Pool("fd00::/48", 64))


@pytest.mark.parametrize("text", [
    '{"default-address-pools": 3}', '{"default-address-pools": []}', '{"default-address-pools": [{"base": "10.9.0.0/16"}]}',
    '{"default-address-pools": [{"base": "10.9.0.0/16", "size": 8}]}', '{"default-address-pools": [{"base": "x", "size": 24}]}',
    '{"default-address-pools": [7]}', '{"default-address-pools": [{"base": "10.9.0.0/16", "size": "a"}]}', "{", "[]", '{"dns": []}',
])  # fmt: skip
def test_what_is_wrong_is_told_with_the_file(tmp_path: Path, text: str) -> None:
    place = tmp_path / "daemon.json"
    place.write_text(text)
    with pytest.raises(OrchestraError) as caught:
        settings.pools(place)
    assert caught.value.location and caught.value.location.file == str(place)


def test_a_change_holds_for_what_comes_next(tmp_path: Path) -> None:
    place = tmp_path / "daemon.json"
    for text, wanted in (("{}", {}), ('{"userns-remap": "auto"}', {"userns-remap": "auto"}), ("{}", {})):
        other = tmp_path / "new"
        other.write_text(text)
        other.rename(place)
        assert settings.read(place) == (place, wanted)
    place.unlink()
    assert settings.read(place) == (place, {})
