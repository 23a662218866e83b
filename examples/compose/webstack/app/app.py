"""Notes in PostgreSQL, a visit counter in Redis."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2
import redis

password = open("/run/secrets/db_password").read().strip()
cache = redis.Redis(os.environ["REDIS"])


def query(text: str, *values: str) -> list[tuple[str, ...]]:
    connection = psycopg2.connect(os.environ["DATABASE"], password=password)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(text, values)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


query("CREATE TABLE IF NOT EXISTS notes (id SERIAL PRIMARY KEY, text TEXT)")


class App(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/health":
            return self.answer({"ok": True})
        notes = [row[0] for row in query("SELECT text FROM notes ORDER BY id")]
        self.answer({"visits": cache.incr("visits"), "notes": notes})

    def do_POST(self) -> None:
        query("INSERT INTO notes (text) VALUES (%s)", self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.answer({"stored": True})

    def answer(self, value: object) -> None:
        body = json.dumps(value).encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


print("app: ready", flush=True)
ThreadingHTTPServer(("", 8000), App).serve_forever()
