"""Random stacks of layers: a tree is changed as containers change theirs, round by round, each round's upper
directory becomes a layer of an image; and views of such images that can be compared."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.trees import CAPABILITY, archive, overlay, snapshot

from orchestra.images.commit import NewLayer, extend, layer_of_tree
from orchestra.images.config import Settings
from orchestra.images.diff import TreeOptions
from orchestra.images.image import Image
from orchestra.images.store import ImageStore

Check = Callable[[Path, list[Path], Path], None]
NAMES = [*(f"n{number}" for number in range(10)), "päth name", "x" * 120, "-", "q\nr"]
OWNERS = [0, 1, 33, 1000, 65_534, 70_000, 4_000_000_000]
MODES = [0o000, 0o600, 0o644, 0o444, 0o755, 0o1777, 0o2755, 0o4755, 0o6711, 0o7777]
XATTRS = {"user.mark": b"m", "user.note": b"\0\xff\n=", "user.empty": b"", "trusted.note": b"t", "security.capability": CAPABILITY}


class Changer:
    """Does one random thing after another to a tree."""

    def __init__(self, root: Path, dice: random.Random) -> None:
        self.root, self.dice = root, dice
        self.made = 0

    def folders(self) -> list[Path]:
        return [self.root, *sorted(path for path in self.root.rglob("*") if path.is_dir() and not path.is_symlink())]

    def files(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*") if path.is_symlink() or not path.is_dir())

    def any_file(self) -> Path:
        return self.dice.choice(self.files() or [self.make_file()])

    def any_folder(self) -> Path:
        """Not the root."""
        return self.dice.choice(self.folders()[1:] or [self.make_folder()])

    def anything(self) -> Path:
        return self.dice.choice([*self.files(), *self.folders()])

    def free(self) -> Path:
        """A path that is not taken."""
        while True:
            path = self.dice.choice(self.folders()) / self.dice.choice(NAMES)
            if not os.path.lexists(path):
                return path
            self.made += 1
            path = path.with_name(f"m{self.made}")
            if not os.path.lexists(path):
                return path

    def make_file(self) -> Path:
        path = self.free()
        path.write_bytes(self.dice.randbytes(self.dice.choice([0, 1, 511, 512, 513, 3000, 70_000])))
        return path

    def make_folder(self) -> Path:
        path = self.free()
        path.mkdir(mode=self.dice.choice([0o700, 0o755, 0o775]))
        return path

    def make_link(self) -> None:
        self.free().symlink_to(self.dice.choice(["n1", "../n2", "/n3", "x" * 300, "nowhere/ü"]))

    def make_hard_link(self) -> None:
        os.link(self.any_file(), self.free(), follow_symlinks=False)

    def make_node(self) -> None:
        kind, device = self.dice.choice([(stat.S_IFCHR, os.makedev(1, 3)), (stat.S_IFBLK, os.makedev(259, 70_000)), (stat.S_IFIFO, 0)])
        os.mknod(self.free(), kind | 0o640, device)

    def remove(self) -> None:
        self.any_file().unlink()

    def remove_folder(self) -> None:
        shutil.rmtree(self.any_folder())

    def replace_folder(self) -> None:
        """Opaque: the new one hides what the layers below have there."""
        victim = self.any_folder()
        shutil.rmtree(victim)
        victim.mkdir()
        if self.dice.random() < 0.7:
            (victim / self.dice.choice(NAMES)).write_text("fresh")

    def folder_for_file(self) -> None:
        victim = self.any_file()
        victim.unlink()
        victim.mkdir()
        (victim / "was-a-file").write_text("x")

    def file_for_folder(self) -> None:
        victim = self.any_folder()
        shutil.rmtree(victim)
        victim.write_text("was a folder")

    def file_for_file(self) -> None:
        victim = self.any_file()
        victim.unlink()
        victim.write_text("another")

    def move(self) -> None:
        self.any_file().rename(self.free())

    def move_over(self) -> None:
        self.any_file().rename(self.any_file())

    def append(self) -> None:
        victim = self.any_file()
        if stat.S_ISREG(os.lstat(victim).st_mode):
            with open(victim, "ab") as stream:
                stream.write(b"more")

    def hole(self) -> None:
        with open(self.free(), "wb") as stream:
            stream.truncate(3 << 20)
            stream.seek(self.dice.choice([0, 1 << 20, 3 << 20]))
            stream.write(b"data")

    def mode(self) -> None:
        victim = self.anything()
        if not victim.is_symlink():
            victim.chmod(self.dice.choice(MODES))

    def owner(self) -> None:
        os.chown(self.anything(), self.dice.choice(OWNERS), self.dice.choice(OWNERS), follow_symlinks=False)

    def xattr(self) -> None:
        name = self.dice.choice(list(XATTRS))
        victim = self.anything()
        os.setxattr(victim, name, XATTRS[name] + (b"" if "cap" in name else self.dice.randbytes(3)), follow_symlinks=False)

    def no_xattr(self) -> None:
        victim = self.anything()
        for name in os.listxattr(victim, follow_symlinks=False):
            os.removexattr(victim, name, follow_symlinks=False)

    def time(self) -> None:
        moment = self.dice.choice([0, 1, 1_400_000_000, 1_700_000_000, 5_000_000_000]) * 10**9 + self.dice.choice([0, 123_456_789])
        os.utime(self.anything(), ns=(0, moment), follow_symlinks=False)

    def step(self) -> None:
        often = [*[self.make_file] * 4, *[self.make_folder] * 4, self.make_hard_link, self.make_hard_link, self.owner, self.mode,
                 self.xattr, self.time, self.replace_folder]  # fmt: skip
        rare = [self.make_link, self.make_node, self.remove, self.remove_folder, self.folder_for_file, self.file_for_folder,
                self.file_for_file, self.move, self.move_over, self.append, self.hole, self.no_xattr]  # fmt: skip
        with contextlib.suppress(OSError):  # attributes that this kind of file may not have, moves over folders
            self.dice.choice([*often, *rare])()


def build_stack(
    store: ImageStore, tmp_path: Path, seed: int, *, rounds: int = 4, name: str = "stack:1", check: Check | None = None
) -> tuple[Image, dict[str, Any]]:
    """An image of ``rounds`` layers, and the tree that its last round showed; ``check`` looks at each round."""
    dice = random.Random(seed)
    (tmp_path / "empty").mkdir()
    made: list[NewLayer] = []
    image: Image | None = None
    want: dict[str, Any] = {}
    for number in range(rounds):
        lowers = store.layers(image) if image else [tmp_path / "empty"]
        place = tmp_path / f"round{number}"
        with overlay(lowers, place) as merged:
            changer = Changer(merged, dice)
            for _ in range(40):
                changer.step()
            want = comparable(snapshot(merged))
            if check:
                check(place / "upper", lowers, merged)
        made.append(layer_of_tree(store, place / "upper", TreeOptions(upper=True, exact_times=True)))
        image = extend(store, None, made, Settings(), history=[], created=0, names=[name])
    assert image is not None
    return image, want


def stack_view(store: ImageStore, image: Image, tmp_path: Path) -> dict[str, Any]:
    with overlay(store.layers(image), tmp_path / "view") as merged:
        return comparable(snapshot(merged))


def comparable(files: dict[str, Any]) -> dict[str, Any]:
    """Everything but the root directory itself and overlayfs's own attributes; a link group that has one visible name
    only is none (the others lie in a layer that is covered)."""
    visible = Counter(value[-1] for value in files.values())
    kept = {}
    for path, (kind, mode, owner, mtime, content, xattrs, group) in files.items():
        mine = tuple(pair for pair in xattrs if not pair[0].startswith("trusted.overlay."))
        kept[path] = (kind, mode, owner, mtime, content, mine, group if visible[group] > 1 else None)
    kept.pop(".")
    return kept


def assert_same(found: dict[str, Any], want: dict[str, Any]) -> None:
    """Compare by path, so that a failure names the file and the field."""
    assert sorted(found) == sorted(want)
    fields = ("kind", "mode", "owner", "mtime", "content", "xattrs", "links")
    for path, value in want.items():
        for field, left, right in zip(fields, found[path], value, strict=True):
            assert left == right, (path, field)



FOLDERS = [f"{a}{b}" for a in "abc" for b in ("", "/d", "/d/e")]


class TarMaker:
    """Layers as any builder might write them: whiteouts of what is and what is not there, opaque marks, members in any
    order and more than once, directories without a member of their own, hard links. Left out is what programs disagree
    about: a name that is a file and a directory in one layer, marks after what they are about."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.seen: set[str] = set()
        self.leaves: set[str] = set()
        self.covered: set[str] = set()

    def layer(self) -> bytes:
        dice = self.dice
        before = self.covered
        self.leaves = {path for path in FOLDERS if dice.random() < 0.1}
        self.leaves -= {path for path in self.leaves if any(path.startswith(f"{leaf}/") for leaf in self.leaves)}
        folders = [p for p in FOLDERS if not any(p == leaf or p.startswith(f"{leaf}/") for leaf in self.leaves)]
        files = [*self.leaves, *(f"{folder}/{base}" for folder in folders for base in "fg"), "f", "g"]
        members: list[tuple[str, str, dict[str, Any]]] = []
        for path in sorted(dice.sample(sorted(self.seen), min(len(self.seen), dice.randrange(3)))):
            folder, _, base = path.rpartition("/")
            if folder in ["", *folders] and not before & {folder, folder.rpartition("/")[0]}:
                members.append((f"{folder}/.wh.{base}" if folder else f".wh.{base}", "file", {}))
        members += [(path, "dir", self.look() | {"mode": 0o755}) for path in sorted(before) if path in folders]
        self.covered = before.difference(folders) | self.leaves
        for path in sorted(folders):
            if dice.random() < 0.3:
                members.append((path, "dir", self.folder_look()))
                if dice.random() < 0.3:
                    members.append((f"{path}/.wh..wh..opq", "file", {}))
        for number in range(dice.randrange(1, 10)):
            members.append(self.member(number, dice.choice(files), members))
            if dice.random() < 0.2 and folders:
                members.append((dice.choice(folders), "dir", self.folder_look()))
        self.seen |= {member[0] for member in members if ".wh." not in member[0]}
        prefix = dice.choice(["", "", "./", "/"])
        return archive(*((prefix + name, kind, about) for name, kind, about in members))

    def look(self) -> dict[str, Any]:
        dice = self.dice
        moment = dice.choice([0, 1_400_000_000, 1_700_000_000])
        return {"uid": dice.choice(OWNERS), "gid": dice.choice(OWNERS), "mtime": moment, "mode": dice.choice(MODES)}

    def folder_look(self) -> dict[str, Any]:
        look = self.look()
        return look | {"mode": look["mode"] & ~0o2000}  # what is made in a set-gid directory inherits from it elsewhere

    def member(self, number: int, path: str, before: list[tuple[str, str, dict[str, Any]]]) -> tuple[str, str, dict[str, Any]]:
        dice = self.dice
        what = dice.choice(["file", "file", "file", "link", "hard", "hard", "fifo", "char"])
        targets = {name: about for name, kind, about in before if ".wh." not in name and kind == "file"}
        targets = {name: about for name, about in targets.items() if name != path and [k for n, k, _ in before if n == name][-1] == "file"}
        if what == "hard" and targets:
            target = dice.choice(sorted(targets))
            return path, "hard", {**targets[target], "content": b"", "link": target}
        if what == "char":
            return path, "char", {**self.look(), "devmajor": 1, "devminor": 3}
        if what == "link":
            return path, "link", {**self.look(), "link": dice.choice(["nowhere", "../nowhere", "/nowhere"])}
        if what == "fifo":
            return path, "fifo", self.look()
        return path, "file", {**self.look(), "content": b"%d" % number}
