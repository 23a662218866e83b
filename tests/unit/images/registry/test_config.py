from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestra.errors import OrchestraError
from orchestra.images.registry.config import Endpoint, RegistryConfig, load, url_host
from orchestra.images.registry.http import Request, Transport
from orchestra.images.registry.problems import RegistryError, shown
from orchestra.images.registry.proxies import proxy_for


def test_load(tmp_path: Path) -> None:
    path = tmp_path / "registries.json"
    path.write_text(
        json.dumps(
            {
                "mirrors": {"docker.io": ["https://m.example/hub/", "http://10.0.0.1:5000"]},
                "insecure": ["lan.example:5000", "10.1.0.0/16", "*.test"],
                "downloads": 2,
                "idle_timeout": 5,
            }
        )
    )
    config = load({"ORCHESTRA_REGISTRIES": str(path)})
    assert config.endpoints("docker.io") == [
        Endpoint("m.example", "https", "/hub", mirror=True),
        Endpoint("10.0.0.1:5000", "http", "", mirror=True),
        Endpoint("registry-1.docker.io"),
    ]
    assert (config.downloads, config.idle_timeout) == (2, 5.0)
    fine = ["lan.example:5000", "10.1.2.3", "a.test", "10.0.0.1:5000", "localhost:1", "127.9.9.9", "[::1]:5"]
    assert [host for host in fine if not config.is_insecure(host)] == []
    strict = ["lan.example", "10.2.0.1", "test", "docker.io", "m.example", "localhost.example"]
    assert [host for host in strict if config.is_insecure(host)] == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"x":1}',
        '{"insecure":[1]}',
        '{"downloads":0}',
        '{"downloads":true}',
        '{"mirrors":{"docker.io":["ftp://x"]}}',
        '{"mirrors":["a"]}',
        '{"mirrors":{"docker.io":["https://u:p@x"]}}',
    ],
)
def test_wrong_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "registries.json"
    path.write_text(text)
    with pytest.raises(OrchestraError, match=r"registries\.json"):
        load({"ORCHESTRA_REGISTRIES": str(path)})


def test_certificates(tmp_path: Path) -> None:
    for name in ("a.crt", "b.cert", "b.key"):
        (tmp_path / "reg:5000").mkdir(exist_ok=True)
        (tmp_path / "reg:5000" / name).write_text("")
    config = RegistryConfig(certificates=(str(tmp_path),))
    authorities, own = config.certificate_files("reg:5000")
    assert [path.name for path in authorities] == ["a.crt"]
    assert [(a.name, b.name) for a, b in own] == [("b.cert", "b.key")]
    assert config.certificate_files("..") == ([], [])


@pytest.mark.parametrize(
    ("environ", "scheme", "host", "port", "expected"),
    [
        ({"https_proxy": "http://p:3128"}, "https", "a.example", 443, ("p", 3128)),
        ({"HTTPS_PROXY": "p:3128"}, "https", "a.example", 443, ("p", 3128)),
        ({"https_proxy": "http://p:3128"}, "http", "a.example", 80, None),
        ({"https_proxy": "https://p"}, "https", "a.example", 443, ("p", 443)),
        ({"all_proxy": "http://p:1"}, "http", "a.example", 80, ("p", 1)),
        ({"all_proxy": "http://p:1"}, "http", "127.0.0.1", 80, None),
        ({"all_proxy": "http://p:1", "no_proxy": "*"}, "http", "a.example", 80, None),
        ({"all_proxy": "http://p:1", "no_proxy": "x, .example"}, "http", "a.example", 80, None),
        ({"all_proxy": "http://p:1", "no_proxy": "example"}, "http", "aexample", 80, ("p", 1)),
        ({"all_proxy": "http://p:1", "no_proxy": "a.example:81"}, "http", "a.example", 80, ("p", 1)),
        ({"all_proxy": "http://p:1", "no_proxy": "a.example:80"}, "http", "a.example", 80, None),
        ({"all_proxy": "http://p:1", "no_proxy": "10.0.0.0/8"}, "http", "10.2.3.4", 80, None),
        ({"all_proxy": "http://p:1", "no_proxy": "fd00::/8"}, "http", "fd00::1", 80, None),
    ],
)
def test_proxies(
    environ: dict[str, str], scheme: str, host: str, port: int, expected: tuple[str, int] | None
) -> None:
    found = proxy_for(environ, scheme, host, port)
    assert (found and (found.host, found.port)) == expected


def test_proxy_password() -> None:
    found = proxy_for({"http_proxy": "http://me:p%40ss@p:1"}, "http", "a.example", 80)
    assert found is not None
    assert found.authorization == "Basic bWU6cEBzcw=="


@pytest.mark.parametrize("proxy", ["socks4://p:1", "https://:1", "http://:1", "http://p:x"])
def test_bad_proxies(proxy: str) -> None:
    with pytest.raises(OrchestraError):
        proxy_for({"http_proxy": proxy}, "http", "a.example", 80)


def test_plain_http_is_refused() -> None:
    with Transport(RegistryConfig(), {}) as transport, pytest.raises(RegistryError, match="plain http"):
        transport.send(Request("GET", "http://registry.example/v2/", authorization="Basic eA=="))


def test_nothing_secret_is_shown() -> None:
    assert shown("https://u:p@h.example/a?token=x#y") == "https://h.example/a"
    assert url_host("https://H.example:443/") == "h.example"
