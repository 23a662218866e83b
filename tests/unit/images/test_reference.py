from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestra.errors import OrchestraError
from orchestra.images.reference import Reference

HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("redis", "docker.io/library/redis:latest", "redis:latest"),
        ("redis:7", "docker.io/library/redis:7", "redis:7"),
        ("user/app", "docker.io/user/app:latest", "user/app:latest"),
        ("docker.io/redis", "docker.io/library/redis:latest", "redis:latest"),
        ("index.docker.io/redis:1", "docker.io/library/redis:1", "redis:1"),
        ("docker.io/library/redis", "docker.io/library/redis:latest", "redis:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost:5000/a/b:c"),
        ("quay.io/x/y", "quay.io/x/y:latest", "quay.io/x/y:latest"),
        ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
        ("Registry/x", "Registry/x:latest", "Registry/x:latest"),
        (f"redis@sha256:{HEX}", f"docker.io/library/redis@sha256:{HEX}", f"redis@sha256:{HEX}"),
        (f"redis:7@sha256:{HEX}", f"docker.io/library/redis:7@sha256:{HEX}", f"redis:7@sha256:{HEX}"),
        ("a/b/c:d", "docker.io/a/b/c:d", "a/b/c:d"),
        ("docker.io/foo.bar/x", "docker.io/foo.bar/x:latest", "docker.io/foo.bar/x:latest"),
        ("a__b/c.d/e---f", "docker.io/a__b/c.d/e---f:latest", "a__b/c.d/e---f:latest"),
    ],
)
def test_normalisation(text: str, canonical: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert str(reference) == canonical
    assert reference.familiar() == familiar


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "Redis", "redis:", "redis:-x", "redis@sha256:abc", "redis@", "a//b", "/a", "a/", "a b",
        "redis:" + "x" * 129, HEX, "user/App", "x.y:port/a", "-x/y", "a___b", "a..b", "http://x/y", "x:y:z",
        "a" * 256, f"redis@md5:{'a' * 32}", "redis\n", "[::1/x",
    ],
)  # fmt: skip
def test_refused(text: str) -> None:
    with pytest.raises(OrchestraError) as error:
        Reference.parse(text)
    assert "invalid image reference" in error.value.brief


def test_no_default_tag() -> None:
    assert Reference.parse("redis", default_tag=False).tag is None
    assert str(Reference.parse("redis", default_tag=False)) == "docker.io/library/redis"


def test_storage_key_drops_the_tag_of_a_digest() -> None:
    assert Reference.parse(f"redis:7@sha256:{HEX}").storage_key() == f"docker.io/library/redis@sha256:{HEX}"


component = st.from_regex(r"\A[a-z0-9]{1,5}(?:(?:\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}\Z")
path = st.lists(component, min_size=1, max_size=4).map("/".join)
label = st.from_regex(r"\A[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,5}[a-zA-Z0-9])?\Z")
host = st.one_of(
    st.just("docker.io"),
    st.just("localhost"),
    st.lists(label, min_size=2, max_size=3).map(".".join),
    st.tuples(label, st.integers(1, 65535)).map(lambda pair: f"{pair[0]}:{pair[1]}"),
)
tag = st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}\Z")
digest = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:".__add__)


@given(st.one_of(st.none(), host), path, st.one_of(st.none(), tag), st.one_of(st.none(), digest))
def test_round_trip(host: str | None, path: str, tag: str | None, digest: str | None) -> None:
    assume(host or "/" not in path or not ("." in path.split("/")[0] or path.startswith("localhost/")))
    text = f"{host}/{path}" if host else path
    text += f":{tag}" if tag else ""
    text += f"@{digest}" if digest else ""
    try:
        reference = Reference.parse(text)
    except OrchestraError:
        assert len(path) == 64  # 64 hex digits are an id
        return
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar()) == reference
    assert reference.path in (path, f"library/{path}")
    assert reference.tag == (tag or (None if digest else "latest"))
    assert reference.digest == digest


@given(st.text(max_size=60))
def test_any_text_is_taken_or_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except OrchestraError:
        return
    assert Reference.parse(str(reference)) == reference
    assert Reference.parse(reference.familiar()) == reference
