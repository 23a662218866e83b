"""Pull and push against Debian's docker-registry, with skopeo as second client on both sides."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
from pathlib import Path

import pytest
from support.engine import need
from support.podman import podman as make_podman
from support.proxy import Proxy, certificate
from support.registry import Registry
from support.trees import snapshot

from orchestra.images.registry.config import RegistryConfig
from orchestra.images.registry.credentials import Credentials
from orchestra.images.registry.login import login, logout
from orchestra.images.registry.problems import AuthenticationError, ConnectionFailed
from orchestra.images.registry.transfer import pull, push
from orchestra.images.store import ImageStore

pytestmark = pytest.mark.root

SERVER = shutil.which("docker-registry")
SKOPEO = shutil.which("skopeo")
needs_server = pytest.mark.usefixtures("server_program")
needs_skopeo = pytest.mark.usefixtures("skopeo_program")
AUTH = Credentials("me", "s3cret")
HASH = "$2y$05$abcdefghijklmnopqrstuuLK7U1u6pVRmL7L1BBM2aS35PSZnDXlK"
"""bcrypt of that password."""


def make_tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


LAYERS = [
    make_tar(
        {
            "etc/one": b"1\n",
            "data": b"".join(hashlib.sha256(bytes([n & 255, n >> 8])).digest() for n in range(20000)),
        }
    ),
    make_tar({"etc/two": b"2\n", "etc/.wh.one": b""}),
]


@pytest.fixture
def server_program() -> None:
    need("docker-registry", bool(SERVER), "docker-registry is not installed")


@pytest.fixture
def skopeo_program() -> None:
    need("skopeo", bool(SKOPEO), "skopeo is not installed")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {
        "HOME": str(tmp_path / "home"),
        "PATH": os.environ["PATH"],
        "XDG_RUNTIME_DIR": str(tmp_path / "none"),
    }


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


class Server:
    def __init__(self, folder: Path, extra: str = "", scheme: str = "http") -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        folder.mkdir(exist_ok=True)
        config = folder / "config.yml"
        config.write_text(
            "version: 0.1\nlog: {level: error}\n"
            f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n"
            f"http:\n  addr: {self.host}\n{extra}"
        )
        self.process = subprocess.Popen(
            [str(SERVER), "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> Server:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                assert self.process.poll() is None, "docker-registry ended"
                time.sleep(0.05)
        raise AssertionError("docker-registry does not listen")

    def __exit__(self, *_exc: object) -> None:
        self.process.terminate()
        self.process.wait(20)


def given_image(store: ImageStore, env: dict[str, str], target: str, **how: object) -> str:
    """An image in the store under the name ``target``; its id."""
    with Registry() as source:
        source.add_image("app", "1", LAYERS, **how)  # type: ignore[arg-type]
        image = pull(store, f"{source.host}/app:1", environ=env)
    store.tag(image.id, target)
    return image.id


def there_and_back(
    server: Server, tmp_path: Path, env: dict[str, str], auth: Credentials | None = None, **options: object
) -> None:
    name = f"{server.host}/team/app:1"
    first, second = ImageStore(tmp_path / "one"), ImageStore(tmp_path / "two")
    given = given_image(first, env, name)
    push(first, name, environ=env, auth=auth, **options)  # type: ignore[arg-type]
    options.pop("chunk", None)
    image = pull(second, name, environ=env, auth=auth, **options)  # type: ignore[arg-type]
    assert image.id == given
    assert len(second.layers(image)) == 2
    assert (second.layers(image)[1] / "etc/two").read_text() == "2\n"


@needs_server
@pytest.mark.parametrize("chunk", [0, 100_000])
def test_plain(tmp_path: Path, env: dict[str, str], chunk: int) -> None:
    with Server(tmp_path / "server") as server:
        there_and_back(server, tmp_path, env, chunk=chunk)


@needs_server
def test_mounts_between_repositories(tmp_path: Path, store: ImageStore, env: dict[str, str]) -> None:
    with Server(tmp_path / "server") as server:
        given = given_image(store, env, f"{server.host}/one:1")
        push(store, f"{server.host}/one:1", environ=env)
        store.tag(given, f"{server.host}/two:1")
        texts: list[str] = []
        push(store, f"{server.host}/two:1", environ=env, sink=lambda progress: texts.append(progress.text))
        assert sum(text == "Mounted from one" for text in texts) == 3


@needs_server
def test_basic_authentication(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "passwords").write_text(f"me:{HASH}\n")
    extra = f"auth: {{htpasswd: {{realm: test, path: {tmp_path}/passwords}}}}\n"
    with Server(tmp_path / "server", extra) as server:
        there_and_back(server, tmp_path, env, AUTH)
        with pytest.raises(AuthenticationError):
            pull(ImageStore(tmp_path / "three"), f"{server.host}/team/app:1", environ=env)
        with pytest.raises(AuthenticationError):
            login(server.host, Credentials("me", "wrong"), environ=env)
        login(server.host, AUTH, environ=env)
        pull(ImageStore(tmp_path / "four"), f"{server.host}/team/app:1", environ=env)
        assert logout(server.host, environ=env)


@needs_server
def test_tls(tmp_path: Path, env: dict[str, str]) -> None:
    given, key = certificate(tmp_path / "one", "127.0.0.1")
    with Server(tmp_path / "server", f"  tls: {{certificate: {given}, key: {key}}}\n") as server:
        trust(tmp_path / "certs", server.host, given)
        there_and_back(server, tmp_path, env, config=RegistryConfig(certificates=(str(tmp_path / "certs"),)))
        trust(tmp_path / "other", server.host, certificate(tmp_path / "two", "127.0.0.1")[0])
        with pytest.raises(ConnectionFailed, match="not trusted"):
            strict = RegistryConfig(certificates=(str(tmp_path / "other"),))
            pull(ImageStore(tmp_path / "x"), f"{server.host}/team/app:1", environ=env, config=strict)


@needs_server
@pytest.mark.parametrize("tls", [False, True])
def test_behind_an_https_proxy(tmp_path: Path, env: dict[str, str], tls: bool) -> None:
    """A registry that wants a password, by a name that only the proxy can reach; a proxy that wants one too."""
    (tmp_path / "passwords").write_text(f"me:{HASH}\n")
    extra = f"auth: {{htpasswd: {{realm: test, path: {tmp_path}/passwords}}}}\n"
    name = "registry.example"
    if tls:
        given, key = certificate(tmp_path / "registry", name)
        trust(tmp_path / "certs", name, given)
        extra = f"  tls: {{certificate: {given}, key: {key}}}\n{extra}"
    mine = certificate(tmp_path / "proxy", "127.0.0.1")
    with Server(tmp_path / "server", extra) as server, Proxy(server.host, tls=mine, users={"who": "p@ss"}) as proxy:
        trust(tmp_path / "certs", proxy.address, mine[0])
        config = RegistryConfig(certificates=(str(tmp_path / "certs"),), insecure=() if tls else (name,), attempts=2)
        address = f"https://who:p%40ss@{proxy.address}"
        behind = env | ({"https_proxy": address} if tls else {"http_proxy": address, "https_proxy": address})
        server.host = name
        there_and_back(server, tmp_path, behind, AUTH, config=config, chunk=100_000)
        assert any(line.startswith(f"CONNECT {name}:443 " if tls else f"PUT http://{name}/v2/") for line in proxy.lines)
        with pytest.raises(AuthenticationError):
            pull(ImageStore(tmp_path / "three"), f"{name}/team/app:1", environ=behind, config=config)


def trust(certificates: Path, host: str, given: str) -> None:
    (certificates / host).mkdir(parents=True)
    shutil.copy(given, certificates / host / "ca.crt")


@needs_server
@needs_skopeo
@pytest.mark.peer
@pytest.mark.parametrize(("kind", "compression"), [("oci", "gzip"), ("oci", "zstd"), ("v2s2", "gzip")])
def test_skopeo_pushes(
    tmp_path: Path, store: ImageStore, env: dict[str, str], kind: str, compression: str
) -> None:
    with Server(tmp_path / "server") as server, Registry() as source:
        source.add_image("app", "1", LAYERS)
        skopeo(
            "copy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            "--format",
            kind,
            "--dest-compress-format",
            compression,
            "--dest-compress",
            f"docker://{source.host}/app:1",
            f"docker://{server.host}/app:1",
        )
        image = pull(store, f"{server.host}/app:1", environ=env)
        assert (store.layers(image)[1] / "etc/two").read_text() == "2\n"


@needs_server
@needs_skopeo
@pytest.mark.peer
@pytest.mark.parametrize("docker", [False, True])
def test_skopeo_pulls(tmp_path: Path, store: ImageStore, env: dict[str, str], docker: bool) -> None:
    with Server(tmp_path / "server") as server:
        name = f"{server.host}/app:1"
        given = given_image(store, env, name, docker=docker)
        push(store, name, environ=env)
        skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/out")
        manifest = json.loads((tmp_path / "out/manifest.json").read_text())
        assert manifest["config"]["digest"] == given


@needs_server
@pytest.mark.peer
@pytest.mark.parametrize("protected", [False, True])
def test_podman_on_the_other_side(tmp_path: Path, env: dict[str, str], protected: bool) -> None:
    """We push, podman pulls, tags and pushes; we pull that: always the same image. With TLS and passwords too."""
    extra, flags = "", ["--tls-verify=false"]
    config = RegistryConfig()
    if protected:
        given, key = certificate(tmp_path / "cert", "127.0.0.1")
        (tmp_path / "passwords").write_text(f"me:{HASH}\n")
        extra = f"  tls: {{certificate: {given}, key: {key}}}\nauth: {{htpasswd: {{realm: test, path: {tmp_path}/passwords}}}}\n"
    with make_podman() as podman, Server(tmp_path / "server", extra) as server:
        if protected:
            trust(tmp_path / "certs", server.host, given)
            config = RegistryConfig(certificates=(str(tmp_path / "certs"),))
            flags = ["--cert-dir", str(tmp_path / "certs" / server.host), "--creds", "me:s3cret"]
        store, name, back = ImageStore(tmp_path / "one"), f"{server.host}/team/app:1", f"{server.host}/other/app:2"
        ours = given_image(store, env, name)
        push(store, name, environ=env, auth=AUTH, config=config)
        podman("pull", "-q", *flags, name)
        seen = podman.inspect(name)
        assert f"sha256:{seen['Id']}" == ours and seen["RootFS"]["Layers"] == list(store.get(name).diff_ids)
        podman("push", "-q", *flags, name, back)
        other = ImageStore(tmp_path / "two")
        image = pull(other, back, environ=env, auth=AUTH, config=config)
        assert image.id == ours
        theirs, mine = podman.files(name), snapshot(other.layers(image)[1])
        assert theirs["etc/two"][4] == mine["etc/two"][4] == b"2\n" and "etc/one" not in theirs


def skopeo(*arguments: str) -> None:
    done = subprocess.run(
        [str(SKOPEO), "--insecure-policy", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
