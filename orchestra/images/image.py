"""One image of the store as a frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestra.images.digest import Digest, chain_ids, is_digest, short
from orchestra.images.manifest import Descriptor, Manifest, Platform, load_object, parse_manifest
from orchestra.images.problems import ManifestError
from orchestra.images.reference import Reference
from orchestra.images.refs import Entry

if TYPE_CHECKING:
    from orchestra.images.store import ImageStore


@dataclass(frozen=True, slots=True)
class Image:
    """``config`` is the OCI image configuration as it is stored; ``config["config"]`` (see
    :attr:`settings`) has Env, Cmd, Entrypoint, User, WorkingDir, Volumes, ExposedPorts, Healthcheck,
    StopSignal, Labels. ``references`` are canonical names, sorted."""

    entry: Entry
    manifest: Manifest
    config: Mapping[str, Any]
    references: tuple[str, ...] = ()

    @property
    def id(self) -> Digest:
        """The digest of the configuration."""
        return self.entry.config

    @property
    def digest(self) -> Digest:
        """The digest of the manifest."""
        return self.entry.manifest.digest

    @property
    def descriptor(self) -> Descriptor:
        return self.entry.manifest

    @property
    def short_id(self) -> str:
        return short(self.id)

    @property
    def settings(self) -> Mapping[str, Any]:
        return self.config.get("config") or {}

    @property
    def tags(self) -> list[str]:
        """Familiar names with a tag."""
        return [Reference.parse(name).familiar() for name in self.references if "@" not in name]

    @property
    def repo_digests(self) -> list[str]:
        """Familiar names by digest."""
        return [Reference.parse(name).familiar() for name in self.references if "@" in name]

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        return tuple(Digest(text) for text in self.config["rootfs"]["diff_ids"])

    @property
    def chain_ids(self) -> list[Digest]:
        return chain_ids(self.diff_ids)

    @property
    def size(self) -> int:
        """Bytes of the layers as they are stored (compressed, for a pulled image)."""
        return self.manifest.size

    @property
    def created(self) -> str:
        """RFC 3339 text, or empty."""
        return str(self.config.get("created") or "")

    @property
    def architecture(self) -> str:
        return str(self.config.get("architecture") or "")

    @property
    def os(self) -> str:
        return str(self.config.get("os") or "linux")

    @property
    def platform(self) -> Platform:
        return Platform(self.os, self.architecture, str(self.config.get("variant") or ""))

    def named(self, names: tuple[str, ...]) -> Image:
        return self if names == self.references else replace(self, references=names)


def make_image(store: ImageStore, entry: Entry, manifest: Manifest | None = None) -> Image:
    """The image of ``entry``, its manifest and configuration read from the store and checked."""
    if manifest is None:
        parsed = parse_manifest(store.blobs.read(entry.manifest.digest), entry.manifest.media_type)
        if not isinstance(parsed, Manifest):
            raise ManifestError(f"{short(entry.manifest.digest)} is an index and no image")
        manifest = parsed
    config = parse_config(store.blobs.read(entry.config), f"configuration {short(entry.config)}")
    if len(config["rootfs"]["diff_ids"]) != len(manifest.layers):
        raise ManifestError(
            f"image {short(entry.config)} has {len(manifest.layers)} layers"
            f" but {len(config['rootfs']['diff_ids'])} diff ids"
        )
    return Image(entry, manifest, config, entry.names)


def parse_config(data: bytes, what: str = "image configuration") -> dict[str, Any]:
    """An OCI image configuration from hostile bytes; only what is used is checked."""
    config = load_object(data, what)
    rootfs = config.get("rootfs")
    if not isinstance(rootfs, dict) or not isinstance(rootfs.get("diff_ids") or [], list):
        raise ManifestError(f"{what} has no rootfs.diff_ids", hint="this is an artifact and no image")
    rootfs["diff_ids"] = rootfs.get("diff_ids") or []
    for diff_id in rootfs["diff_ids"]:
        if not is_digest(diff_id):
            raise ManifestError(f"{what} has an invalid diff id {str(diff_id)[:100]!r}")
    settings = config.get("config")
    if settings is not None and not isinstance(settings, dict):
        raise ManifestError(f"{what}: config is not an object")
    _check_settings(settings or {}, what)
    return config


def _check_settings(settings: Mapping[str, Any], what: str) -> None:
    for key in ("Env", "Cmd", "Entrypoint", "OnBuild", "Shell"):
        value = settings.get(key)
        if value is not None and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            raise ManifestError(f"{what}: {key} is not a list of texts")
    for key in ("Labels", "Volumes", "ExposedPorts", "Healthcheck"):
        if settings.get(key) is not None and not isinstance(settings[key], dict):
            raise ManifestError(f"{what}: {key} is not an object")
    for key in ("User", "WorkingDir", "StopSignal"):
        if settings.get(key) is not None and not isinstance(settings[key], str):
            raise ManifestError(f"{what}: {key} is not a text")
