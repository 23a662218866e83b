"""``build(request, store, paths, sink)``: a Dockerfile and a context in, an image in the store out.

Stages that do not need each other run at the same time; the first failure stops the rest. Everything
temporary is below ``<builds>/<random>/`` and goes at the end. Progress: one resource a step
(``[stage 2/5] RUN make``), its output as lines with the text ``log``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from orchestra.build import files, metadata
from orchestra.build import instructions as ins
from orchestra.build.cache import Cache
from orchestra.build.context import is_git, open_context, open_named
from orchestra.build.parser import parse, parse_trigger
from orchestra.build.problems import BuildError
from orchestra.build.request import BuildRequest
from orchestra.build.run import run
from orchestra.build.scratch import scratch
from orchestra.build.stages import PROXY_ARGS, Stage, find_stage, make_plan
from orchestra.build.state import Shared, State
from orchestra.build.view import View
from orchestra.errors import OrchestraError
from orchestra.events import Progress, Sink, Status
from orchestra.images.commit import extend
from orchestra.images.config import Settings
from orchestra.images.diff import source_date_epoch
from orchestra.images.manifest import Platform
from orchestra.images.problems import from_os_error
from orchestra.images.reference import Reference
from orchestra.paths import Paths

if TYPE_CHECKING:
    from orchestra.images.image import Image
    from orchestra.images.store import ImageStore

_IMAGE_SCHEMES = ("docker-image://", "oci-image://")


def build(request: BuildRequest, store: ImageStore, paths: Paths, sink: Sink) -> Image:
    """Build, tag and return the image of the target stage."""
    tags = [Reference.parse(tag) for tag in request.tags]
    for tag in tags:
        if tag.digest:
            raise BuildError(f"a tag cannot have a digest: {tag.familiar()}")
    name = f"Image {request.shown}"
    sink(Progress(name, "Building"))
    try:
        with scratch(paths) as folder, store.lease():
            image = _Build(request, store, paths, sink, folder).image(tags)
    except OrchestraError as error:
        sink(Progress(name, "Error", Status.ERROR, error.brief))
        raise
    sink(Progress(name, "Built", Status.DONE))
    return image


class _Build:
    def __init__(
        self, request: BuildRequest, store: ImageStore, paths: Paths, sink: Sink, folder: Path
    ) -> None:
        self._store = store
        self._futures: dict[int, Future[State]] = {}
        self._views: dict[str, View] = {}
        args = _arguments(request)
        platform = Platform.parse(request.platform) if request.platform else Platform.host()
        context = open_context(request, folder)
        parsed = parse(context.dockerfile, context.dockerfile_name)
        plan = make_plan(
            parsed, args=args, target=request.target, platform=platform, file=context.dockerfile_name
        )
        epoch = source_date_epoch({**request.environ, **args})
        now = float(epoch) if epoch is not None else time.time()
        self._shared = Shared(
            request, store, paths, sink, folder, context, plan, Cache(paths.builds / "cache", store), args,
            platform, now, epoch, self._stage_view, self._base_image,
        )  # fmt: skip

    def image(self, tags: list[Reference]) -> Image:
        shared, plan = self._shared, self._shared.plan
        for text in plan.warnings:
            shared.warn(text)
        workers = max(1, min(shared.request.parallel, len(plan.order)))
        with ThreadPoolExecutor(workers, thread_name_prefix="build") as pool:
            try:
                for index in plan.order:  # every stage comes after those it waits for: no deadlock
                    self._futures[index] = pool.submit(self._stage, plan.stages[index])
                self._wait()
            except BaseException:
                shared.stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        shared.cache.trim()
        state = self._futures[plan.target].result()
        state.settings.labels.update(shared.request.labels)
        return extend(
            self._store, state.base, state.layers, state.settings, history=state.history,
            created=state.created, names=tags, platform=self._platform(state), author=state.author,
        )  # fmt: skip

    def _platform(self, state: State) -> Platform:
        return state.base.platform if state.base else self._shared.platform

    def _wait(self) -> None:
        """Until all are done; raises the failure that came first, not those that it caused."""
        errors: list[BaseException] = []
        waiting = list(self._futures.values())
        for future in waiting:
            while True:
                try:
                    error = future.exception(timeout=0.5)
                except TimeoutError:
                    if any(f.done() and not f.cancelled() and f.exception() for f in waiting):
                        self._shared.stop.set()
                    continue
                break
            if error is not None:
                self._shared.stop.set()
                errors.append(error)
        real = [error for error in errors if getattr(error, "brief", "") != "stopped"]
        if errors:
            raise (real or errors)[0]

    # --- one stage -------------------------------------------------------------------------------

    def _stage(self, stage: Stage) -> State:
        for index in sorted(stage.needs):
            if self._futures[index].exception() is not None:
                raise BuildError("stopped")
        state = self._begin(stage)
        triggers = [parse_trigger(text, f"ONBUILD of {stage.image}") for text in state.settings.on_build]
        state.settings.on_build = []
        body = [*triggers, *stage.instructions]
        state.steps = sum(not isinstance(one, ins.Arg) for one in body) + 1
        self._report_from(state, stage)
        for one in body:
            state.check_running()
            self._step(state, one)
        return state

    def _begin(self, stage: Stage) -> State:
        """The state a stage begins with: of an earlier stage, an image, or nothing."""
        if stage.base is not None:
            earlier = self._futures[stage.base].result()
            settings = Settings.from_dict(earlier.settings.to_dict())
            return State(
                self._shared, stage, earlier.base, settings, list(earlier.layers), list(earlier.history),
                author=earlier.author, created=earlier.created,
            )  # fmt: skip
        try:
            base = self._base_image(stage)
        except OrchestraError as error:
            if error.location is None:
                error.location = stage.start.line.at(5)
            raise
        settings = Settings.from_dict(base.settings if base else {})
        return State(self._shared, stage, base, settings, created=_seconds(base))

    def _step(self, state: State, one: ins.Instruction) -> None:
        if isinstance(one, ins.Arg):
            metadata.apply(state, one)
            return
        state.step += 1
        name = f"[{state.stage.label} {state.step + 1}/{state.steps}] {one.text[:200]}"
        report = self._shared.report
        report(Progress(name, "Building"))
        begin = time.monotonic()
        try:
            if isinstance(one, ins.Run):
                cached = run(state, one, name)
            elif isinstance(one, ins.Copy):
                cached = files.copy(state, one)
            elif isinstance(one, ins.Workdir):
                cached = files.workdir(state, one)
            else:
                cached = not metadata.apply(state, one)
        except OSError as error:
            report(Progress(name, "Error", Status.ERROR, error.strerror or ""))
            raise _at(one, from_os_error(error, "building")) from error
        except OrchestraError as error:
            report(Progress(name, "Error", Status.ERROR, error.brief))
            raise
        details = "" if cached else f"{time.monotonic() - begin:.1f}s"
        report(Progress(name, "CACHED" if cached else "Done", Status.DONE, details))

    def _report_from(self, state: State, stage: Stage) -> None:
        name = f"[{stage.label} 1/{state.steps}] FROM {stage.image}"
        self._shared.report(Progress(name, "Done", Status.DONE))

    # --- images and other sources ----------------------------------------------------------------

    def _base_image(self, stage: Stage) -> Image | None:
        if stage.image == "scratch":
            return None
        named = self._shared.request.contexts.get(stage.image)
        if named is not None:
            reference = _image_of(named)
            if reference is None:
                raise BuildError(f"build context {stage.image} is a directory and cannot be a base image")
            return self._image(reference, stage.platform)
        return self._image(stage.image, stage.platform)

    def _image(self, text: str, platform: str) -> Image:
        from orchestra.images.registry.transfer import pull

        shared = self._shared
        wanted = Platform.parse(platform) if platform else shared.platform
        present = self._store.resolve(text)
        if present and not shared.request.pull and wanted.accepts(present.platform):
            return present
        try:
            return pull(
                self._store, text, platform=wanted, sink=shared.report, environ=shared.request.environ
            )
        except OrchestraError as error:
            if present is not None and wanted.accepts(present.platform):
                shared.warn(f"cannot refresh {text}: {error.brief}")
                return present
            raise

    def _stage_view(self, name: str, before: int) -> View:
        """What ``--from=name`` means: a stage, a named context, or an image."""
        shared = self._shared
        index = find_stage(shared.plan.stages, name, before)
        if index is not None and index in self._futures:
            return self._futures[index].result().view()
        named = shared.request.contexts.get(name)
        if name not in self._views:
            if named is not None and _image_of(named) is None:
                view = open_named(named, shared.folder("named") if is_git(named) else shared.scratch)
            else:
                image = self._image(_image_of(named) or name if named else name, "")
                view = View(list(reversed(self._store.layers(image, sink=shared.report))))
            self._views[name] = view
        return self._views[name]


def _at(one: ins.Instruction, error: OrchestraError) -> OrchestraError:
    error.location = error.location or one.line.at(0)
    return error


def _image_of(named: str) -> str | None:
    """The reference in ``docker-image://reference``."""
    for scheme in _IMAGE_SCHEMES:
        if named.startswith(scheme):
            return named[len(scheme) :]
    if "://" in named and not is_git(named):
        raise BuildError(
            f"unsupported build context {named[:200]!r}", hint="a directory, git or docker-image://"
        )
    return None


def _arguments(request: BuildRequest) -> Mapping[str, str]:
    """Build arguments; one without a value comes from the environment, or is left out."""
    found: dict[str, str] = {}
    for name, text in request.args.items():
        given = request.environ.get(name) if text is None else text
        if given is not None:
            found[name] = given
    for name in PROXY_ARGS & set(request.environ):
        found.setdefault(name, request.environ[name])
    return found


def _seconds(image: Image | None) -> float:
    """When the base was made."""
    from datetime import datetime

    with contextlib.suppress(ValueError):
        text = image.created if image else ""
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    return 0.0
