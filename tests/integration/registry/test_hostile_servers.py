"""Servers that do not even speak HTTP as they should: each ends in a clear error, in bounded time and memory."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.registry import Fault, Registry, digest_of
from support.trees import archive

from orchestra.errors import OrchestraError
from orchestra.images.registry.config import RegistryConfig
from orchestra.images.registry.credentials import Credentials
from orchestra.images.registry.login import login
from orchestra.images.registry.problems import RegistryError
from orchestra.images.registry.transfer import pull, push
from orchestra.images.store import ImageStore

QUICK = RegistryConfig(attempts=2, connect_timeout=1, idle_timeout=0.5, answer_timeout=0.5)
LAYER = archive(("file", "file", {"content": b"content" * 1000}))


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "PATH": "/nowhere", "XDG_RUNTIME_DIR": str(tmp_path / "none")}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestra.images.registry.client.random.uniform", lambda _low, _high: 0.0)


@contextlib.contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Answers every connection, after the head of its request, by ``answer``; its host."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(10)
            head = b""
            while b"\r\n\r\n" not in head:
                data = client.recv(65536)
                if not data:
                    return
                head += data
            answer(client)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def endless(head: bytes, piece: bytes, pause: float = 0.0) -> Callable[[socket.socket], None]:
    def answer(client: socket.socket) -> None:
        client.sendall(head)
        while True:
            client.sendall(piece)
            time.sleep(pause)

    return answer


OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS: dict[str, Callable[[socket.socket], None]] = {
    "nothing": lambda client: None,
    "garbage": lambda client: client.sendall(b"\0\1\2\3" * 100),
    "another protocol": lambda client: client.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "half a head": lambda client: client.sendall(OK + b"Content-Type: text"),
    "an impossible status": lambda client: client.sendall(b"HTTP/1.1 9999 OK\r\n\r\n"),
    "a strange length": lambda client: client.sendall(OK + b"Content-Length: -5\r\n\r\nabc"),
    "a long length": lambda client: client.sendall(OK + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nabc"),
    "a length in other digits": lambda client: client.sendall(OK + b"Content-Length: \xb2\r\n\r\nabc"),
    "a length of 5000 digits": lambda client: client.sendall(OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nabc"),
    "strange chunks": lambda client: client.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "a huge chunk": endless(OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffff\r\n", b"x" * 65536),
    "endless chunks": endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "an endless line": endless(b"HTTP/1.1 200 ", b"x" * 65536),
    "endless headers": endless(OK, b"X-More: " + b"x" * 1000 + b"\r\n"),
    "an endless header": endless(OK + b"X-More: ", b"x" * 65536),
    "endless continuation": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "slow continuation": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.2),
    "a dripping head": endless(OK, b"X", 0.1),
    "an endless body": endless(OK + b"\r\n", b"x" * 65536),
    "an endless error": endless(b"HTTP/1.1 500 No\r\n\r\n", b"x" * 65536),
    "a dripping error": endless(b"HTTP/1.1 403 No\r\n\r\n", b"x", 0.1),
    "an endless refusal": endless(b'HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm="x"\r\n\r\n', b"x" * 65536),
    "an endless redirect": endless(b"HTTP/1.1 307 Go\r\nLocation: /v2/x\r\n\r\n", b"x" * 65536),
    "a challenge of commas": lambda client: client.sendall(
        b"HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer " + b",a=" * 16000 + b"\r\nContent-Length: 0\r\n\r\n"
    ),
}


@pytest.mark.parametrize("name", list(ANSWERS))
def test_pull_ends(store: ImageStore, env: dict[str, str], name: str) -> None:
    with server(ANSWERS[name]) as host:
        begun = time.monotonic()
        with pytest.raises(OrchestraError) as caught:
            pull(store, f"{host}/app:1", environ=env, config=QUICK, auth=Credentials("me", "s3cret"))
        assert time.monotonic() - begun < 30
        assert len(caught.value.brief) < 1000 and caught.value.brief.isprintable()
        assert "s3cret" not in str(caught.value)
    assert store.list() == []


@pytest.mark.parametrize("name", ["garbage", "an endless body", "slow continuation", "an endless error", "an endless refusal"])
def test_login_ends(env: dict[str, str], name: str) -> None:
    with server(ANSWERS[name]) as host:
        begun = time.monotonic()
        if name == "an endless body":  # it says 200, which is all that a login wants to know
            login(host, Credentials("me", "s3cret"), environ=env, config=QUICK)
        else:
            with pytest.raises(OrchestraError):
                login(host, Credentials("me", "s3cret"), environ=env, config=QUICK)
        assert time.monotonic() - begun < 30


@pytest.mark.parametrize("fault", [{"hang": True}, {"endless": True}, {"reset": True}, {"status": 500}, {"status": 202}, {"drip": 0.1}])
@pytest.mark.parametrize("where", [("POST", "/uploads/"), ("PUT", "/uploads/"), ("PUT", "/manifests/"), ("HEAD", "/blobs/")])
def test_push_ends(store: ImageStore, env: dict[str, str], where: tuple[str, str], fault: dict[str, object]) -> None:
    with Registry() as registry:
        registry.add_image("app", "1", [LAYER])
        image = pull(store, f"{registry.host}/app:1", environ=env)
        registry.mount = False
        store.tag(image.id, f"{registry.host}/new:1")
        registry.faults.append(Fault(*where, times=99, **fault))  # type: ignore[arg-type]
        begun = time.monotonic()
        with contextlib.suppress(OrchestraError):
            push(store, f"{registry.host}/new:1", environ=env, config=QUICK)
        assert time.monotonic() - begun < 60
        registry.faults.clear()
        registry.uploads.clear()
        push(store, f"{registry.host}/new:1", environ=env)
        assert registry.manifests["new"]["1"] == registry.manifests["app"]["1"]


def damaged(registry: Registry, data: bytes, *, size: int | None = None, diff_id: str = "") -> None:
    """An image whose one layer is ``data``, with its right digest."""
    registry.add_image("app", "1", [LAYER])
    value = json.loads(registry.manifests["app"]["1"][1])
    value["layers"][0] |= {"digest": registry.add_blob("app", data), "size": len(data) if size is None else size}
    if diff_id:
        config = json.loads(registry.blobs["app"][value["config"]["digest"]])
        config["rootfs"]["diff_ids"] = [diff_id]
        text = json.dumps(config).encode()
        value["config"] |= {"digest": registry.add_blob("app", text), "size": len(text)}
    registry.add_manifest("app", "1", value)


PACKED = gzip.compress(LAYER, mtime=0)
PARTS = zlib.compressobj(9, zlib.DEFLATED, 31)
BOMB = PARTS.compress(LAYER[:512] + bytes(64 << 20)) + PARTS.flush()


CONTENTS = {
    "no end": PACKED[:-9],
    "the beginning": PACKED[:40],
    "a wrong sum": PACKED[:-1] + b"x",
    "two bytes": b"\x1f\x8b",
    "nothing": b"",
    "no tar": b"no tar at all" * 100,
    "no zstd": b"\x28\xb5\x2f\xfd" + b"\0" * 50,
    "zeros, another diff id": BOMB,
    "half a tar": gzip.compress(LAYER[:700], mtime=0),
    "a tail": PACKED + b"tail",
}


@pytest.mark.parametrize("data", CONTENTS.values(), ids=CONTENTS.keys())
def test_layers_whose_digest_is_right_and_content_is_not(store: ImageStore, env: dict[str, str], data: bytes) -> None:
    with Registry() as registry:
        damaged(registry, data)
        begun = time.monotonic()
        with pytest.raises(OrchestraError):
            pull(store, f"{registry.host}/app:1", environ=env, config=QUICK)
        assert time.monotonic() - begun < 30
    for image in store.list():
        with pytest.raises(OrchestraError):
            store.layers(image)
    assert [name for name in store.layers_dir.iterdir() if name.suffix != ".lock"] == []


@pytest.mark.parametrize("size", [0, 1, len(PACKED) - 1, len(PACKED) + 1, 10**18, 2**64])
def test_wrong_sizes(store: ImageStore, env: dict[str, str], size: int) -> None:
    with Registry() as registry:
        damaged(registry, PACKED, size=size)
        begun = time.monotonic()
        with pytest.raises(OrchestraError):
            pull(store, f"{registry.host}/app:1", environ=env, config=QUICK)
        assert time.monotonic() - begun < 30
        assert not store.blobs.has(digest_of(PACKED))
    assert store.list() == []


def test_a_diff_id_that_is_another(store: ImageStore, env: dict[str, str]) -> None:
    with Registry() as registry:
        damaged(registry, PACKED, diff_id="sha256:" + "0" * 64)
        with pytest.raises(OrchestraError, match="wrong content"):
            pull(store, f"{registry.host}/app:1", environ=env, config=QUICK)
    assert [name for name in store.layers_dir.iterdir() if name.suffix != ".lock"] == []


@pytest.mark.parametrize("standing", ["0-\xb2", "0-" + "9" * 5000, "0-99999999999", "9-0", "x", "", "bytes=0-4"], ids=range(7))
def test_an_upload_that_stands_anywhere(store: ImageStore, env: dict[str, str], standing: str) -> None:
    """After a broken chunk the server says where to go on, or nonsense."""
    with Registry() as registry:
        registry.add_image("app", "1", [LAYER])
        image = pull(store, f"{registry.host}/app:1", environ=env)
        registry.mount = False
        store.tag(image.id, f"{registry.host}/new:1")
        registry.faults += [
            Fault("PATCH", "", times=3, status=500),
            Fault("GET", "/uploads/", times=3, status=204, headers={"Range": standing}),
        ]
        with contextlib.suppress(OrchestraError):
            push(store, f"{registry.host}/new:1", environ=env, config=QUICK, chunk=50)


def test_an_endless_token(store: ImageStore, env: dict[str, str]) -> None:
    with Registry(auth="token") as registry:
        registry.add_image("app", "1", [LAYER])
        for fault in (Fault("", "/token", times=9, endless=True), Fault("", "/token", times=9, hang=True), Fault("", "/token", status=200, body=b"[1]"),
                      Fault("", "/token", status=200, body=b'{"token": "a\\nb"}'), Fault("", "/token", times=9, redirect="file:///etc/passwd")):  # fmt: skip
            registry.faults[:] = [fault]
            with pytest.raises(RegistryError):
                pull(store, f"{registry.host}/app:1", environ=env, config=QUICK, auth=Credentials("me", "s3cret"))
