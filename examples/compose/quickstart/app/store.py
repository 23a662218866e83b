"""The store: keys, counters and queues in an SQLite file of the volume /data."""

import json
import socketserver
import sqlite3
import sys

from client import ask

if "--ping" in sys.argv:
    sys.exit(0 if ask("ping") == "pong" else 1)

database = sqlite3.connect("/data/store.db", isolation_level=None)
database.execute("CREATE TABLE IF NOT EXISTS pairs (key TEXT PRIMARY KEY, value TEXT)")
database.execute("CREATE TABLE IF NOT EXISTS queues (id INTEGER PRIMARY KEY, name TEXT, value TEXT)")


def answer(verb: str, *words: str) -> object:
    if verb == "ping":
        return "pong"
    if verb == "get":
        row = database.execute("SELECT value FROM pairs WHERE key = ?", words).fetchone()
        return row[0] if row else None
    if verb == "add":
        step = int(words[1]) if len(words) > 1 else 1
        value = int(answer("get", words[0]) or 0) + step  # type: ignore[call-overload]
        database.execute("INSERT OR REPLACE INTO pairs VALUES (?, ?)", (words[0], str(value)))
        return value
    if verb == "push":
        database.execute("INSERT INTO queues (name, value) VALUES (?, ?)", words)
        return "ok"
    if verb == "pop":
        row = database.execute("SELECT id, value FROM queues WHERE name = ? ORDER BY id LIMIT 1", words).fetchone()
        if row is None:
            return None
        database.execute("DELETE FROM queues WHERE id = ?", row[:1])
        return row[1]
    return None


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        line = self.rfile.readline()
        if line:
            self.wfile.write(json.dumps(answer(*json.loads(line))).encode() + b"\n")


class Server(socketserver.TCPServer):
    allow_reuse_address = True
    request_queue_size = 64


print("store: ready", flush=True)
Server(("", 7000), Handler).serve_forever()
