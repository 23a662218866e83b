from __future__ import annotations

import io
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from support.trees import archive

from orchestra.errors import ConflictError, NotFoundError, OrchestraError
from orchestra.images import mediatype
from orchestra.images.commit import NewLayer, commit, create_image, extend, store_layer
from orchestra.images.config import Settings, new_config
from orchestra.images.digest import digest_of
from orchestra.images.gc import PruneFilter
from orchestra.images.image import Image
from orchestra.images.manifest import Descriptor
from orchestra.images.rootfs import info, layer_dir
from orchestra.images.store import ImageStore


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def make(store: ImageStore, *names: str, content: bytes = b"1", labels: dict[str, str] | None = None,
         created: float = 1000.0) -> Image:  # fmt: skip
    base = store_layer(store, lambda sink: sink(archive(("base", "file", {"content": b"base"}))))
    top = store_layer(store, lambda sink: sink(archive(("top", "file", {"content": content}))))
    settings = Settings(cmd=["sh"], labels=labels or {})
    return extend(store, None, [base, top], settings, history=[], created=created, names=names)


def test_the_store_is_an_oci_layout(store: ImageStore) -> None:
    image = make(store, "app:1")
    index = json.loads((store.root / "index.json").read_text())
    assert (
        index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] == "docker.io/library/app:1"
    )
    assert json.loads((store.root / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert image.settings["Cmd"] == ["sh"]
    assert image.architecture and image.os == "linux"


def test_resolve(store: ImageStore) -> None:
    image = make(store, "app:1", "other/name")
    hexes = image.id.removeprefix("sha256:")
    for text in ("app:1", "docker.io/library/app:1", "other/name", image.id, hexes, hexes[:12], hexes[:3],
                 f"app@{image.digest}", f"app:9@{image.digest}", image.digest, "sha256:" + hexes[:9]):  # fmt: skip
        found = store.resolve(text)
        assert found is not None and found.id == image.id, text
        assert found.tags == ["app:1", "other/name:latest"]
    for text in ("app", "app:2", "nothing", f"nothing@{image.digest}", "zz", "", "sha256:" + "0" * 64, "A B"):
        assert store.resolve(text) is None, text


def test_ambiguous_prefix(store: ImageStore) -> None:
    seen: dict[str, Image] = {}
    for number in range(40):
        image = make(store, f"n:{number}", content=b"%d" % number)
        first = image.id.removeprefix("sha256:")[0]
        if first in seen:
            with pytest.raises(ConflictError):
                store.resolve(first)
            return
        seen[first] = image
    pytest.fail("forty images and no common first digit")


def test_tag_moves(store: ImageStore) -> None:
    one, two = make(store, "app"), make(store, "app", content=b"2")
    assert [image.id for image in store.list() if image.tags] == [two.id]
    assert store.get(one.id).tags == []
    store.tag(one.id, "app")
    assert store.get("app").id == one.id
    with pytest.raises(NotFoundError):
        store.tag("missing", "x")
    with pytest.raises(OrchestraError):
        store.tag("app", f"x@sha256:{'0' * 64}")


def test_layers_are_shared_and_unpacked_once(store: ImageStore) -> None:
    one, two = make(store, "one"), make(store, "two", content=b"2")
    paths = store.layers(one)
    assert (paths[0] / "base").read_bytes() == b"base" and (paths[1] / "top").read_bytes() == b"1"
    before = paths[0].stat().st_ino
    assert store.layers(two)[0] == paths[0] and paths[0].stat().st_ino == before
    assert len(list(store.layers_dir.iterdir())) == 3
    assert info(store, one.chain_ids[0])["size"] == 4


def test_threads_meet(store: ImageStore) -> None:
    image = make(store, "app")
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(store.layers(image))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [results[0]] * 8
    assert not [name for name in os.listdir(store.layers_dir) if name.endswith(".lock")]


def test_a_second_writer_waits_and_finds_the_blob(store: ImageStore) -> None:
    data = b"content" * 1000
    digest = digest_of(data)
    first = store.blob_writer(digest, len(data))
    first.write(data[:100])
    seen: list[bool] = []

    def second() -> None:
        with ImageStore(store.root).blob_writer(digest, len(data)) as writer:
            seen.append(writer.complete)

    thread = threading.Thread(target=second)
    thread.start()
    first.write(data[100:])
    assert not store.blobs.has(digest)
    first.commit()
    thread.join(20)
    assert seen == [True]


def test_resume(store: ImageStore) -> None:
    data = os.urandom(100_000)
    digest = digest_of(data)
    with store.blob_writer(digest, len(data)) as writer:
        writer.write(data[:60_000])
        with pytest.raises(OrchestraError, match="ended after 60000"):
            writer.commit()
    with store.blob_writer(digest, len(data)) as writer:
        assert writer.offset == 60_000
        writer.write(data[60_000:])
        writer.commit()
    assert store.blobs.read(digest) == data


def test_wrong_content_is_never_visible(store: ImageStore) -> None:
    digest = digest_of(b"right")
    with store.blob_writer(digest, 5) as writer, pytest.raises(OrchestraError, match="longer than"):
        writer.write(b"too long")
    with store.blob_writer(digest, 5) as writer:
        writer.restart()
        writer.write(b"wrong")
        with pytest.raises(OrchestraError, match="wrong digest"):
            writer.commit()
    assert not store.blobs.has(digest)
    assert not [name for name in os.listdir(store.blobs.ingest) if name.endswith(".part")]
    with store.blob_writer(digest, 5) as writer:
        assert writer.offset == 0
        writer.write(b"right")
        writer.commit()


def test_an_image_without_its_blobs_is_refused(store: ImageStore) -> None:
    missing = Descriptor(mediatype.OCI_LAYER, digest_of(b"nowhere"), 7)
    config = new_config(Settings(), [missing.digest], created=0)
    with pytest.raises(NotFoundError):
        create_image(store, config, [missing], names=["x"])
    assert store.list() == []


def test_remove_by_name_and_id(store: ImageStore) -> None:
    image = make(store, "app:1", "app:2")
    assert store.remove("app:1") == ["Untagged: app:1"]
    store.tag(image.id, "app:1")
    with pytest.raises(ConflictError, match="several names"):
        store.remove(image.id)
    lines = store.remove(image.id, force=True)
    assert lines[-1] == f"Deleted: {image.id}" and len(lines) == 3
    assert list(store.blobs.all()) == []
    with pytest.raises(NotFoundError):
        store.remove("app:1")


def test_the_last_tag_takes_the_digests_of_its_repository(store: ImageStore) -> None:
    image = make(store, "app:1", f"app@sha256:{'1' * 64}")
    lines = store.remove("app:1")
    assert lines == ["Untagged: app:1", f"Untagged: app@sha256:{'1' * 64}", f"Deleted: {image.id}"]


def test_images_in_use_stay(store: ImageStore) -> None:
    image = make(store, "app")
    paths = store.layers(image)
    using = ImageStore(store.root, in_use=lambda: [image.id])
    with pytest.raises(ConflictError, match="in use"):
        using.remove("app")
    assert using.remove("app", force=True) == ["Untagged: app:latest"]
    assert using.prune(PruneFilter(all=True)).lines == []
    assert using.get(image.id).tags == [] and paths[1].is_dir()
    assert store.prune().lines == [f"Deleted: {image.id}"]
    assert not paths[1].exists()


def test_prune_filters(store: ImageStore) -> None:
    make(store, "old", content=b"1", created=1000.0)
    make(store, "new", content=b"2", created=2000.0)
    make(store, "kept", content=b"3", created=1000.0, labels={"keep": "yes"})
    dry = store.prune(PruneFilter(all=True, until=1500.0, not_labels={"keep": ""}), dry_run=True)
    assert [line for line in dry.lines if line.startswith("Untagged")] == [
        "Untagged: old:latest"
    ] and dry.size
    real = store.prune(PruneFilter(all=True, until=1500.0, not_labels={"keep": ""}))
    assert real.lines == dry.lines and real.size == dry.size
    assert sorted(tag for image in store.list() for tag in image.tags) == ["kept:latest", "new:latest"]
    assert store.prune(PruneFilter(all=True, labels={"keep": "no"})).lines == []


def test_garbage_goes_and_leases_protect(store: ImageStore) -> None:
    image = make(store, "app")
    garbage = store.blobs.put(b"garbage")
    with store.lease():
        fresh = store.blobs.put(b"being added")
        kept = store.blobs.put(b"found again")
        os.utime(store.blobs.path(garbage), (1, 1))
        os.utime(store.blobs.path(kept), (1, 1))
        assert store.blobs.keep(kept)
        report = store.gc(dry_run=True)
        assert report.blobs == [garbage] and store.blobs.has(garbage)
        store.gc()
        assert store.blobs.has(fresh) and store.blobs.has(kept) and not store.blobs.has(garbage)
    assert sorted(store.gc().blobs) == sorted([fresh, kept])
    assert store.layers(image)


def test_what_a_dead_process_left_is_swept(store: ImageStore) -> None:
    (store.blobs.ingest / f"{'a' * 64}.part").write_bytes(b"half")
    (store.blobs.ingest / f"layer-{'b' * 64}" / "fs").mkdir(parents=True)
    (store.leases_dir / "dead").touch()
    (store.layers_dir / f"{'c' * 64}.lock").touch()
    (store.trash_dir / "x" / "y").mkdir(parents=True)
    report = store.gc()
    assert len(report.partial) == 2
    assert [os.listdir(folder) for folder in (store.blobs.ingest, store.leases_dir, store.layers_dir,
                                              store.trash_dir)] == [[], [], [], []]  # fmt: skip


def test_a_download_in_progress_is_left_alone(store: ImageStore) -> None:
    with store.blob_writer(digest_of(b"later"), 5) as writer:
        writer.write(b"la")
        assert store.gc().partial == []
        writer.write(b"ter")
        writer.commit()


def test_roots_of_others(store: ImageStore) -> None:
    blob = store.blobs.put(b"build cache")
    assert store.gc(roots=[blob]).blobs == []
    assert store.gc().blobs == [blob]


def test_check_and_mend(store: ImageStore) -> None:
    image = make(store, "app")
    other = make(store, "other", content=b"2")
    store.layers(other)
    assert store.check() == []
    path = store.blobs.path(image.manifest.layers[1].digest)
    path.chmod(0o600)
    path.write_bytes(b"x" * path.stat().st_size)
    (layer_dir(store, other.chain_ids[1]) / "info.json").unlink()
    kinds = [finding.kind.value for finding in store.check()]
    assert kinds == ["damaged blob", "damaged layer"]
    assert all(finding.mended for finding in store.check(mend=True))
    assert store.check() == []
    assert [found.tags for found in store.list()] == [["other:latest"]]
    assert (store.layers(store.get("other"))[1] / "top").read_bytes() == b"2"


def test_a_changed_layer_is_noticed(store: ImageStore) -> None:
    image = make(store, "app")
    top = store.layers(image)[1]
    assert store.check() == []
    stamp = (top / "top").stat().st_mtime_ns
    (top / "top").write_bytes(b"2")
    os.utime(top / "top", ns=(stamp, stamp))
    (finding,) = ImageStore(store.root, in_use=lambda: [image.id]).check(mend=True)
    assert "top was changed" in str(finding) and not finding.mended
    (finding,) = store.check(mend=True)
    assert finding.mended
    assert (store.layers(image)[1] / "top").read_bytes() == b"1"
    (store.layers(image)[0] / "extra").touch()
    assert "extra is new" in str(store.check()[0])


def test_a_damaged_list_is_rebuilt(store: ImageStore) -> None:
    image = make(store, "app")
    (store.root / "index.json").write_text("{")
    with pytest.raises(OrchestraError, match="damaged"):
        store.list()
    store.check(mend=True)
    assert [found.id for found in store.list()] == [image.id]


def test_disk_usage(store: ImageStore) -> None:
    one, two = make(store, "one"), make(store, "two", content=b"22")
    store.layers(one)
    usage = ImageStore(store.root, in_use=lambda: [two.id]).disk_usage()
    rows = {row.image.id: row for row in usage.images}
    assert rows[one.id].shared == rows[two.id].shared > 0
    assert usage.active == 1 and usage.layers == 2
    assert 0 < usage.reclaimable < usage.size


def test_implied_directories_look_as_below(store: ImageStore) -> None:
    base = store_layer(store, lambda sink: sink(archive((".", "dir", {"mode": 0o711}),
                                                        ("tmp", "dir", {"mode": 0o1777, "mtime": 5}))))  # fmt: skip
    top = store_layer(store, lambda sink: sink(archive(("tmp/x", "file"))))
    image = extend(store, None, [base, top], Settings(), history=[], created=0)
    upper = store.layers(image)[1]
    assert (upper / "tmp").stat().st_mode & 0o7777 == 0o1777 and (upper / "tmp").stat().st_mtime == 5
    assert upper.stat().st_mode & 0o7777 == 0o711


def test_wrong_diff_ids_leave_nothing(store: ImageStore) -> None:
    import gzip

    data = gzip.compress(archive(("a", "file")))
    digest = store.blobs.put(data)
    config = new_config(Settings(), [digest_of(b"other")], created=0)
    image = create_image(store, config, [Descriptor(mediatype.OCI_LAYER_GZIP, digest, len(data))])
    with pytest.raises(OrchestraError, match="wrong content"):
        store.layers(image)
    assert os.listdir(store.layers_dir) == [] and os.listdir(store.blobs.ingest) == []


def test_commit(store: ImageStore, tmp_path: Path) -> None:
    base = make(store, "base")
    upper = tmp_path / "upper"
    (upper / "etc").mkdir(parents=True)
    (upper / "etc/new").write_text("hello")
    (upper / "proc").mkdir()
    image = commit(
        store, upper, base, created=5.0, changes=['CMD ["run"]', "ENV A=1 B='x y'", "EXPOSE 80"],
        names=["done"], message="why", author="me", exclude=lambda path: path == b"proc",
    )  # fmt: skip
    assert image.settings["Cmd"] == ["run"] and image.settings["Env"] == ["A=1", "B=x y"]
    assert image.settings["ExposedPorts"] == {"80/tcp": {}}
    assert image.diff_ids[:2] == base.diff_ids and image.config["author"] == "me"
    top = store.layers(image)[-1]
    assert os.listdir(top) == ["etc"] and (top / "etc/new").read_text() == "hello"


def test_many_layers(store: ImageStore) -> None:
    layers: list[NewLayer] = []
    for number in range(130):
        data = archive((f"f{number}", "file"))
        layers.append(store_layer(store, lambda sink, data=data: sink(data)))
    image = extend(store, None, layers, Settings(), history=[], created=0, names=["deep"])
    paths = store.layers(image)
    assert len(set(paths)) == 130 and all((path / f"f{n}").exists() for n, path in enumerate(paths))


def test_a_bad_layer_leaves_no_good_one_half_done(store: ImageStore) -> None:
    good = store_layer(store, lambda sink: sink(archive(("good", "file"))))
    bad = store_layer(store, lambda sink: sink(archive(("../bad", "file"))))
    image = extend(store, None, [good, bad, good], Settings(), history=[], created=0)
    with pytest.raises(OrchestraError, match="leaves the root"):
        store.layers(image)
    assert os.listdir(store.blobs.ingest) == []
    assert len(os.listdir(store.layers_dir)) == 1  # the lowest one is whole and stays


def test_full_disk_is_a_clear_error(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    with store.blob_writer() as writer:

        class Full(io.RawIOBase):
            def write(self, data: Any) -> int:
                raise OSError(errno.ENOSPC, "No space left on device")

        assert writer._file is not None
        writer._file.close()
        writer._file = Full()  # type: ignore[assignment]
        with pytest.raises(OrchestraError, match="no space left"):
            writer.write(b"x")


def test_what_others_do_to_the_store_is_seen(store: ImageStore) -> None:
    """A name and its layers are looked up anew when another process has changed them."""
    first, second = make(store, "x:1", content=b"1"), make(store, "y:1", content=b"2")
    assert store.get("x:1").id == store.get("x:1").id == first.id
    other = ImageStore(store.root)
    other.tag("y:1", "x:1")
    assert store.get("x:1").id == second.id and "docker.io/library/x:1" in store.get(second.id).references
    paths = store.layers(second)
    paths.append(Path("/elsewhere"))  # the caller's own list
    assert store.layers(second) == paths[:-1]
    other.remove(second.id, force=True)
    assert store.resolve("y:1") is None and store.resolve(second.id) is None
    again = make(store, "y:1", content=b"2")
    assert [path.is_dir() for path in store.layers(again)] == [True, True]
