"""What COPY makes of two trees, without root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestra.build.copying import Item, Planner, Source, Target, digest
from orchestra.build.ignore import IgnoreRules
from orchestra.build.owners import parse_mode, parse_owner, user_of
from orchestra.build.problems import BuildError
from orchestra.build.view import View


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("->"):
            path.symlink_to(text[2:])
        elif name.endswith("/"):
            path.mkdir(exist_ok=True)
        else:
            path.write_text(text)
    return root


@pytest.fixture
def context(tmp_path: Path) -> View:
    root = tree(tmp_path / "context", {
        "a.txt": "a", "src/b.c": "b", "src/in/c.c": "c", "src/in/d.o": "d", "link": "->src", "out": "->../../etc",
        "skip/x": "x", "skip/keep/y": "y",
    })  # fmt: skip
    return View([root], ignore=IgnoreRules(["skip", "!skip/keep"]), overlay=False)


@pytest.fixture
def image(tmp_path: Path) -> View:
    low = tree(tmp_path / "low", {
        "usr/bin/sh": "sh", "bin": "->usr/bin", "etc/passwd": "root:x:0:0::/root:/bin/sh\nme:x:5:6::/home/me:\n",
        "etc/group": "six:x:6:\nwheel:x:10:root,me\n", "app/old": "old",
    })  # fmt: skip
    high = tree(tmp_path / "high", {"app/new": "new"})
    return View([high, low])


def copy(context: View, image: View, pattern: str, target: str, **options: object) -> list[str]:
    return [item.target for item in items(context, image, pattern, target, **options)]


def items(context: View, image: View, pattern: str, target: str, **options: object) -> list[Item]:
    sources = []
    for path in context.glob(pattern):
        node = context.find(path)
        assert node is not None
        sources.append(Source(context, node, path, os.path.basename(path)))
    folder = bool(options.pop("folder", target.endswith("/")))
    return Planner(image, Target(target, folder, **options)).plan(sources)  # type: ignore[arg-type]


def test_file(context: View, image: View) -> None:
    assert copy(context, image, "a.txt", "/app") == ["app/a.txt"]
    assert copy(context, image, "a.txt", "/new") == ["new"]
    assert copy(context, image, "a.txt", "/new/") == ["new", "new/a.txt"]
    assert copy(context, image, "a.txt", "/x/y/z") == ["x", "x/y", "x/y/z"]


def test_folder(context: View, image: View) -> None:
    assert copy(context, image, "src", "/app") == ["app/b.c", "app/in", "app/in/c.c", "app/in/d.o"]
    assert copy(context, image, "src/in", "/n") == ["n", "n/c.c", "n/d.o"]


def test_through_links(context: View, image: View) -> None:
    assert copy(context, image, "a.txt", "/bin/") == ["usr/bin/a.txt"]
    assert copy(context, image, "link", "/n") == copy(context, image, "src", "/n")
    assert context.find("out/passwd") is None


def test_patterns(context: View, image: View) -> None:
    assert copy(context, image, "*.txt", "/app") == ["app/a.txt"]
    assert copy(context, image, "src/*.c", "/app/") == ["app/b.c"]
    assert copy(context, image, "*.none", "/app") == []


def test_ignored(context: View, image: View) -> None:
    assert context.glob("skip/x") == []
    assert "app/skip/x" not in copy(context, image, ".", "/app")
    assert "app/skip/keep/y" in copy(context, image, ".", "/app")


def test_exclude_and_parents(context: View, image: View) -> None:
    found = copy(context, image, "src", "/app", exclude=IgnoreRules(["**/*.o"]))
    assert found == ["app/b.c", "app/in", "app/in/c.c"]
    assert copy(context, image, "src/in/c.c", "/app", parents=True) == [
        "app/src",
        "app/src/in",
        "app/src/in/c.c",
    ]


def test_owner_and_mode(context: View, image: View) -> None:
    found = items(context, image, "src", "/n", owner=(5, 6), mode=parse_mode("u=rwX,go=rX"))
    assert {(item.uid, item.gid) for item in found} == {(5, 6)}
    assert {item.target: oct(item.mode) for item in found if item.node} == {
        "n/b.c": "0o644", "n/in": "0o755", "n/in/c.c": "0o644", "n/in/d.o": "0o644",
    }  # fmt: skip


def test_conflicts(context: View, image: View) -> None:
    with pytest.raises(BuildError, match="no directory"):
        copy(context, image, "src", "/usr/bin/sh", folder=True)
    with pytest.raises(BuildError, match="over the file"):
        copy(context, image, "src", "/usr/bin/sh")


def test_digest_ignores_times(context: View, image: View) -> None:
    before = digest(items(context, image, "src", "/n"))
    os.utime(Path(context.layers[0]) / "src/b.c", (1, 1))
    assert digest(items(context, image, "src", "/n")) == before
    (Path(context.layers[0]) / "src/b.c").write_text("other")
    assert digest(items(context, image, "src", "/n")) != before


def test_view_shadows(image: View) -> None:
    assert sorted(node.name for node in image.children(image.find("app") or image.root)) == ["new", "old"]
    assert image.read("bin/sh") == b"sh"
    assert image.resolve("/bin/../bin/sh")[0] == "usr/bin/sh"
    assert image.resolve("/a/../b")[0] == "b"


def test_owners(image: View) -> None:
    assert parse_owner("me", image) == (5, 6)
    assert parse_owner("7", image) == (7, 7)
    assert parse_owner("me:wheel", image) == (5, 10)
    assert user_of("me", image) == (5, 6, [10], "/home/me")
    assert user_of("", image) == (0, 0, [10], "/root")
    assert user_of("99:6", image)[:2] == (99, 6)
    for text in ("nobody", "0:nobody", ":x"):
        with pytest.raises(BuildError):
            parse_owner(text, image)


@pytest.mark.parametrize(
    ("text", "before", "after"),
    [
        ("644", 0o755, 0o644),
        ("a+x", 0o644, 0o755),
        ("go-rwx", 0o755, 0o700),
        ("u=rw,g=r,o=", 0o777, 0o640),
        ("u+s", 0o755, 0o4755),
    ],
)
def test_modes(text: str, before: int, after: int) -> None:
    assert parse_mode(text).apply(before, is_dir=False) == after


@pytest.mark.parametrize("text", ["9", "rwx", "a=q", ""])
def test_bad_modes(text: str) -> None:
    with pytest.raises(BuildError):
        parse_mode(text)
