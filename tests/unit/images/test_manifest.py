from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.errors import OrchestraError
from orchestra.images import mediatype
from orchestra.images.digest import chain_ids, digest_of, parse_digest
from orchestra.images.image import parse_config
from orchestra.images.manifest import Descriptor, Index, Manifest, Platform, parse_manifest

GOOD = "sha256:" + "0" * 64


def manifest(**changes: Any) -> bytes:
    data = {
        "schemaVersion": 2,
        "mediaType": mediatype.OCI_MANIFEST,
        "config": {"mediaType": mediatype.OCI_CONFIG, "digest": GOOD, "size": 3},
        "layers": [{"mediaType": mediatype.OCI_LAYER_GZIP, "digest": GOOD, "size": 5}],
        **changes,
    }
    return json.dumps(data).encode()


def test_round_trip() -> None:
    parsed = parse_manifest(manifest())
    assert isinstance(parsed, Manifest)
    assert parsed.size == 8
    assert parse_manifest(parsed.to_bytes()) == parsed


def test_docker_types() -> None:
    parsed = parse_manifest(manifest(mediaType=mediatype.DOCKER_MANIFEST))
    assert isinstance(parsed, Manifest) and parsed.is_docker


def test_the_transport_tells_the_type() -> None:
    data = json.loads(manifest())
    del data["mediaType"]
    parsed = parse_manifest(json.dumps(data).encode(), mediatype.DOCKER_MANIFEST + "; charset=utf-8")
    assert parsed.media_type == mediatype.DOCKER_MANIFEST


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", b"\xff\xfe", b"{" * 100_000, manifest(schemaVersion=1), manifest(mediaType="text/html"),
        manifest(layers={}), manifest(layers=None), manifest(config=None), manifest(config=[]),
        manifest(layers=[{"mediaType": "x", "digest": "sha256:zz", "size": 1}]),
        manifest(layers=[{"mediaType": "x", "digest": GOOD, "size": -1}]),
        manifest(layers=[{"mediaType": "x", "digest": GOOD, "size": 1.5}]),
        manifest(layers=[{"mediaType": "x", "digest": GOOD, "size": True}]),
        manifest(layers=[{"mediaType": "x", "digest": GOOD, "size": 1 << 60}]),
        manifest(layers=[{"mediaType": "x", "digest": GOOD, "size": 1}] * 3000),
        manifest(manifests=[]), manifest(annotations=[]), b" " * (5 << 20),
    ],
    ids=lambda data: data[:30].decode(errors="replace"),
)  # fmt: skip
def test_malformed(data: bytes) -> None:
    with pytest.raises(OrchestraError):
        parse_manifest(data)


@given(st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "manifests", "digest", "size",
                             "platform", "annotations", "urls"]), inner, max_size=5,
        ),
    ), max_leaves=20,
))  # fmt: skip
def test_any_json_is_taken_or_refused(value: Any) -> None:
    if isinstance(value, dict):
        value = {"schemaVersion": 2, **value}
    try:
        parse_manifest(json.dumps(value).encode())
    except OrchestraError:
        pass


def index(*platforms: Platform | None) -> Index:
    entries = [
        Descriptor(mediatype.OCI_MANIFEST, digest_of(str(n).encode()), n, platform=platform)
        for n, platform in enumerate(platforms)
    ]
    return Index(mediatype.OCI_INDEX, tuple(entries))


def test_platform_choice() -> None:
    arm = Platform("linux", "arm", "v7")
    choices = index(
        Platform("linux", "amd64"), Platform("linux", "arm", "v6"), Platform("linux", "arm64", "v8"),
        Platform("windows", "amd64"), Platform("unknown", "unknown"),
    )  # fmt: skip
    assert choices.select(Platform("linux", "amd64")).size == 0
    assert choices.select(arm).size == 1
    assert choices.select(Platform("linux", "arm64")).size == 2
    with pytest.raises(OrchestraError) as error:
        choices.select(Platform("linux", "s390x"))
    assert "there is linux/arm/v6" in error.value.details
    assert index(Platform("linux", "arm", "v6"), arm).select(arm).size == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [("linux/amd64", "linux/amd64"), ("linux/x86_64", "linux/amd64"), ("arm64", "linux/arm64"),
     ("linux/arm/v7", "linux/arm/v7"), ("Linux/aarch64", "linux/arm64")],
)  # fmt: skip
def test_platform_text(text: str, shown: str) -> None:
    assert str(Platform.parse(text)) == shown


def test_chain_ids() -> None:
    first, second = digest_of(b"1"), digest_of(b"2")
    assert chain_ids([first, second]) == [first, digest_of(f"{first} {second}".encode())]
    assert chain_ids([]) == []


@pytest.mark.parametrize("text", ["", "sha256:", "sha256:" + "A" * 64, "md5:" + "0" * 32, None, 5, "0" * 64])
def test_no_digest(text: object) -> None:
    with pytest.raises(OrchestraError):
        parse_digest(text)


@pytest.mark.parametrize("change", [
    {"rootfs": None}, {"rootfs": {"diff_ids": "x"}}, {"rootfs": {"diff_ids": ["x"]}}, {"config": []},
    {"config": {"Env": "x"}}, {"config": {"Cmd": [1]}}, {"config": {"Labels": []}}, {"config": {"User": 0}},
])  # fmt: skip
def test_malformed_configurations(change: dict[str, Any]) -> None:
    data = {"rootfs": {"type": "layers", "diff_ids": []}, **change}
    with pytest.raises(OrchestraError):
        parse_config(json.dumps(data).encode())


def test_layers_that_are_refused() -> None:
    for media_type in (mediatype.DOCKER_FOREIGN + ".gzip", mediatype.OCI_FOREIGN, "text/plain",
                       mediatype.OCI_LAYER + "+encrypted"):  # fmt: skip
        with pytest.raises(OrchestraError):
            mediatype.layer_compression(media_type)
