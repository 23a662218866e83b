"""What a variable inside an env file means: the fixed ones, then the file's own, then earlier files'."""

from __future__ import annotations

from orchestra.compose.dotenv import parse


def values(text: str, **fixed: str) -> dict[str, str]:
    earlier = {"A": "earlier", "X": "first"}
    return {key: value for key, (value, _line) in parse(text, fixed.get, None, earlier.get).items()}


def test_own_keys_come_before_earlier_files() -> None:
    assert values("B=$A\nA=own\nC=$A\nD=$X") == {"B": "earlier", "A": "own", "C": "own", "D": "first"}


def test_fixed_variables_come_first() -> None:
    assert values("A=own\nC=$A", A="shell") == {"A": "own", "C": "shell"}


def test_names_alone_are_looked_up_in_the_same_order() -> None:
    assert values("X\nA=own\nA\nnone\n") == {"X": "first", "A": "own"}
