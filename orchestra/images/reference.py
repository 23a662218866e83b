"""Image references: ``[host[:port]/][namespace/]repository[:tag][@digest]`` with Docker's normalisation.

A :class:`Reference` is always whole (domain, path, and a tag or digest); ``str()`` is the canonical
text, :meth:`Reference.familiar` the one people write. Both parse back to an equal value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from orchestra.images.digest import is_digest
from orchestra.images.problems import InvalidReferenceError

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LEGACY_DOMAIN = "index.docker.io"
_LIBRARY = "library/"

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_BARE_ID = re.compile(r"[0-9a-f]{64}")
_PATH_LIMIT = 255


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str, *, default_tag: bool = True) -> Reference:
        """``latest`` is put where neither tag nor digest stands, unless ``default_tag`` is off."""
        rest, at, digest = text.partition("@")
        if at and not is_digest(digest):
            raise _invalid(text, f"{digest[:80]!r} is not a digest")
        name, tag = _split_tag(rest)
        if tag is not None and not _TAG.fullmatch(tag):
            raise _invalid(text, f"{tag[:80]!r} is not a tag")
        domain, path = _split_domain(name)
        _check_name(text, name, domain, path)
        if tag is None and not at and default_tag:
            tag = DEFAULT_TAG
        return cls(domain, path, tag, digest or None)

    @property
    def name(self) -> str:
        """``docker.io/library/redis``."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The name as people write it: ``redis``, ``user/app``, ``localhost:5000/app``."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        if self.path.startswith(_LIBRARY) and self.path.count("/") == 1:
            return self.path[len(_LIBRARY) :]
        head, slash, _ = self.path.partition("/")
        looks_like_domain = bool(slash) and ("." in head or head == "localhost")
        return self.name if looks_like_domain else self.path

    @property
    def suffix(self) -> str:
        """``:tag``, ``@digest`` or both."""
        tag = f":{self.tag}" if self.tag else ""
        return f"{tag}@{self.digest}" if self.digest else tag

    def familiar(self) -> str:
        return self.familiar_name + self.suffix

    def with_digest(self, digest: str) -> Reference:
        """The same repository by digest alone."""
        return replace(self, tag=None, digest=digest)

    def storage_key(self) -> str:
        """What the store files it under: a digest makes the tag meaningless."""
        return f"{self.name}@{self.digest}" if self.digest else str(self)

    def __str__(self) -> str:
        return self.name + self.suffix


def _split_tag(text: str) -> tuple[str, str | None]:
    head, colon, tail = text.rpartition(":")
    if colon and "/" not in tail:
        return head, tail
    return text, None


def _split_domain(name: str) -> tuple[str, str]:
    head, slash, rest = name.partition("/")
    is_domain = bool(slash) and ("." in head or ":" in head or head == "localhost" or head.lower() != head)
    domain, path = (head, rest) if is_domain else (DEFAULT_DOMAIN, name)
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _LIBRARY + path
    return domain, path


def _check_name(text: str, name: str, domain: str, path: str) -> None:
    if _BARE_ID.fullmatch(name):
        raise _invalid(text, "64 hex digits are an image id, not a name")
    if not _DOMAIN.fullmatch(domain):
        raise _invalid(text, f"{domain[:80]!r} is not a registry host")
    if not _PATH.fullmatch(path):
        if path.lower() != path and _PATH.fullmatch(path.lower()):
            raise _invalid(text, "the repository name must be lower case")
        raise _invalid(text, f"{path[:80]!r} is not a repository name")
    if len(path) > _PATH_LIMIT:
        raise _invalid(text, f"the repository name is longer than {_PATH_LIMIT} characters")


def _invalid(text: str, why: str) -> InvalidReferenceError:
    return InvalidReferenceError(f"invalid image reference {text[:300]!r}: {why}")
