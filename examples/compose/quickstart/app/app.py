"""The application: a page with a visitor count, and notes that the worker counts words of."""

import html
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from client import ask


class App(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/health":
            return self.answer("ok\n")
        if self.path == "/words":
            return self.answer(f"{ask('get', 'words') or 0}\n")
        visits = ask("add", "visits")
        greeting = html.escape(os.environ["GREETING"])
        self.answer(f"<!doctype html><title>quickstart</title><h1>{greeting}</h1><p>visit {visits}</p>\n")

    def do_POST(self) -> None:
        note = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        ask("push", "notes", note)
        self.answer("queued\n")

    def answer(self, text: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


print("app: ready", flush=True)
ThreadingHTTPServer(("", 8000), App).serve_forever()
