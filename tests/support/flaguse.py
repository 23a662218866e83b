"""Which options a verb's code reads, found in its source: ``args.name`` and words in quotes, in ``run`` and what it calls.

Functions of the verb's module are followed by name, those of other modules of ``orchestra.cli`` that they import likewise.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from orchestra.cli.arguments import Parser
from orchestra.cli.main import parser_of as make
from orchestra.cli.table import GROUPS, VERBS

ROOT = Path(__file__).resolve().parents[2]

TARGETS = {**VERBS, **{f"{group} {word}": target for group, words in GROUPS.items() for word, target in words.items()}}


def parser_of(name: str) -> Parser:
    """The parser of a verb (``ps``) or of a group's (``container run``), without the global options."""
    return make(name, TARGETS[name])


@cache
def _module(name: str) -> ast.Module | None:
    path = ROOT / (name.replace(".", "/") + ".py")
    return ast.parse(path.read_text()) if path.exists() else None


@cache
def _definitions(tree: ast.Module) -> dict[str, ast.AST]:
    found: dict[str, ast.AST] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found |= {target.id: node for target in node.targets if isinstance(target, ast.Name)}
    return found


@cache
def _imports(tree: ast.AST) -> dict[str, tuple[str, str]]:
    """name here → (module, name there or '' for the module itself)"""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("orchestra.cli"):
            for item in node.names:
                inner = f"{node.module}.{item.name}"
                found[item.asname or item.name] = (inner, "") if _module(inner) else (str(node.module), item.name)
    return found


def words_read(target: str) -> set[str]:
    """Attribute names and quoted words in the code that runs for ``target`` (``module`` or ``module:function``)."""
    module, _, function = target.partition(":")
    pending, seen, found = [(f"orchestra.cli.verbs.{module}", f"run_{function}" if function else "run")], set(), set()
    while pending:
        place = pending.pop()
        if place in seen:
            continue
        seen.add(place)
        tree = _module(place[0])
        definitions = _definitions(tree) if tree else {}
        node = definitions.get(place[1])
        if tree is not None and node is None and place[1] in _imports(tree):
            pending.append(_imports(tree)[place[1]])
        if tree is None or node is None:
            continue
        imports = _imports(tree)
        for inner in ast.walk(node):
            if isinstance(inner, ast.Attribute):
                found.add(inner.attr)
                if isinstance(inner.value, ast.Name) and inner.value.id in imports:
                    pending.append((imports[inner.value.id][0], inner.attr))
            elif isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                found |= set(inner.value.replace("-", "_").split())
            elif isinstance(inner, ast.Name):
                pending.append((place[0], inner.id))
                if inner.id in imports:
                    pending.append(imports[inner.id])
    return found


def unread(name: str) -> list[str]:
    """The options of a verb that its code never mentions."""
    known = words_read(TARGETS[name])
    actions = [action for action in parser_of(name)._actions if action.option_strings and action.dest != "help"]
    return sorted(max(action.option_strings, key=len) for action in actions if action.dest not in known)
