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
