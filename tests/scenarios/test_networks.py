"""Names resolve, ports are reached, networks are apart, an internal one has no way out."""

from __future__ import annotations

import os
import socket
import urllib.request

import pytest
from support.engine import Engine, eventually

pytestmark = pytest.mark.root

WEB = "sh -c 'mkdir -p /www && echo it works > /www/index.html && exec httpd -f -p 80 -h /www'"


def fetch(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_a_published_port_is_reached_at_loopback_and_at_the_hosts_address(engine: Engine) -> None:
    port = free_port()
    engine.write(f"""
        name: pub
        services:
          web: {{image: busybox, command: "{WEB}", ports: ['{port}:80']}}
    """)
    engine.run("up", "-d")
    eventually(lambda: fetch(f"http://127.0.0.1:{port}/") == "it works\n", what="page at 127.0.0.1")
    gateway = engine.inspect("pub-web-1")["NetworkSettings"]["Networks"]["pub_default"]["Gateway"]
    assert fetch(f"http://{gateway}:{port}/") == "it works\n"
    assert engine.out("port", "web", "80").strip() == f"0.0.0.0:{port}"
    assert f"0.0.0.0:{port}->80/tcp" in engine.out("ps")
    engine.run("down", "-t", "1")
    assert fetch(f"http://127.0.0.1:{port}/") == ""


def test_services_find_one_another_by_name(engine: Engine) -> None:
    engine.write(f"""
        name: dns
        services:
          web: {{image: busybox, command: "{WEB}", networks: {{default: {{aliases: [www]}}}}}}
          client: {{image: busybox, command: sleep 1000, init: true}}
    """)
    engine.run("up", "-d")
    assert "127.0.0.11" in engine.out("exec", "-T", "client", "cat", "/etc/resolv.conf")
    for name in ("web", "www", "dns-web-1"):
        eventually(lambda name=name: engine.run("exec", "-T", "client", "wget", "-q", "-O", "-", f"http://{name}/", code=None).stdout
                   == "it works\n", what=f"page by the name {name}")


def test_networks_are_isolated_and_internal_has_no_way_out(engine: Engine) -> None:
    engine.write(f"""
        name: iso
        services:
          web: {{image: busybox, command: "{WEB}", networks: [back]}}
          inside: {{image: busybox, command: sleep 1000, init: true, networks: [back]}}
          outside: {{image: busybox, command: sleep 1000, init: true, networks: [front]}}
        networks:
          front: {{}}
          back: {{internal: true}}
    """)
    engine.run("up", "-d")
    address = engine.inspect("iso-web-1")["NetworkSettings"]["Networks"]["iso_back"]["IPAddress"]
    get = ("timeout", "3", "wget", "-q", "-O", "-", f"http://{address}/")
    eventually(lambda: engine.run("exec", "-T", "inside", *get, code=None).stdout == "it works\n", what="reached from inside")
    assert engine.run("exec", "-T", "outside", *get, code=None).returncode != 0
    assert engine.run("exec", "-T", "outside", "nslookup", "web", code=None).returncode != 0
    assert "default" not in engine.out("exec", "-T", "inside", "ip", "route")
    assert "default" in engine.out("exec", "-T", "outside", "ip", "route")


def test_namespaces_are_shared_when_asked(engine: Engine) -> None:
    engine.write(f"""
        name: ns
        services:
          web: {{image: busybox, command: "{WEB}"}}
          side: {{image: busybox, command: sleep 1000, init: true, network_mode: "service:web", pid: "service:web"}}
          host: {{image: busybox, command: sleep 1000, init: true, network_mode: host}}
          none: {{image: busybox, command: sleep 1000, init: true, network_mode: none}}
    """)
    engine.run("up", "-d")
    eventually(lambda: engine.run("exec", "-T", "side", "wget", "-q", "-O", "-", "http://127.0.0.1/", code=None).stdout == "it works\n",
               what="page at the shared loopback")
    assert "httpd" in engine.out("exec", "-T", "side", "ps")
    pid = engine.inspect("ns-host-1")["State"]["Pid"]
    assert os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
    assert engine.out("exec", "-T", "none", "ls", "/sys/class/net").split() == ["lo"]


def test_names_resolve_again_after_the_daemon_was_killed(engine: Engine) -> None:
    engine.write("""
        name: again
        services:
          a: {image: busybox, command: sleep 1000, init: true}
          b: {image: busybox, command: sleep 1000, init: true}
    """)
    engine.run("up", "-d")
    engine.run("exec", "-T", "a", "nslookup", "b")
    engine.kill_daemon()
    engine.run("ps")
    eventually(lambda: engine.run("exec", "-T", "a", "nslookup", "b", code=None).returncode == 0, what="b resolves again")
