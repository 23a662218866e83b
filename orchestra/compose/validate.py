"""The merged document against our JSON Schema, as located problems with a suggestion.

The compiled schema (:mod:`~orchestra.compose.schema`) goes first: what it finds good is good (a test
holds both equal). Only when it finds faults is jsonschema loaded, and its verdict is the one that
counts; the located faults are then the words.
"""

from __future__ import annotations

from orchestra.compose.diagnostics import Problems
from orchestra.compose.schema import Fault, checker, document
from orchestra.compose.suggest import nearest
from orchestra.compose.tree import Mapping, Scalar, path_text, plain


def validate(tree: Mapping, problems: Problems) -> None:
    """Record every violation of the schema."""
    faults: list[Fault] = []
    checker()(tree, (), faults)
    if not faults or _accepted(tree):
        return
    for fault in faults:
        _report(fault, problems)


def _accepted(tree: Mapping) -> bool:
    """What jsonschema says."""
    try:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError
    except ImportError:  # the compiled schema alone, where jsonschema is not installed
        return False
    try:
        return bool(Draft202012Validator(document()).is_valid(plain(tree)))
    except (SchemaError, RecursionError):
        return False


def _report(fault: Fault, problems: Problems) -> None:
    where = path_text(fault.path)
    if fault.key is not None and isinstance(fault.node, Mapping):
        path = (*fault.path, fault.key)
        problems.error(
            _with_place(fault.message, where),
            fault.node.key_location(fault.key),
            path,
            hint=_stranger_hint(fault),
        )
        return
    problems.error(
        f"{where} {fault.message}" if where else fault.message,
        fault.node.location,
        fault.path,
        hint=_value_hint(fault),
    )


def _with_place(message: str, where: str) -> str:
    return f"{message} in {where}" if where else f"{message} at the top level"


def _stranger_hint(fault: Fault) -> str | None:
    key = fault.key or ""
    if not fault.known:
        return "names have letters, digits, dots, underscores and hyphens"
    found = nearest(key, fault.known)
    if found:
        return f"did you mean {found}?"
    home = _HOMES.get(key)
    if home and not fault.path:
        return f"{key} belongs to a service: indent it below services"
    return "remove it, or begin its name with x- to keep it as an extension"


_HOMES = dict.fromkeys(
    (
        "image",
        "build",
        "ports",
        "environment",
        "command",
        "restart",
        "depends_on",
        "container_name",
        "entrypoint",
        "healthcheck",
        "labels",
        "env_file",
    ),
    True,
)


def _value_hint(fault: Fault) -> str | None:
    node = fault.node
    if not isinstance(node, Scalar):
        return None
    if isinstance(node.value, str) and fault.known:
        found = nearest(node.value, fault.known)
        return f"did you mean {found}?" if found else f"one of {', '.join(fault.known)}"
    if isinstance(node.value, bool | int | float) and "must be a string" in fault.message:
        text = node.raw if node.raw is not None else str(node.value)
        return f'write it in quotes: "{text}"'
    return None
