"""How we treat a registry: bounded parallel transfers, back-off, progress, tokens that expire, nothing sent elsewhere."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.registry import DOCKER, Fault, Registry, digest_of
from support.trees import archive

from orchestra.errors import OrchestraError, UnsupportedError
from orchestra.events import Progress, Status
from orchestra.images.registry.config import RegistryConfig
from orchestra.images.registry.credentials import Credentials, CredentialStore
from orchestra.images.registry.problems import AuthenticationError, RegistryError
from orchestra.images.registry.transfer import pull, push
from orchestra.images.store import ImageStore

DATE = "Wed, 21 Oct 2150 07:28:00 GMT"
AUTH = Credentials("me", "s3cret")
LAYERS = [archive((f"f{number}", "file", {"content": os.urandom(20_000)})) for number in range(8)]


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as running:
        yield running


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    home = tmp_path / "home"
    home.mkdir()
    return {"HOME": str(home), "PATH": f"{home}/bin:/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path / "none")}


@pytest.mark.parametrize("bound", [1, 3])
def test_parallel_transfers_are_bounded(store: ImageStore, registry: Registry, env: dict[str, str], bound: int) -> None:
    config = RegistryConfig(downloads=bound, uploads=bound)
    registry.add_image("app", "1", LAYERS, compression="none")
    registry.faults.append(Fault("GET", "/blobs/", times=99, drip=0.02, piece=5000))
    image = pull(store, f"{registry.host}/app:1", config=config, environ=env)
    assert registry.busiest["GET blobs"] == bound
    registry.faults.clear()
    registry.mount = False
    store.tag(image.id, f"{registry.host}/other:1")
    push(store, f"{registry.host}/other:1", config=config, environ=env, compress=False)
    assert registry.busiest["PUT uploads"] <= bound


def test_progress_of_every_layer(store: ImageStore, registry: Registry, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestra.images.registry.fetch._REPORT", 0.0)
    monkeypatch.setattr("orchestra.images.registry.transfer._REPORT", 0.0)
    registry.add_image("app", "1", LAYERS[:2], compression="none")
    registry.faults.append(Fault("GET", "/blobs/", times=99, drip=0.005, piece=5000))
    seen: list[Progress] = []
    image = pull(store, f"{registry.host}/app:1", sink=seen.append, environ=env)
    for tar in LAYERS[:2]:
        mine = [p for p in seen if p.resource == f"Layer {digest_of(tar).partition(':')[2][:12]}"]
        loading = [p.current for p in mine if p.text == "Downloading"]
        assert len(loading) > 2 and loading == sorted(loading)
        assert {p.total for p in mine} == {len(tar)}
        assert (mine[-1].text, mine[-1].status, mine[-1].current) == ("Pull complete", Status.DONE, len(tar))
    seen.clear()
    store.tag(image.id, f"{registry.host}/other:1")
    registry.mount = False
    push(store, f"{registry.host}/other:1", sink=seen.append, environ=env, compress=False, chunk=5000)
    ends = {p.resource: p.text for p in seen if p.status is Status.DONE}
    assert sum(text == "Pushed" for text in ends.values()) == 4  # two layers, the configuration, the image
    seen.clear()
    pull(ImageStore(store.root), f"{registry.host}/app:1", sink=seen.append, environ=env)
    assert not any("Layer" in p.resource for p in seen)


class Waits:
    """Takes the place of the client's waiting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds: list[float] = []
        monkeypatch.setattr("orchestra.images.registry.client.random.uniform", lambda _low, high: high)
        wait = threading.Event.wait

        def fake(event: threading.Event, timeout: float | None = None) -> bool:
            if timeout is not None and timeout >= 0.2 and threading.current_thread().name.startswith(("Main", "pull", "push")):
                self.seconds.append(timeout)
                timeout = 0.0
            return wait(event, timeout)

        monkeypatch.setattr(threading.Event, "wait", fake)


def test_back_off_grows(store: ImageStore, registry: Registry, env: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    waits = Waits(monkeypatch)
    registry.faults.append(Fault("GET", "/manifests/", times=99, status=503))
    with pytest.raises(RegistryError, match="503"):
        pull(store, f"{registry.host}/app:1", environ=env)
    assert waits.seconds == [0.5, 1.0, 2.0, 4.0]


@pytest.mark.parametrize(("asked", "waited"), [("3", 3.0), ("99999", 30.0), ("-1", 0.5), ("soon", 0.5), ("\xb2", 0.5), ("9" * 5000, 0.5), (DATE, 30.0)], ids=range(7))
def test_retry_after_within_reason(
    store: ImageStore, registry: Registry, env: dict[str, str], monkeypatch: pytest.MonkeyPatch, asked: str, waited: float
) -> None:
    waits = Waits(monkeypatch)
    registry.add_image("app", "1", LAYERS[:1])
    registry.faults.append(Fault("GET", "/manifests/", status=429, headers={"Retry-After": asked}))
    pull(store, f"{registry.host}/app:1", environ=env)
    assert waits.seconds == [waited]


def test_what_does_not_help_is_not_asked_again(store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
    for status in (400, 403, 404, 501 - 1):
        registry.log.clear()
        registry.faults[:] = [Fault("GET", "/manifests/", times=99, status=status)]
        with pytest.raises(OrchestraError):
            pull(store, f"{registry.host}/app:1", environ=env, config=RegistryConfig(attempts=2))
        assert len(registry.requests("GET", "/manifests/")) == (2 if status >= 500 else 1)


class Forgetful(dict[str, list[str]]):
    """Tokens that are good for two requests."""

    def __init__(self) -> None:
        super().__init__()
        self.uses: dict[str, int] = {}

    def get(self, key: str, default: object = None) -> object:  # type: ignore[override]
        value = super().get(key, default)
        self.uses[key] = self.uses.get(key, 0) + 1
        if self.uses[key] == 2:
            self.pop(key, None)
        return value


def test_an_expired_token_is_fetched_again(store: ImageStore, env: dict[str, str]) -> None:
    with Registry(auth="token") as registry:
        registry.tokens = Forgetful()
        registry.add_image("app", "1", LAYERS[:3])
        config = RegistryConfig(downloads=1, uploads=1)
        image = pull(store, f"{registry.host}/app:1", auth=AUTH, environ=env, config=config)
        assert len(registry.requests("GET", "/token")) >= 3
        store.tag(image.id, f"{registry.host}/new:1")
        push(store, f"{registry.host}/new:1", auth=AUTH, environ=env, config=config)
        assert "1" in registry.manifests["new"]


def test_a_login_page_elsewhere_gets_no_password(store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
    """Redirected to a host that asks for a password itself."""
    with Registry(auth="basic") as other:
        for pattern in ("/manifests/", "/blobs/"):
            registry.add_image("app", "1", LAYERS[:1])
            registry.faults[:] = [Fault("GET", pattern, times=9, redirect=f"{other.url}/v2/app/blobs/x")]
            with pytest.raises(OrchestraError):
                pull(store, f"{registry.host}/app:1", environ=env, auth=AUTH, config=RegistryConfig(attempts=2))
        assert other.log and not any(seen.authorization for seen in other.log)


@pytest.mark.parametrize("chunk", [0, 5000])
def test_an_upload_sent_elsewhere_gets_no_password(store: ImageStore, env: dict[str, str], chunk: int) -> None:
    """The registry opens the upload on another host (a store behind it), or nowhere we go."""
    with Registry(auth="token") as registry, Registry() as other:
        registry.add_image("app", "1", LAYERS[:1])
        image = pull(store, f"{registry.host}/app:1", environ=env, auth=AUTH)
        store.tag(image.id, f"{registry.host}/new:1")
        registry.mount = False
        elsewhere = f"{other.url}/v2/new/blobs/uploads/1"
        registry.faults.append(Fault("POST", "/uploads/", times=9, status=202, headers={"Location": elsewhere}))
        with pytest.raises(OrchestraError):
            push(store, f"{registry.host}/new:1", environ=env, auth=AUTH, chunk=chunk, config=RegistryConfig(attempts=2))
        assert other.log and not any(seen.authorization for seen in other.log)
        for target in ("file:///etc/passwd", "http://a:b@127.0.0.1/", "ftp://x/", ""):
            registry.faults[:] = [Fault("POST", "/uploads/", times=9, status=202, headers={"Location": target})]
            with pytest.raises(OrchestraError) as caught:
                push(store, f"{registry.host}/new:1", environ=env, auth=AUTH, chunk=chunk, config=RegistryConfig(attempts=2))
            assert "a:b" not in str(caught.value)


@pytest.mark.parametrize("realm", ["file:///etc/passwd", "ftp://127.0.0.1/token", "http://u:p@127.0.0.1/token", "", "http://[::1/token"])
def test_token_servers_nowhere(store: ImageStore, env: dict[str, str], realm: str) -> None:
    with Registry(auth="token", realm=realm or " ") as registry:
        registry.add_image("app", "1", LAYERS[:1])
        with pytest.raises(OrchestraError):
            pull(store, f"{registry.host}/app:1", environ=env, auth=AUTH, config=RegistryConfig(attempts=1))


def test_a_mirror_gets_its_own_password_only(store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
    with Registry(auth="basic") as mirror:
        (Path(env["HOME"]) / ".docker").mkdir()
        auths = {mirror.host: {"username": mirror.user, "password": mirror.password}, registry.host: {"username": "o", "password": "own"}}
        (Path(env["HOME"]) / ".docker/config.json").write_text(json.dumps({"auths": auths}))
        mirror.add_image("hub/app", "1", LAYERS[:1])
        config = RegistryConfig(mirrors={registry.host: (f"{mirror.url}",)})
        registry.add_image("app", "1", LAYERS[1:2])
        registry.auth, registry.user, registry.password = "basic", "o", "own"
        image = pull(store, f"{registry.host}/app:1", environ=env, config=config)  # the mirror does not have it
        assert list(image.diff_ids) == [digest_of(LAYERS[1])]
        given = {seen.authorization for seen in mirror.log} - {""}
        assert given == {Credentials(mirror.user, mirror.password).basic()}
        assert {seen.authorization for seen in registry.log} - {""} == {Credentials("o", "own").basic()}


def test_a_mirror_that_hangs_is_left(store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
    with Registry() as mirror:
        mirror.faults.append(Fault("", "", times=99, hang=True))
        registry.add_image("app", "1", LAYERS[:1])
        config = RegistryConfig(mirrors={registry.host: (mirror.url,)}, attempts=1, answer_timeout=1, idle_timeout=1)
        begun = time.monotonic()
        pull(store, f"{registry.host}/app:1", environ=env, config=config)
        assert time.monotonic() - begun < 20


@pytest.mark.parametrize("kind", [f"{DOCKER}.image.rootfs.foreign.diff.tar.gzip", "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"])
def test_foreign_layers_are_refused_before_anything_is_fetched(store: ImageStore, registry: Registry, env: dict[str, str], kind: str) -> None:
    registry.add_image("app", "1", LAYERS[:2])
    value = json.loads(registry.manifests["app"]["1"][1])
    value["layers"][1]["mediaType"] = kind
    registry.add_manifest("app", "1", value)
    with pytest.raises(UnsupportedError, match="non-distributable"):
        pull(store, f"{registry.host}/app:1", environ=env)
    assert not registry.requests("GET", "/blobs/")


def test_the_same_layer_twice(store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
    digest = registry.add_image("app", "1", [LAYERS[0], LAYERS[1], LAYERS[0]])
    image = pull(store, f"{registry.host}/app:1", environ=env)
    assert image.digest == digest and len(store.layers(image)) == 3
    assert len(registry.requests("GET", "/blobs/")) == 3  # with the configuration
    store.tag(image.id, f"{registry.host}/new:1")
    assert push(store, f"{registry.host}/new:1", environ=env) == digest


def test_plain_layers_are_compressed_together(store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
    """The same bytes whatever the order; a plain layer that is there twice is compressed once; an interrupt ends it."""
    tars = [archive((f"f{n}", "file", {"content": os.urandom(30_000) * 200})) for n in range(3)]
    registry.add_image("app", "1", [*tars, tars[0]], compression="none")
    image = pull(store, f"{registry.host}/app:1", environ=env)
    name = f"{registry.host}/new:1"
    store.tag(image.id, name)
    told: list[Progress] = []

    def interrupt(progress: Progress) -> None:
        told.append(progress)
        if progress.text == "Compressing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        push(store, name, environ=env, sink=interrupt)
    assert "new" not in registry.manifests and len([p for p in told if p.text == "Compressing"]) <= 3
    told.clear()
    digest = push(store, name, environ=env, sink=told.append)
    assert len([p for p in told if p.text == "Compressed"]) == 3
    layers = json.loads(registry.manifests["new"]["1"][1])["layers"]
    assert len(layers) == 4 and layers[0] == layers[3]
    for layer, tar in zip(layers, tars, strict=False):
        assert gzip.decompress(registry.blobs["new"][layer["digest"]]) == tar
    other = ImageStore(store.root.parent / "other")
    pull(other, f"{registry.host}/app:1", environ=env)
    other.tag(image.id, name)
    assert push(other, name, environ=env) == digest


def test_layers_by_sha512(store: ImageStore, registry: Registry, env: dict[str, str]) -> None:
    registry.add_image("app", "1", LAYERS[:1], compression="none")
    value = json.loads(registry.manifests["app"]["1"][1])
    name = "sha512:" + hashlib.sha512(LAYERS[0]).hexdigest()
    registry.blobs["app"][name] = LAYERS[0]
    value["layers"][0]["digest"] = name
    registry.add_manifest("app", "1", value)
    image = pull(store, f"{registry.host}/app:1", environ=env)
    assert image.manifest.layers[0].digest == name and (store.layers(image)[0] / "f0").stat().st_size == 20_000
    registry.blobs["app"][name] = LAYERS[1]
    with pytest.raises(OrchestraError, match="wrong digest"):
        pull(ImageStore(store.root.parent / "other"), f"{registry.host}/app:1", environ=env)


class TestHelpers:
    def helper(self, env: dict[str, str], body: str) -> CredentialStore:
        home = Path(env["HOME"])
        for folder in (home / ".docker", home / "bin"):
            folder.mkdir(exist_ok=True)
        (home / ".docker/config.json").write_text('{"credsStore": "test"}')
        path = home / "bin/docker-credential-test"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return CredentialStore(env)

    def test_pull_asks_it(self, store: ImageStore, env: dict[str, str]) -> None:
        with Registry(auth="basic") as registry:
            registry.add_image("app", "1", LAYERS[:1])
            self.helper(env, f'read host; [ "$1 $host" = "get {registry.host}" ] || exit 1; echo \'{{"Username":"me","Secret":"s3cret"}}\'')
            pull(store, f"{registry.host}/app:1", environ=env)

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ("exec yes", "says more than"),
            ("yes >&2", "says more than"),
            ("printf '\\377\\376'", "something strange"),
            ("echo '[]'", "something strange"),
            ("printf '\\377secret\\033[31m'; exit 3", "get failed"),
            ("exec >&- 2>&-; exec sleep 100", "did not answer"),
            ("exec sleep 100", "did not answer"),
        ],
    )
    def test_hostile(self, env: dict[str, str], monkeypatch: pytest.MonkeyPatch, body: str, said: str) -> None:
        monkeypatch.setattr("orchestra.images.registry.helper._SECONDS", 1.5 if "sleep" in body else 60.0)
        begun = time.monotonic()
        with pytest.raises(AuthenticationError, match=said) as caught:
            self.helper(env, body).get("a.example")
        assert caught.value.brief.isprintable()
        assert time.monotonic() - begun < 30

    def test_a_strange_file(self, env: dict[str, str]) -> None:
        store = self.helper(env, "exit 0")
        for text in ('{"auths": 3}', '{"auths": ["a"]}', "[" * 100_000, "\udcff"):
            store.path.write_text(text, errors="surrogateescape")
            with pytest.raises(OrchestraError):
                store.get("a.example")
            with pytest.raises(OrchestraError):
                store.save("a.example", AUTH)
        store.path.write_text('{"auths": null}')
        store.save("a.example", AUTH)
        assert store.get("a.example") == AUTH
