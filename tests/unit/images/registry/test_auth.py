from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from support.registry import Registry

from orchestra.errors import OrchestraError, UsageError
from orchestra.images.registry.auth import Authenticator, parse_challenges
from orchestra.images.registry.config import Endpoint, RegistryConfig
from orchestra.images.registry.credentials import HUB_KEY, Credentials, CredentialStore
from orchestra.images.registry.http import Transport
from orchestra.images.registry.login import login, logout, server_name
from orchestra.images.registry.problems import AuthenticationError


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {
        "HOME": str(tmp_path),
        "PATH": f"{tmp_path}/bin:/usr/bin:/bin",
        "XDG_RUNTIME_DIR": str(tmp_path / "x"),
    }


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Basic realm="x"', [("basic", {"realm": "x"})]),
        (
            'Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push"',
            [("bearer", {"realm": "https://a/t", "service": "s", "scope": "repository:a/b:pull,push"})],
        ),
        ('Bearer realm=plain , error="x\\"y"', [("bearer", {"realm": "plain", "error": 'x"y'})]),
        ('Negotiate, Basic realm="a b"', [("negotiate", {}), ("basic", {"realm": "a b"})]),
        ("", []),
        ('="', []),
    ],
)
def test_challenges(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert [(c.scheme, dict(c.values)) for c in parse_challenges([header])] == expected


@pytest.mark.parametrize(
    ("registry", "realm", "fine"),
    [
        ("registry-1.docker.io", "https://auth.docker.io/token", True),
        ("ghcr.io", "https://ghcr.io/token", True),
        ("registry.gitlab.com", "https://gitlab.com/jwt/auth", True),
        ("ghcr.io", "https://evil.example/token", False),
        ("registry.example.co.uk", "https://evil.co.uk/token", False),
        ("registry.example.co.uk", "https://auth.example.co.uk/token", True),
        ("10.0.0.1:5000", "https://10.0.0.2/token", False),
        ("10.0.0.1:5000", "https://10.0.0.1:5001/token", True),
        ("127.0.0.1:5000", "http://127.0.0.1:5001/token", True),
        ("one.example", "https://login.partner.test/t", True),
    ],
)
def test_token_servers(registry: str, realm: str, fine: bool) -> None:
    config = RegistryConfig(token_hosts={"one.example": ("login.partner.test",)})
    with Transport(config, {}) as transport:
        assert Authenticator(Endpoint(registry), transport, config, None).trusted(realm) is fine


class TestCredentials:
    def write(self, tmp_path: Path, data: object) -> None:
        (tmp_path / ".docker").mkdir(exist_ok=True)
        (tmp_path / ".docker/config.json").write_text(json.dumps(data))

    def test_kinds(self, tmp_path: Path, env: dict[str, str]) -> None:
        self.write(
            tmp_path,
            {
                "auths": {
                    "a.example": {"auth": "bWU6c2U6Y3JldA=="},
                    HUB_KEY: {"auth": "aHViOnB3"},
                    "https://old.example/v1/": {"username": "u", "password": "p"},
                    "id.example": {"identitytoken": "t"},
                    "empty.example": {},
                }
            },
        )
        store = CredentialStore(env)
        assert store.get("a.example") == Credentials("me", "se:cret")
        assert store.get("registry-1.docker.io") == Credentials("hub", "pw")
        assert store.get("old.example") == Credentials("u", "p")
        assert store.get("id.example") == Credentials(identity_token="t")
        assert store.get("empty.example") is None
        assert store.get("b.example") is None

    def test_never_shown(self) -> None:
        assert "s3cret" not in repr(Credentials("me", "s3cret", "s3cret", "s3cret"))

    @pytest.mark.parametrize("text", ["{", "[]", '{"auths":{"a":{"auth":"%%%"}}}'])
    def test_damaged(self, tmp_path: Path, env: dict[str, str], text: str) -> None:
        (tmp_path / ".docker").mkdir()
        (tmp_path / ".docker/config.json").write_text(text)
        with pytest.raises(OrchestraError):
            CredentialStore(env).get("a")

    def helper(self, tmp_path: Path, body: str) -> None:
        path = tmp_path / "bin/docker-credential-test"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def test_helper(self, tmp_path: Path, env: dict[str, str]) -> None:
        self.write(tmp_path, {"credHelpers": {"a.example": "test"}})
        self.helper(tmp_path, 'read key; echo "{\\"Username\\":\\"me\\",\\"Secret\\":\\"$1 $key\\"}"')
        assert CredentialStore(env).get("a.example") == Credentials("me", "get a.example")
        assert CredentialStore(env).get("b.example") is None

    def test_helper_without_such(self, tmp_path: Path, env: dict[str, str]) -> None:
        self.write(tmp_path, {"credsStore": "test"})
        self.helper(tmp_path, 'echo "credentials not found in native keychain"; exit 1')
        assert CredentialStore(env).get("a.example") is None

    @pytest.mark.parametrize("name", ["absent", "../sh", "x;y"])
    def test_bad_helper(self, tmp_path: Path, env: dict[str, str], name: str) -> None:
        self.write(tmp_path, {"credsStore": name})
        with pytest.raises(AuthenticationError):
            CredentialStore(env).get("a.example")


class TestLogin:
    @pytest.mark.parametrize("kind", ["basic", "token"])
    def test_login_and_out(self, tmp_path: Path, env: dict[str, str], kind: str) -> None:
        with Registry(auth=kind) as registry:
            with pytest.raises(AuthenticationError):
                login(registry.host, Credentials("me", "wrong"), environ=env)
            login(registry.host, Credentials("me", "s3cret"), environ=env)
            path = tmp_path / ".docker/config.json"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert CredentialStore(env).get(registry.host) == Credentials("me", "s3cret")
            assert logout(registry.host, environ=env)
            assert not logout(registry.host, environ=env)
            assert json.loads(path.read_text()) == {"auths": {}}

    def test_names(self) -> None:
        assert server_name("https://index.docker.io/v1/") == "docker.io"
        assert server_name("https://a.example:5000/x") == "a.example:5000"
        with pytest.raises(UsageError):
            server_name("a b")
