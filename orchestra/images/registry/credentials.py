"""Credentials of people: ``config.json`` of docker (and podman's ``auth.json``), credential helpers.

Reading: ``$DOCKER_CONFIG/config.json`` or ``~/.docker/config.json``, then ``$REGISTRY_AUTH_FILE`` or
``$XDG_RUNTIME_DIR/containers/auth.json``. Writing (login, logout): the first alone, atomically, mode
0600, other keys kept. A helper is ``docker-credential-<name>`` on the PATH.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestra.errors import OrchestraError
from orchestra.images.registry.config import HUB, HUB_HOST
from orchestra.images.registry.helper import run_helper
from orchestra.images.registry.problems import AuthenticationError

HUB_KEY = "https://index.docker.io/v1/"
_TOKEN_USER = "<token>"


@dataclass(frozen=True, slots=True)
class Credentials:
    """``identity_token`` is an OAuth2 refresh token, ``registry_token`` a bearer token as it is."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    def basic(self) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def key_of(host: str) -> str:
    """The name under which docker files a registry's credentials."""
    return HUB_KEY if host in (HUB, HUB_HOST, "index.docker.io") else host


class CredentialStore:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)
        home = environ.get("HOME") or "/"
        self.path = Path(environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker")) / "config.json"
        runtime = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
        other = environ.get("REGISTRY_AUTH_FILE") or os.path.join(runtime, "containers/auth.json")
        self._others = (Path(other),)

    def get(self, host: str) -> Credentials | None:
        """What is known for ``host[:port]`` (docker.io for the hub)."""
        key = key_of(host)
        for path in (self.path, *self._others):
            data = _read(path)
            helper = _helper_of(data, key, host)
            if helper:
                found = self._ask(helper, key)
                if found:
                    return found
            entry = _entry(data, key, host)
            if entry is not None:
                found = _decode(entry, path, key)
                if found:
                    return found
        return None

    def save(self, host: str, credentials: Credentials) -> str:
        """Keep for later; says where (a helper's name or the file)."""
        key = key_of(host)
        data = _read(self.path)
        helper = _helper_of(data, key, host)
        if helper:
            user = _TOKEN_USER if credentials.identity_token else credentials.username
            secret = credentials.identity_token or credentials.password
            payload = json.dumps({"ServerURL": key, "Username": user, "Secret": secret})
            self._run(helper, "store", payload)
            data.setdefault("auths", {})[key] = {}
            _write(self.path, data)
            return f"credential helper {helper}"
        pair = f"{credentials.username}:{credentials.password}"
        entry = {"auth": base64.b64encode(pair.encode()).decode()}
        if credentials.identity_token:
            user = f"{credentials.username}:"
            entry = {
                "auth": base64.b64encode(user.encode()).decode(),
                "identitytoken": credentials.identity_token,
            }
        data.setdefault("auths", {})[key] = entry
        _write(self.path, data)
        return str(self.path)

    def erase(self, host: str) -> bool:
        """Forget; whether there was something."""
        key = key_of(host)
        data = _read(self.path)
        helper = _helper_of(data, key, host)
        found = False
        if helper:
            found = self._ask(helper, key) is not None
            if found:
                self._run(helper, "erase", key)
        auths = data.get("auths")
        if isinstance(auths, dict):
            gone = [name for name in auths if _same(name, key, host)]
            for name in gone:
                del auths[name]
            if gone:
                found = True
                _write(self.path, data)
        return found

    def _ask(self, helper: str, key: str) -> Credentials | None:
        answer = self._run(helper, "get", key)
        if answer is None:
            return None
        try:
            data = json.loads(answer)
            user, secret = str(data["Username"]), str(data["Secret"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise AuthenticationError(f"credential helper {helper} answered something strange") from None
        if user == _TOKEN_USER:
            return Credentials(identity_token=secret)
        return Credentials(user, secret) if user or secret else None

    def _run(self, helper: str, verb: str, text: str) -> str | None:
        return run_helper(helper, verb, text, self._environ, self.path)


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    except OSError as error:
        raise OrchestraError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise OrchestraError(f"{path} is not JSON: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("auths") or {}, dict):
        raise OrchestraError(f"{path} is not a JSON object with an object in auths")
    if data.get("auths", {}) is None:
        del data["auths"]
    return data


def _write(path: Path, data: dict[str, Any]) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as stream:
            json.dump(data, stream, indent="\t")
            stream.write("\n")
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise OrchestraError(f"cannot write {path}: {error.strerror}") from None


def _helper_of(data: dict[str, Any], key: str, host: str) -> str:
    helpers = data.get("credHelpers")
    if isinstance(helpers, dict):
        for name, helper in helpers.items():
            if _same(name, key, host):
                return str(helper)
    return str(data.get("credsStore") or "")


def _entry(data: dict[str, Any], key: str, host: str) -> dict[str, Any] | None:
    auths = data.get("auths")
    if not isinstance(auths, dict):
        return None
    for name, entry in auths.items():
        if _same(name, key, host) and isinstance(entry, dict) and entry:
            return entry
    return None


def _same(name: str, key: str, host: str) -> bool:
    """Old files have the whole address as the name: ``https://host/v1/``."""
    if name in (key, host):
        return True
    bare = name.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return bare == host or (key == HUB_KEY and bare in ("index.docker.io", HUB, HUB_HOST))


def _decode(entry: dict[str, Any], path: Path, key: str) -> Credentials | None:
    user, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        try:
            text = base64.b64decode(str(entry["auth"]), validate=True).decode().rstrip("\0")
        except (binascii.Error, ValueError):
            raise AuthenticationError(f"the entry of {key} in {path} is damaged") from None
        user, _, password = text.partition(":")
    identity, bearer = str(entry.get("identitytoken") or ""), str(entry.get("registrytoken") or "")
    if not (user or identity or bearer):
        return None
    return Credentials(user, password, identity, bearer)
