from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.build import instructions as ins
from orchestra.build.parser import parse
from orchestra.build.problems import DockerfileError


def one(text: str) -> ins.Instruction:
    return parse(text).instructions[0]


def test_from() -> None:
    found = one("FROM --platform=$BUILDPLATFORM node:18 AS Build")
    assert isinstance(found, ins.From)
    assert (found.image, found.name, found.platform) == ("node:18", "build", "$BUILDPLATFORM")


def test_run() -> None:
    found = one('RUN --mount=type=cache,target=/c,id=x --mount=type=secret,id=s --network=none make "a b"')
    assert isinstance(found, ins.Run)
    assert found.command == ins.Command(shell='make "a b"')
    assert [mount.kind for mount in found.mounts] == ["cache", "secret"]
    assert found.mounts[0].get("target") == "/c"
    assert found.network == "none"


def test_exec_forms() -> None:
    assert one('RUN ["a", "b c"]').command.words == ("a", "b c")  # type: ignore[attr-defined]
    assert one("RUN ['a']").command.words is None  # type: ignore[attr-defined]
    assert one("RUN [ -f x ]").command.shell == "[ -f x ]"  # type: ignore[attr-defined]
    assert one("CMD []").command.words == ()  # type: ignore[attr-defined]
    assert one("ENTRYPOINT exec x").command.shell == "exec x"  # type: ignore[attr-defined]


def test_copy() -> None:
    found = one(
        "COPY --from=build --chown=1:2 --chmod=644 --link --parents --exclude=*.o --exclude=*.a a b /c/"
    )
    assert isinstance(found, ins.Copy)
    assert (found.sources, found.target, found.source_stage) == (("a", "b"), "/c/", "build")
    assert (found.chown, found.chmod, found.link, found.parents) == ("1:2", "644", True, True)
    assert found.exclude == ("*.o", "*.a")


def test_copy_json_and_heredoc() -> None:
    found = one('COPY ["a b", "/c d/"]')
    assert isinstance(found, ins.Copy)
    assert found.sources == ('"a b"',)
    found = one("COPY <<one <<two x /d/\n1\none\n2\ntwo\n")
    assert isinstance(found, ins.Copy)
    assert (found.sources, found.target) == (("x",), "/d/")
    assert [document.content for document in found.heredocs] == ["1\n", "2\n"]


def test_pairs() -> None:
    assert one("ENV a=1 b='x y' c=\"$a\"").pairs == (("a", "1"), ("b", "'x y'"), ("c", '"$a"'))  # type: ignore[attr-defined]
    assert one("ENV a some words").pairs == (("a", "some words"),)  # type: ignore[attr-defined]
    assert one("LABEL a.b=c").pairs == (("a.b", "c"),)  # type: ignore[attr-defined]
    assert one("ARG a b=1 c=").pairs == (("a", None), ("b", "1"), ("c", ""))  # type: ignore[attr-defined]


def test_healthcheck() -> None:
    found = one("HEALTHCHECK --interval=5s --retries=3 CMD curl -f x || exit 1")
    assert isinstance(found, ins.HealthCheck)
    assert found.options == (("interval", "5s"), ("retries", "3"))
    assert found.command == ins.Command(shell="curl -f x || exit 1")
    assert one("HEALTHCHECK NONE").command is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FORM x", "1:1: unknown instruction 'FORM'"),
        ("FROM", "FROM needs an argument"),
        ("FROM a b", "1:8: FROM takes"),
        ("FROM a AS 1x", "1:11: invalid stage name"),
        ("RUN", "RUN needs a command"),
        ("RUN --mont=x y", "1:5: RUN has no flag --mont"),
        ("RUN --mount=type=nope x", "unknown mount type"),
        ("RUN --mount=type=cache x", "needs target"),
        ("RUN --mount=type=tmpfs,target=/x,mode=1 x", "no option 'mode'"),
        ("RUN --network=bridge x", "--network"),
        ("COPY a", "at least one source"),
        ("COPY --link=maybe a b", "true or false"),
        ("COPY --checksum=x a b", "has no flag --checksum"),
        ("ADD --from=x a b", "has no flag --from"),
        ("ENV a", "has no value"),
        ("ENV a=1 b", "1:9: 'b' is not KEY=VALUE"),
        ("ENV a='x", "1:7: quote ' is not closed"),
        ("ARG 1a=2", "invalid argument name"),
        ("SHELL bash", "JSON list"),
        ("HEALTHCHECK curl", "CMD or NONE"),
        ("HEALTHCHECK CMD", "needs a command"),
        ("HEALTHCHECK --retries=1 NONE", "takes no arguments"),
        ("ONBUILD FROM x", "cannot be a trigger"),
        ("ONBUILD NOPE x", "unknown instruction"),
        ("COPY --chown=a --chown=b x y", "stands twice"),
    ],
)
def test_errors(text: str, message: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        parse(text)
    assert message in str(caught.value)


def test_hint() -> None:
    with pytest.raises(DockerfileError) as caught:
        parse("FROM a\n  ENTRYPONT x")
    assert str(caught.value.location) == "Dockerfile:2:3"
    assert caught.value.hint == "did you mean ENTRYPOINT?"


CORPUS = sorted((Path(__file__).parents[2] / "fixtures/dockerfiles").glob("*.Dockerfile"))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_corpus(path: Path) -> None:
    """Every instruction is known; the first line says how many there are."""
    text = path.read_text()
    count = int(text.splitlines()[-1].removeprefix("# instructions: "))
    assert len(parse(text, path.name).instructions) == count


@given(
    st.lists(
        st.sampled_from(
            [
                "FROM a",
                "RUN ",
                "COPY ",
                "--from=x ",
                "ENV ",
                "a=",
                "'",
                '"',
                "\\\n",
                "<<E",
                "\nE\n",
                "[",
                "]",
                ",",
                " ",
                "\n",
            ]
        ),
        max_size=30,
    )
)
def test_never_breaks(parts: list[str]) -> None:
    try:
        parse("".join(parts))
    except DockerfileError as error:
        assert error.location is not None
