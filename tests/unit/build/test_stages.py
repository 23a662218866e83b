from __future__ import annotations

import pytest

from orchestra.build.parser import parse
from orchestra.build.problems import BuildError
from orchestra.build.stages import Plan, make_plan
from orchestra.images.manifest import Platform


def plan(text: str, target: str = "", **args: str) -> Plan:
    return make_plan(parse(text), args=args, target=target, platform=Platform("linux", "arm64"))


THREE = """
ARG V=1
FROM a:$V AS one
FROM b AS two
COPY --from=one /x /x
FROM c
RUN --mount=from=two,target=/x true
"""


def test_order() -> None:
    found = plan(THREE)
    assert [stage.image for stage in found.stages] == ["a:1", "b", "c"]
    assert found.order == (0, 1, 2)
    assert plan(THREE, "one").order == (0,)
    assert plan(THREE, "1").order == (0, 1)
    assert plan(THREE, V="7").stages[0].image == "a:7"


def test_unneeded_stages() -> None:
    assert plan("FROM a AS x\nFROM b AS y\nFROM x").order == (0, 2)


def test_base_stage() -> None:
    found = plan("FROM a AS x\nFROM X AS y\nFROM 0")
    assert [stage.base for stage in found.stages] == [None, 0, None]


def test_platforms() -> None:
    text = "ARG TARGETARCH\nFROM --platform=$BUILDPLATFORM x-$TARGETARCH AS a"
    found = plan(text).stages[0]
    assert found.image == "x-arm64" or found.image == "x-"
    assert found.platform == str(Platform.host())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no FROM"),
        ("RUN x\nFROM a", "1:1: only ARG"),
        ("FROM a AS x\nFROM b AS x", "two stages"),
        ("FROM $NONE", "names no image"),
        ("FROM a\nCOPY --from=3 x y", "no earlier stage 3"),
        ("FROM ${x", "1:6: ${ is not closed"),
    ],
)
def test_errors(text: str, message: str) -> None:
    with pytest.raises(BuildError) as caught:
        plan(text)
    assert message in str(caught.value)


def test_target() -> None:
    with pytest.raises(BuildError) as caught:
        plan(THREE, "tow")
    assert caught.value.hint == "did you mean two?"


def test_unused_arguments() -> None:
    assert plan("FROM a\nARG X", X="1", Y="2", HTTP_PROXY="p").warnings == (
        "build arguments Y are not used by the Dockerfile",
    )
