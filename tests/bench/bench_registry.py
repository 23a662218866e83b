"""Pull and push of one image over loopback, beside what each stage gives alone and what skopeo needs.

    .venv/bin/python tests/bench/bench_registry.py [PLAIN_MB]

Needs docker-registry; compares with skopeo and podman where they are installed.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.registry import Registry

from orchestra.images.registry.transfer import pull, push
from orchestra.images.store import ImageStore

ENVIRONMENT = {"HOME": "/nonexistent", "PATH": os.environ["PATH"]}


def layer(megabytes: int, seed: int) -> bytes:
    """Files of words and noise that compress to about two fifths."""
    chance = random.Random(seed)
    words = [bytes(chance.randrange(97, 123) for _ in range(chance.randrange(3, 12))) for _ in range(5000)]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(megabytes * 20):
            data = b" ".join(chance.choices(words, k=5600)) + chance.randbytes(4_000)
            info = tarfile.TarInfo(f"usr/{number % 50}/{number}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def timed(what: str, size: int, work: Callable[[], object]) -> None:
    begin = time.perf_counter()
    work()
    seconds = time.perf_counter() - begin
    print(f"{what:34} {seconds:6.2f} s {size / seconds / 1e6:8.0f} MB/s")


def alone(folder: Path, compressed: list[bytes], plain: list[bytes]) -> None:
    """What the machine gives to each stage by itself."""
    small, large = sum(map(len, compressed)), sum(map(len, plain))
    timed("hash alone (sha256)", small, lambda: [hashlib.sha256(data).digest() for data in compressed])
    timed("decompress alone (zlib)", large, lambda: [zlib.decompress(data, 31) for data in compressed])

    def write() -> None:
        with open(folder / "blob", "wb") as out:
            for data in plain:
                out.write(data)

    timed("write alone (one file)", large, write)


def serve(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: '{host}'}}\n"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            socket.create_connection((host.split(":")[0], int(host.split(":")[1])), 1).close()
            break
        except OSError:
            time.sleep(0.05)
    return process, host


def others(folder: Path, name: str, size: int) -> None:
    if shutil.which("skopeo"):
        command = ["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", f"docker://{name}"]
        timed(
            "skopeo copy to dir (no unpacking)",
            size,
            lambda: subprocess.run([*command, f"dir:{folder}/out"], check=True, capture_output=True),
        )
    if shutil.which("podman"):
        command = ["podman", "--root", f"{folder}/podman", "--runroot", f"{folder}/podman-run", "pull"]
        timed(
            "podman pull",
            size,
            lambda: subprocess.run([*command, "--tls-verify=false", name], check=True, capture_output=True),
        )


def main() -> None:
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 120
    folder = Path(tempfile.mkdtemp(prefix="bench-registry-", dir="/var/tmp"))
    plain = [layer(megabytes * share // 12, share) for share in (6, 4, 2)]
    process, host = serve(folder)
    try:
        store = ImageStore(folder / "first")
        with Registry() as source:
            source.add_image("bench", "1", plain)
            image = pull(store, f"{source.host}/bench:1", environ=ENVIRONMENT)
            blobs = [data for data in source.blobs["bench"].values() if len(data) > 100_000]
        size, large = sum(map(len, blobs)), sum(map(len, plain))
        print(f"{large / 1e6:.0f} MB plain, {size / 1e6:.0f} MB compressed, {len(plain)} layers")
        alone(folder, blobs, plain)
        name = f"{host}/bench:1"
        store.tag(image.id, name)
        timed("push", size, lambda: push(store, name, environ=ENVIRONMENT))
        timed(
            "pull without unpacking",
            size,
            lambda: pull(ImageStore(folder / "second"), name, environ=ENVIRONMENT, unpack=False),
        )
        timed("pull, whole", size, lambda: pull(ImageStore(folder / "third"), name, environ=ENVIRONMENT))
        others(folder, name, size)
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
