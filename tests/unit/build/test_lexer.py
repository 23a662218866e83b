from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.build.lexer import heredoc_marks, read_lines
from orchestra.build.problems import DockerfileError


def texts(source: str) -> list[str]:
    return [line.text for line in read_lines(source).lines]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("FROM a", ["FROM a"]),
        ("\n\n  FROM a  \n", ["FROM a"]),
        ("RUN a \\\n  b", ["RUN a   b"]),
        ("RUN a \\\n# note\n\n  b", ["RUN a   b"]),
        ("RUN a \\   \n  b", ["RUN a   b"]),
        ("RUN a \\\\\nRUN b", ["RUN a \\\\", "RUN b"]),
        ("RUN a\r\nRUN b\r\n", ["RUN a", "RUN b"]),
        ("# escape=`\nRUN a `\n b\nRUN c\\\nRUN d", ["RUN a  b", "RUN c\\", "RUN d"]),
        ("#escape=`\n\nRUN a `\nb", ["RUN a b"]),
        ("# note\n# escape=`\nRUN a \\\nb", ["RUN a b"]),
        ("\ufeffFROM a", ["FROM a"]),
        ("RUN a \\", ["RUN a"]),
        ("RUN echo '#' # not a comment", ["RUN echo '#' # not a comment"]),
        ("", []),
        ("# only", []),
    ],
)
def test_lines(source: str, expected: list[str]) -> None:
    assert texts(source) == expected


def test_positions() -> None:
    line = read_lines("# c\n\n  RUN one \\\n    two three\n", "D").lines[0]
    assert str(line.at(0)) == "D:3:3"
    assert str(line.at(4)) == "D:3:7"
    assert str(line.at(line.text.index("two"))) == "D:4:5"
    assert str(line.at(line.text.index("three"))) == "D:4:9"


def test_directives() -> None:
    source = read_lines("# syntax=docker/dockerfile:1\n# check=skip=all\n# other=1\n# escape=`\nFROM a")
    assert dict(source.directives) == {"syntax": "docker/dockerfile:1", "check": "skip=all"}
    for text in ("# escape=\\\n# escape=`\n", "# escape=x\n"):
        with pytest.raises(DockerfileError):
            read_lines(text)


class TestHeredocs:
    def test_plain(self) -> None:
        source = read_lines("RUN <<EOF\n  a $x\n# kept\n\nEOF\nRUN b")
        assert [line.text for line in source.lines] == ["RUN <<EOF", "RUN b"]
        document = source.lines[0].heredocs[0]
        assert (document.name, document.content, document.expand) == ("EOF", "  a $x\n# kept\n\n", True)

    def test_quoted_and_stripped(self) -> None:
        one, two = read_lines("COPY <<-'A' <<\"B\" /x/\n\t\ta\n\tA\nb\nB\n").lines[0].heredocs
        assert (one.content, one.expand, one.strip) == ("a\n", False, True)
        assert (two.content, two.expand) == ("b\n", False)

    def test_not_everywhere(self) -> None:
        assert not read_lines("LABEL a=<<EOF\nRUN b").lines[0].heredocs
        assert not heredoc_marks('RUN echo "<<EOF"')
        assert not heredoc_marks("RUN cat <<<word")
        assert len(heredoc_marks("RUN 3<<A cat <<B")) == 2

    def test_no_end(self) -> None:
        with pytest.raises(DockerfileError, match=r"Dockerfile:2:5: heredoc EOF has no end"):
            read_lines("FROM a\nRUN <<EOF\nx")


@given(st.text(alphabet=st.sampled_from("RUN COPY#\\`\n\t <-'\"$={}EOF\r"), max_size=200))
def test_never_breaks(text: str) -> None:
    try:
        source = read_lines(text)
    except DockerfileError:
        return
    for line in source.lines:
        assert line.text.strip()
        assert line.at(len(line.text) - 1).line >= 1
