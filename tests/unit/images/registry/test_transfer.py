"""Pull and push against the in-process registry."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.registry import Fault, Registry, digest_of

from orchestra.errors import NotFoundError, OrchestraError, UnsupportedError
from orchestra.events import Progress
from orchestra.images.problems import DigestError, ManifestError
from orchestra.images.registry.config import RegistryConfig
from orchestra.images.registry.credentials import Credentials
from orchestra.images.registry.problems import AuthenticationError, RedirectError, RegistryError
from orchestra.images.registry.transfer import pull, push
from orchestra.images.store import ImageStore

QUICK = RegistryConfig(attempts=2, idle_timeout=2, answer_timeout=2, connect_timeout=2)


def make_tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


NOISE = bytes((n * n * 7 + n // 3) & 255 for n in range(150_000))
ONE = make_tar({"etc/one": b"1", "data": NOISE})
TWO = make_tar({"etc/two": b"2", "etc/one": b"one"})


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as running:
        yield running


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home"), "PATH": "/nowhere", "XDG_RUNTIME_DIR": str(tmp_path / "none")}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestra.images.registry.client.random.uniform", lambda _low, _high: 0.0)


def contents(store: ImageStore, text: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for layer in store.layers(store.get(text)):
        for path in sorted(layer.rglob("*")):
            if path.is_file():
                found[str(path.relative_to(layer))] = path.read_bytes()
    return found


@pytest.mark.parametrize("docker", [False, True])
@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_pull(
    store: ImageStore, registry: Registry, env: dict[str, str], docker: bool, compression: str
) -> None:
    digest = registry.add_image("team/app", "1", [ONE, TWO], docker=docker, compression=compression)
    seen: list[Progress] = []
    image = pull(store, f"{registry.host}/team/app:1", sink=seen.append, environ=env)
    assert image.digest == digest
    assert contents(store, f"{registry.host}/team/app:1") == {
        "etc/one": b"one",
        "etc/two": b"2",
        "data": NOISE,
    }
    assert f"{registry.host}/team/app@{digest}" in image.references
    assert (seen[0].text, seen[-1].text) == ("Pulling", "Pulled")
    assert sum(p.text == "Pull complete" for p in seen) == 2
    assert not list((store.root / "ingest").iterdir())


def test_layers_are_unpacked_while_they_come(
    store: ImageStore, registry: Registry, env: dict[str, str]
) -> None:
    registry.add_image("app", "1", [ONE, TWO])
    image = pull(store, f"{registry.host}/app:1", environ=env)
    assert all(
        (store.layers_dir / chain.partition(":")[2] / "info.json").exists() for chain in image.chain_ids
    )


def test_missing_layers_only(store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
    registry.add_image("app", "1", [ONE])
    registry.add_image("app", "2", [ONE, TWO])
    pull(store, f"{registry.host}/app:1", environ=env)
    registry.log.clear()
    pull(store, f"{registry.host}/app:2", environ=env)
    assert len(registry.requests("GET", "/blobs/")) == 2  # configuration and the second layer


def test_unchanged_costs_one_head(store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
    registry.add_image("app", "1", [ONE])
    pull(store, f"{registry.host}/app:1", environ=env)
    registry.log.clear()
    pull(store, f"{registry.host}/app:1", environ=env)
    assert not registry.requests("GET", "/app/")
    registry.log.clear()
    pull(store, f"{registry.host}/app:1", environ=env, policy="missing")
    assert not registry.log


def test_pulls_of_the_same_image_meet(store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
    registry.add_image("app", "1", [ONE, TWO])
    registry.add_image("app", "2", [ONE, TWO, make_tar({"more": b"more"})])
    names = [f"{registry.host}/app:{tag}" for tag in ("1", "2", "1", "2")]
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(lambda name: pull(ImageStore(store.root), name, environ=env), names))
    assert len({image.id for image in images}) == 2
    layers = json.loads(registry.manifests["app"]["2"][1])["layers"]
    for layer in layers:
        assert len(registry.requests("GET", layer["digest"])) == 1


def test_policy_never(store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
    with pytest.raises(NotFoundError):
        pull(store, f"{registry.host}/app:1", environ=env, policy="never")
    assert not registry.log


def test_moved_tag(store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
    registry.add_image("app", "1", [ONE])
    first = pull(store, f"{registry.host}/app:1", environ=env)
    registry.add_image("app", "1", [TWO])
    second = pull(store, f"{registry.host}/app:1", environ=env)
    assert first.id != second.id
    assert store.get(f"{registry.host}/app:1").id == second.id


@pytest.mark.parametrize("docker", [False, True])
def test_platforms(store: ImageStore, registry: Registry, env: dict[str, str], docker: bool) -> None:
    amd = registry.add_image("app", "a", [ONE], docker=docker)
    arm = registry.add_image("app", "b", [TWO], docker=docker, architecture="arm64")
    registry.add_index("app", "1", {"amd64": amd, "arm64": arm}, docker=docker)
    name = f"{registry.host}/app:1"
    assert pull(store, name, platform="linux/arm64", environ=env).digest == arm
    assert pull(store, name, platform="linux/amd64", environ=env).digest == amd
    with pytest.raises(ManifestError, match="s390x"):
        pull(store, name, platform="linux/s390x", environ=env)


def test_by_digest(store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
    digest = registry.add_image("app", "1", [ONE])
    assert pull(store, f"{registry.host}/app@{digest}", environ=env).digest == digest


def test_not_there(store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
    with pytest.raises(NotFoundError, match="app:2 not found"):
        pull(store, f"{registry.host}/app:2", environ=env)
    assert len(registry.requests("GET", "/manifests/")) == 1


class TestFaults:
    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_retried(self, store: ImageStore, registry: Registry, env: dict[str, str], status: int) -> None:
        registry.add_image("app", "1", [ONE])
        registry.faults += [Fault("GET", "/manifests/", status=status, headers={"Retry-After": "0"})]
        registry.faults += [Fault("GET", "/blobs/", status=status), Fault("GET", "/blobs/", reset=True)]
        pull(store, f"{registry.host}/app:1", environ=env)

    def test_retries_are_bounded(self, store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
        registry.add_image("app", "1", [ONE])
        registry.faults += [Fault("GET", "/manifests/", times=99, status=503)]
        with pytest.raises(RegistryError, match="503"):
            pull(store, f"{registry.host}/app:1", environ=env, config=QUICK)
        assert len(registry.requests("GET", "/manifests/")) == 2

    def test_broken_download_goes_on(
        self, store: ImageStore, registry: Registry, env: dict[str, str]
    ) -> None:
        registry.add_image("app", "1", [ONE], compression="none")
        layer = f"/blobs/{digest_of(ONE)}"
        registry.faults += [Fault("GET", layer, truncate=60_000), Fault("GET", layer, truncate=50_000)]
        pull(store, f"{registry.host}/app:1", environ=env)
        ranges = [seen.headers.get("range") for seen in registry.requests("GET", layer)]
        assert ranges == [None, "bytes=60000-", "bytes=110000-"]

    def test_next_run_goes_on(self, store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
        registry.add_image("app", "1", [ONE], compression="none")
        layer = f"/blobs/{digest_of(ONE)}"
        registry.faults += [Fault("GET", layer, truncate=60_000), Fault("GET", layer, times=2, status=500)]
        with pytest.raises(RegistryError):
            pull(store, f"{registry.host}/app:1", environ=env, config=QUICK)
        registry.faults.clear()
        registry.log.clear()
        pull(store, f"{registry.host}/app:1", environ=env)
        assert registry.requests("GET", layer)[0].headers["range"] == "bytes=60000-"
        assert contents(store, f"{registry.host}/app:1")["data"] == NOISE

    def test_server_without_ranges(self, store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
        registry.add_image("app", "1", [ONE], compression="none")
        layer = f"/blobs/{digest_of(ONE)}"
        registry.faults += [Fault("GET", layer, truncate=60_000), Fault("GET", layer, ignore_range=True)]
        pull(store, f"{registry.host}/app:1", environ=env)
        assert contents(store, f"{registry.host}/app:1")["data"] == NOISE

    def test_wrong_layer(self, store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
        registry.add_image("app", "1", [ONE], compression="none")
        registry.faults += [Fault("GET", f"/blobs/{digest_of(ONE)}", times=9, corrupt=True)]
        with pytest.raises(DigestError, match="wrong digest"):
            pull(store, f"{registry.host}/app:1", environ=env)
        assert store.resolve(f"{registry.host}/app:1") is None
        assert not store.blobs.has(digest_of(ONE))

    def test_wrong_once(self, store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
        registry.add_image("app", "1", [ONE], compression="none")
        registry.faults += [Fault("GET", f"/blobs/{digest_of(ONE)}", corrupt=True)]
        pull(store, f"{registry.host}/app:1", environ=env)

    def test_wrong_manifest(self, store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
        digest = registry.add_image("app", "1", [ONE])
        for name in (f"app@{digest}", "app:1"):
            registry.faults[:] = [Fault("GET", "/manifests/", times=9, corrupt=True)]
            with pytest.raises(DigestError):
                pull(store, f"{registry.host}/{name}", environ=env)

    def test_longer_than_promised(self, store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
        registry.add_image("app", "1", [ONE], compression="none")
        registry.faults += [Fault("GET", f"/blobs/{digest_of(ONE)}", times=9, endless=True)]
        begin = time.monotonic()
        with pytest.raises(DigestError, match="longer than"):
            pull(store, f"{registry.host}/app:1", environ=env, config=QUICK)
        assert time.monotonic() - begin < 20

    def test_endless_manifest(self, store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
        registry.faults += [Fault("GET", "/manifests/", times=9, endless=True)]
        with pytest.raises(RegistryError, match="more than"):
            pull(store, f"{registry.host}/app:1", environ=env, config=QUICK)

    @pytest.mark.parametrize(
        "fault",
        [
            Fault("GET", "/manifests/", times=9, hang=True),
            Fault("GET", "/manifests/", times=9, drip=0.3),
            Fault("GET", "/manifests/", times=9, drip=0.3, close=True),
            Fault("GET", "/blobs/", times=9, drip=0.3, close=True),
        ],
    )
    def test_slow_server(
        self, store: ImageStore, registry: Registry, env: dict[str, str], fault: Fault
    ) -> None:
        registry.add_image("app", "1", [ONE])
        registry.faults.append(fault)
        config = RegistryConfig(attempts=1, idle_timeout=1, answer_timeout=1, connect_timeout=1)
        begin = time.monotonic()
        with pytest.raises(RegistryError, match=r"timed out|too slow|broke off"):
            pull(store, f"{registry.host}/app:1", environ=env, config=config)
        assert time.monotonic() - begin < 20

    def test_foreign_layer(self, store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
        registry.add_image("app", "1", [ONE])
        _kind, data = registry.manifests["app"]["1"]
        value = json.loads(data)
        value["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        registry.add_manifest("app", "1", value)
        with pytest.raises(UnsupportedError, match="non-distributable"):
            pull(store, f"{registry.host}/app:1", environ=env)


HUGE = b'{"schemaVersion":2,"a":' + b"[" * 100_000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        HUGE,
        b'{"schemaVersion":1}',
        b'{"schemaVersion":2}',
        b'{"schemaVersion":2,"layers":[],"config":{}}',
        b'{"schemaVersion":2,"layers":[],"config":{"mediaType":"x","size":-1,"digest":"sha256:'
        + b"0" * 64
        + b'"}}',
        b'{"schemaVersion":2,"layers":[],"config":{"mediaType":"x","size":1,"digest":"sha256:../../../etc"}}',
        b'{"schemaVersion":2,"layers":[1],"config":{"mediaType":"x","size":1,"digest":"sha256:'
        + b"0" * 64
        + b'"}}',
        b'{"schemaVersion":2,"manifests":[{}]}',
        b'{"schemaVersion":2,"manifests":[],"layers":[]}',
        b'{"schemaVersion":2,"mediaType":"text/html","layers":[]}',
        b"\xff\xfe\x00",
    ],
)
def test_hostile_manifests(store: ImageStore, registry: Registry, env: dict[str, str], data: bytes) -> None:
    kind = "application/vnd.oci.image.manifest.v1+json"
    registry.manifests["app"] = {"1": (kind, data)}
    with pytest.raises(OrchestraError):
        pull(store, f"{registry.host}/app:1", environ=env)
    assert store.list() == []


def test_hostile_configuration(store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
    for config in (b"[]", b"{", b'{"rootfs":{"diff_ids":["x"]}}', b'{"rootfs":{"diff_ids":[]}}'):
        registry.add_image("app", "1", [ONE])
        value = json.loads(registry.manifests["app"]["1"][1])
        value["config"] |= {"digest": registry.add_blob("app", config), "size": len(config)}
        registry.add_manifest("app", "1", value)
        with pytest.raises(OrchestraError):
            pull(store, f"{registry.host}/app:1", environ=env)
    assert store.list() == []


class TestRedirects:
    def test_elsewhere_without_credentials(
        self, store: ImageStore, env: dict[str, str], registry: Registry
    ) -> None:
        with Registry(auth="basic") as guarded:
            guarded.add_image("app", "1", [ONE], compression="none")
            registry.add_image("app", "1", [ONE], compression="none")
            blob = f"/v2/app/blobs/{digest_of(ONE)}"
            guarded.faults += [Fault("GET", blob, redirect=f"{registry.url}{blob}")]
            pull(store, f"{guarded.host}/app:1", environ=env, auth=Credentials("me", "s3cret"))
            assert guarded.requests("GET", blob)[-1].authorization
        assert registry.requests("GET", blob)
        assert not any(seen.authorization for seen in registry.log)

    @pytest.mark.parametrize(
        "target",
        [
            "file:///etc/passwd",
            "ftp://127.0.0.1/x",
            "http://a:b@127.0.0.1/x",
            "http://registry.example/x",
            "http://[::1/x",
        ],
    )
    def test_refused(self, store: ImageStore, registry: Registry, env: dict[str, str], target: str) -> None:
        registry.add_image("app", "1", [ONE])
        registry.faults += [Fault("GET", "/blobs/", times=9, redirect=target)]
        with pytest.raises(OrchestraError) as caught:
            pull(store, f"{registry.host}/app:1", environ=env)
        assert "a:b" not in str(caught.value)

    def test_loop(self, store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
        registry.faults += [Fault("GET", "/manifests/", times=99, redirect="/v2/app/manifests/1")]
        with pytest.raises(RedirectError, match="more than"):
            pull(store, f"{registry.host}/app:1", environ=env)


class TestAuthentication:
    @pytest.mark.parametrize("kind", ["basic", "token"])
    def test_needed(self, store: ImageStore, env: dict[str, str], kind: str) -> None:
        with Registry(auth=kind) as registry:
            registry.add_image("app", "1", [ONE])
            name = f"{registry.host}/app:1"
            with pytest.raises(AuthenticationError):
                pull(store, name, environ=env)
            with pytest.raises(AuthenticationError):
                pull(store, name, environ=env, auth=Credentials("me", "wrong"))
            pull(store, name, environ=env, auth=Credentials("me", "s3cret"))

    def test_token_is_fetched_once(self, store: ImageStore, env: dict[str, str]) -> None:
        with Registry(auth="token") as registry:
            registry.add_image("app", "1", [ONE, TWO])
            pull(store, f"{registry.host}/app:1", environ=env, auth=Credentials("me", "s3cret"))
            assert len(registry.requests("GET", "/token")) == 1

    def test_anonymous_token(self, store: ImageStore, env: dict[str, str]) -> None:
        with Registry(auth="token", anonymous_pull=True) as registry:
            registry.add_image("app", "1", [ONE])
            pull(store, f"{registry.host}/app:1", environ=env)

    def test_identity_token(self, store: ImageStore, env: dict[str, str]) -> None:
        with Registry(auth="token") as registry:
            registry.identity_tokens.add("refresh-me")
            registry.add_image("app", "1", [ONE])
            auth = Credentials(identity_token="refresh-me")
            pull(store, f"{registry.host}/app:1", environ=env, auth=auth)
            assert registry.requests("POST", "/token")

    def test_strange_token_server_gets_no_credentials(self, store: ImageStore, env: dict[str, str]) -> None:
        with Registry(auth="token", realm="http://evil.example/token") as registry:
            registry.add_image("app", "1", [ONE])
            with pytest.raises(OrchestraError):
                pull(
                    store,
                    f"{registry.host}/app:1",
                    environ=env,
                    auth=Credentials("me", "s3cret"),
                    config=QUICK,
                )

    def test_from_config_file(self, store: ImageStore, env: dict[str, str], tmp_path: Path) -> None:
        with Registry(auth="token") as registry:
            registry.add_image("app", "1", [ONE])
            entry = {"auths": {registry.host: {"auth": "bWU6czNjcmV0"}}}
            (tmp_path / "home/.docker").mkdir(parents=True)
            (tmp_path / "home/.docker/config.json").write_text(json.dumps(entry))
            pull(store, f"{registry.host}/app:1", environ=env)


class TestMirrors:
    def test_first(self, store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
        registry.add_image("library/app", "1", [ONE])
        config = RegistryConfig(mirrors={"docker.io": (registry.url,)})
        image = pull(store, "app:1", environ=env, config=config, auth=Credentials("me", "s3cret"))
        assert "docker.io/library/app:1" in image.references
        assert not any(seen.authorization for seen in registry.log)

    def test_falls_back(self, store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
        with Registry() as mirror:
            registry.add_image("app", "1", [ONE])
            config = RegistryConfig(mirrors={registry.host: (mirror.url,)})
            pull(store, f"{registry.host}/app:1", environ=env, config=config)
            assert mirror.requests("GET", "/manifests/")


class TestPush:
    def pulled(self, store: ImageStore, env: dict[str, str], target: str) -> None:
        with Registry() as source:
            source.add_image("app", "1", [ONE, TWO])
            image = pull(store, f"{source.host}/app:1", environ=env)
        store.tag(image.id, target)

    @pytest.mark.parametrize("chunk", [0, 50_000])
    def test_push(self, store: ImageStore, registry: Registry, env: dict[str, str], chunk: int) -> None:
        name = f"{registry.host}/mine/app:2"
        self.pulled(store, env, name)
        digest = push(store, name, environ=env, chunk=chunk)
        assert registry.manifests["mine/app"]["2"][1] == store.blobs.read(digest)
        assert len(registry.blobs["mine/app"]) == 3
        assert bool(registry.requests("PATCH")) == bool(chunk)
        registry.log.clear()
        push(store, name, environ=env)
        assert not registry.requests("POST")

    def test_with_token(self, store: ImageStore, env: dict[str, str]) -> None:
        with Registry(auth="token") as registry:
            self.pulled(store, env, f"{registry.host}/app:2")
            with pytest.raises(AuthenticationError):
                push(store, f"{registry.host}/app:2", environ=env)
            push(store, f"{registry.host}/app:2", environ=env, auth=Credentials("me", "s3cret"))
            assert "2" in registry.manifests["app"]

    def test_mount(self, store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
        registry.add_image("base", "1", [ONE, TWO])
        image = pull(store, f"{registry.host}/base:1", environ=env)
        store.tag(image.id, f"{registry.host}/app:1")
        push(store, f"{registry.host}/app:1", environ=env)
        assert not registry.requests("PUT", "/uploads/")
        assert len(registry.blobs["app"]) == 3

    def test_mount_with_token(self, store: ImageStore, env: dict[str, str]) -> None:
        auth = Credentials("me", "s3cret")
        with Registry(auth="token") as registry:
            registry.add_image("base", "1", [ONE, TWO])
            image = pull(store, f"{registry.host}/base:1", environ=env, auth=auth)
            store.tag(image.id, f"{registry.host}/app:1")
            push(store, f"{registry.host}/app:1", environ=env, auth=auth)
            assert not registry.requests("PUT", "/uploads/")

    def test_mount_refused(self, store: ImageStore, env: dict[str, str]) -> None:
        with Registry(mount=False) as registry:
            registry.add_image("base", "1", [ONE])
            image = pull(store, f"{registry.host}/base:1", environ=env)
            store.tag(image.id, f"{registry.host}/app:1")
            push(store, f"{registry.host}/app:1", environ=env)
            assert len(registry.blobs["app"]) == 2

    def test_too_large_for_one_piece(
        self, store: ImageStore, env: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("orchestra.images.registry.upload.DEFAULT_CHUNK", 40_000)
        with Registry(chunk_limit=60_000) as registry:
            name = f"{registry.host}/app:1"
            self.pulled(store, env, name)
            image = store.get(name)
            store.ingest(store.blobs.read(image.digest), names=[name])
            push(store, name, environ=env)
            assert "1" in registry.manifests["app"]

    def test_broken_upload_goes_on(self, store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
        name = f"{registry.host}/app:1"
        self.pulled(store, env, name)
        registry.faults += [Fault("PATCH", "", times=2, reset=True), Fault("PUT", "/uploads/", status=500)]
        push(store, name, environ=env, chunk=20_000)
        assert "1" in registry.manifests["app"]

    def test_retried(self, store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
        name = f"{registry.host}/app:1"
        self.pulled(store, env, name)
        registry.faults += [Fault("PUT", "/uploads/", status=503), Fault("PUT", "/manifests/", status=429)]
        push(store, name, environ=env)
        assert "1" in registry.manifests["app"]

    def test_unknown_image(self, store: ImageStore, env: dict[str, str]) -> None:
        with pytest.raises(NotFoundError):
            push(store, "127.0.0.1:1/app:1", environ=env)

    def test_plain_layers_travel_compressed(
        self, store: ImageStore, registry: Registry, env: dict[str, str]
    ) -> None:
        with Registry() as source:
            source.add_image("app", "1", [ONE], compression="none")
            image = pull(store, f"{source.host}/app:1", environ=env)
        name = f"{registry.host}/app:1"
        store.tag(image.id, name)
        digest = push(store, name, environ=env)
        layers = json.loads(registry.manifests["app"]["1"][1])["layers"]
        assert layers[0]["mediaType"].endswith("+gzip")
        assert push(store, name, environ=env) == digest
        other = ImageStore(store.root.parent / "other")
        assert pull(other, name, environ=env).id == image.id
        assert contents(other, name)["data"] == NOISE
