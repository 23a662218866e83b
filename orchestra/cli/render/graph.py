"""A project's graph as text, dot, mermaid, json or svg.

Pure: a :class:`~orchestra.graph.Drawing` in, text out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import escape

from orchestra.graph import Drawing, Link, Thing

SHORT = {
    "service_started": "started",
    "service_healthy": "healthy",
    "service_completed_successfully": "completed",
}


def label(link: Link) -> str:
    """What stands at an edge: ``healthy, optional, restart``."""
    words = [SHORT.get(link.label, link.label)]
    if link.optional:
        words.append("optional")
    if link.restart:
        words.append("restart")
    return ", ".join(word for word in words if word)


def text(drawing: Drawing) -> str:
    """The start order with dependencies, then the resources and who uses them."""
    lines = [drawing.name]
    for number, layer in enumerate(drawing.layers, 1):
        lines.append(f"{number}.")
        for name in layer:
            thing = Thing("service", name)
            note = drawing.notes.get(thing, "")
            lines.append(f"  {name}{f'  ({note})' if note else ''}")
            for link in drawing.links:
                if link.source == thing:
                    told = label(link)
                    kind = "" if link.target.kind == "service" else f"{link.target.kind} "
                    lines.append(
                        f"    {'after' if not kind else 'uses'} {kind}{link.target.name}{f' [{told}]' if told else ''}"
                    )
    resources = [thing for thing in drawing.things if thing.kind != "service"]
    for thing in resources:
        users = sorted({link.source.name for link in drawing.links if link.target == thing})
        note = drawing.notes.get(thing, "")
        lines.append(
            f"{thing.kind} {thing.name}{f' ({note})' if note else ''}: {', '.join(users) or 'unused'}"
        )
    return "\n".join(lines) + "\n"


_SHAPES = {
    "service": "box",
    "network": "ellipse",
    "volume": "cylinder",
    "secret": "note",
    "config": "note",
    "model": "hexagon",
}


def dot(drawing: Drawing) -> str:
    """Graphviz."""
    lines = [f"digraph {_quoted(drawing.name)} {{", "  rankdir=LR;", '  node [fontname="sans-serif"];']
    for thing in drawing.things:
        note = drawing.notes.get(thing, "")
        shown = thing.name + (f"\n{note}" if note else "")
        lines.append(f"  {_quoted(str(thing))} [label={_quoted(shown)}, shape={_SHAPES[thing.kind]}];")
    for link in drawing.links:
        words = [f"label={_quoted(label(link))}"] if label(link) else []
        if link.optional or link.target.kind != "service":
            words.append("style=dashed" if link.optional else "style=dotted, arrowhead=none")
        lines.append(
            f"  {_quoted(str(link.source))} -> {_quoted(str(link.target))}{f' [{chr(44).join(words)}]' if words else ''};"
        )
    return "\n".join([*lines, "}"]) + "\n"


def _quoted(words: str) -> str:
    escaped = words.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


_FRAMES = {
    "service": ("[", "]"),
    "network": ("([", "])"),
    "volume": ("[(", ")]"),
    "secret": ("{{", "}}"),
    "config": ("{{", "}}"),
    "model": ("[[", "]]"),
}


def mermaid(drawing: Drawing) -> str:
    """A mermaid flowchart."""
    names = {thing: f"n{number}" for number, thing in enumerate(drawing.things)}
    lines = ["flowchart LR"]
    for thing, name in names.items():
        opening, closing = _FRAMES[thing.kind]
        lines.append(f'  {name}{opening}"{_mermaid(thing.name)}"{closing}')
    for link in drawing.links:
        arrow = "-.->" if link.optional else "-->" if link.target.kind == "service" else "-.-"
        told = label(link)
        lines.append(
            f"  {names[link.source]} {arrow}{f'|{chr(34)}{_mermaid(told)}{chr(34)}|' if told else ''} {names[link.target]}"
        )
    return "\n".join(lines) + "\n"


def _mermaid(words: str) -> str:
    return re.sub(r"[^\w .,:/@+-]", lambda match: f"#{ord(match.group())};", words)


def to_json(drawing: Drawing) -> str:
    """Nodes, edges and the start order."""
    data = {
        "name": drawing.name,
        "nodes": [
            {"id": str(thing), "kind": thing.kind, "name": thing.name, "note": drawing.notes.get(thing, "")}
            for thing in drawing.things
        ],
        "edges": [
            {
                "from": str(link.source),
                "to": str(link.target),
                "label": link.label,
                "required": not link.optional,
                "restart": link.restart,
            }
            for link in drawing.links
        ],
        "start_order": [list(layer) for layer in drawing.layers],
    }
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


_COLORS = {
    "service": "#dbeafe",
    "network": "#dcfce7",
    "volume": "#fef3c7",
    "secret": "#fce7f3",
    "config": "#f3e8ff",
    "model": "#e5e7eb",
}
_WIDTH, _HEIGHT, _ACROSS, _DOWN = 200, 44, 290, 66


def svg(drawing: Drawing) -> str:
    """Columns: services in reverse start order from left to right, the resources at the right."""
    places = _places(drawing)
    width = max((x for x, _ in places.values()), default=0) + _WIDTH + 20
    height = max((y for _, y in places.values()), default=0) + _HEIGHT + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="13">',
        f"<title>{escape(drawing.name)}</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#475569"/></marker></defs>',
    ]
    parts += [
        _edge(link, places) for link in drawing.links if link.source in places and link.target in places
    ]
    for thing, (x, y) in places.items():
        note = drawing.notes.get(thing, "")
        parts.append(
            f'<g><title>{escape(str(thing))}</title><rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="6" '
            f'fill="{_COLORS[thing.kind]}" stroke="#475569"/>'
            f'<text x="{x + 10}" y="{y + (19 if note else 27)}">{escape(_cut(thing.name, 26))}</text>'
            + (
                f'<text x="{x + 10}" y="{y + 35}" font-size="10" fill="#475569">{escape(_cut(note, 36))}</text>'
                if note
                else ""
            )
            + "</g>"
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _places(drawing: Drawing) -> dict[Thing, tuple[int, int]]:
    columns = [[Thing("service", name) for name in layer] for layer in reversed(drawing.layers)]
    columns.append([thing for thing in drawing.things if thing.kind != "service"])
    return {
        thing: (10 + column * _ACROSS, 10 + row * _DOWN)
        for column, things in enumerate(columns)
        for row, thing in enumerate(things)
    }


def _edge(link: Link, places: dict[Thing, tuple[int, int]]) -> str:
    x1, y1 = places[link.source][0] + _WIDTH, places[link.source][1] + _HEIGHT // 2
    x2, y2 = places[link.target][0], places[link.target][1] + _HEIGHT // 2
    middle = (x1 + x2) // 2
    dashes = ' stroke-dasharray="5 4"' if link.optional or link.target.kind != "service" else ""
    tip = ' marker-end="url(#tip)"' if link.target.kind == "service" else ""
    told = label(link) if link.target.kind == "service" else ""
    words = (
        (
            f'<text x="{middle}" y="{(y1 + y2) // 2 - 4}" font-size="10" text-anchor="middle" fill="#475569">'
            f"{escape(told)}</text>"
        )
        if told
        else ""
    )
    return (
        f'<path d="M{x1} {y1} C{middle} {y1} {middle} {y2} {x2} {y2}" fill="none" stroke="#475569"{dashes}{tip}/>'
        f"{words}"
    )


def _cut(words: str, limit: int) -> str:
    return words if len(words) <= limit else words[: limit - 1] + "…"


RENDERERS: dict[str, Callable[[Drawing], str]] = {
    "text": text,
    "dot": dot,
    "mermaid": mermaid,
    "json": to_json,
    "svg": svg,
}
