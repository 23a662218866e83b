"""Text → frozen Project: the order of the steps, and nothing else.

Per file and per YAML document: parse → interpolate → include → reset/override → extends → merge →
unique → ``validate.validate(tree, problems)`` → ``normalize.canonical(tree, ctx)`` → unique.
``canonical`` therefore sees the merged tree so far, again and again: it must be idempotent, and it
also runs on unvalidated files reached by ``extends`` (so it leaves alone any shape it does not know).
Then once: ``normalize.defaults(tree, ctx)``, ``check.check(tree, ctx, problems)``,
``normalize.resolve_paths(tree, ctx)`` (unless no_path_resolution), ``normalize.names(tree, ctx)``
(unless no_normalize), profiles (fills ``ctx.disabled``: service → reason),
``check.references(tree, active, ctx, problems)`` (unless no_consistency; ``active`` a set of names),
selection, env_file/label_file into environment/labels, ``bind.bind(tree, ctx)``.
All of them change the tree in place (return values but bind's are ignored); problems are recorded in
``problems``, or raised with ``problems.fail(…)`` where going on makes no sense.
``bind`` gets all services in the tree; those in ``ctx.disabled`` belong to ``Project.disabled``.
Any input gives a :class:`Project` or raises :class:`ComposeError`.
"""

from __future__ import annotations

import os
from functools import partial

from orchestra.compose import bounds, envfiles, merge, profiles, source
from orchestra.compose.diagnostics import Problem, Problems
from orchestra.compose.extends import Extender, Frame, absolute_files
from orchestra.compose.include import Application, Includer
from orchestra.compose.interpolate import Interpolator, InvalidTemplate, MissingVariable, substitute
from orchestra.compose.options import LoadContext, LoadOptions
from orchestra.compose.reader import parse
from orchestra.compose.source import Source, read_source
from orchestra.compose.tree import Mapping, Node, Origin, Path, Scalar, get, kind_name, scalar_text
from orchestra.errors import Location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestra.compose.model import Project


class Loaded:
    """What a load made: the final located tree (see :mod:`~orchestra.compose.explain`), the context, the
    warnings, and the project, which is bound when first asked for."""

    __slots__ = ("_project", "context", "tree", "warnings")

    def __init__(self, tree: Mapping, context: LoadContext, warnings: tuple[Problem, ...]) -> None:
        self.tree, self.context, self.warnings = tree, context, warnings
        self._project: Project | None = None

    @property
    def project(self) -> Project:
        if self._project is None:
            from orchestra.compose import bind

            self._project = bind.bind(self.tree, self.context)
        return self._project


def load(options: LoadOptions) -> Project:
    """The project the options name; raises :class:`~orchestra.compose.diagnostics.ComposeError`."""
    loaded = load_full(options)
    if options.warn is not None:
        for warning in loaded.warnings:
            options.warn(warning)
    return loaded.project


def load_full(options: LoadOptions) -> Loaded:
    """As :func:`load`, with the tree and the warnings returned instead of told."""
    import gc

    collecting = gc.isenabled()
    gc.disable()  # a load makes many objects and no garbage cycles: collecting costs a third of its time
    try:
        return _load(options)
    finally:
        if collecting:
            gc.enable()


def _load(options: LoadOptions) -> Loaded:
    loader = Loader(options)
    tree = loader.tree()
    loader.problems.check()
    return Loaded(tree, loader.context, tuple(loader.problems.warnings))


class Loader:
    """The state of one load. ``trees`` holds parsed main files until they are used."""

    def __init__(self, options: LoadOptions) -> None:
        self.options = options
        self.problems = Problems()
        self.missed: set[str] = set()
        self.context = LoadContext("/", {}, self.problems)
        self.trees: dict[str, list[Node]] = {}
        self.includer = Includer(self.model, options, self.problems)

    # -- the whole project ---------------------------------------------------------------------

    def tree(self) -> Mapping:
        """The final tree of the project."""
        options, problems = self.options, self.problems
        around = source.surroundings(options, problems)
        sources = tuple(read_source(path, options, problems) for path in around.files)
        for item in sources:
            self.trees[item.path] = parse(item.text, item.shown, problems)
        self.context = self._context(around)
        self.context.project_name = self._name(around)
        around.environment["COMPOSE_PROJECT_NAME"] = self.context.project_name
        around.origins.setdefault("COMPOSE_PROJECT_NAME", ("project name",))
        try:
            root = self.model(Application(sources, self.context, around.working_dir))
            return self._finish(root, around)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            _drop_consequences(self.problems)
            self.problems.check()  # a step tripped over something that has been found wrong already
            raise

    def _context(self, around: source.Surroundings) -> LoadContext:
        options = self.options
        return LoadContext(
            around.working_dir,
            around.environment,
            self.problems,
            no_normalize=options.no_normalize,
            no_path_resolution=options.no_path_resolution,
            no_consistency=options.no_consistency,
            no_env_resolution=options.no_env_resolution,
            no_interpolate=options.no_interpolate,
            compatibility=options.compatibility,
            profiles=around.profiles,
            files=around.files,
            env_files=around.env_files,
            home=options.environ.get("HOME", ""),
            variable_origins=around.origins,
        )

    def _name(self, around: source.Surroundings) -> str:
        """The project's name: flag, variable, last ``name`` of the files, folder."""
        if self.options.project_name:
            return source.checked_name(self.options.project_name, "--project-name", self.problems)
        variable = around.environment.get("COMPOSE_PROJECT_NAME", "")
        if variable:
            return source.checked_name(variable, "COMPOSE_PROJECT_NAME", self.problems)
        chosen = ""
        for documents in self.trees.values():
            for document in documents:
                node = document.items.get("name") if isinstance(document, Mapping) else None
                if isinstance(node, Scalar) and node.value is not None:
                    chosen = self._name_text(node, around) or chosen
        name = source.normal_name(chosen or os.path.basename(around.working_dir))
        if not name:
            raise self.problems.fail(
                "project name must not be empty",
                Location(around.working_dir),
                hint="give it with -p, COMPOSE_PROJECT_NAME or name: in the file",
            )
        return name

    def _name_text(self, node: Scalar, around: source.Surroundings) -> str:
        text = scalar_text(node.value)
        if self.options.no_interpolate:
            return text
        try:
            return substitute(text, around.environment.get)
        except InvalidTemplate as error:
            raise self.problems.fail(
                f"invalid interpolation format for name: {error}", node.location, ("name",)
            ) from None
        except MissingVariable as error:
            raise self.problems.fail(str(error), node.location, ("name",)) from None

    def _finish(self, root: Mapping, around: source.Surroundings) -> Mapping:
        from orchestra.compose import check, normalize

        options, context, problems = self.options, self.context, self.problems
        if not isinstance(root.items.get("services"), Mapping):
            root.set("services", Mapping({}, root.location, root.origin), root.location)
        if not options.no_normalize:
            normalize.names(root, context)
        services = profiles.services_of(root)
        everything = options.no_interpolate and not options.services  # profiles are not looked at
        for name in () if everything else profiles.inactive(root, context.profiles, options.services):
            context.disabled[name] = "profile"
        active = {name for name in services.items if name not in context.disabled}
        if not options.no_consistency:
            check.references(root, active, context, problems)
        _drop_consequences(problems)
        problems.check()  # what was found since the schema is told together
        if options.services:
            chosen = profiles.select(
                root, active, options.services, problems, with_dependencies=not options.no_dependencies
            )
            for name in active - chosen:
                context.disabled[name] = "selection"
            active = chosen
            profiles.drop_dependencies(root, active)
        if not options.no_interpolate:
            envfiles.EnvFiles(options, context, around.working_dir).apply(
                root, [name for name in services.items if name in active]
            )
        if not options.all_resources:
            profiles.drop_unused(root, active)
        return root

    # -- one application (the project, or an include) ------------------------------------------

    def model(self, application: Application) -> Mapping:
        """Merge the documents of the application's files into one canonical tree."""
        from orchestra.compose import check, normalize

        context, problems = application.context, self.problems
        root = Mapping({}, Location(application.sources[0].shown, 1, 1))
        root.origin = Origin("file", application.sources[0].shown)
        empty = True
        for item in application.sources:
            documents = self.trees.pop(item.path, None) if not application.chain else None
            if documents is None:
                documents = parse(item.text, item.shown, problems, self._origin(item, application))
            for document in documents:
                self._document(root, document, item, application)
                empty = False
        place = Location(application.sources[0].shown, 1, 1)
        if application.chain:
            if empty:
                problems.warn("the included file is empty", place)
            problems.check()
        elif empty or not root.items:
            raise problems.fail("the compose file is empty", place)
        normalize.defaults(root, context)
        check.check(root, context, problems)
        if application.chain:
            problems.check()
        if not self.options.no_path_resolution or application.chain:
            normalize.resolve_paths(root, context)
        if not self.options.no_interpolate:
            envfiles.resolve_bare(root, context)
        if application.chain:
            problems.check()
        return root

    def _origin(self, item: Source, application: Application) -> Origin:
        own = Origin("file", item.shown)
        return Origin("include", item.shown) if application.chain else own

    def _document(self, root: Mapping, node: Node, item: Source, application: Application) -> None:
        """One YAML document merged into ``root``."""
        document = self._top(node, item)
        seen = len(self.problems)
        self._interpolate(document, application.context)
        tags = merge.take_tags(document) if _may_have_tags(item.text) else []
        if "include" in document.items:
            self.includer.apply(document, tags, application, item.path)
        merge.apply_tags(root, document, tags)
        services = document.items.get("services", Mapping())
        if not isinstance(services, Mapping):
            raise self.problems.fail(
                f"services must be a mapping, not {kind_name(services)}", services.location, "services"
            )
        frame = Frame(item.path, item.shown, application.folder, services, tags)
        opener = partial(self._frame, application)
        Extender(opener, self.problems, application.context.home).apply(frame)
        merge.merge(root, document, self.problems)
        self._settle(root, application.context, seen, item)

    def _top(self, node: Node, item: Source) -> Mapping:
        if not isinstance(node, Mapping):
            what = "empty" if isinstance(node, Scalar) and node.value is None else kind_name(node)
            raise self.problems.fail(
                f"the top level must be a mapping, but it is {what}",
                Location(item.shown, node.location.line or 1, node.location.column or 1),
            )
        return node

    def _interpolate(self, document: Mapping, context: LoadContext) -> None:
        if not self.options.no_interpolate:
            Interpolator(context.environment, self.problems, self.missed).tree(document)

    def _settle(self, root: Mapping, context: LoadContext, seen: int, item: Source) -> None:
        """Unique, validated, canonical, unique again."""
        from orchestra.compose import normalize, validate

        problems = self.problems
        merge.unique(root)
        known = {problem.location for problem in problems.items[seen:] if problem.severity == "error"}
        before = len(problems)
        validate.validate(root, problems)
        if known:  # a value that failed before the schema saw it is reported once
            problems.items[before:] = [p for p in problems.items[before:] if p.location not in known]
        if not _prune(root, problems.items[before:]):
            problems.check()
        if "version" in root.items:
            problems.warn(
                "the attribute version is obsolete and ignored",
                root.key_location("version"),
                "version",
                hint="remove it",
            )
            root.pop("version")
        bounds.check(root, problems)
        normalize.canonical(root, context)
        merge.unique(root)

    # -- files reached by extends --------------------------------------------------------------

    def _frame(self, application: Application, path: str, referrer: Location, where: Path) -> Frame:
        """The services of another file: not validated, without its own include."""
        from orchestra.compose import normalize

        context, problems = application.context, self.problems
        item = read_source(path, self.options, problems, what="extended file", referrer=referrer, where=where)
        root = Mapping({}, Location(item.shown, 1, 1), Origin("file", item.shown))
        tags: list[Path] = []
        for node in parse(item.text, item.shown, problems):
            document = self._top(node, item)
            self._interpolate(document, context)
            document.pop("include")
            found = merge.take_tags(document) if _may_have_tags(item.text) else []
            merge.apply_tags(root, document, found)
            tags += found
            merge.merge(root, document, problems)
            merge.unique(root)
            bounds.check(root, problems)
            normalize.canonical(root, context)
            merge.unique(root)
        problems.check()
        services = root.items.get("services")
        if not isinstance(services, Mapping):
            raise problems.fail(f"extended file {item.shown} has no services", referrer, where)
        folder = os.path.dirname(path)
        absolute_files(services, folder, context.home)
        base = folder
        if self.options.no_path_resolution:
            base = os.path.join(
                context.working_dir if application.chain else "", os.path.relpath(folder, application.folder)
            )
        normalize.resolve_paths(root, context.at(base))
        return Frame(path, item.shown, folder, services, tags)


def _drop_consequences(problems: Problems) -> None:
    """Errors that only follow from an earlier one: at the same place, or about the whole of something
    that an attribute was taken out of."""
    kept: list[Problem] = []
    for problem in problems.items:
        if problem.severity == "error" and any(
            other.severity == "error"
            and (
                other.location == problem.location
                or (problem.path and other.path.startswith(f"{problem.path}."))
            )
            for other in kept
        ):
            continue
        kept.append(problem)
    problems.items[:] = kept


def _prune(root: Mapping, found: list[Problem]) -> bool:
    """Take the attributes with errors out of the tree, so that the later steps can look at the rest and
    all problems are told at once. False when an error is about more than an attribute of something."""
    for problem in found:
        if problem.severity != "error":
            continue
        parts = problem.path.replace("[", ".[").split(".") if problem.path else []
        if len(parts) < 3:
            return False
        holder = get(root, tuple(parts[:2]))
        if not isinstance(holder, Mapping) or parts[2] not in holder.items:
            return False
        holder.pop(parts[2])
    return True


def _may_have_tags(text: str) -> bool:
    return "!reset" in text or "!override" in text or "!<" in text
