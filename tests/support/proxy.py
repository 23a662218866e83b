"""A small HTTP proxy over loopback that leads every host to one place, for plain requests and CONNECT, itself
spoken to by plain http or by TLS; a SOCKS 5 proxy; certificates for both and for registries."""

from __future__ import annotations

import base64
import select
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from urllib.parse import urlsplit


def certificate(folder: Path, *names: str) -> tuple[str, str]:
    """Files of a new self-signed certificate for these host names or addresses, and of its key."""
    folder.mkdir(parents=True, exist_ok=True)
    alternatives = ",".join(f"{'IP' if name[-1].isdigit() else 'DNS'}:{name}" for name in names)
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
             "-subj", f"/CN={names[0]}", "-addext", f"subjectAltName={alternatives}",
             "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]  # fmt: skip
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    return str(folder / "cert.pem"), str(folder / "key.pem")


class Proxy:
    """``lines``: the request lines it saw; ``authorizations``: what was sent to the proxy itself; ``passed``: what
    came through its tunnels from clients. ``tls`` are certificate and key; with ``users`` it wants one of them."""

    def __init__(self, target: str, *, tls: tuple[str, str] | None = None, users: dict[str, str] | None = None) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self.users = users
        self._context: ssl.SSLContext | None = None
        if tls:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*tls)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.lines: list[str] = []
        self.authorizations: list[str] = []
        self.passed = bytearray()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._meet, args=(client,), daemon=True).start()

    def _meet(self, client: socket.socket) -> None:
        try:
            if self._context is not None:
                client = self._context.wrap_socket(client, server_side=True)
            self._serve(client)
        except OSError:
            client.close()  # clients that break off are part of the tests

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            head = b""
            while b"\r\n\r\n" not in head:
                data = client.recv(65536)
                if not data:
                    return
                head += data
            lines = head.decode("latin-1").split("\r\n")
            self.lines.append(lines[0])
            given = [line.partition(": ")[2] for line in lines if line.lower().startswith("proxy-auth")]
            self.authorizations += given
            if not self._known(given):
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            if lines[0].startswith("CONNECT "):
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                method, url, version = lines[0].split(" ")
                parts = urlsplit(url)
                lines[0] = f"{method} {parts.path}{'?' + parts.query if parts.query else ''} {version}"
                lines.insert(1, "Connection: close")
                lines = [line for line in lines if not line.lower().startswith("proxy-auth")]
                server.sendall("\r\n".join(lines).encode("latin-1"))
            self._join(client, server)

    def _known(self, given: list[str]) -> bool:
        if self.users is None:
            return True
        good = [f"{name}:{password}".encode() for name, password in self.users.items()]
        return any(base64.b64decode(text.removeprefix("Basic ")) in good for text in given)

    def _join(self, client: socket.socket, server: socket.socket) -> None:
        """Both directions in one thread, since a TLS connection bears no two."""
        waiting = [client, server]
        while True:
            ready = [client] if isinstance(client, ssl.SSLSocket) and client.pending() else select.select(waiting, [], [])[0]
            if client in ready:
                data = client.recv(65536)
                self.passed += data
                server.sendall(data)
                if not data:
                    waiting.remove(client)
                    server.shutdown(socket.SHUT_WR)
            if server in ready:
                data = server.recv(65536)
                if not data:
                    return
                client.sendall(data)


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


class Socks(Proxy):
    """A SOCKS 5 proxy that leads every host to one place. ``lines``: host:port it was asked for;
    ``authorizations``: user:password. With ``refuse`` it answers with that code."""

    def __init__(self, target: str, *, users: dict[str, str] | None = None, refuse: int = 0) -> None:
        super().__init__(target, users=users)
        self.refuse = refuse

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                self._talk(client)
            except OSError:
                return

    def _talk(self, client: socket.socket) -> None:
        methods = self._read(client, self._read(client, 2)[1])
        if self.users is not None:
            client.sendall(b"\5\2" if 2 in methods else b"\5\xff")
            if 2 not in methods:
                return
            name = self._read(client, self._read(client, 2)[1]).decode()
            password = self._read(client, self._read(client, 1)[0]).decode()
            self.authorizations.append(f"{name}:{password}")
            good = self.users.get(name) == password
            client.sendall(b"\1\0" if good else b"\1\1")
            if not good:
                return
        else:
            client.sendall(b"\5\0")
        kind = self._read(client, 4)[3]
        if kind == 3:
            host = self._read(client, self._read(client, 1)[0]).decode()
        else:
            host = socket.inet_ntop(*((socket.AF_INET, self._read(client, 4)) if kind == 1 else (socket.AF_INET6, self._read(client, 16))))
        port = int.from_bytes(self._read(client, 2), "big")
        self.lines.append(f"{host}:{port}")
        if self.refuse:
            client.sendall(bytes([5, self.refuse, 0, 1, 0, 0, 0, 0, 0, 0]))
            return
        with socket.create_connection(self._target) as server:
            client.sendall(b"\5\0\0\1\0\0\0\0\0\0")
            other = threading.Thread(target=_copy, args=(server, client), daemon=True)
            other.start()
            _copy(client, server)
            other.join()

    @staticmethod
    def _read(client: socket.socket, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = client.recv(count - len(data))
            if not piece:
                raise ConnectionError
            data += piece
        return data
