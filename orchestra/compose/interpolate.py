"""``${…}`` in values: the grammar, and its application to a located tree with casts by path.

Pure. The grammar (shared with dotenv): ``$NAME``, ``${NAME}``, ``:-`` ``-`` ``:+`` ``+`` ``:?`` ``?``
with words that may hold further forms to any depth; ``$$`` is a literal ``$``; ``$`` before anything
else stays. A word is evaluated only when it is used. Keys are never interpolated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from orchestra.compose import tree
from orchestra.compose.diagnostics import Problems
from orchestra.compose.tree import Mapping as MappingNode
from orchestra.compose.tree import Node, Path, Scalar, Sequence, Value, path_text, scalar_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

Lookup = Callable[[str], str | None]

_NAME = re.compile(r"[_A-Za-z][_A-Za-z0-9]*")
_OPERATOR = re.compile(r":?[-+?]")
MAX_NESTING = 100
MAX_RESULT = 10_000_000  # characters of one value
MAX_TOTAL = 100_000_000  # characters of all values of a document


class InvalidTemplate(Exception):
    """``${`` without a valid name, operator or end; the message is the offending text."""


class MissingVariable(Exception):
    """A ``?`` form whose variable has no value; the message is ready to print."""


class _Expansion:
    """One expansion: the variables it used, and those it missed."""

    def __init__(self, lookup: Lookup) -> None:
        self.lookup = lookup
        self.used: list[str] = []
        self.missing: list[str] = []

    def expand(self, text: str, depth: int = 0) -> str:
        if "$" not in text:
            return text
        if depth > MAX_NESTING:
            raise InvalidTemplate(f"nested more than {MAX_NESTING} levels deep")
        parts: list[str] = []
        size = position = 0
        while True:
            dollar = text.find("$", position)
            if dollar < 0:
                parts.append(text[position:])
                return "".join(parts)
            parts.append(text[position:dollar])
            piece, position = self.form(text, dollar, depth)
            parts.append(piece)
            size += len(piece)
            if size > MAX_RESULT:
                raise InvalidTemplate("grows beyond all bounds")

    def form(self, text: str, dollar: int, depth: int) -> tuple[str, int]:
        """The value of the form at ``dollar`` and the position behind it."""
        after = text[dollar + 1 : dollar + 2]
        if after == "$":
            return "$", dollar + 2
        if after == "{":
            return self.braced(text, dollar, depth)
        match = _NAME.match(text, dollar + 1)
        if match is None:
            return "$", dollar + 1
        return self.value(match.group()), match.end()

    def value(self, name: str) -> str:
        found = self.lookup(name)
        self.used.append(name)
        if found is None:
            self.missing.append(name)
            return ""
        return found

    def braced(self, text: str, dollar: int, depth: int) -> tuple[str, int]:
        match = _NAME.match(text, dollar + 2)
        if match is None:
            raise InvalidTemplate(_invalid(text, dollar))
        name, position = match.group(), match.end()
        if text[position : position + 1] == "}":
            return self.value(name), position + 1
        operator = _OPERATOR.match(text, position)
        end = closing_brace(text, dollar + 1)
        if operator is None or end < operator.end():
            raise InvalidTemplate(_invalid(text, dollar))
        word = text[operator.end() : end]
        return self.apply(name, operator.group(), word, depth), end + 1

    def apply(self, name: str, operator: str, word: str, depth: int) -> str:
        value = self.lookup(name)
        self.used.append(name)
        present = value is not None and (operator[0] != ":" or value != "")
        kind = operator[-1]
        if kind == "-":
            return str(value) if present else self.expand(word, depth + 1)
        if kind == "+":
            return self.expand(word, depth + 1) if present else ""
        if present:
            return str(value)
        reason = self.expand(word, depth + 1)
        raise MissingVariable(
            f"required variable {name} is missing a value" + (f": {reason}" if reason else "")
        )


def closing_brace(text: str, opening: int) -> int:
    """The index of the ``}`` that closes the ``{`` at ``opening``; without balance the last ``}``
    of the text; -1 without any."""
    level = 0
    for index in range(opening, len(text)):
        char = text[index]
        if char == "{":
            level += 1
        elif char == "}":
            level -= 1
            if level == 0:
                return index
    last = text.rfind("}")
    return last if last > opening else -1


def _invalid(text: str, dollar: int) -> str:
    shown = text[dollar : dollar + 40].split("\n")[0]
    return shown


def substitute(text: str, lookup: Lookup, missing: list[str] | None = None) -> str:
    """``text`` with its forms replaced; names of unset variables are appended to ``missing``."""
    expansion = _Expansion(lookup)
    result = expansion.expand(text)
    if missing is not None:
        missing.extend(expansion.missing)
    return result


# -- casts by path -----------------------------------------------------------------------------

_BOOLEAN_WORDS = {
    "true": True,
    "false": False,
    "y": True,
    "yes": True,
    "on": True,
    "n": False,
    "no": False,
    "off": False,
}

_INTEGER = {
    "cpu_count",
    "cpu_period",
    "cpu_quota",
    "cpu_shares",
    "deploy.replicas",
    "deploy.update_config.parallelism",
    "deploy.rollback_config.parallelism",
    "deploy.restart_policy.max_attempts",
    "deploy.placement.max_replicas_per_node",
    "healthcheck.retries",
    "oom_score_adj",
    "pids_limit",
    "ports.#.target",
    "scale",
    "ulimits.*",
    "ulimits.*.hard",
    "ulimits.*.soft",
}
_FLOATING = {
    "cpu_percent",
    "cpus",
    "deploy.update_config.max_failure_ratio",
    "deploy.rollback_config.max_failure_ratio",
}
_BOOLEAN = {
    "init",
    "depends_on.*.restart",
    "healthcheck.disable",
    "oom_kill_disable",
    "privileged",
    "read_only",
    "stdin_open",
    "tty",
    "volumes.#.read_only",
    "volumes.#.volume.nocopy",
}
_TOP_BOOLEAN = {
    "networks.*.external",
    "networks.*.internal",
    "networks.*.attachable",
    "networks.*.enable_ipv6",
    "networks.*.enable_ipv4",
    "volumes.*.external",
    "secrets.*.external",
    "configs.*.external",
}


def _table() -> dict[str, dict[str, object]]:
    """The casts as nested dictionaries, walked along with the tree."""
    root: dict[str, object] = {}
    rules = [(f"services.*.{path}", "int") for path in _INTEGER]
    rules += [(f"services.*.{path}", "int?") for path in ("cpu_rt_period", "cpu_rt_runtime")]
    rules += [(f"services.*.{path}", "float") for path in _FLOATING]
    rules += [(f"services.*.{path}", "bool") for path in _BOOLEAN]
    rules += [(path, "bool") for path in _TOP_BOOLEAN]
    for path, kind in rules:
        place = root
        for part in path.split("."):
            place = place.setdefault(part, {})  # type: ignore[assignment]
        place[""] = kind
    return root  # type: ignore[return-value]


_CASTS = _table()


def _cast(text: str, kind: str, warn: Callable[[str], None]) -> Value:
    """Raises ValueError with the words to print."""
    if kind == "bool":
        word = text.lower()
        if word not in _BOOLEAN_WORDS:
            raise ValueError(f"{text!r} is no boolean")
        value = _BOOLEAN_WORDS[word]
        if word not in ("true", "false"):
            warn(f"{text!r} for boolean is not YAML 1.2: please use {str(value).lower()!r}")
        return value
    if kind.startswith("int"):
        if kind == "int?" and not text.isdecimal():
            return text
        if not re.fullmatch(r"[-+]?[0-9]{1,19}", text):
            raise ValueError(f"{text!r} is no whole number")
        return int(text)
    if len(text) > 400 or not re.fullmatch(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?", text):
        raise ValueError(f"{text!r} is no number")
    return float(text)


class Interpolator:
    """Applies the grammar to trees. ``missed`` (shared by the caller) holds the variables already
    warned about, so each is named once, at its first use."""

    def __init__(self, environment: Mapping[str, str], problems: Problems, missed: set[str]) -> None:
        self.environment = environment
        self.problems = problems
        self.missed = missed
        self.total = 0

    def tree(self, root: Node) -> None:
        """Replace every text below ``root`` in place."""
        if isinstance(root, Scalar):
            self._scalar(root, (), None)
        else:
            self._visit(root, [], dict(_CASTS))

    def _visit(
        self, node: MappingNode | Sequence, path: list[str | int], casts: dict[Any, Any] | None
    ) -> None:
        """``path`` grows and shrinks with the walk; most scalars need neither variables nor a cast."""
        children: Iterable[tuple[str | int, Node]]
        if isinstance(node, MappingNode):
            children = node.items.items()
        else:
            children = enumerate(node.items)
            casts = {"*": casts["#"]} if casts and "#" in casts else None
        for key, child in children:
            below = (casts.get(key) or casts.get("*")) if casts else None
            if isinstance(child, Scalar):
                value = child.value
                if value.__class__ is str and ("$" in value or (below and "" in below)):
                    self._scalar(child, (*path, key), below)
            else:
                path.append(key)
                self._visit(child, path, below)
                path.pop()

    def _scalar(self, node: Scalar, path: Path, casts: dict[Any, Any] | None) -> None:
        text = scalar_text(node.value)
        kind = casts.get("") if casts else None
        if "$" in text:
            result = self._substitute(node, text, path)
            if result is None:
                return
            node.value = text = result
        if kind is not None:
            try:
                node.value = _cast(
                    text, str(kind), lambda words: self.problems.warn(words, node.location, path)
                )
            except ValueError as error:
                self.problems.error(
                    f"{path_text(path)}: {error}", node.location, path, notes=self._notes(node, text)
                )

    def _notes(self, node: Scalar, text: str) -> tuple[str, ...]:
        return (f"{node.raw!r} became {text!r}",) if node.variables else ()

    def _substitute(self, node: Scalar, text: str, path: Path) -> str | None:
        expansion = _Expansion(self.environment.get)
        try:
            result = expansion.expand(text)
        except InvalidTemplate as error:
            self.problems.error(
                f"invalid interpolation format for {path_text(path)}: {error}",
                node.location,
                path,
                hint="to write a literal $, double it: $$",
            )
            return None
        except MissingVariable as error:
            self.problems.error(str(error), node.location, path)
            return None
        self.total += len(result)
        if self.total > MAX_TOTAL:
            raise self.problems.fail("the interpolated values grow beyond all bounds", node.location, path)
        if expansion.used:
            node.variables = tuple(dict.fromkeys(expansion.used))
        for name in expansion.missing:
            if name not in self.missed:
                self.missed.add(name)
                self.problems.warn(
                    f'the "{name}" variable is not set, defaulting to a blank string',
                    node.location,
                    path,
                    hint=f"set {name}, or write ${{{name}:-}} or, for a literal $, $${name}",
                )
        return result


def variables(root: Node) -> dict[str, tuple[str, str, str]]:
    """Every variable a raw tree mentions: name → (operator, word, path of the first use)."""
    found: dict[str, tuple[str, str, str]] = {}
    for path, node in tree.walk(root):
        if isinstance(node, Scalar) and isinstance(node.value, str) and "$" in node.value:
            _mentions(node.value, path_text(path), found, 0)
    return found


def _mentions(text: str, where: str, found: dict[str, tuple[str, str, str]], depth: int) -> None:
    position = 0
    while depth < MAX_NESTING and (dollar := text.find("$", position)) >= 0:
        position = dollar + 1
        if text.startswith("$", position):
            position += 1
            continue
        braced = text.startswith("{", position)
        match = _NAME.match(text, position + braced)
        if match is None:
            continue
        name, position = match.group(), match.end()
        operator = _OPERATOR.match(text, position) if braced else None
        word = ""
        if operator is not None:
            end = closing_brace(text, dollar + 1)
            if end < operator.end():
                continue
            word, position = text[operator.end() : end], end + 1
            _mentions(word, where, found, depth + 1)
        known = found.get(name)
        if known is None or (not known[0] and operator):
            found[name] = (operator.group() if operator else "", word, where)
