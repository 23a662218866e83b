"""Go templates, as far as ``--format`` uses them: ``{{.Name}}``, ``{{json .}}``, ``{{index .Labels "x"}}``,
``{{.State.Pid}}``, ``{{upper .X}}``, ``{{join .X ","}}``, ``{{len .X}}``, ``{{range .X}}…{{end}}``, ``{{if .X}}…{{else}}…{{end}}``.
"""

from __future__ import annotations

import json
import re
from typing import Any

from orchestra.errors import OrchestraError

TOKEN = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
WORD = re.compile(r'"(?:[^"\\]|\\.)*"|`[^`]*`|\S+')


def render(template: str, value: Any) -> str:
    """``template`` applied to ``value``. Raises OrchestraError for what is not understood."""
    text = template.replace("\\t", "\t").replace("\\n", "\n")
    parts: list[tuple[str, str]] = []
    position = 0
    for match in TOKEN.finditer(text):
        parts.append(("text", text[position : match.start()]))
        parts.append(("code", match.group(1)))
        position = match.end()
    parts.append(("text", text[position:]))
    out, rest = _block(parts, value)
    if rest:
        raise OrchestraError(f"template: unexpected {{{{{rest[0][1]}}}}}")
    return out


def _block(parts: list[tuple[str, str]], value: Any) -> tuple[str, list[tuple[str, str]]]:
    out = []
    while parts:
        kind, text = parts[0]
        if kind == "text":
            out.append(text)
            parts = parts[1:]
            continue
        words = text.split(None, 1)
        if words and words[0] in ("end", "else"):
            return "".join(out), parts
        if words and words[0] in ("range", "if"):
            piece, parts = _control(words[0], words[1] if len(words) > 1 else "", parts[1:], value)
            out.append(piece)
            continue
        out.append(_text(_evaluate(text, value)))
        parts = parts[1:]
    return "".join(out), []


def _control(
    word: str, expression: str, body: list[tuple[str, str]], value: Any
) -> tuple[str, list[tuple[str, str]]]:
    subject = _evaluate(expression, value)
    items = (
        (list(subject.values()) if isinstance(subject, dict) else list(subject or []))
        if word == "range"
        else [value]
    )
    good = bool(items) if word == "range" else bool(subject)
    pieces = []
    rest = body
    for item in items or [None]:
        piece, rest = _block(body, item)
        pieces.append(piece)
    other = ""
    if rest and rest[0][1].startswith("else"):
        other, rest = _block(rest[1:], value)
    if not rest or rest[0][1] != "end":
        raise OrchestraError("template: missing {{end}}")
    return ("".join(pieces) if good else other), rest[1:]


def _evaluate(expression: str, value: Any) -> Any:
    result: Any = None
    for index, stage in enumerate(expression.split("|")):
        words = WORD.findall(stage.strip())
        if not words:
            raise OrchestraError("template: empty command")
        if words[0].startswith((".", '"', "`", "$")) and len(words) == 1:
            result = _operand(words[0], value)
            continue
        arguments = [_operand(word, value) for word in words[1:]]
        if index:
            arguments.append(result)
        result = _call(words[0], arguments)
    return result


def _operand(word: str, value: Any) -> Any:
    if word[0] in '"`':
        return word[1:-1].replace('\\"', '"').replace("\\t", "\t").replace("\\n", "\n")
    if re.fullmatch(r"-?\d+", word):
        return int(word)
    if word in (".", "$"):
        return value
    if not word.startswith("."):
        raise OrchestraError(f'template: function "{word}" not defined')
    for name in word.strip(".").split("."):
        if not isinstance(value, dict):
            raise OrchestraError(f"template: can't evaluate field {name}")
        if name not in value:
            raise OrchestraError(
                f"template: there is no field {name}", hint=f"there are: {', '.join(sorted(map(str, value)))}"
            )
        value = value[name]
    return value


def _call(name: str, arguments: list[Any]) -> Any:
    if name == "json":
        return json.dumps(arguments[0], default=str)
    if name == "index":
        result = arguments[0]
        for key in arguments[1:]:
            try:
                result = result[key]
            except (KeyError, IndexError, TypeError):
                return ""
        return result
    if name in ("upper", "lower", "title"):
        return getattr(str(arguments[0]), name)()
    if name == "join":
        return arguments[1].join(map(str, arguments[0]))
    if name == "split":
        return str(arguments[0]).split(arguments[1])
    if name == "len":
        return len(arguments[0])
    if name in ("println", "print", "printf"):
        return " ".join(map(_text, arguments)) + ("\n" if name == "println" else "")
    if name in ("eq", "ne"):
        return (arguments[0] == arguments[1]) == (name == "eq")
    raise OrchestraError(f'template: function "{name}" not defined')


def _text(value: Any) -> str:
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_text(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(_text, value)) + "]"
    return str(value)


def show(context: Any, form: str, rows: list[dict[str, Any]], columns: dict[str, str]) -> bool:
    """Print ``rows`` as JSON lines or by a template (``table …`` with a header made of ``columns``).
    False when ``form`` is the plain table, which the caller prints."""
    if form in ("", "table"):
        return False
    if form == "json":
        for row in rows:
            print(json.dumps(row, default=str), file=context.stdout)
        return True
    if form.startswith("table "):
        template = form.removeprefix("table ").replace("\\t", "\t")
        titles = [columns.get(name, name.upper()) for name in re.findall(r"\{\{\s*\.(\w+)\s*\}\}", template)]
        lines = [titles, *(render(template, row).split("\t") for row in rows)]
        context.table(lines[0], lines[1:])
        return True
    for row in rows:
        print(render(form, row), file=context.stdout)
    return True
