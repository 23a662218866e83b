"""From instructions to stages: what is built, in which order, from what. Pure.

``ARG`` before the first ``FROM`` is global and counts in FROM lines alone (and as the default of an
``ARG`` without one). A stage that the target does not need is not built.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orchestra.build import instructions as ins
from orchestra.build.parser import Parsed
from orchestra.build.problems import BuildError, DockerfileError
from orchestra.build.words import WordError, expand
from orchestra.errors import Location
from orchestra.images.manifest import Platform

PROXY_ARGS = frozenset(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
"""Always accepted, seen by RUN, never part of the cache key nor of the image."""
_KNOWN_ARGS = frozenset({"SOURCE_DATE_EPOCH", "BUILDKIT_INLINE_CACHE", "BUILDKIT_CONTEXT_KEEP_GIT_DIR"})


@dataclass(frozen=True, slots=True)
class Stage:
    """``image``: the base's name, expanded; ``base`` the index of the stage it is, else None."""

    index: int
    name: str
    start: ins.From
    image: str
    base: int | None
    platform: str
    instructions: tuple[ins.Instruction, ...]
    needs: frozenset[int] = frozenset()

    @property
    def label(self) -> str:
        return self.name or f"stage-{self.index}"


@dataclass(frozen=True, slots=True)
class Plan:
    """``order``: indexes of the stages to build, every one after what it needs."""

    stages: tuple[Stage, ...]
    target: int
    order: tuple[int, ...]
    global_args: Mapping[str, str]
    platform_args: Mapping[str, str]
    escape: str = "\\"
    warnings: tuple[str, ...] = field(default=())


def make_plan(
    parsed: Parsed, *, args: Mapping[str, str], target: str = "", platform: Platform, file: str = "Dockerfile"
) -> Plan:
    platform_args = _platform_args(platform)
    globals_, starts = _globals(parsed, args, platform_args, file)
    escape = parsed.source.escape
    stages: list[Stage] = []
    for number, begin in enumerate(starts):
        end = starts[number + 1] if number + 1 < len(starts) else len(parsed.instructions)
        body = parsed.instructions[begin + 1 : end]
        start = parsed.instructions[begin]
        assert isinstance(start, ins.From)
        stages.append(_stage(number, start, body, stages, {**platform_args, **globals_}, escape))
    _same_names(stages)
    chosen = _target(stages, target)
    order = _needed(stages, chosen)
    return Plan(tuple(stages), chosen, order, globals_, platform_args, escape, tuple(_warnings(parsed, args)))


def _globals(
    parsed: Parsed, args: Mapping[str, str], platform_args: Mapping[str, str], file: str
) -> tuple[dict[str, str], list[int]]:
    values: dict[str, str] = {}
    starts: list[int] = []
    for number, instruction in enumerate(parsed.instructions):
        if isinstance(instruction, ins.From):
            starts.append(number)
        elif not starts:
            if not isinstance(instruction, ins.Arg):
                raise instruction.line.error("only ARG may stand before the first FROM")
            for name, default in instruction.pairs:
                if name in args:
                    values[name] = args[name]
                elif default is not None:
                    known = {**platform_args, **values}
                    values[name] = expand_at(instruction, default, known, parsed.source.escape)
    if not starts:
        raise DockerfileError("no FROM: there is nothing to build", location=Location(file))
    return values, starts


def _stage(
    index: int,
    start: ins.From,
    body: tuple[ins.Instruction, ...],
    earlier: list[Stage],
    known: Mapping[str, str],
    escape: str,
) -> Stage:
    image = expand_at(start, start.image, known, escape)
    if not image:
        raise start.line.error(f"FROM {start.image} names no image", 5, "is an ARG without a value in it?")
    platform = expand_at(start, start.platform, known, escape) if start.platform else ""
    base = find_stage(earlier, image, index, by_number=False)
    needs = {base} if base is not None else set()
    for instruction in body:
        for name in _sources(instruction):
            found = find_stage(earlier, name, index)
            if found is not None:
                needs.add(found)
            elif name.isdigit():
                raise instruction.line.error(f"there is no earlier stage {name}")
    return Stage(index, start.name, start, image, base, platform, body, frozenset(needs))


def _sources(instruction: ins.Instruction) -> list[str]:
    if isinstance(instruction, ins.Copy) and instruction.source_stage:
        return [instruction.source_stage]
    if isinstance(instruction, ins.Run):
        return [name for mount in instruction.mounts if (name := mount.get("from"))]
    return []


def find_stage(stages: Iterable[Stage], name: str, before: int, *, by_number: bool = True) -> int | None:
    """An earlier stage by name (in any case) or number."""
    for stage in reversed([stage for stage in stages if stage.index < before]):
        if stage.name and stage.name == name.lower():
            return stage.index
    if by_number and name.isdigit() and int(name) < before:
        return int(name)
    return None


def _same_names(stages: list[Stage]) -> None:
    seen: set[str] = set()
    for stage in stages:
        if stage.name and stage.name in seen:
            raise stage.start.line.error(f"there are two stages {stage.name!r}", 5)
        seen.add(stage.name)


def _target(stages: list[Stage], target: str) -> int:
    if not target:
        return len(stages) - 1
    found = find_stage(stages, target, len(stages))
    if found is None:
        names = [stage.name for stage in stages if stage.name]
        close = difflib.get_close_matches(target, names, 1)
        hint = f"did you mean {close[0]}?" if close else f"stages: {', '.join(names) or 'none has a name'}"
        raise BuildError(f"no stage {target!r} in the Dockerfile", hint=hint)
    return found


def _needed(stages: list[Stage], target: int) -> tuple[int, ...]:
    wanted: set[int] = set()
    waiting = [target]
    while waiting:
        index = waiting.pop()
        if index not in wanted:
            wanted.add(index)
            waiting += stages[index].needs
    return tuple(sorted(wanted))


def _warnings(parsed: Parsed, args: Mapping[str, str]) -> list[str]:
    found = []
    unused = _unused(parsed, args)
    if unused:
        found.append(f"build arguments {', '.join(unused)} are not used by the Dockerfile")
    frontend = parsed.source.directives.get("syntax", "")
    if frontend and "docker/dockerfile" not in frontend:
        found.append(f"syntax={frontend[:100]} is another language's frontend and has no effect here")
    return found


def _unused(parsed: Parsed, args: Mapping[str, str]) -> list[str]:
    declared = {name for one in parsed.instructions if isinstance(one, ins.Arg) for name, _ in one.pairs}
    return sorted(set(args) - declared - PROXY_ARGS - _KNOWN_ARGS)


def _platform_args(target: Platform) -> dict[str, str]:
    host = Platform.host()
    found: dict[str, str] = {}
    for prefix, platform in (("BUILD", host), ("TARGET", target)):
        found[f"{prefix}PLATFORM"] = str(platform)
        found[f"{prefix}OS"] = platform.os
        found[f"{prefix}ARCH"] = platform.architecture
        found[f"{prefix}VARIANT"] = platform.variant
    return found


def expand_at(instruction: ins.Instruction, text: str, variables: Mapping[str, str], escape: str) -> str:
    """Expanded ``text`` of ``instruction``; an error stands where the text does."""
    try:
        return expand(text, variables, escape)
    except WordError as error:
        place = max(0, instruction.line.text.find(text))
        raise instruction.line.error(error.brief, place + error.offset) from None
