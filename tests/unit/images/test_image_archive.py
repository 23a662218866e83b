from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
from support.trees import archive

from orchestra.errors import OrchestraError
from orchestra.images.archive import import_root, load, load_summary, save
from orchestra.images.commit import extend, store_layer
from orchestra.images.config import Settings
from orchestra.images.image import Image
from orchestra.images.reference import Reference
from orchestra.images.store import ImageStore

# an argument that Python 3.11.4 brought; Debian 12 has 3.11.2
TRUSTED = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def other(store: ImageStore) -> ImageStore:
    return ImageStore(store.root.parent / "other")


def make(store: ImageStore, *names: str, content: bytes = b"1") -> Image:
    layer = store_layer(store, lambda sink: sink(archive(("file", "file", {"content": content}))))
    return extend(store, None, [layer], Settings(cmd=["x"]), history=[], created=0, names=names)


def saved(store: ImageStore, *names: str, docker: bool = True) -> bytes:
    stream = io.BytesIO()
    save(store, names, stream.write, docker=docker)
    return stream.getvalue()


def rebuilt(data: bytes, drop: tuple[str, ...] = (), change: dict[str, bytes] | None = None) -> bytes:
    """The same archive without some members, or with others in their place."""
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(data)) as old, tarfile.open(fileobj=out, mode="w") as new:
        for member in old:
            if member.name in drop:
                continue
            stream = old.extractfile(member)
            content = stream.read() if stream else b""
            if change and member.name in change:
                content = change[member.name]
                member.size = len(content)
            new.addfile(member, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize("docker", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_round_trip(store: ImageStore, docker: bool, packed: bool) -> None:
    one = make(store, "one", "two:2")
    two = make(store, "host.example:5000/three", content=b"3")
    data = saved(store, "one", "two:2", "host.example:5000/three", docker=docker)
    assert data == saved(store, "one", "two:2", "host.example:5000/three", docker=docker)
    target = other(store)
    images = load(target, io.BytesIO(gzip.compress(data) if packed else data))
    assert sorted(image.id for image in images) == sorted([one.id, two.id])
    assert target.get("one").digest == one.digest
    assert target.get("one").tags == ["one:latest", "two:2"]
    assert (target.layers(target.get("two:2"))[0] / "file").read_bytes() == b"1"


def test_only_the_docker_part(store: ImageStore) -> None:
    image = make(store, "one")
    data = rebuilt(saved(store, "one"), drop=("index.json", "oci-layout"))
    (loaded,) = load(other(store), io.BytesIO(data))
    assert (loaded.id, loaded.tags) == (image.id, ["one:latest"])


def test_by_id_has_no_name(store: ImageStore) -> None:
    image = make(store, "one")
    (loaded,) = load(other(store), io.BytesIO(saved(store, image.id)))
    assert loaded.tags == [] and load_summary(loaded) == [f"Loaded image ID: {image.id}"]


def test_old_docker_archives(store: ImageStore) -> None:
    """Layers in directories, one of them a link to another, gzip inside."""
    layer = archive(("file", "file", {"content": b"old"}))
    from orchestra.images.digest import digest_of

    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["x"]},
         "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)] * 2}}
    ).encode()  # fmt: skip
    manifest = json.dumps(
        [{"Config": "abc.json", "RepoTags": ["old:1"], "Layers": ["a/layer.tar", "b/layer.tar"]}]
    ).encode()
    data = archive(
        ("a", "dir"), ("a/VERSION", "file", {"content": b"1.0"}),
        ("a/layer.tar", "file", {"content": gzip.compress(layer, mtime=0)}),
        ("b/layer.tar", "link", {"link": "../a/layer.tar"}), ("abc.json", "file", {"content": config}),
        ("manifest.json", "file", {"content": manifest}),
    )  # fmt: skip
    (image,) = load(store, io.BytesIO(data))
    assert image.tags == ["old:1"] and len(store.layers(image)) == 2
    assert image.manifest.layers[0].media_type.endswith("+gzip")


def test_a_layout_directory(store: ImageStore, tmp_path: Path) -> None:
    image = make(store, "one")
    folder = tmp_path / "layout"
    folder.mkdir()
    with tarfile.open(fileobj=io.BytesIO(saved(store, "one", docker=False))) as tar:
        tar.extractall(folder, **TRUSTED)
    (loaded,) = load(other(store), folder)
    assert loaded.digest == image.digest and loaded.tags == ["one:latest"]
    (again,) = load(other(store), store.root)
    assert again.tags == ["one:latest"]


@pytest.mark.parametrize("change", [
    {"index.json": b"{}"}, {"index.json": b"\xff"}, {"index.json": b'{"schemaVersion":2,"manifests":[{}]}'},
])  # fmt: skip
def test_malformed_layouts(store: ImageStore, change: dict[str, bytes]) -> None:
    make(store, "one")
    with pytest.raises(OrchestraError):
        load(other(store), io.BytesIO(rebuilt(saved(store, "one", docker=False), change=change)))


@pytest.mark.parametrize("manifest", [
    b"{}", b"[1]", b"[[", b'[{"Config": 5}]', b'[{"Config": "no"}]', b'[{"Config": "../../x", "Layers": 1}]',
    b"[]",
])  # fmt: skip
def test_malformed_docker_archives(store: ImageStore, manifest: bytes) -> None:
    with pytest.raises(OrchestraError):
        load(store, io.BytesIO(archive(("manifest.json", "file", {"content": manifest}))))
    assert store.list() == []


def test_damaged_blobs_are_found(store: ImageStore) -> None:
    image = make(store, "one")
    name = "blobs/" + image.manifest.layers[0].digest.replace(":", "/")
    data = saved(store, "one")
    with pytest.raises(OrchestraError, match="wrong digest"):
        load(other(store), io.BytesIO(rebuilt(data, change={name: b"damaged"})))
    with pytest.raises(OrchestraError):
        load(other(store), io.BytesIO(rebuilt(data, drop=(name,))))
    with pytest.raises(OrchestraError):
        load(other(store), io.BytesIO(data[: len(data) // 2]))
    assert other(store).list() == []


@pytest.mark.parametrize("data", [b"", b"garbage" * 100, b"\xfd7zXZ\0" + bytes(600), b"BZh9" + bytes(600)])
def test_not_an_archive(store: ImageStore, data: bytes) -> None:
    with pytest.raises(OrchestraError):
        load(store, io.BytesIO(data))


def test_import(store: ImageStore) -> None:
    data = gzip.compress(archive(("bin", "dir"), ("bin/sh", "file", {"mode": 0o755})))
    image = import_root(
        store, io.BytesIO(data), name=Reference.parse("base"), created=7.0, message="from a tar",
        changes=["ENTRYPOINT /bin/sh", "LABEL a=b", "WORKDIR /x", "USER 5", "VOLUME /data",
                 "HEALTHCHECK --interval=2s CMD [\"true\"]"],
    )  # fmt: skip
    assert image.tags == ["base:latest"]
    assert image.settings["Entrypoint"] == ["/bin/sh", "-c", "/bin/sh"]
    assert image.settings["Healthcheck"] == {"Test": ["CMD", "true"], "Interval": 2_000_000_000}
    assert image.config["history"][0]["comment"] == "from a tar"


def test_a_hostile_import_leaves_nothing(store: ImageStore) -> None:

    with pytest.raises(OrchestraError):
        import_root(store, io.BytesIO(archive(("../x", "file"))), name=Reference.parse("x"), created=0)
    assert store.list() == [] and list(store.blobs.all()) == []
    with pytest.raises(OrchestraError, match="empty"):
        import_root(store, io.BytesIO(b""), name=None, created=0)
