"""The web front: passes requests on by the routes in /etc/front.json."""

import json
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONFIG = json.load(open("/etc/front.json"))


class Front(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/health":
            return self.answer(200, b"ok\n")
        self.forward(None)

    def do_POST(self) -> None:
        self.forward(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def forward(self, body: bytes | None) -> None:
        routes = sorted(CONFIG["routes"].items(), key=lambda item: -len(item[0]))
        target = next(url for prefix, url in routes if self.path.startswith(prefix))
        try:
            with urllib.request.urlopen(urllib.request.Request(target + self.path, data=body), timeout=10) as answer:
                self.answer(answer.status, answer.read())
        except urllib.error.HTTPError as error:
            self.answer(error.code, error.read())
        except OSError as error:
            self.answer(502, f"{error}\n".encode())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


print("front: ready", flush=True)
ThreadingHTTPServer(("", CONFIG["listen"]), Front).serve_forever()
