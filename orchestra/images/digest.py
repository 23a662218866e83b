"""Content digests ``algorithm:hex`` (OCI image spec, descriptor.md).

A :data:`Digest` is a text that was checked by :func:`parse_digest` or computed here. sha256 and
sha512 are known; others are refused, since they could not be verified.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import NewType, Protocol

from orchestra.images.problems import DigestError

Digest = NewType("Digest", str)

_LENGTHS = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+")


class Hash(Protocol):
    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


def is_digest(text: object) -> bool:
    """Whether ``text`` is a digest that can be verified."""
    if not isinstance(text, str):
        return False
    algorithm, _, value = text.partition(":")
    return _LENGTHS.get(algorithm) == len(value) and _HEX.fullmatch(value) is not None


def parse_digest(text: object, what: str = "digest") -> Digest:
    if not is_digest(text):
        raise DigestError(f"invalid {what} {str(text)[:150]!r}", hint="expected sha256: and 64 hex digits")
    return Digest(str(text))


def algorithm_of(digest: str) -> str:
    return digest.partition(":")[0]


def hex_of(digest: str) -> str:
    return digest.partition(":")[2]


def short(digest: str) -> str:
    """The twelve hex digits that people see."""
    return hex_of(digest)[:12]


def new_hash(digest: str = "sha256:") -> Hash:
    """A fresh hash of the algorithm of ``digest``."""
    return hashlib.new(algorithm_of(digest), usedforsecurity=False)


def digest_of(data: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def digest_from(hasher: Hash, algorithm: str = "sha256") -> Digest:
    return Digest(f"{algorithm}:{hasher.hexdigest()}")


def chain_ids(diff_ids: Iterable[str]) -> list[Digest]:
    """The chain id of every layer, lowest first (OCI image spec, config.md "Layer ChainID")."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        if chain:
            chain.append(digest_of(f"{chain[-1]} {diff_id}".encode()))
        else:
            chain.append(Digest(diff_id))
    return chain
