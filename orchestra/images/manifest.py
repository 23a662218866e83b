"""Manifests and indexes as frozen values: parsed from hostile bytes, made from values.

Docker v2 schema 2 and OCI are read alike; schema 1 is refused. What a registry sends is checked here
(types, digests, sizes, counts); afterwards nobody sees a ``dict``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestra.errors import UnsupportedError
from orchestra.images import mediatype
from orchestra.images.digest import Digest, parse_digest
from orchestra.images.problems import ManifestError

MANIFEST_LIMIT = 4 << 20
"""Bytes of a manifest or index (what registries accept as well)."""
LAYER_LIMIT = 2000
_SIZE_LIMIT = 1 << 50

_ARCHITECTURES = {
    "x86_64": ("amd64", ""), "amd64": ("amd64", ""), "aarch64": ("arm64", ""), "arm64": ("arm64", ""),
    "armv7l": ("arm", "v7"), "armv6l": ("arm", "v6"), "armhf": ("arm", "v7"), "i386": ("386", ""),
    "i686": ("386", ""), "ppc64le": ("ppc64le", ""), "s390x": ("s390x", ""), "riscv64": ("riscv64", ""),
    "x86-64": ("amd64", ""), "armel": ("arm", "v6"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Platform:
    """``os/architecture[/variant]``."""

    os: str = "linux"
    architecture: str = "amd64"
    variant: str = ""
    os_version: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        parts = text.strip().lower().split("/")
        if not 1 <= len(parts) <= 3 or not all(parts):
            raise ManifestError(f"invalid platform {text!r}", hint="expected os/architecture[/variant]")
        if len(parts) == 1:
            if parts[0] in ("linux", "windows", "darwin", "freebsd"):
                return cls(parts[0], cls.host().architecture, "")
            parts = ["linux", parts[0]]
        architecture, variant = _ARCHITECTURES.get(parts[1], (parts[1], ""))
        return cls(parts[0], architecture, parts[2] if len(parts) == 3 else variant)

    @classmethod
    def host(cls) -> Platform:
        architecture, variant = _ARCHITECTURES.get(os.uname().machine, (os.uname().machine, ""))
        return cls("linux", architecture, variant)

    def accepts(self, offered: Platform) -> int:
        """How well ``offered`` suits: 0 not at all, more is better. arm runs lower variants too."""
        if (self.os, self.architecture) != (offered.os, offered.architecture):
            return 0
        mine, theirs = _variant(self), _variant(offered)
        if mine == theirs:
            return 100
        if self.architecture == "arm" and mine and theirs and theirs < mine:
            return 50 + theirs
        if self.architecture == "amd64" and theirs > mine:
            return 0
        return 10 if not self.variant or not offered.variant else 0

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def to_dict(self) -> dict[str, str]:
        data = {"architecture": self.architecture, "os": self.os}
        if self.variant:
            data["variant"] = self.variant
        if self.os_version:
            data["os.version"] = self.os_version
        return data


def _variant(platform: Platform) -> int:
    default = {"arm64": "8", "amd64": "1"}.get(platform.architecture, "0")
    digits = platform.variant.lstrip("v") or default
    return int(digits) if digits.isdigit() else 0


@dataclass(frozen=True, slots=True)
class Descriptor:
    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Platform | None = None

    def to_dict(self) -> dict[str, Any]:
        data: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.urls:
            data["urls"] = list(self.urls)
        if self.annotations:
            data["annotations"] = dict(sorted(self.annotations.items()))
        if self.platform:
            data["platform"] = self.platform.to_dict()
        return data

    @classmethod
    def from_dict(cls, data: object, what: str = "descriptor") -> Descriptor:
        if not isinstance(data, dict):
            raise ManifestError(f"{what} is not an object")
        size, media_type = data.get("size"), data.get("mediaType")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < _SIZE_LIMIT:
            raise ManifestError(f"{what} has an invalid size {str(size)[:40]}")
        if not isinstance(media_type, str) or not media_type:
            raise ManifestError(f"{what} has no media type")
        urls = data.get("urls") or ()
        if not isinstance(urls, list | tuple):
            raise ManifestError(f"{what} has invalid urls")
        platform = data.get("platform")
        return cls(
            media_type,
            parse_digest(data.get("digest"), f"digest in {what}"),
            size,
            tuple(str(url) for url in urls),
            _annotations(data.get("annotations"), what),
            _platform(platform) if isinstance(platform, dict) else None,
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image of one platform."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""

    def to_bytes(self) -> bytes:
        data: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": self.config.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
        }
        if self.annotations:
            data["annotations"] = dict(sorted(self.annotations.items()))
        return canonical_json(data)

    @property
    def is_docker(self) -> bool:
        return self.media_type == mediatype.DOCKER_MANIFEST

    @property
    def size(self) -> int:
        """Bytes of the compressed layers and the configuration."""
        return self.config.size + sum(layer.size for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Index:
    """A choice of manifests by platform."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        data: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "manifests": [entry.to_dict() for entry in self.manifests],
        }
        if self.annotations:
            data["annotations"] = dict(sorted(self.annotations.items()))
        return canonical_json(data)

    def platforms(self) -> list[Platform]:
        offered = [entry.platform for entry in self.manifests if entry.platform]
        return [platform for platform in offered if platform.os != "unknown"]

    def select(self, platform: Platform | None = None, what: str = "image") -> Descriptor:
        """The manifest for ``platform`` (default: this machine's)."""
        wanted = platform or Platform.host()
        best: tuple[int, Descriptor] | None = None
        for entry in self.manifests:
            score = wanted.accepts(entry.platform) if entry.platform else 1
            if score and (best is None or score > best[0]):
                best = (score, entry)
        if best is None:
            raise ManifestError(
                f"no manifest of {what} is for platform {wanted}",
                details=tuple(f"there is {platform}" for platform in self.platforms()[:20]),
                hint="choose one of them with --platform",
            )
        return best[1]


def canonical_json(data: object) -> bytes:
    """Stable bytes of JSON data (no spaces, order kept)."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()


def load_object(data: bytes, what: str) -> dict[str, Any]:
    """JSON bytes that must be an object."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{what} is not JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise ManifestError(f"{what} is not a JSON object")
    return value


def parse_manifest(data: bytes, media_type: str = "", what: str = "manifest") -> Manifest | Index:
    """``media_type`` is what the transport said (``Content-Type``); what the document says wins, and a
    contradiction of both kinds is refused."""
    if len(data) > MANIFEST_LIMIT:
        raise ManifestError(f"{what} has more than {MANIFEST_LIMIT} bytes")
    value = load_object(data, what)
    kind = _kind(value, media_type.partition(";")[0].strip(), what)
    if kind in mediatype.INDEXES:
        if "layers" in value:
            raise ManifestError(f"{what} is an index and an image at once")
        entries = _list(value, "manifests", what)
        parsed = tuple(Descriptor.from_dict(entry, f"entry of {what}") for entry in entries)
        return Index(kind, parsed, _annotations(value.get("annotations"), what))
    if "manifests" in value:
        raise ManifestError(f"{what} is an index and an image at once")
    layers = _list(value, "layers", what)
    return Manifest(
        kind,
        Descriptor.from_dict(value.get("config"), f"configuration of {what}"),
        tuple(Descriptor.from_dict(layer, f"layer of {what}") for layer in layers),
        _annotations(value.get("annotations"), what),
        str(value.get("artifactType") or ""),
    )


def _kind(value: dict[str, Any], transport: str, what: str) -> str:
    schema1 = (mediatype.DOCKER_SCHEMA1, mediatype.DOCKER_SCHEMA1_SIGNED)
    if value.get("schemaVersion") == 1 or transport in schema1:
        raise UnsupportedError(
            f"{what} is a Docker schema 1 manifest", hint="push the image again with a program of this decade"
        )
    if value.get("schemaVersion") != 2:
        raise ManifestError(f"{what} has no schemaVersion 2")
    known = mediatype.INDEXES | mediatype.MANIFESTS
    written = value.get("mediaType")
    if written is not None and (not isinstance(written, str) or written not in known):
        raise ManifestError(f"{what} has the unknown media type {str(written)[:100]!r}")
    if written:
        return str(written)
    if transport in known:
        return transport
    return mediatype.OCI_INDEX if "manifests" in value else mediatype.OCI_MANIFEST


def _list(value: dict[str, Any], key: str, what: str) -> list[Any]:
    found = value.get(key)
    if not isinstance(found, list):
        raise ManifestError(f"{what} has no list of {key}")
    if len(found) > LAYER_LIMIT:
        raise ManifestError(f"{what} has more than {LAYER_LIMIT} {key}")
    return found


def _annotations(value: object, what: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ManifestError(f"annotations of {what} are not an object")
    return {str(key): str(text) for key, text in value.items()}


def _platform(value: dict[str, Any]) -> Platform:
    def text(key: str) -> str:
        found = value.get(key)
        return found if isinstance(found, str) else ""

    return Platform(text("os"), text("architecture"), text("variant"), text("os.version"))
