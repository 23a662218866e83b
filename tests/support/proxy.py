"""A small HTTP proxy over loopback that leads every host to one place, for plain requests and CONNECT."""

from __future__ import annotations

import socket
import threading
from urllib.parse import urlsplit


class Proxy:
    """``lines``: the request lines it saw; ``authorizations``: what was sent to the proxy itself."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.lines: list[str] = []
        self.authorizations: list[str] = []
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
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

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
            self.authorizations += [
                line.partition(": ")[2] for line in lines if line.lower().startswith("proxy-auth")
            ]
            if lines[0].startswith("CONNECT "):
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                method, url, version = lines[0].split(" ")
                parts = urlsplit(url)
                lines[0] = f"{method} {parts.path}{'?' + parts.query if parts.query else ''} {version}"
                lines.insert(1, "Connection: close")
                server.sendall("\r\n".join(lines).encode("latin-1"))
            self._join(client, server)

    def _join(self, client: socket.socket, server: socket.socket) -> None:
        back = threading.Thread(target=_copy, args=(server, client), daemon=True)
        back.start()
        _copy(client, server)
        back.join()


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
        super().__init__(target)
        self.users, self.refuse = users, refuse

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
