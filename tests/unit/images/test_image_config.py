from __future__ import annotations

import pytest

from orchestra.errors import OrchestraError
from orchestra.images.config import Settings, duration, healthcheck, timestamp


@pytest.mark.parametrize(
    ("instruction", "key", "value"),
    [
        ("CMD sh -c x", "Cmd", ["/bin/sh", "-c", "sh -c x"]),
        ('cmd ["a", "b"]', "Cmd", ["a", "b"]),
        ('ENTRYPOINT ["x"]', "Entrypoint", ["x"]),
        ("ENV A=1 B=2", "Env", ["A=1", "B=2"]),
        ("ENV A one two", "Env", ["A=one two"]),
        ("EXPOSE 80 53/udp 90-91", "ExposedPorts", {"53/udp": {}, "80/tcp": {}, "90/tcp": {}, "91/tcp": {}}),
        ("LABEL a=b", "Labels", {"a": "b"}),
        ("STOPSIGNAL SIGQUIT", "StopSignal", "SIGQUIT"),
        ("USER 1:2", "User", "1:2"),
        ("VOLUME /a /b", "Volumes", {"/a": {}, "/b": {}}),
        ('VOLUME ["/c d"]', "Volumes", {"/c d": {}}),
        ("WORKDIR /a/../b", "WorkingDir", "/b"),
        ('SHELL ["/bin/bash", "-c"]', "Shell", ["/bin/bash", "-c"]),
        ("ONBUILD RUN x", "OnBuild", ["RUN x"]),
    ],
)
def test_changes(instruction: str, key: str, value: object) -> None:
    settings = Settings()
    settings.apply(instruction)
    assert settings.to_dict() == {key: value}
    assert Settings.from_dict(settings.to_dict()).to_dict() == settings.to_dict()


@pytest.mark.parametrize("instruction", [
    "RUN x", "CMD", "EXPOSE x", "EXPOSE 0", "EXPOSE 80/icmp", "EXPOSE 9-8", "ENV =", "LABEL a", "SHELL sh",
    "HEALTHCHECK --interval=x CMD y", "HEALTHCHECK --what=1 CMD y", "HEALTHCHECK --retries=x CMD y", "ENV A='",
])  # fmt: skip
def test_refused(instruction: str) -> None:
    if instruction in ("ENV =", "LABEL a"):
        Settings().apply(instruction)  # docker takes these, too
        return
    with pytest.raises(OrchestraError):
        Settings().apply(instruction)


def test_health_checks() -> None:
    assert healthcheck("NONE") == {"Test": ["NONE"]}
    assert healthcheck("CMD curl x || exit 1") == {"Test": ["CMD-SHELL", "curl x || exit 1"]}
    assert healthcheck('--timeout=1m30s --retries=3 CMD ["a"]') == {
        "Test": ["CMD", "a"], "Timeout": 90_000_000_000, "Retries": 3,
    }  # fmt: skip


def test_words() -> None:
    assert duration("1.5s") == 1_500_000_000
    assert timestamp(0) == "1970-01-01T00:00:00Z"
    assert timestamp(1.5) == "1970-01-01T00:00:01.500000Z"
