"""Images as files: ``save`` and ``load`` of docker-archives and OCI layouts, ``import`` of a root tar.

``save`` writes one tar that is both (as docker since 25 does): an OCI layout plus ``manifest.json``, so
docker, podman, skopeo and containerd read it; the format ``oci`` leaves the docker part out. ``load`` takes
either, compressed or not, from a stream or (OCI layout) a directory; every blob is verified.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from orchestra.errors import OrchestraError
from orchestra.images import mediatype, tar
from orchestra.images.commit import extend, store_layer
from orchestra.images.compress import chunks
from orchestra.images.config import Settings, history_step
from orchestra.images.digest import Digest, is_digest, short
from orchestra.images.image import parse_config
from orchestra.images.layer import clean
from orchestra.images.manifest import (
    Descriptor,
    Index,
    Manifest,
    Platform,
    canonical_json,
    parse_manifest,
)  # fmt: skip
from orchestra.images.problems import ImageError, InvalidReferenceError, LayerError
from orchestra.images.reference import Reference
from orchestra.images.refs import REF_NAME
from orchestra.images.tarwrite import Member, TarWriter

if TYPE_CHECKING:
    from orchestra.images.image import Image
    from orchestra.images.store import ImageStore

_CONTAINERD_NAME = "io.containerd.image.name"
_DOCUMENT_LIMIT = 16 << 20
_DOCUMENTS = (b"manifest.json", b"index.json", b"oci-layout", b"repositories")


# --- save ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Saved:
    image: Image
    names: list[Reference] = field(default_factory=list)


def save(
    store: ImageStore, texts: Sequence[str], sink: Callable[[bytes], object], *, docker: bool = True
) -> list[Image]:
    """The images that ``texts`` name as one tar; those named by an id are saved without a name."""
    chosen = _chosen(store, texts)
    with store.lease():
        blobs: dict[Digest, int] = {}
        for saved in chosen:
            image = saved.image
            blobs[image.digest] = image.descriptor.size
            for blob in (image.manifest.config, *image.manifest.layers):
                blobs[blob.digest] = blob.size
        writer = TarWriter(sink)
        for folder in (b"blobs", b"blobs/sha256"):
            writer.add(Member(folder, tar.DIRECTORY, 0o755))
        for digest in sorted(blobs):
            with store.blobs.open(digest, blobs[digest]) as stream:
                member = Member(f"blobs/{digest.replace(':', '/')}".encode(), size=blobs[digest])
                writer.add_file(member, stream.fileno())
        writer.add(Member(b"index.json"), _layout_index(chosen))
        if docker:
            writer.add(Member(b"manifest.json"), _docker_manifest(chosen))
        writer.add(Member(b"oci-layout"), b'{"imageLayoutVersion":"1.0.0"}')
        writer.finish()
    return [saved.image for saved in chosen]


def _chosen(store: ImageStore, texts: Sequence[str]) -> list[_Saved]:
    found: dict[str, _Saved] = {}
    for text in texts:
        image = store.get(text)
        saved = found.setdefault(image.digest, _Saved(image))
        with contextlib.suppress(InvalidReferenceError):
            reference = Reference.parse(text)
            if str(reference) in image.references and reference not in saved.names:
                saved.names.append(reference)
    return list(found.values())


def _layout_index(chosen: Iterable[_Saved]) -> bytes:
    entries = []
    for saved in chosen:
        names: list[Reference | None] = [*saved.names] or [None]
        for name in names:
            entry = saved.image.descriptor.to_dict()
            entry["platform"] = saved.image.platform.to_dict()
            if name is not None:
                entry["annotations"] = {_CONTAINERD_NAME: str(name), REF_NAME: str(name)}
            entries.append(entry)
    return canonical_json({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": entries})


def _docker_manifest(chosen: Iterable[_Saved]) -> bytes:
    def path(digest: str) -> str:
        return f"blobs/{digest.replace(':', '/')}"

    return canonical_json(
        [
            {
                "Config": path(saved.image.id),
                "RepoTags": [name.familiar() for name in saved.names],
                "Layers": [path(layer.digest) for layer in saved.image.manifest.layers],
            }
            for saved in chosen
        ]
    )


# --- load ----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Contents:
    """What an archive held: documents by name, stored files by name, links by name."""

    documents: dict[bytes, bytes] = field(default_factory=dict)
    files: dict[bytes, tuple[Digest, int]] = field(default_factory=dict)
    links: dict[bytes, bytes] = field(default_factory=dict)

    def find(self, name: str) -> tuple[Digest, int]:
        path = clean(os.fsencode(name))
        for _ in range(10):
            if path in self.files:
                return self.files[path]
            if path not in self.links:
                break
            path = self.links[path]
        raise ImageError(f"the archive does not hold {name[:200]!r}, which its manifest names")


def load(store: ImageStore, source: BinaryIO | Path, *, platform: Platform | None = None) -> list[Image]:
    """Load every image of an archive (stream) or an OCI layout (directory)."""
    with store.lease():
        if isinstance(source, Path):
            contents = _read_folder(store, source)
        else:
            contents = _read_archive(store, source)
        if b"index.json" in contents.documents and b"oci-layout" in contents.documents:
            images = _load_layout(store, contents, platform)
            if images:
                return images
        if b"manifest.json" in contents.documents:
            return _load_docker(store, contents)
    raise ImageError(
        "neither a docker-archive nor an OCI layout",
        hint="for a plain root file system use `orchestra image import`",
    )


def _read_archive(store: ImageStore, stream: BinaryIO) -> _Contents:
    contents = _Contents()
    for entry in tar.entries(chunks(_Unpacked(stream))):
        name = clean(entry.name)
        if entry.kind == tar.REGULAR:
            if name in _DOCUMENTS:
                contents.documents[name] = entry.read(_DOCUMENT_LIMIT)
            else:
                contents.files[name] = _store_member(store, name, entry)
        elif entry.kind == tar.SYMLINK:
            folder = posixpath.dirname(os.fsdecode(name))
            contents.links[name] = clean(os.fsencode(posixpath.join(folder, os.fsdecode(entry.link))))
        elif entry.kind == tar.LINK:
            contents.links[name] = clean(entry.link)
    return contents


class _Unpacked:
    """Refuses xz and bzip2 by name instead of as a damaged tar."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._first = True

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size) or b""
        if self._first and data:
            self._first = False
            for magic, name in ((b"\xfd7z", "xz"), (b"BZh", "bzip2")):
                if data.startswith(magic):
                    hint = f"pipe it through `{name} -dc`"
                    raise ImageError(f"the archive is compressed with {name}", hint=hint)
        return data


def _store_member(store: ImageStore, name: bytes, entry: tar.Entry) -> tuple[Digest, int]:
    """A member as a blob: verified by its name in a layout, under its own digest elsewhere."""
    expected = None
    parts = os.fsdecode(name).split("/")
    if len(parts) == 3 and parts[0] == "blobs":
        expected = f"{parts[1]}:{parts[2]}"
        if not is_digest(expected):
            raise ImageError(f"the archive holds a blob of the invalid name {tar.printable(name)}")
    with store.blob_writer(expected, entry.size, resume=False) as writer:
        if not writer.complete:
            entry.pour(writer.write)
        return writer.commit(), entry.size


def _read_folder(store: ImageStore, folder: Path) -> _Contents:
    contents = _Contents()
    for name in _DOCUMENTS:
        with contextlib.suppress(FileNotFoundError):
            contents.documents[name] = (folder / os.fsdecode(name)).read_bytes()
    for path in sorted(folder.glob("blobs/*/*")):
        digest = f"{path.parent.name}:{path.name}"
        if not is_digest(digest) or not path.is_file():
            continue
        size = path.stat().st_size
        with store.blob_writer(digest, size, resume=False) as writer, open(path, "rb") as stream:
            while not writer.complete and (data := stream.read(1 << 20)):
                writer.write(data)
            contents.files[f"blobs/{path.parent.name}/{path.name}".encode()] = (writer.commit(), size)
    return contents


def _load_layout(store: ImageStore, contents: _Contents, platform: Platform | None) -> list[Image]:
    index = parse_manifest(contents.documents[b"index.json"], mediatype.OCI_INDEX, "index.json")
    if not isinstance(index, Index):
        raise ImageError("index.json is no index")
    tags = _docker_tags(contents)
    images: dict[str, Image] = {}
    for entry in index.manifests:
        manifest = _manifest_of(store, entry, platform)
        names = _names_of(entry) or tags.get(manifest.config.digest, [])
        image = store.ingest(_bytes_of(store, entry, platform), media_type=manifest.media_type, names=names)
        images[image.id] = image
    return list(images.values())


def _bytes_of(store: ImageStore, entry: Descriptor, platform: Platform | None) -> bytes:
    """The manifest that an entry means; an index inside is resolved by platform."""
    for _ in range(4):
        data = store.blobs.read(entry.digest, limit=_DOCUMENT_LIMIT)
        parsed = parse_manifest(data, entry.media_type, f"manifest {short(entry.digest)}")
        if isinstance(parsed, Manifest):
            return data
        entry = parsed.select(platform, f"index {short(entry.digest)}")
    raise ImageError("indexes within indexes, too deep")


def _manifest_of(store: ImageStore, entry: Descriptor, platform: Platform | None) -> Manifest:
    parsed = parse_manifest(_bytes_of(store, entry, platform))
    assert isinstance(parsed, Manifest)
    return parsed


def _names_of(entry: Descriptor) -> list[Reference]:
    """A whole name from the annotations; a bare tag says nothing."""
    for key in (_CONTAINERD_NAME, REF_NAME):
        text = entry.annotations.get(key, "")
        if text and (":" in text or "/" in text):
            with contextlib.suppress(InvalidReferenceError):
                return [Reference.parse(text)]
    return []


def _docker_entries(contents: _Contents) -> list[dict[str, Any]]:
    try:
        value = json.loads(contents.documents.get(b"manifest.json", b"[]"))
    except (ValueError, RecursionError):
        raise ImageError("manifest.json of the archive is not JSON") from None
    good = isinstance(value, list) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("Config"), str)
        and isinstance(entry.get("Layers") or [], list)
        and isinstance(entry.get("RepoTags") or [], list)
        for entry in value
    )
    if not good:
        raise ImageError("manifest.json of the archive is malformed")
    return list(value)


def _docker_tags(contents: _Contents) -> dict[str, list[Reference]]:
    """Names by image id, as manifest.json has them."""
    found: dict[str, list[Reference]] = {}
    for entry in _docker_entries(contents):
        with contextlib.suppress(ImageError):
            config = contents.find(entry["Config"])[0]
            found[config] = [Reference.parse(str(text)) for text in entry.get("RepoTags") or []]
    return found


def _load_docker(store: ImageStore, contents: _Contents) -> list[Image]:
    images = []
    for entry in _docker_entries(contents):
        digest, _size = contents.find(entry["Config"])
        data = store.blobs.read(digest)
        config = parse_config(data, f"configuration {short(digest)}")
        layers = [_layer_descriptor(store, *contents.find(str(name))) for name in entry.get("Layers") or []]
        if len(layers) != len(config["rootfs"]["diff_ids"]):
            raise ImageError(f"image {short(digest)} has {len(layers)} layers but another number of diff ids")
        manifest = Manifest(
            mediatype.OCI_MANIFEST, Descriptor(mediatype.OCI_CONFIG, digest, len(data)), tuple(layers)
        )
        names = [Reference.parse(str(text)) for text in entry.get("RepoTags") or []]
        images.append(store.ingest(manifest.to_bytes(), names=names))
    if not images:
        raise ImageError("the archive holds no image")
    return images


def _layer_descriptor(store: ImageStore, digest: Digest, size: int) -> Descriptor:
    with store.blobs.open(digest) as stream:
        compression = mediatype.sniff(stream.read(4))
    return Descriptor(mediatype.layer_type(compression), digest, size)


# --- import --------------------------------------------------------------------------------------


def import_root(
    store: ImageStore,
    source: BinaryIO | Iterator[bytes],
    *,
    name: Reference | None,
    changes: Iterable[str] = (),
    created: float,
    message: str = "",
    platform: Platform | None = None,
    settings: Settings | None = None,
) -> Image:
    """The tar of a root file system (compressed or not) as an image of one layer. It is unpacked before
    it gets its name, so a hostile or damaged archive leaves nothing behind."""
    chosen = settings or Settings()
    for change in changes:
        chosen.apply(change)
    plain: Iterator[bytes]
    if hasattr(source, "read"):
        plain = chunks(_Unpacked(cast(BinaryIO, source)))
    else:
        plain = iter(source)

    def produce(sink: Callable[[bytes], object]) -> None:
        for chunk in plain:
            sink(chunk)

    with store.lease():
        layer = store_layer(store, produce)
        if not layer.descriptor.size:
            raise LayerError("the archive is empty")
        step = history_step(created, "import", comment=message)
        image = extend(store, None, [layer], chosen, history=[step], created=created, platform=platform)
        try:
            store.layers(image)
            return store.tag(image.id, name) if name else image
        except OrchestraError as error:
            problem = error
    if not image.references:
        store.remove(image.id, force=True)
    raise problem


def load_summary(image: Image) -> list[str]:
    """Lines as ``docker load`` prints them."""
    if image.tags:
        return [f"Loaded image: {tag}" for tag in image.tags]
    return [f"Loaded image ID: {image.id}"]
