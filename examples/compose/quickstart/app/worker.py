"""The worker: takes notes from the queue and counts their words."""

import time

from client import ask

print("worker: ready", flush=True)
while True:
    try:
        note = ask("pop", "notes")
    except OSError as error:
        print(f"worker: the store does not answer: {error}", flush=True)
        note = None
    if note is None:
        time.sleep(0.2)
        continue
    total = ask("add", "words", str(len(str(note).split())))
    print(f"worker: {total} words so far", flush=True)
