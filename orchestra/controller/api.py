"""What the daemon answers: one method an operation. Data in, data out; decisions are elsewhere.

An operation gets its :class:`~orchestra.controller.wire.Wire` for progress and streams; when the
other side hangs up, ``cancelled`` tells so and streams end.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from orchestra import __version__, graph, labels
from orchestra.backend import ContainerInfo, ContainerSpec, Event, ExecSpec, NetworkUse
from orchestra.compose.codec import project_from_dict, value_from_dict
from orchestra.compose.model import Network, NetworkAttachment, Project, Volume
from orchestra.controller import lifecycle, naming
from orchestra.controller.operations import Operations, RunOptions
from orchestra.controller.options import ReconcileOptions
from orchestra.controller.prepare import ImageOptions, Images
from orchestra.engine.engine import Engine
from orchestra.errors import NotFoundError, OrchestraError
from orchestra.events import Progress, Sink
from orchestra.paths import Paths

Args = dict[str, Any]


class Api:
    """Owns the engine. ``handle`` may be called from many threads."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.engine = Engine(paths)
        images = Images(self.engine, self._pull, self._build, self.engine.pulled_at)
        self.operations = Operations(self.engine, images)

    def begin(self) -> None:
        """Adopt what runs."""
        threading.Thread(target=graph.warm, name="networkx", daemon=True).start()
        self.engine.recover()

    def end(self) -> None:
        self.engine.close()

    def busy(self) -> bool:
        """Whether the daemon must stay: something runs, or waits to be restarted."""
        return self.engine.busy()

    def handle(self, wire: Any, op: str, args: Args) -> Any:
        """Run ``op``; raises OrchestraError for users' errors."""
        method: Callable[[Call, Args], Any] | None = getattr(self, f"op_{op.replace('-', '_')}", None)
        if method is None:
            raise OrchestraError(
                f"the daemon does not know the operation {op}",
                hint="it may be of another version: orchestra system shutdown, then again",
            )
        return method(Call(wire), args)

    # images

    def _pull(self, text: str, platform: str, sink: Sink) -> str:
        from orchestra.images.reference import Reference
        from orchestra.images.registry.transfer import pull

        image = pull(self.engine.images, Reference.parse(text), platform=platform or None, sink=sink)
        self.engine.note_pull(text)
        return image.id

    def _build(self, project: Project, service: Any, sink: Sink) -> str:
        from orchestra.build.service import build_service
        from orchestra.engine.userns import for_builds

        return build_service(
            project,
            service,
            store=self.engine.images,
            paths=self.paths,
            sink=sink,
            remap=for_builds(self.paths),
        ).id

    # the daemon

    def op_ping(self, _call: Call, _args: Args) -> Any:
        return {"version": __version__, "pid": os.getpid()}

    def op_info(self, _call: Call, _args: Args) -> Any:
        return self.engine.info()

    # projects

    def op_up(self, call: Call, args: Args) -> Any:
        project = project_from_dict(args["project"])
        try:
            return self._up(call, args, project)
        except OrchestraError as error:
            if error.exit_code in (126, 127):  # a program's code means something for run and exec only
                error.exit_code = 1
            raise

    def _up(self, call: Call, args: Args, project: Project) -> Any:
        plan = self.operations.up(
            project,
            ReconcileOptions.from_dict(args.get("options", {})),
            ImageOptions(**args.get("images", {})),
            call.sink,
            call.cancelled,
            wait_timeout=args.get("wait_timeout"),
            parallel=args.get("parallel") or 0,
        )
        return plan.to_dict()

    def op_plan(self, _call: Call, args: Args) -> Any:
        project = project_from_dict(args["project"])
        options = ReconcileOptions.from_dict(args.get("options", {}))
        plan = self.operations.plan(project, options, ImageOptions(**args.get("images", {})))
        return {**plan.to_dict(), "text": plan.text()}

    def op_down(self, call: Call, args: Args) -> Any:
        options = lifecycle.DownOptions(
            tuple(args.get("services") or ()), bool(args.get("volumes")), bool(args.get("remove_orphans"))
        )
        project = self._project(args)
        rmi = args.get("rmi")
        images = self._removable(self._images_of(args["name"]), rmi, project) if rmi else []
        dry_run = bool(args.get("dry_run"))
        plan = self.operations.down(
            args["name"],
            project,
            options,
            call.sink,
            call.cancelled,
            args.get("timeout"),
            dry_run=dry_run,
            parallel=args.get("parallel") or 0,
        )
        if dry_run:
            there = [name for name in images if self.engine.image(name) is not None]
            return {**plan.to_dict(), "text": plan.text(), "images": there}
        self._remove_images(images, call.sink)
        return plan.to_dict()

    def _project(self, args: Args) -> Project | None:
        return project_from_dict(args["project"]) if args.get("project") else None

    def _images_of(self, name: str) -> dict[str, str]:
        return {c.service: c.image for c in self.engine.containers(project=name)}

    def _removable(self, images: Mapping[str, str], which: str, project: Project | None) -> list[str]:
        """The images that ``--rmi`` means, whether they are there or not."""
        names = dict(images)
        if project is not None:
            names |= {s.name: naming.image_name(project, s) for s in project.services.values()}
        services = project.services if project is not None else {}
        return [
            name
            for service, name in names.items()
            if which != "local" or service not in services or not services[service].image
        ]

    def _remove_images(self, names: list[str], sink: Sink) -> None:
        from orchestra.events import Status

        for name in names:
            try:
                self.engine.remove_image(name)
            except NotFoundError:
                continue
            except OrchestraError as error:
                sink(Progress(f"Image {name}", "Error", Status.WARNING, error.brief))
                continue
            sink(Progress(f"Image {name}", "Removed", Status.DONE))

    def op_lifecycle(self, call: Call, args: Args) -> Any:
        """stop, start, restart, rm."""
        plan = self.operations.simple(
            args["verb"], args["name"], self._project(args), args, call.sink, call.cancelled
        )
        return {**plan.to_dict(), "text": plan.text()}

    def op_each(self, call: Call, args: Args) -> Any:
        """kill, pause, unpause; the names of the containers."""
        return self.operations.each(
            args["verb"],
            args["name"],
            self._project(args),
            tuple(args.get("services") or ()),
            call.sink,
            args.get("signal") or "SIGKILL",
            dry_run=bool(args.get("dry_run")),
        )

    def op_run_create(self, call: Call, args: Args) -> Any:
        project = project_from_dict(args["project"])
        options = value_from_dict(RunOptions, args.get("options", {}))
        info = self.operations.run_create(
            project,
            args["service"],
            options,
            ImageOptions(**args.get("images", {})),
            call.sink,
            call.cancelled,
        )
        return info_dict(info)

    def op_projects(self, _call: Call, _args: Args) -> Any:
        return [info_dict(c) for c in self.engine.containers() if c.labels.get(labels.PROJECT)]

    # containers: what is there

    def op_containers(self, _call: Call, args: Args) -> Any:
        found = [info_dict(c) for c in self.engine.containers(project=args.get("project"))]
        if args.get("size"):
            for info in found:
                info["size_rw"], info["size_root"] = self.engine.sizes(info["id"])
        return found

    def op_container(self, _call: Call, args: Args) -> Any:
        return info_dict(self.engine.container(args["ref"]))

    def op_inspect(self, _call: Call, args: Args) -> Any:
        return self.engine.inspect(args["ref"])

    def op_top(self, _call: Call, args: Args) -> Any:
        titles, rows = self.engine.top(args["ref"])
        return {"titles": titles, "rows": rows}

    def op_stats(self, _call: Call, args: Args) -> Any:
        return {ref: self.engine.stats(ref) for ref in args["refs"]}

    def op_changes(self, _call: Call, args: Args) -> Any:
        return self.engine.changes(args["ref"])

    def op_logs(self, call: Call, args: Args) -> Any:
        """Streams {"id", "time", "stream", "text"} of one or several containers."""
        refs = args["refs"]
        if len(refs) == 1 or not args.get("follow"):
            for ref in refs:
                self._copy_logs(call, ref, args)
            return None
        threads = [
            threading.Thread(target=self._copy_logs, args=(call, ref, args), daemon=True) for ref in refs
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return None

    def _copy_logs(self, call: Call, ref: str, args: Args) -> None:
        info = self.engine.container(ref)
        lines = self.engine.logs(
            info.id,
            follow=bool(args.get("follow")),
            tail=args.get("tail"),
            since=args.get("since"),
            until=args.get("until"),
            stop=call.cancelled,
        )
        batch: list[list[Any]] = []
        for line in lines:
            batch.append([line.time, line.stream, line.text.decode("utf-8", "surrogateescape"), line.partial])
            if len(batch) >= 256 or args.get("follow"):
                if not call.data({"id": info.id, "lines": batch}):
                    return
                batch = []
        if batch:
            call.data({"id": info.id, "lines": batch})

    def op_events(self, call: Call, args: Args) -> Any:
        """Streams events until the other side hangs up (or ``until`` has passed)."""
        for event in self.engine.events(
            since=args.get("since"), until=args.get("until"), stop=call.cancelled
        ):
            if args.get("project") and event.attributes.get(labels.PROJECT) != args["project"]:
                continue
            if not call.data(event_dict(event)):
                return None
        return None

    # containers: life

    def op_container_create(self, call: Call, args: Args) -> Any:
        spec: ContainerSpec = value_from_dict(ContainerSpec, args["spec"])
        if not spec.image_id:
            found = self.engine.image(spec.image_name)
            if found is None or args.get("pull") == "always":
                if args.get("pull") == "never":
                    raise NotFoundError(
                        f"no such image: {spec.image_name}", hint=f"orchestra image pull {spec.image_name}"
                    )
                self._pull(spec.image_name, spec.service.platform, call.sink)
                found = self.engine.image(spec.image_name)
            assert found is not None
            spec = dataclasses.replace(spec, image_id=found[0])
        return info_dict(self.engine.create(spec))

    def op_container_do(self, _call: Call, args: Args) -> Any:
        """start, stop, restart, kill, pause, unpause, rename, remove, update on one container; the warnings
        of start and update."""
        verb, ref = args["verb"], args["ref"]
        if verb == "start":
            self.engine.start(ref)
            return self._warnings(ref)
        elif verb == "stop":
            self.engine.stop(ref, timeout=args.get("timeout"), signal=args.get("signal") or "")
        elif verb == "restart":
            self.engine.restart(ref, timeout=args.get("timeout"))
        elif verb == "kill":
            self.engine.kill(ref, signal=args.get("signal") or "SIGKILL")
        elif verb == "pause":
            self.engine.pause(ref)
        elif verb == "unpause":
            self.engine.unpause(ref)
        elif verb == "rename":
            self.engine.rename(ref, args["name"])
        elif verb == "remove":
            self.engine.remove(ref, force=bool(args.get("force")), volumes=bool(args.get("volumes")))
        elif verb == "update":
            return self.engine.update(ref, args["resources"])
        else:
            raise OrchestraError(f"unknown container operation {verb}")
        return None

    def op_wait(self, call: Call, args: Args) -> Any:
        return self.engine.wait(args["ref"], until=args.get("until") or "not-running", stop=call.cancelled)

    # inside containers

    def op_exec(self, call: Call, args: Args) -> Any:
        """Runs a command. Without a terminal its three descriptors come with the request; with one,
        the terminal's master goes back with the first answer. The result is the exit code."""
        spec: ExecSpec = value_from_dict(ExecSpec, args["spec"])
        fds = call.wire.take_fds()
        try:
            pipes = (fds[0], fds[1], fds[2]) if len(fds) >= 3 and not spec.tty else None
            exec_id = self.engine.exec(args["ref"], spec, pipes)
        finally:
            for fd in fds:
                os.close(fd)
        master = self.engine.exec_terminal(exec_id) if spec.tty else None
        call.send({"data": {"exec_id": exec_id}}, [master] if master is not None else [])
        if master is not None:
            os.close(master)
        if args.get("detach"):
            return 0
        return self.engine.exec_wait(exec_id)

    def op_exec_resize(self, _call: Call, args: Args) -> Any:
        self.engine.exec_resize(args["exec_id"], args["rows"], args["columns"])

    def op_exec_signal(self, _call: Call, args: Args) -> Any:
        self.engine.exec_signal(args["exec_id"], args["signal"])

    def op_resize(self, _call: Call, args: Args) -> Any:
        self.engine.resize(args["ref"], args["rows"], args["columns"])

    def op_attach(self, call: Call, args: Args) -> Any:
        """Copies a container's output to the caller's descriptors (fds: stdin, stdout, stderr) until it
        stops; ``start`` starts it once attached. With a terminal the descriptors are the caller's
        terminal in raw mode. The result is the exit code."""
        fds = call.wire.take_fds()
        ref = args["ref"]
        end: Callable[[], None] | None = None
        try:
            size = args.get("size")
            end = self.engine.attach(
                ref,
                (fds[0], fds[1], fds[2]),
                stdin=bool(args.get("stdin")),
                size=(int(size[0]), int(size[1])) if size else None,
            )
            call.send({"data": {"attached": True}})
            if args.get("start"):
                self.engine.start(ref)
                call.send({"data": {"warnings": self._warnings(ref)}})
            code = self.engine.wait(
                ref,
                until=args.get("until") or "not-running",
                stop=call.cancelled,
            )
        finally:
            if end is not None:
                end()
            for fd in fds:
                os.close(fd)
        return code

    def _warnings(self, ref: str) -> list[str]:
        """What there is to say about a container that was just started (nothing when it is gone again)."""
        try:
            return list(self.engine.container(ref).warnings)
        except NotFoundError:
            return []

    def op_archive_get(self, call: Call, args: Args) -> Any:
        (fd,) = call.wire.take_fds()
        try:
            return self.engine.archive_get(
                args["ref"],
                args["path"],
                fd,
                follow_links=bool(args.get("follow_links")),
                stat_only=bool(args.get("stat_only")),
            )
        finally:
            os.close(fd)

    def op_archive_put(self, call: Call, args: Args) -> Any:
        (fd,) = call.wire.take_fds()
        try:
            self.engine.archive_put(args["ref"], args["path"], fd, archive=bool(args.get("archive")))
        finally:
            os.close(fd)

    def op_export(self, call: Call, args: Args) -> Any:
        (fd,) = call.wire.take_fds()
        try:
            self.engine.export(args["ref"], fd)
        finally:
            os.close(fd)

    def op_commit(self, _call: Call, args: Args) -> Any:
        return self.engine.commit(
            args["ref"],
            args.get("image") or "",
            author=args.get("author") or "",
            message=args.get("message") or "",
            changes=tuple(args.get("changes") or ()),
            pause=args.get("pause", True),
        )

    # networks and volumes

    def op_networks(self, _call: Call, args: Args) -> Any:
        return [dataclasses.asdict(network) for network in self.engine.networks(project=args.get("project"))]

    def op_network_create(self, _call: Call, args: Args) -> Any:
        network = value_from_dict(Network, args["network"])
        return dataclasses.asdict(self.engine.create_network(network, args.get("labels") or {}))

    def op_network_remove(self, _call: Call, args: Args) -> Any:
        self.engine.remove_network(args["ref"])

    def op_network_connect(self, _call: Call, args: Args) -> Any:
        attachment = value_from_dict(NetworkAttachment, args.get("attachment") or {})
        self.engine.connect(
            args["ref"],
            NetworkUse(args["network"], attachment, tuple(attachment.aliases), args.get("links") or {}),
        )

    def op_network_disconnect(self, _call: Call, args: Args) -> Any:
        self.engine.disconnect(args["ref"], args["network"], force=bool(args.get("force")))

    def op_volumes(self, _call: Call, args: Args) -> Any:
        return [dataclasses.asdict(volume) for volume in self.engine.volumes(project=args.get("project"))]

    def op_volume_create(self, _call: Call, args: Args) -> Any:
        volume = value_from_dict(Volume, args["volume"])
        return dataclasses.asdict(self.engine.create_volume(volume, args.get("labels") or {}))

    def op_volume_remove(self, _call: Call, args: Args) -> Any:
        self.engine.remove_volume(args["name"], force=bool(args.get("force")))

    def op_volume_export(self, call: Call, args: Args) -> Any:
        (fd,) = call.wire.take_fds()
        try:
            self.engine.export_volume(args["name"], fd)
        finally:
            os.close(fd)

    def op_volume_import(self, call: Call, args: Args) -> Any:
        (fd,) = call.wire.take_fds()
        try:
            self.engine.import_volume(args["name"], fd)
        finally:
            os.close(fd)

    def op_images_in_use(self, _call: Call, _args: Args) -> Any:
        return sorted({c.image_id for c in self.engine.containers()})


class Call:
    """One operation's connection."""

    def __init__(self, wire: Any) -> None:
        self.wire = wire
        self._lock = threading.Lock()
        self._gone = False

    def send(self, message: Mapping[str, Any], fds: list[int] | None = None) -> bool:
        """False when nobody listens any more."""
        if self._gone:
            return False
        try:
            with self._lock:
                self.wire.send(dict(message), fds or [])
        except (BrokenPipeError, ConnectionResetError):
            self._gone = True
            return False
        return True

    def data(self, value: Any) -> bool:
        return self.send({"data": value})

    def sink(self, progress: Progress) -> None:
        self.send({"progress": progress.to_dict()})

    def cancelled(self) -> bool:
        """Whether the other side has hung up."""
        if not self._gone and self.wire.hung_up():
            self._gone = True
        return self._gone


def info_dict(info: ContainerInfo) -> dict[str, Any]:
    """A container as JSON data."""
    return {
        "id": info.id,
        "name": info.name,
        "image": info.image,
        "image_id": info.image_id,
        "state": info.state,
        "labels": naming.visible_labels(info.labels),
        "project": info.project,
        "service": info.service,
        "number": info.number,
        "oneoff": info.oneoff,
        "command": list(info.command),
        "created": info.created,
        "started": info.started,
        "finished": info.finished,
        "exit_code": info.exit_code,
        "oom_killed": info.oom_killed,
        "error": info.error,
        "pid": info.pid,
        "health": info.health,
        "has_healthcheck": info.has_healthcheck,
        "restart_count": info.restart_count,
        "publishers": [[p.url, p.target_port, p.published_port, p.protocol] for p in info.publishers],
        "networks": dict(info.networks),
        "mounts": [dict(m) for m in info.mounts],
        "warnings": list(info.warnings),
    }


def event_dict(event: Event) -> dict[str, Any]:
    """An event as JSON data."""
    return {
        "time": event.time,
        "type": event.type,
        "action": event.action,
        "id": event.id,
        "attributes": naming.visible_labels(event.attributes),
    }
