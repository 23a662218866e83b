"""The socket between a container's init and its creator."""

from __future__ import annotations

from orchestra.runtime import channel


def test_what_was_said_before_an_end_with_unread_words_is_heard() -> None:
    ours, theirs = channel.pair()
    channel.tell(ours, "attached")  # never read
    channel.send(theirs, {"error": {"step": "mount"}})
    theirs.close()
    assert channel.receive(ours) == ({"error": {"step": "mount"}}, [])
    assert channel.receive(ours) == (None, [])
    ours.close()


def test_a_failed_program_is_told_apart_from_messages() -> None:
    ours, theirs = channel.pair()
    theirs.send(bytes(4) + (2).to_bytes(4, "little") + (7).to_bytes(4, "little"))
    assert channel.receive(ours) == ({"failed": (2, 7)}, [])
    ours.close()
    theirs.close()
