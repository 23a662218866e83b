"""storage_opt: what it says, and that it is refused where the filesystem cannot."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from support import bpfmachine

from orchestra.engine import quota
from orchestra.errors import OrchestraError, UnsupportedError
from orchestra.linux import quota as kernel
from orchestra.paths import Paths
from orchestra.runtime import seccomp


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    found = Paths(tmp_path / "lib", tmp_path / "run")
    found.containers.mkdir(parents=True)
    return found


def test_sizes() -> None:
    assert quota.size_of({}) == quota.size_of({"size": ""}) == 0
    assert quota.size_of({"size": "1G"}) == 1 << 30
    assert quota.size_of({"Size": "10m"}) == 10 << 20


@pytest.mark.parametrize(("options", "said"), [({"size": "much"}, '"much" is no size'), ({"size": "1G", "inodes": "5"}, '"inodes" is not supported')])
def test_other_options(options: dict[str, str], said: str) -> None:
    with pytest.raises(OrchestraError, match=said) as caught:
        quota.size_of(options)
    assert caught.value.attribute.startswith("storage_opt")  # type: ignore[attr-defined]


def test_where_the_filesystem_cannot(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "enforced", lambda _path: False)
    assert quota.check(paths, {}) == 0
    with pytest.raises(UnsupportedError, match="project quotas") as caught:
        quota.check(paths, {"size": "1G"})
    assert "prjquota" in caught.value.hint and "pquota" in caught.value.hint


def test_each_container_has_its_project(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    projects: dict[str, int] = {}
    limits: dict[int, int] = {}
    monkeypatch.setattr(kernel, "project", lambda path: projects.get(str(path), 0))
    monkeypatch.setattr(kernel, "set_project", lambda path, number: projects.__setitem__(str(path), number))
    monkeypatch.setattr(kernel, "set_limit", lambda _path, number, size: limits.__setitem__(number, size))
    folders = [paths.containers / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
        quota.limit(paths, folder, 5 << 20)
        assert projects[str(folder / "upper")] == projects[str(folder / "work")] >= 0x40000000
    assert len(set(projects.values())) == 2 and set(limits.values()) == {5 << 20}
    quota.release(folders[0])
    assert limits[projects[str(folders[0] / "upper")]] == 0
    quota.release(paths.containers / "none")  # without a project: nothing of it


def test_a_filesystem_that_refuses(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_words: object) -> None:
        raise OSError(errno.ESRCH, "No such process")

    monkeypatch.setattr(kernel, "set_limit", refuse)
    folder = paths.containers / "a"
    folder.mkdir()
    with pytest.raises(OrchestraError, match="cannot set the limit"):
        quota.limit(paths, folder, 1)


@pytest.mark.parametrize("kind", ["default", "deny list", "conditions"])
def test_no_file_leaves_its_project(kind: str) -> None:
    profiles = {
        "default": seccomp.default_profile(["CAP_CHOWN"]),
        "deny list": {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": []},
        "conditions": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["read", "ioctl"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 3, "op": "SCMP_CMP_EQ"}]}],
        },
    }
    profile = profiles[kind]
    before, after = seccomp.compile_profile(profile), seccomp.compile_profile(quota.keep_inside(profile))
    allowed, refused = 0x7FFF0000, 0x50000 | errno.EOPNOTSUPP

    def ask(program: bytes, number: int, *words: int) -> int:
        return bpfmachine.run(program, bpfmachine.data(number, 0xC000003E, *words))

    set_attributes = kernel.SET_ATTRIBUTES
    assert ask(before, 16, 3, set_attributes) == allowed
    for word in (set_attributes, set_attributes | 1 << 32, set_attributes | 0xFFFFFFFF << 32):
        assert ask(after, 16, 3, word) == refused
    for word in (0, 0x5401, 0x801C581F, set_attributes + 1, set_attributes - 1, 1 << 63):
        assert ask(after, 16, 3, word) == ask(before, 16, 3, word) == allowed
    assert ask(after, 16, 4, 0x5401) == ask(before, 16, 4, 0x5401)
    assert ask(after, 0, 3) == ask(before, 0, 3)
    assert ask(after, 469, 3) == refused


def test_of_this_machine(tmp_path: Path) -> None:
    assert kernel.project(tmp_path) >= 0
    assert kernel.enforced(tmp_path) in (True, False)
