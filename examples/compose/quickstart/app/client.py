"""One question to the store: a line of JSON each way."""

import json
import os
import socket


def ask(*words: str) -> object:
    host, _, port = os.environ.get("STORE", "127.0.0.1:7000").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection, connection.makefile("rw") as stream:
        stream.write(json.dumps(words) + "\n")
        stream.flush()
        return json.loads(stream.readline())
