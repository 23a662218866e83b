"""Rules that the schema cannot say: values that must parse, attributes that exclude each other, and
references between services and resources. Problems stand where the wrong value stands; what docker
compose lets pass although it is wrong is a warning (:mod:`~orchestra.compose.check_words`).

:func:`check` runs once an application over all its services, :func:`references` once a project over
the active ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from orchestra.compose import canon, check_words, units
from orchestra.compose.diagnostics import Problems
from orchestra.compose.normalize import services
from orchestra.compose.options import LoadContext
from orchestra.compose.suggest import nearest
from orchestra.compose.tree import Mapping, Node, Path, Scalar, Sequence, get, mapping, plain, scalar_text
from orchestra.errors import Location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

Parse: TypeAlias = "Callable[[Any], object]"


def check(tree: Mapping, ctx: LoadContext, problems: Problems) -> None:
    """Values and exclusions of all services and resources."""
    for name, service in services(tree):
        _Service(name, service, ctx, problems).check()
    _resources(tree, problems)
    if not ctx.no_interpolate:
        _scalars(tree, _TOP_VALUES, (), problems)


# -- values that must parse --------------------------------------------------------------------


def _environment_name(value: Any) -> None:
    name, equals, _ = str(value).partition("=")
    if equals and name != name.rstrip():
        raise ValueError(f"the variable {name.strip()} is declared with a blank before '='")


def _host(value: Any) -> None:
    name, address = canon.split_host(str(value))
    if not name or not address:
        raise ValueError(f"the host {value!r} has no address")


def _expose(value: Any) -> None:
    """Anything goes here in docker compose, so nothing is refused."""


def _address(value: Any) -> None:
    import ipaddress

    try:
        ipaddress.ip_address(str(value).partition("%")[0])
    except ValueError:
        raise ValueError(f"{value!r} is no IP address") from None


def _network(value: Any) -> None:
    import ipaddress

    try:
        ipaddress.ip_network(str(value), strict=False)
    except ValueError:
        raise ValueError(f"{value!r} is no subnet like 10.1.0.0/24") from None


def _duration(value: Any) -> None:
    units.duration(str(value))


def _command(value: Any) -> None:
    if isinstance(value, str):
        units.split_command(value)


def _table(rules: dict[str, Parse]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for path, parse in rules.items():
        place = root
        for part in path.split("."):
            place = place.setdefault(part, {})
        place[""] = parse
    return root


_HOOKS = {f"{hook}.#.command": _command for hook in ("pre_start", "post_start", "pre_stop")}
_UPDATES: dict[str, Parse] = {
    f"deploy.{name}.{key}": _duration
    for name in ("update_config", "rollback_config")
    for key in ("delay", "monitor")
}
_UPDATES |= {f"deploy.{name}.parallelism": units.natural for name in ("update_config", "rollback_config")}
_RATES = {
    f"blkio_config.{key}.#.rate": units.size
    for key in ("device_read_bps", "device_read_iops", "device_write_bps", "device_write_iops")
}
_REQUESTS = {"gpus.#.count": units.count, "deploy.resources.reservations.devices.#.count": units.count}
_VALUES = _table(
    {
        **_HOOKS,
        **_UPDATES,
        **_RATES,
        **_REQUESTS,
        "blkio_config.weight": units.whole,
        "blkio_config.weight_device.#.weight": units.whole,
        "build.shm_size": units.size,
        "build.secrets.#.mode": units.mode,
        "build.extra_hosts.#": _host,
        "command": _command,
        "configs.#.mode": units.mode,
        "cpu_count": units.whole,
        "cpu_percent": units.number,
        "cpu_period": units.number,
        "cpu_quota": units.number,
        "cpu_rt_period": canon.realtime,
        "cpu_rt_runtime": canon.realtime,
        "cpu_shares": units.number,
        "cpus": units.number,
        "deploy.replicas": units.natural,
        "deploy.resources.limits.cpus": units.number,
        "deploy.resources.limits.memory": units.size,
        "deploy.resources.limits.pids": units.whole,
        "deploy.resources.reservations.cpus": units.number,
        "deploy.resources.reservations.memory": units.size,
        "deploy.restart_policy.delay": _duration,
        "deploy.restart_policy.max_attempts": units.natural,
        "deploy.restart_policy.window": _duration,
        "entrypoint": _command,
        "environment.#": _environment_name,
        "extra_hosts.#": _host,
        "healthcheck.interval": _duration,
        "healthcheck.retries": units.natural,
        "healthcheck.start_interval": _duration,
        "healthcheck.start_period": _duration,
        "healthcheck.timeout": _duration,
        "mem_limit": units.size,
        "mem_reservation": units.size,
        "mem_swappiness": units.size,
        "memswap_limit": units.size,
        "networks.*.ipv4_address": _address,
        "networks.*.ipv6_address": _address,
        "oom_score_adj": units.whole,
        "pids_limit": units.whole,
        "ports.#.host_ip": _address,
        "ports.#.target": units.natural,
        "scale": units.natural,
        "secrets.#.mode": units.mode,
        "shm_size": units.size,
        "stop_grace_period": _duration,
        "ulimits.*": units.whole,
        "ulimits.*.hard": units.whole,
        "ulimits.*.soft": units.whole,
        "volumes.#.tmpfs.size": units.size,
        "volumes.#.tmpfs.mode": units.whole,
    }
)
_TOP_VALUES = _table(
    {
        "networks.*.ipam.config.#.subnet": _network,
        "networks.*.ipam.config.#.gateway": _address,
        "networks.*.ipam.config.#.ip_range": _network,
        "networks.*.ipam.config.#.aux_addresses.*": _address,
    }
)


def _scalars(node: Node, table: dict[str, Any], path: Path, problems: Problems) -> None:
    """Apply the parsers of ``table`` to the scalars below ``node``."""
    parse = table.get("")
    if isinstance(node, Scalar):
        if parse is not None and node.value is not None:
            try:
                parse(node.value)
            except ValueError as error:
                problems.error(f"invalid {_where(path)}: {error}", node.location, path)
        return
    if isinstance(node, Mapping):
        star = table.get("*")
        for key in table.keys() & node.items.keys() if star is None else node.items:
            below = table.get(key) or star
            if key and below:
                _scalars(node.items[key], below, (*path, key), problems)
    else:
        below = table.get("#")
        if below:
            for index, item in enumerate(node.items):
                _scalars(item, below, (*path, index), problems)


def _where(path: Path) -> str:
    names = [part for part in path if isinstance(part, str)]
    return ".".join(names[2:] if names[:1] == ["services"] else names)


# -- one service -------------------------------------------------------------------------------


class _Service:
    """The rules of one service."""

    def __init__(self, name: str, node: Mapping, ctx: LoadContext, problems: Problems) -> None:
        self.name, self.node, self.ctx, self.problems = name, node, ctx, problems
        self.path: Path = ("services", name)

    def check(self) -> None:
        if not self.ctx.no_interpolate:
            _scalars(self.node, _VALUES, self.path, self.problems)
            check_words.warn(self.name, self.node, self.problems)
        items = self.node.items
        if "healthcheck" in items:
            self._health()
        if "ports" in items:
            self._ports()
        if "volumes" in items:
            self._mounts()
        if "develop" in items:
            self._watch()
        if "deploy" in items or "gpus" in items:
            self._devices()

    def error(self, message: str, node: Node | None, *path: str | int, hint: str | None = None) -> None:
        place = node.location if node is not None else self.node.location
        self.problems.error(message, place, (*self.path, *path), hint=hint)

    def maps(self, *path: str) -> Iterator[tuple[int, Mapping]]:
        found = get(self.node, path)
        if isinstance(found, Sequence):
            for index, item in enumerate(found.items):
                if isinstance(item, Mapping):
                    yield index, item

    def _health(self) -> None:
        test = get(self.node, ("healthcheck", "test"))
        if isinstance(test, Sequence) and test.items:
            first = test.items[0]
            word = first.value if isinstance(first, Scalar) else None
            if word not in ("NONE", "CMD", "CMD-SHELL"):
                self.error(
                    "healthcheck.test must begin with CMD, CMD-SHELL or NONE",
                    first,
                    "healthcheck",
                    "test",
                    0,
                    hint='a plain text is run by the shell: test: "…"; a list needs ["CMD", …]',
                )

    def _ports(self) -> None:
        for index, port in self.maps("ports"):
            if "target" not in port.items:
                self.error(
                    f"a port of service {self.name} lacks its target",
                    port,
                    "ports",
                    index,
                    hint="target is the port inside the container",
                )

    def _mounts(self) -> None:
        seen: dict[str, Node] = {}
        for index, mount in self.maps("volumes"):
            kind, target, source = (text_of(mount, key) for key in ("type", "target", "source"))
            if not target:
                self.error(f"a volume of service {self.name} lacks its target", mount, "volumes", index)
            if kind == "bind" and not source:
                self.error(f"the bind mount on {target} lacks its source", mount, "volumes", index)
            if kind == "tmpfs" and source:
                self.problems.warn(
                    f"the source of a tmpfs mount is ignored ({target})",
                    mount.location,
                    (*self.path, "volumes", index),
                )
            self._once(seen, target, mount, "volumes", index)
        tmpfs = self.node.items.get("tmpfs")
        for index, item in enumerate(tmpfs.items if isinstance(tmpfs, Sequence) else ()):
            if isinstance(item, Scalar):
                self._once(seen, scalar_text(item.value).partition(":")[0], item, "tmpfs", index)

    def _once(self, seen: dict[str, Node], target: str, node: Node, *path: str | int) -> None:
        if not target:
            return
        if target in seen:
            self.error(f"two mounts of service {self.name} have the target {target}", node, *path)
        seen[target] = node

    def _watch(self) -> None:
        for index, rule in self.maps("develop", "watch"):
            action = text_of(rule, "action")
            if not text_of(rule, "path").strip():
                self.error("a watch rule needs a path", rule, "develop", "watch", index, "path")
            if action.startswith("sync") and not text_of(rule, "target"):
                self.error(f"the watch action {action} needs a target", rule, "develop", "watch", index)

    def _devices(self) -> None:
        for path in (("gpus",), ("deploy", "resources", "reservations", "devices")):
            for index, request in self.maps(*path):
                if "count" in request.items and "device_ids" in request.items:
                    self.error(
                        "count and device_ids of a device request exclude each other",
                        request.items["count"],
                        *path,
                        index,
                    )


def text_of(node: Mapping, key: str) -> str:
    found = node.items.get(key)
    return scalar_text(found.value) if isinstance(found, Scalar) else ""


# -- resources ---------------------------------------------------------------------------------

_SOURCES = {"secrets": ("file", "environment"), "configs": ("file", "environment", "content")}


def _resources(tree: Mapping, problems: Problems) -> None:
    volumes = mapping(tree, "volumes")
    for key, item in volumes.items.items() if volumes else ():
        if isinstance(item, Mapping) and _true(item.items.get("external")):
            for other in item.items:
                if other not in ("external", "name") and not other.startswith("x-"):
                    problems.error(
                        f"the external volume {key} cannot have {other} too",
                        item.key_location(other),
                        ("volumes", key, other),
                        hint="it is made elsewhere; only its name counts here",
                    )
    for section, sources in _SOURCES.items():
        found = mapping(tree, section)
        for key, item in found.items.items() if found else ():
            if isinstance(item, Mapping):
                _source(section, key, item, sources, problems)


def _source(section: str, key: str, item: Mapping, sources: tuple[str, ...], problems: Problems) -> None:
    what = section[:-1]
    given = [name for name in sources if name in item.items]
    if _true(item.items.get("external")):
        for name in given:
            problems.warn(
                f"{name} of the external {what} {key} is ignored",
                item.key_location(name),
                (section, key, name),
                hint="it is made elsewhere; only its name counts here",
            )
    elif len(given) > 1:
        problems.error(
            f"the {what} {key} has more than one source: {', '.join(given)}",
            item.key_location(given[1]),
            (section, key),
        )
    elif not given and not text_of(item, "driver"):
        problems.error(
            f"the {what} {key} has no source",
            item.location,
            (section, key),
            hint=f"give it {' or '.join([', '.join(sources[:-1]), sources[-1]])}, or external: true",
        )


def _true(node: Node | None) -> bool:
    return isinstance(node, Scalar) and (node.value is True or node.value == "true")


# -- references and twins, active services only ------------------------------------------------


def references(tree: Mapping, active: Iterable[str], ctx: LoadContext, problems: Problems) -> None:
    """What the active services refer to exists, and no attributes contradict each other."""
    chosen = set(active)
    everything = mapping(tree, "services")
    known = set(everything.items) if everything else set()
    names: dict[str, str] = {}
    for name, service in services(tree):
        if name in chosen:
            _Rules(name, service, tree, problems).check(chosen, known, names)
    _cycles(tree, chosen, problems)


class _Rules:
    def __init__(self, name: str, node: Mapping, tree: Mapping, problems: Problems) -> None:
        self.name, self.node, self.tree, self.problems = name, node, tree, problems
        self.path: Path = ("services", name)

    def error(
        self,
        message: str,
        node: Node | None,
        *path: str | int,
        hint: str | None = None,
        place: Location | None = None,
    ) -> None:
        at = place or (node.location if node is not None else self.node.location)
        self.problems.error(message, at, (*self.path, *path), hint=hint)

    def check(self, active: set[str], known: set[str], names: dict[str, str]) -> None:
        items = self.node.items
        if not any(
            text_of(self.node, key) or isinstance(items.get(key), Mapping)
            for key in ("image", "build", "provider")
        ):
            self.error(
                f"service {self.name} has neither an image nor a build context",
                self.node,
                hint="add image: or build:",
            )
        if text_of(self.node, "network_mode") and items.get("networks"):
            self.error(
                f"service {self.name} has both network_mode and networks",
                items["network_mode"],
                "network_mode",
                hint="keep one of them",
            )
        self._resources()
        self._dependencies(active, known)
        self._scale(names)
        self._twins()
        if "build" in items:
            self._build(known)

    def _resources(self) -> None:
        networks = self.node.items.get("networks")
        if isinstance(networks, Mapping):
            for key, node in networks.items.items():
                self._defined("networks", "network", key, node, networks.key_location(key), "networks", key)
        models = self.node.items.get("models")
        if isinstance(models, Mapping):
            for key, node in models.items.items():
                self._defined("models", "model", key, node, models.key_location(key), "models", key)
        for section in ("secrets", "configs"):
            self._grants(self.node.items.get(section), section, section)
        volumes = self.node.items.get("volumes")
        for index, mount in enumerate(volumes.items if isinstance(volumes, Sequence) else ()):
            if isinstance(mount, Mapping) and text_of(mount, "type") == "volume" and text_of(mount, "source"):
                source = text_of(mount, "source")
                hint = f"a folder beside the compose file is written ./{source}" if "/" in source else None
                self._defined("volumes", "volume", source, mount, None, "volumes", index, hint=hint)
        spec = self.node.items.get("credential_spec")
        if isinstance(spec, Mapping) and text_of(spec, "config"):
            self._defined(
                "configs", "config", text_of(spec, "config"), spec, None, "credential_spec", "config"
            )

    def _grants(self, node: Node | None, section: str, *path: str) -> None:
        for index, grant in enumerate(node.items if isinstance(node, Sequence) else ()):
            if isinstance(grant, Mapping):
                source = text_of(grant, "source")
                self._defined(
                    section, section[:-1], source, grant.items.get("source") or grant, None, *path, index
                )

    def _defined(
        self,
        section: str,
        what: str,
        key: str,
        node: Node,
        place: Location | None,
        *path: str | int,
        hint: str | None = None,
    ) -> None:
        found = mapping(self.tree, section)
        if found is not None and key in found.items:
            return
        if what == "network" and key == "default":
            return
        near = nearest(key, found.items if found else ())
        self.error(
            f"service {self.name} refers to the undefined {what} {key!r}",
            node,
            *path,
            place=place,
            hint=f"did you mean {near}?" if near else hint or f"declare it below {section}: at the top level",
        )

    def _dependencies(self, active: set[str], known: set[str]) -> None:
        depends = self.node.items.get("depends_on")
        if not isinstance(depends, Mapping):
            return
        for other, node in list(depends.items.items()):
            if other in active:
                continue
            if isinstance(node, Mapping) and text_of(node, "required") == "false":
                if other not in known:
                    self.problems.warn(
                        f"the optional dependency {other} of service {self.name} does not exist",
                        depends.key_location(other),
                        (*self.path, "depends_on", other),
                    )
                    depends.pop(other)
                continue
            place = depends.key_locations.get(other) or node.location
            if other in known:
                self.error(
                    f"service {self.name} depends on {other}, which no active profile includes",
                    node,
                    "depends_on",
                    other,
                    place=place,
                    hint=f"activate its profile with --profile, or give the dependency required: false ({other})",
                )
            else:
                near = nearest(other, known)
                self.error(
                    f"service {self.name} depends on the undefined service {other!r}",
                    node,
                    "depends_on",
                    other,
                    place=place,
                    hint=f"did you mean {near}?" if near else None,
                )

    def _scale(self, names: dict[str, str]) -> None:
        scale, replicas = self.node.items.get("scale"), get(self.node, ("deploy", "replicas"))
        counts = [_number(node) for node in (scale, replicas)]
        if counts[0] is not None and counts[1] is not None and counts[0] != counts[1]:
            self.error(
                f"scale {counts[0]} and deploy.replicas {counts[1]} of service {self.name} differ",
                scale,
                "scale",
                hint="keep one of them",
            )
        fixed = text_of(self.node, "container_name")
        if not fixed:
            return
        node = self.node.items["container_name"]
        count = counts[0] if counts[0] is not None else counts[1]
        if count is not None and count > 1:
            self.error(
                f"service {self.name} has a container_name, so it cannot have {count} containers",
                node,
                "container_name",
                hint="remove container_name",
            )
        if fixed in names:
            self.error(
                f"the container name {fixed} is used by service {names[fixed]} already",
                node,
                "container_name",
            )
        names.setdefault(fixed, self.name)

    def _twins(self) -> None:
        for key, path, parse in _TWINS:
            own, twin = self.node.items.get(key), get(self.node, ("deploy", "resources", *path))
            first, second = _parsed(own, parse), _parsed(twin, parse)
            if first and second and first != second:
                self.error(
                    f"{key} and deploy.resources.{'.'.join(path)} of service {self.name} differ",
                    own,
                    key,
                    hint="keep one of them",
                )

    def _build(self, known: set[str]) -> None:
        build = self.node.items["build"]
        if not isinstance(build, Mapping):
            return
        if text_of(build, "dockerfile") and text_of(build, "dockerfile_inline"):
            self.error(
                f"service {self.name} has both dockerfile and dockerfile_inline",
                build.items["dockerfile_inline"],
                "build",
                "dockerfile_inline",
            )
        platforms, own = plain(build.items.get("platforms")) or [], text_of(self.node, "platform")
        if platforms and own and own not in platforms:
            self.error(
                f"build.platforms of service {self.name} lacks its platform {own}",
                build.items["platforms"],
                "build",
                "platforms",
            )
        self._grants(build.items.get("secrets"), "secrets", "build", "secrets")
        contexts = build.items.get("additional_contexts")
        for key, node in contexts.items.items() if isinstance(contexts, Mapping) else ():
            text = scalar_text(node.value) if isinstance(node, Scalar) else ""
            if text.startswith("service:") and text[8:] not in known:
                self.error(
                    f"the build of service {self.name} needs the undefined service {text[8:]!r}",
                    node,
                    "build",
                    "additional_contexts",
                    key,
                )


_TWINS: tuple[tuple[str, tuple[str, ...], Callable[[Any], float | int]], ...] = (
    ("mem_limit", ("limits", "memory"), units.size),
    ("mem_reservation", ("reservations", "memory"), units.size),
    ("cpus", ("limits", "cpus"), units.number),
    ("pids_limit", ("limits", "pids"), units.whole),
)


def _number(node: Node | None) -> int | None:
    found = _parsed(node, units.whole)
    return int(found) if found is not None else None


def _parsed(node: Node | None, parse: Callable[[Any], float | int]) -> float | int | None:
    if not isinstance(node, Scalar) or node.value is None:
        return None
    try:
        return parse(node.value)
    except ValueError:
        return None


def _cycles(tree: Mapping, active: set[str], problems: Problems) -> None:
    """One error for a cycle of dependencies, with its chain."""
    edges: dict[str, dict[str, Location]] = {}
    for name, service in services(tree):
        if name in active:
            depends = service.items.get("depends_on")
            edges[name] = (
                {
                    other: depends.key_locations.get(other) or node.location
                    for other, node in depends.items.items()
                    if other in active
                }
                if isinstance(depends, Mapping)
                else {}
            )
            for other, place in _build_edges(service):
                if other in active and other != name:
                    edges[name].setdefault(other, place)
    done: set[str] = set()
    for start in edges:
        chain = _cycle(edges, start, done)
        if chain:
            problems.error(
                f"dependency cycle: {' -> '.join(chain)}",
                edges[chain[0]][chain[1]],
                ("services", chain[0], "depends_on"),
            )
            return


def _build_edges(service: Mapping) -> Iterator[tuple[str, Location]]:
    contexts = get(service, ("build", "additional_contexts"))
    for node in contexts.items.values() if isinstance(contexts, Mapping) else ():
        text = scalar_text(node.value) if isinstance(node, Scalar) else ""
        if text.startswith("service:"):
            yield text[8:], node.location


def _cycle(edges: dict[str, dict[str, Location]], start: str, done: set[str]) -> list[str]:
    """The first cycle reached from ``start`` (without recursion: chains may be long)."""
    if start in done:
        return []
    stack = [(start, iter(edges[start]))]
    way = {start: 0}
    while stack:
        name, rest = stack[-1]
        following = next(rest, None)
        if following is None:
            stack.pop()
            way.pop(name)
            done.add(name)
        elif following in way:
            return [entry[0] for entry in stack[way[following] :]] + [following]
        elif following not in done:
            way[following] = len(stack)
            stack.append((following, iter(edges[following])))
    return []
