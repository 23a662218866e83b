"""The commands that speak with registries, as a user types them."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from support.engine import Engine
from support.proxy import certificate
from support.registry import Registry
from support.trees import archive

pytestmark = pytest.mark.root


def config_of(engine: Engine) -> Path:
    return Path(engine.environ["HOME"]) / ".docker/config.json"


def test_login_push_pull_logout(engine: Engine) -> None:
    with Registry(auth="token") as registry:
        name = f"{registry.host}/team/app:1"
        engine.run("image", "tag", "busybox", name)
        refused = engine.run("image", "push", name, code=1)
        assert f"run `orchestra login {registry.host}`" in refused.stderr
        wrong = engine.run("login", "-u", "me", "--password-stdin", registry.host, stdin="wrong\n", code=1)
        assert "does not accept" in wrong.stderr and not config_of(engine).exists()
        said = engine.run("login", "-u", "me", "--password-stdin", registry.host, stdin="s3cret\n")
        assert "Login Succeeded" in said.stdout and "s3cret" not in said.stdout + said.stderr
        assert stat.S_IMODE(config_of(engine).stat().st_mode) == 0o600
        assert registry.host in json.loads(config_of(engine).read_text())["auths"]
        engine.run("image", "push", name)
        engine.run("image", "rm", name)
        pulled = engine.run("image", "pull", name)
        assert "s3cret" not in pulled.stdout + pulled.stderr
        assert engine.out("container", "run", "--rm", "--network", "none", name, "echo", "here") == "here\n"
        engine.run("logout", registry.host)
        engine.run("image", "rm", name)
        engine.run("image", "pull", name, code=1)


def test_registries_json(engine: Engine, tmp_path: Path) -> None:
    """Mirrors, insecure hosts and certificate directories by configuration."""
    given = certificate(tmp_path / "cert", "127.0.0.1")
    with Registry() as mirror, Registry(tls=given) as guarded:
        for registry, name in ((mirror, "library/tool"), (guarded, "app")):
            registry.add_image(name, "1", [archive(("etc/hello", "file", {"content": b"hello"}))])
        places = tmp_path / "registries.json"
        folder = tmp_path / "certs" / guarded.host
        folder.mkdir(parents=True)
        settings = {"mirrors": {"docker.io": [mirror.url]}, "certificates": [str(tmp_path / "certs")], "attempts": 1}
        places.write_text(json.dumps(settings))
        environ = {"ORCHESTRA_REGISTRIES": str(places)}
        engine.run("image", "pull", "tool:1", environ=environ)
        assert "tool" in engine.out("image", "ls")
        (folder / "ca.crt").write_text(Path(certificate(tmp_path / "other", "127.0.0.1")[0]).read_text())
        bad = engine.run("image", "pull", f"{guarded.host}/app:1", environ=environ, code=1)
        assert "certificate not trusted" in bad.stderr and "certs.d" in bad.stderr
        (folder / "ca.crt").write_text(Path(given[0]).read_text())
        engine.run("image", "pull", f"{guarded.host}/app:1", environ=environ)
        places.write_text('{"mirror": {}}')
        wrong = engine.run("image", "pull", "tool:1", environ=environ, code=1)
        assert "unknown key 'mirror'" in wrong.stderr and str(places) in wrong.stderr


def test_store_verbs(engine: Engine) -> None:
    """``system df``, ``check`` that mends, and the next pull that brings back what was damaged."""
    with Registry() as registry:
        registry.add_image("app", "1", [archive(("a", "file", {"content": b"a" * 5000})), archive(("b", "file"))], compression="none")
        name = f"{registry.host}/app:1"
        engine.run("image", "pull", name)
        assert "Images" in engine.out("system", "df")
        assert engine.run("system", "check").returncode == 0
        digest = json.loads(registry.manifests["app"]["1"][1])["layers"][0]["digest"]
        blob = engine.root / "lib/images/blobs/sha256" / digest.partition(":")[2]
        blob.chmod(0o600)
        blob.write_bytes(b"x" * blob.stat().st_size)
        found = engine.run("system", "check", code=None)
        assert found.returncode != 0 and "does not have its digest" in found.stdout + found.stderr
        assert blob.exists()  # told, not touched
        mended = engine.run("system", "check", "--repair", code=None)
        assert "mended" in mended.stdout + mended.stderr and not blob.exists()
        assert engine.run("system", "check").returncode == 0
        engine.run("image", "inspect", name, code=1)
        registry.log.clear()
        engine.run("image", "pull", name)
        assert len(registry.requests("GET", "/blobs/")) == 1  # only what was damaged
        assert engine.run("system", "check").returncode == 0


def test_pull_policies_of_services(engine: Engine) -> None:
    """always, missing, if_not_present, never, build, daily and every_<duration>."""
    with Registry() as registry:
        layer = archive(("etc/hello", "file", {"content": b"hello"}))

        def pulls(policy: str, *words: str, code: int = 0) -> int:
            engine.write(f"""
                name: p
                services:
                  app: {{image: "{registry.host}/app:1", pull_policy: {policy}, command: x}}
            """)
            registry.log.clear()
            engine.run(*(words or ("create",)), code=code)
            engine.run("down", "-t", "0")
            return len(registry.requests("", "/manifests/"))

        registry.add_image("app", "1", [layer], settings={"Cmd": ["x"]})
        assert pulls("never", code=1) == 0
        assert pulls("missing") > 0
        assert pulls("missing") == pulls("if_not_present") == pulls("never") == 0
        assert pulls("always") > 0
        assert pulls("daily") == pulls("weekly") == pulls("every_2h") == 0  # just pulled
        assert pulls("every_0s") > 0
        assert pulls("always", "--dry-run", "create") == 0
