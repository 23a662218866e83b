"""Every attribute that our schema knows, as a path: ``services.*.build.args``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SCHEMA = Path(__file__).resolve().parents[2] / "schemas/compose-spec.json"


def paths() -> list[str]:
    document = json.loads(SCHEMA.read_text())
    found: dict[str, None] = {}

    def visit(node: dict[str, Any], path: str, seen: frozenset[str]) -> None:
        while "$ref" in node:
            if node["$ref"] in seen:
                return
            seen |= {node["$ref"]}
            node = document["$defs"][node["$ref"].rpartition("/")[2]]
        for key in ("oneOf", "anyOf", "allOf"):
            for part in node.get(key, ()):
                visit(part, path, seen)
        for key, part in node.get("properties", {}).items():
            found[f"{path}.{key}" if path else key] = None
            visit(part, f"{path}.{key}" if path else key, seen)
        for key, part in node.get("patternProperties", {}).items():
            if not key.startswith("^x-"):
                visit(part, f"{path}.*", seen)
        if isinstance(node.get("additionalProperties"), dict):
            visit(node["additionalProperties"], f"{path}.*", seen)
        if "items" in node:
            visit(node["items"], f"{path}[]", seen)

    visit(document, "", frozenset())
    return list(found)
