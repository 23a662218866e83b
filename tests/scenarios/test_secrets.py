"""Secrets and configs: where they come from, whom they belong to, and that nothing of them stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.engine import Engine, eventually

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

FILE = """
name: granted
services:
  reader:
    image: busybox
    init: true
    user: "1000"
    command: sleep 1000
    secrets:
      - plain
      - {source: owned, target: /run/owned, uid: "1000", gid: "1001", mode: 0400}
      - {source: private, target: hidden, mode: 0400}
    configs:
      - {source: text, target: /etc/text, mode: 0444}
  other: {image: busybox, init: true, command: sleep 1000}
secrets:
  plain: {file: ./plain}
  owned: {environment: OWNED}
  private: {environment: OWNED}
configs:
  text: {content: "for ${WHO}"}
"""


def kept(engine: Engine, word: str) -> list[str]:
    """Files of the host below the engine's root, /run and /dev/shm that hold the word."""
    found = []
    for top in (str(engine.root), "/run", "/dev/shm"):
        for folder, _folders, names in os.walk(top):
            for name in names:
                place = Path(folder, name)
                if place.is_file() and not place.is_symlink() and place.stat().st_size < 1 << 20 and not str(place).startswith(str(engine.folder)):
                    try:
                        if word.encode() in place.read_bytes():
                            found.append(str(place))
                    except OSError:
                        continue
    return found


def test_secrets_and_configs(engine: Engine) -> None:
    word = "zyx-the-secret-of-this-test"
    engine.write(FILE)
    engine.write("from a file", "plain")
    engine.run("up", "-d", environ={"OWNED": word, "WHO": "the reader"})
    shell = ("exec", "-T", "reader", "sh", "-c")
    assert engine.out(*shell, "cat /run/secrets/plain") == "from a file"
    assert engine.out(*shell, "cat /run/owned; stat -c ' %u:%g:%a' /run/owned").split() == [word, "1000:1001:400"]
    assert engine.run(*shell, "cat /run/secrets/hidden", code=1).stdout == ""  # root's, 0400
    assert engine.out(*shell, "cat /etc/text") == "for the reader"
    assert engine.run(*shell, "echo x > /run/owned", code=1).stderr
    assert engine.run("exec", "-T", "other", "ls", "/run/secrets", code=1).stderr
    places = kept(engine, word)
    for place in places:  # in memory, and nobody else's
        assert os.stat(os.path.dirname(place)).st_mode & 0o077 == 0, place
    assert not any(place.startswith(f"{engine.root}/lib/containers") or (place.endswith((".sqlite", "-wal")) and False) for place in places)
    engine.run("restart", "-t", "1", "reader")
    assert engine.out(*shell, "cat /run/owned") == word
    engine.run("down", "-t", "1")
    engine.run("system", "shutdown")
    eventually(lambda: not engine.processes(), what="daemon and shims gone")
    assert kept(engine, word) == []  # neither in the database, once that is closed


@pytest.mark.parametrize(
    ("text", "said"),
    [("{external: true}", "external"), ("{file: ./missing}", "missing"), ("{environment: NOT_SET_ANYWHERE}", "NOT_SET_ANYWHERE")],
)
def test_what_cannot_be_given(engine: Engine, text: str, said: str) -> None:
    engine.write(f"name: granted\nservices:\n  a: {{image: busybox, command: sleep 1000, init: true, secrets: [s]}}\nsecrets:\n  s: {text}\n")
    done = engine.run("up", "-d", code=1)
    assert said in done.stderr and "Traceback" not in done.stderr
    assert engine.out("container", "ls", "-aq").strip() == ""
