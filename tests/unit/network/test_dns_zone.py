from __future__ import annotations

from orchestra.network.dns import message
from orchestra.network.dns.server import resolve
from orchestra.network.dns.zone import Directory, NameRecord, View


def directory() -> Directory:
    made = Directory()
    made.put("c1", [NameRecord("n1", "net", ("p-web-1", "web", "c1"), ("10.0.0.2", "fd00::2"))])
    made.put(
        "c2",
        [
            NameRecord("n1", "net", ("p-web-2", "web"), ("10.0.0.3",)),
            NameRecord("n2", "other", ("p-web-2", "only"), ("10.1.0.3",)),
        ],
    )
    made.put("c3", [NameRecord("n1", "net", ("p-off-1", "off"))])
    return made


def test_lookups() -> None:
    names = directory()
    view = View(("n1",))
    seen = [names.lookup(view, "Web.") for _ in range(4)]
    assert {tuple(found) for found in seen if found} == {
        ("10.0.0.2", "fd00::2", "10.0.0.3"),
        ("10.0.0.3", "10.0.0.2", "fd00::2"),
    }
    assert names.lookup(view, "p-web-2.net") == ["10.0.0.3"]
    assert names.lookup(view, "off") == []
    assert names.lookup(view, "only") is None
    assert names.lookup(View(("n2", "n1")), "p-web-2") == ["10.1.0.3"]
    assert names.reverse(view, "10.0.0.2") == "p-web-1.net"
    assert names.reverse(view, "10.1.0.3") is None


def test_links_are_one_containers_own() -> None:
    names = directory()
    assert names.lookup(View(("n1",), links={"store": "p-web-1"}), "store") == ["10.0.0.2", "fd00::2"]
    assert names.lookup(View(("n1",)), "store") is None
    assert names.lookup(View(("n1",), links={"web": "gone"}), "p-web-1") == ["10.0.0.2", "fd00::2"]


def test_changes() -> None:
    names = directory()
    view = View(("n1", "n2"))
    names.put("c2", [NameRecord("n1", "net", ("renamed",), ("10.0.0.3",))])
    assert names.lookup(view, "p-web-2") is None and names.lookup(view, "web") == ["10.0.0.2", "fd00::2"]
    assert names.reverse(view, "10.0.0.3") == "renamed.net"
    for container in ("c1", "c2", "c3", "c1"):
        names.remove(container)
    assert names.lookup(view, "web") is None and names._names == {} and names._reverse == {}


def ask(name: str, kind: int) -> message.Query:
    return message.Query(1, 0, name, kind, message.IN, b"")


def test_answers() -> None:
    names, view = directory(), View(("n1",))
    found = resolve(names, view, ask("p-web-1", message.AAAA))
    assert found is not None and [a.type for a in found[1]] == [message.AAAA]
    assert resolve(names, view, ask("p-web-2", message.AAAA)) == (message.NOERROR, [])
    assert resolve(names, view, ask("p-web-2", 16)) == (message.NOERROR, [])
    assert resolve(names, view, ask("off", message.A)) == (message.NXDOMAIN, [])
    assert resolve(names, view, ask("example.org", message.A)) is None
    assert resolve(names, view, ask("9.9.9.9.in-addr.arpa", message.PTR)) is None
    pointer = resolve(names, view, ask("2.0.0.10.in-addr.arpa", message.PTR))
    assert pointer is not None and pointer[1][0].data == message.write_name("p-web-1.net")


def test_a_name_that_dns_cannot_carry() -> None:
    names = Directory()
    names.put("c", [NameRecord("n", "net", ("x" * 80,), ("10.0.0.2",))])
    assert resolve(names, View(("n",)), ask("2.0.0.10.in-addr.arpa", message.PTR)) is None
    assert names.lookup(View(("n",)), "x" * 80) == ["10.0.0.2"]
