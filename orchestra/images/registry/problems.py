"""What can go wrong with a registry, as errors a user may see.

``transient`` tells the retry loop whether asking again may help; ``status`` is the HTTP status, 0 where
no answer came. No error carries a credential: addresses are shown without user information and query.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from orchestra.images.problems import ImageError


class RegistryError(ImageError):
    def __init__(
        self,
        brief: str,
        *,
        status: int = 0,
        transient: bool = False,
        retry_after: float | None = None,
        details: tuple[str, ...] = (),
        hint: str | None = None,
    ) -> None:
        super().__init__(brief, details=details, hint=hint)
        self.status = status
        self.transient = transient
        self.retry_after = retry_after


class ConnectionFailed(RegistryError):
    """No (whole) answer came: name lookup, connection, TLS, time limit, broken stream."""


class AuthenticationError(RegistryError):
    """The registry or its token server wants (other) credentials."""


class RedirectError(RegistryError):
    """A redirect that is not followed: other scheme, credentials inside, too many."""


def shown(url: str) -> str:
    """``url`` without user information, query and fragment, for messages."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "an invalid address"
    return f"{parts.scheme}://{host}{parts.path}"[:300]
