"""``orchestra config``: validate, resolve and print the compose file, or tell where a value comes from."""

from __future__ import annotations

import json

from orchestra.errors import NotFoundError, OrchestraError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from orchestra.cli.context import Context
    from orchestra.compose.explain import Explanation, Setting, Variable
    from orchestra.compose.loader import Loaded

FLAGS = ("no_interpolate", "no_normalize", "no_path_resolution", "no_consistency", "no_env_resolution")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("services", nargs="*", metavar="SERVICE", help="only these and what they depend on")
    parser.add_argument("--format", choices=("yaml", "json"), default="yaml", help="output format")
    parser.add_argument("-q", "--quiet", action="store_true", help="validate only, print nothing")
    parser.add_argument("-o", "--output", metavar="FILE", help="write to FILE instead of standard output")
    kinds = parser.add_mutually_exclusive_group()
    for name, words in (
        ("services", "service names"),
        ("volumes", "volume names"),
        ("networks", "network names"),
        ("profiles", "profile names"),
        ("images", "image names"),
        ("models", "model names"),
        ("environment", "the variables used for interpolation"),
        ("variables", "the variables that the files mention"),
    ):
        kinds.add_argument(
            f"--{name}", dest=f"list_{name}", action="store_true", help=f"print {words}, one a line"
        )
    kinds.add_argument("--hash", metavar="SERVICE", help="print configuration hashes of SERVICE[,…] or '*'")
    kinds.add_argument(
        "--explain", metavar="PATH", help="tell where the value at PATH (or the variable PATH) comes from"
    )
    parser.add_argument(
        "--resolve-image-digests", action="store_true", help="pin images to the digests of the local store"
    )
    parser.add_argument(
        "--lock-image-digests", action="store_true", help="print an override file with image digests"
    )
    for flag in FLAGS:
        parser.add_argument("--" + flag.replace("_", "-"), action="store_true", help=_HELP[flag])


_HELP = {
    "no_interpolate": "leave ${VARIABLES} as they are",
    "no_normalize": "leave out default networks, implied dependencies and resource names",
    "no_path_resolution": "leave relative paths as they are",
    "no_consistency": "do not check references",
    "no_env_resolution": "do not read the env files of services",
}


def run(ctx: Context, args: argparse.Namespace) -> int:
    from orchestra.compose.diagnostics import ComposeError

    try:
        if args.list_variables:
            return _emit(ctx, args, _variables(ctx, args))
        flags: dict[str, Any] = {name: getattr(args, name) for name in FLAGS}
        if args.list_profiles:
            ctx.options.profile[:] = ["*"]
        if args.explain:
            ctx.options.all_resources = True  # unused ones can be asked for too
        loaded = _load(ctx, args, flags)
    except ComposeError as error:
        if args.format != "json":
            raise
        print(json.dumps(error.to_dict(), indent=2, ensure_ascii=False), file=ctx.stderr)
        return error.exit_code
    if args.explain:
        return _emit(ctx, args, _explain(loaded, args))
    if args.quiet:
        return 0
    return _emit(ctx, args, _text(ctx, args, loaded))


def _load(ctx: Context, args: argparse.Namespace, flags: dict[str, Any]) -> Loaded:
    from orchestra.compose.loader import load_full

    loaded = load_full(ctx.load_options(tuple(args.services), **flags))
    for problem in loaded.warnings:
        hint = f" (hint: {problem.hint})" if problem.hint else ""
        place = f"{problem.location}: " if problem.location else ""
        ctx.warn(f"{place}{problem.message}{hint}")
    return loaded


def _emit(ctx: Context, args: argparse.Namespace, text: str) -> int:
    if args.quiet:
        return 0
    if not args.output:
        ctx.stdout.write(text)
        return 0
    import os

    path = os.path.join(ctx.cwd, args.output)
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise OrchestraError(f"cannot write {args.output}: {error.strerror}") from error
    return 0


def _lines(words: Any) -> str:
    return "".join(f"{word}\n" for word in words)


def _text(ctx: Context, args: argparse.Namespace, loaded: Loaded) -> str:
    """What the options ask for."""
    project = loaded.project
    if args.list_models:
        return _lines(sorted(model.model for model in project.models.values() if model.model))
    for section in ("services", "volumes", "networks"):
        if getattr(args, f"list_{section}"):
            return _lines(sorted(getattr(project, section)))
    if args.list_profiles:
        return _lines(sorted({name for service in project.services.values() for name in service.profiles}))
    if args.list_images:
        separator = "_" if ctx.options.compatibility else "-"
        return _lines(
            sorted(
                service.image or f"{project.name}{separator}{service.name}"
                for service in project.services.values()
                if not service.provider
            )
        )
    if args.list_environment:
        return _lines(f"{name}={project.environment[name]}" for name in sorted(project.environment))
    if args.hash:
        return _hashes(loaded, args.hash)
    from orchestra.compose import dump

    if args.lock_image_digests:
        pinned = _pinned(ctx, loaded)
        document = {"services": {name: {"image": image} for name, image in sorted(pinned.items())}}
        return json.dumps(document, indent=2) + "\n" if args.format == "json" else dump.yaml_text(document)
    if args.resolve_image_digests:
        _pin(loaded, _pinned(ctx, loaded))
    return dump.to_json(loaded) if args.format == "json" else dump.to_yaml(loaded)


def _hashes(loaded: Loaded, wanted: str) -> str:
    from orchestra.compose.hash import service_hash

    services = loaded.project.services
    names = sorted(services) if wanted == "*" else wanted.split(",")
    for name in names:
        if name not in services:
            from orchestra.compose.suggest import hint

            raise NotFoundError(f"no such service: {name}", hint=hint(name, services))
    return _lines(f"{name} {service_hash(services[name])}" for name in names)


# -- image digests -----------------------------------------------------------------------------


def _pinned(ctx: Context, loaded: Loaded) -> dict[str, str]:
    """Service → ``name@digest`` from the local image store."""
    from orchestra.images.reference import Reference
    from orchestra.images.store import ImageStore

    store = ImageStore(ctx.paths.images)
    found: dict[str, str] = {}
    for name, service in loaded.project.services.items():
        if not service.image:
            continue
        reference = Reference.parse(service.image)
        if reference.digest:
            found[name] = service.image
            continue
        image = store.resolve(service.image)
        if image is None:
            raise NotFoundError(
                f"the image {service.image} of service {name} is not in the local store",
                hint=f"fetch it with orchestra pull {name}",
            )
        found[name] = f"{reference.familiar_name}@{image.digest}"
    return found


def _pin(loaded: Loaded, pinned: dict[str, str]) -> None:
    from orchestra.compose.tree import Scalar, get

    for name, image in pinned.items():
        node = get(loaded.tree, ("services", name, "image"))
        if isinstance(node, Scalar):
            node.value = image


# -- variables and explanations ----------------------------------------------------------------


def _variables(ctx: Context, args: argparse.Namespace) -> str:
    """A table (or JSON) of every variable the files mention."""
    from orchestra.compose.interpolate import variables
    from orchestra.compose.loader import load_full

    ctx.options.all_resources = True
    ctx.options.profile[:] = ["*"]
    loaded = load_full(
        ctx.load_options(
            (), no_interpolate=True, no_consistency=True, no_normalize=True, no_env_resolution=True
        )
    )
    rows: dict[str, dict[str, Any]] = {}
    for name, (operator, word, _path) in sorted(variables(loaded.tree).items()):
        rows[name] = {
            "Name": name,
            "DefaultValue": word if operator in (":-", "-") else "",
            "PresenceValue": word if operator in (":+", "+") else "",
            "Required": operator in (":?", "?"),
        }
    if args.format == "json":
        return json.dumps(rows, indent=4, ensure_ascii=False) + "\n"
    from orchestra.cli.render.table import aligned

    return aligned(
        ("NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE"),
        [
            (row["Name"], str(row["Required"]).lower(), row["DefaultValue"], row["PresenceValue"])
            for row in rows.values()
        ],
    )


def _explain(loaded: Loaded, args: argparse.Namespace) -> str:
    from orchestra.compose import explain

    wanted: str = args.explain
    name = wanted.removeprefix("$").strip("{}")
    found = explain.explain(loaded, wanted)
    if found is not None:
        return (
            json.dumps(found.to_dict(), indent=2, ensure_ascii=False) + "\n"
            if args.format == "json"
            else _told(found)
        )
    variable = explain.variable(loaded, name)
    if variable.value is None and not (name.isidentifier() and _mentioned(loaded, name)):
        raise NotFoundError(f"nothing is set at {wanted}", hint=explain.missing_hint(loaded, wanted))
    if args.format == "json":
        return (
            json.dumps({"name": variable.name, "value": variable.value, "places": list(variable.places)})
            + "\n"
        )
    return _lines(_variable_lines(variable, ""))


def _mentioned(loaded: Loaded, name: str) -> bool:
    """Whether a value of the project was made with the variable."""
    from orchestra.compose.tree import Scalar, walk

    return any(isinstance(node, Scalar) and name in node.variables for _path, node in walk(loaded.tree))


def _told(found: Explanation) -> str:
    lines = [f"{found.path} = {_shown(found.now.value)}", f"  set by {_place(found.now)}"]
    if found.now.raw is not None and "$" in found.now.raw:
        lines.append(f"  written as {found.now.raw}")
    lines += [f"  replaces {_shown(item.value)} of {_place(item)}" for item in found.replaced]
    lines += [f"  with parts of {part}" for part in found.parts]
    for variable in found.variables:
        lines += _variable_lines(variable, "  ")
    return _lines(lines)


def _place(item: Setting) -> str:
    place = f" ({item.location})" if item.location.line else ""
    return f"{item.origin}{place}"


def _variable_lines(variable: Variable, indent: str) -> list[str]:
    if variable.value is None:
        return [f"{indent}variable {variable.name} is not set"]
    lines = [f"{indent}variable {variable.name} = {_shown(variable.value)}"]
    for index, place in enumerate(variable.places):
        lines.append(f"{indent}  {'set by' if index == 0 else 'which overrides'} {place}")
    return lines


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
