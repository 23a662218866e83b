"""The conformance corpus of the Compose language: directories with inputs and the recorded answer.

    cases/<name>/input/…          the files, copied to <tmp>/<name>
    cases/<name>/case.json        fields of LoadOptions (paths relative to the copy), ``cwd`` below it
    cases/<name>/expected.json    docker compose's answer: {"config": …} or {"refused": its words}
    cases/<name>/difference.json  where we differ on purpose: {"reason": …, "config"/"refused": ours}

Absolute paths of the copy are written as ``$DIR``.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent / "conformance/compose/cases"
HOME = "/home/user"


@dataclass(frozen=True)
class Case:
    name: str
    folder: Path
    options: dict[str, Any]

    def read(self, file: str) -> dict[str, Any] | None:
        path = self.folder / file
        return json.loads(path.read_text()) if path.exists() else None

    def copy(self, parent: Path) -> tuple[Path, Path]:
        """(top of the copy, working directory)."""
        top = parent / self.name
        shutil.copytree(self.folder / "input", top)
        return top, top / self.options.get("cwd", "")

    def environ(self) -> dict[str, str]:
        return {"HOME": HOME, **self.options.get("environ", {})}

    def load_options(self, cwd: Path) -> Any:
        from orchestra.compose import LoadOptions

        fields = {key: tuple(value) if isinstance(value, list) else value
                  for key, value in self.options.items() if key not in ("cwd", "environ")}
        return LoadOptions(cwd=str(cwd), environ=self.environ(), **fields)


def cases() -> list[Case]:
    return [Case(folder.name, folder, json.loads((folder / "case.json").read_text()))
            for folder in sorted(ROOT.iterdir()) if (folder / "case.json").exists()]


def portable(data: Any, top: Path) -> Any:
    """``data`` with the copy's path written as ``$DIR``."""
    return json.loads(json.dumps(data).replace(str(top), "$DIR"))


def comparable(config: Any) -> Any:
    """A configuration without what does not matter: null command and entrypoint, the order of lists
    that are sets."""
    for service in (config.get("services") or {}).values():
        for key in ("command", "entrypoint"):
            if service.get(key) is None:
                service.pop(key, None)
        for key in ("extra_hosts", "ports"):
            if isinstance(service.get(key), list):
                service[key] = sorted(service[key], key=lambda item: json.dumps(item, sort_keys=True))
    return config


def config_of(project: Any) -> dict[str, Any]:
    """What ``config --format json`` says of a project, without the doubling of dollars."""
    found: dict[str, Any] = {"name": project.name, "services": {}}
    for section in ("services", "networks", "volumes", "secrets", "configs", "models"):
        items = {key: item.canonical for key, item in getattr(project, section).items()}
        if items or section == "services":
            found[section] = items
    found.update(project.extensions)
    return json.loads(json.dumps(found))


def single_dollars(data: Any) -> Any:
    """Undo the doubling of dollars in docker compose's output."""
    if isinstance(data, dict):
        return {single_dollars(key): single_dollars(value) for key, value in data.items()}
    if isinstance(data, list):
        return [single_dollars(value) for value in data]
    return data.replace("$$", "$") if isinstance(data, str) else data
