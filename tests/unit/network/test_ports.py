from __future__ import annotations

import os
import socket

import pytest

from orchestra.errors import ConflictError, OrchestraError
from orchestra.network import ports
from orchestra.network.model import PortSpec


def test_what_may_be_published() -> None:
    assert ports.candidates("80") == range(80, 81)
    assert ports.candidates("80-82") == range(80, 83)
    assert ports.candidates("") is ports.EPHEMERAL and ports.candidates("0") is ports.EPHEMERAL
    for text in ("x", "90-80", "70000", "-1"):
        with pytest.raises(OrchestraError, match="invalid published port"):
            ports.candidates(text)


def test_choosing() -> None:
    def free(spec: PortSpec) -> bool:
        return spec.published != 8001

    taken = [PortSpec("", 8000, 80)]
    assert ports.choose("8000-8005", 80, taken=taken, free=free).published == 8002
    assert ports.choose("", 80, free=lambda _: True, start=5).published == ports.EPHEMERAL[5]
    with pytest.raises(ConflictError, match="no free host port in 8000-8001"):
        ports.choose("8000-8001", 80, taken=taken, free=free)
    with pytest.raises(ConflictError, match=r"0\.0\.0\.0:8000/tcp is already in use by another container"):
        ports.choose("8000", 80, taken=taken, free=free)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (("", 80), ("127.0.0.1", 80), True),
        (("0.0.0.0", 80), ("127.0.0.1", 80), True),
        (("127.0.0.2", 80), ("127.0.0.1", 80), False),
        (("0.0.0.0", 80), ("::", 80), False),
        (("::", 80), ("::1", 80), True),
        (("", 80), ("", 81), False),
    ],
)
def test_clashes(one: tuple[str, int], other: tuple[str, int], expected: bool) -> None:
    first, second = PortSpec(*one, 1), PortSpec(*other, 1)
    assert ports.clash(first, second) is expected and ports.clash(second, first) is expected
    assert not ports.clash(first, PortSpec(other[0], other[1], 1, "udp"))


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_taken_port_names_its_holder(protocol: str) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as server:
        server.bind(("127.0.0.1", 0))
        if protocol == "tcp":
            server.listen()
        spec = PortSpec("127.0.0.1", server.getsockname()[1], 80, protocol)
        with pytest.raises(ConflictError, match=rf"is already in use by .* \(pid {os.getpid()}\)"):
            ports.check(spec)
        assert not ports.port_is_free(spec)
    assert ports.port_is_free(spec)


def test_reserved_ports_are_taken_for_others() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        spec = PortSpec("127.0.0.1", probe.getsockname()[1], 80)
    held = ports.reserve(spec)
    assert not ports.port_is_free(spec)
    with socket.socket() as other, pytest.raises(OSError):
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", spec.published))
    for bound in held:
        bound.close()
    assert ports.port_is_free(spec)


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(OrchestraError, match="not an address of this host"):
        ports.check(PortSpec("203.0.113.9", 8080, 80))
