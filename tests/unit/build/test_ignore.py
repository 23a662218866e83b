from __future__ import annotations

import pytest

from orchestra.build.ignore import IgnoreRules
from orchestra.build.problems import BuildError


@pytest.mark.parametrize(
    ("lines", "ignored", "kept"),
    [
        ("*.md", ["a.md"], ["d/a.md", "md"]),
        ("**/*.md", ["a.md", "d/a.md", "d/e/a.md"], ["a.mdx"]),
        ("node_modules", ["node_modules", "node_modules/x/y"], ["a/node_modules", "node_modules2"]),
        ("/build/", ["build", "build/x"], ["a/build"]),
        ("*/temp*", ["a/temp", "a/tempx/y"], ["temp", "a/b/temp"]),
        ("temp?", ["temp1"], ["temp", "temp12"]),
        ("*.md\n!README.md", ["a.md"], ["README.md"]),
        ("*.md\n!README*.md\nREADME-secret.md", ["README-secret.md", "x.md"], ["README-a.md"]),
        ("**", ["a", "a/b"], []),
        ("*\n!src", ["a", "a/b"], ["src", "src/x"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["z", "a/zz"]),
        ("[ab].c", ["a.c", "b.c"], ["c.c"]),
        ("[^ab].c", ["c.c"], ["a.c"]),
        ("[a-c]", ["b"], ["d"]),
        ("# note\n\n  x  ", ["x"], ["# note"]),
        (r"\*", ["*"], ["a"]),
        ("./a/../b", ["b"], ["a"]),
        ("a.b", ["a.b"], ["axb"]),
        ("dir/**", ["dir/x", "dir/x/y"], ["dir", "dirx"]),
    ],
)
def test_rules(lines: str, ignored: list[str], kept: list[str]) -> None:
    rules = IgnoreRules.parse(lines)
    assert [path for path in ignored if not rules.matches(path)] == []
    assert [path for path in kept if rules.matches(path)] == []


def test_prunes() -> None:
    assert IgnoreRules(["a"]).prunes("a")
    rules = IgnoreRules(["a", "!a/b/*.c", "x"])
    assert not rules.prunes("a")
    assert not rules.prunes("a/b")
    assert rules.prunes("x")
    assert not IgnoreRules(["a", "!**/k"]).prunes("a")


def test_invalid() -> None:
    with pytest.raises(BuildError):
        IgnoreRules(["[a"])
