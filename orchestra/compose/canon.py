"""The canonical form of services and resources: plain data in the order and with the types that
``config`` prints (before the doubling of ``$``).

Table-driven: a structure is a dict attribute → converter in printing order. ``strict`` leaves out
``x-`` keys below the top level and writes the empty structures that the JSON form shows. Values that
mean "not set" are left out. Texts that do not convert are kept as they are (the check reports them).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from orchestra.compose import units
from orchestra.compose.tree import scalar_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, TypeAlias


class Form:
    """The strict (JSON) form being made; ``dropped`` tells that an ``x-`` key was left out."""

    __slots__ = ("dropped",)

    def __init__(self) -> None:
        self.dropped = False


Strict: TypeAlias = "Form | Literal[False]"
Convert: TypeAlias = "Callable[[Any, Strict], Any]"
NOTHING: Any = object()  # left out


def _guarded(parse: Callable[[Any], Any], *, keep_zero: bool) -> Convert:
    def convert(value: Any, strict: Strict) -> Any:
        if value is None:
            return NOTHING
        try:
            found = parse(value)
        except ValueError:
            found = value
        return found if keep_zero or found else NOTHING

    return convert


@lru_cache(maxsize=4096)
def _duration(text: str) -> str:
    return units.duration_text(units.duration(text))


@lru_cache(maxsize=4096)
def _size(value: Any) -> str:
    found = units.size(value)
    return str(found) if found else ""


def text(value: Any, strict: Strict) -> Any:
    if value is None or value == "":
        return NOTHING
    return (
        value
        if isinstance(value, str)
        else scalar_text(value)
        if not isinstance(value, dict | list)
        else value
    )


integer = _guarded(units.whole, keep_zero=False)
kept_integer = _guarded(units.whole, keep_zero=True)
number = _guarded(units.number, keep_zero=False)
kept_number = _guarded(units.number, keep_zero=True)
flag = _guarded(units.truth, keep_zero=False)
kept_flag = _guarded(units.truth, keep_zero=True)
duration = _guarded(lambda value: _duration(str(value)), keep_zero=True)
size = _guarded(lambda value: _size(value), keep_zero=False)
mode = _guarded(units.mode, keep_zero=False)
octal = _guarded(lambda value: f"{units.mode(value):04o}", keep_zero=True)
count = _guarded(units.count, keep_zero=False)


def texts(value: Any, strict: Strict) -> Any:
    """A list of texts; a single text is a list of one."""
    if value is None or value == []:
        return NOTHING
    if isinstance(value, list):
        return [
            item if isinstance(item, str) else scalar_text(item) if not isinstance(item, dict) else item
            for item in value
        ]
    return [scalar_text(value)] if not isinstance(value, dict) else value


def string_map(value: Any, strict: Strict) -> Any:
    """List or map as a map of texts, sorted."""
    found = pairs(value)
    return (
        {key: scalar_text(item) if not isinstance(item, str) else item for key, item in sorted(found.items())}
        if found
        else NOTHING
    )


def environment(value: Any, strict: Strict) -> Any:
    """As :func:`string_map`, but a key without value stays null."""
    found = pairs(value)
    return (
        {
            key: item if item is None or isinstance(item, str) else scalar_text(item)
            for key, item in sorted(found.items())
        }
        if found
        else NOTHING
    )


def resolved(value: Any, strict: Strict) -> Any:
    """As :func:`environment` without the keys that have no value."""
    found = environment(value, strict)
    if found is NOTHING:
        return found
    return {key: item for key, item in found.items() if item is not None} or NOTHING


def pairs(value: Any) -> dict[str, Any]:
    """A map, or a list of ``K=V``, as a dict."""
    if isinstance(value, dict):
        return value
    found: dict[str, Any] = {}
    for item in value if isinstance(value, list) else ():
        key, equals, rest = scalar_text(item).partition("=") if not isinstance(item, dict) else ("", "", "")
        if key:
            found[key] = rest if equals else None
    return found


def command(value: Any, strict: Strict) -> Any:
    """A command line split, or the list itself; null is the image's own."""
    if value is None:
        return NOTHING
    if isinstance(value, str):
        try:
            return units.split_command(value)
        except ValueError:
            return value
    return texts(value, strict) if value else []


def kept_command(value: Any, strict: Strict) -> Any:
    """As :func:`command`, but null stays (the schema wants the attribute)."""
    return None if value is None else command(value, strict)


def health_test(value: Any, strict: Strict) -> Any:
    if value is None or value == []:
        return NOTHING
    return ["CMD-SHELL", value] if isinstance(value, str) else texts(value, strict)


def hosts(value: Any, strict: Strict) -> Any:
    """``host=address``, sorted, without brackets."""
    found: list[str] = []
    if isinstance(value, dict):
        for name, addresses in value.items():
            for address in addresses if isinstance(addresses, list) else [addresses]:
                found.append(f"{name}={_bare(scalar_text(address))}")
    elif isinstance(value, list):
        for item in value:
            name, address = split_host(scalar_text(item))
            found.append(f"{name}={_bare(address)}")
    return sorted(set(found)) or NOTHING


def split_host(entry: str) -> tuple[str, str]:
    """``name=address`` or ``name:address``; the address is empty when it is missing."""
    name, equals, address = entry.partition("=")
    if not equals:
        name, _, address = entry.partition(":")
    return name, address


def _bare(address: str) -> str:
    return address[1:-1] if address.startswith("[") and address.endswith("]") else address


def ssh(value: Any, strict: Strict) -> Any:
    found = pairs(value)
    return [key if not item else f"{key}={item}" for key, item in sorted(found.items())] or NOTHING


def raw(value: Any, strict: Strict) -> Any:
    return NOTHING if value is None else value


def ulimits(value: Any, strict: Strict) -> Any:
    if not isinstance(value, dict):
        return NOTHING
    found = {
        key: _ULIMIT(item, strict) if isinstance(item, dict) else kept_integer(item, strict)
        for key, item in sorted(value.items())
        if not key.startswith("x-")
    }
    return found or NOTHING


def provider_options(value: Any, strict: Strict) -> Any:
    if not isinstance(value, dict):
        return NOTHING
    return {key: texts(item, strict) for key, item in sorted(value.items())} or NOTHING


def struct(
    fields: dict[str, Convert],
    *,
    extensions: bool = True,
    keep_empty: bool = True,
    always: dict[str, Any] | None = None,
) -> Convert:
    """A structure; ``always`` are the attributes that the JSON form shows even when empty."""
    order = {key: place for place, key in enumerate(fields)}
    last = len(order)

    def convert(value: Any, strict: Strict) -> Any:
        if not isinstance(value, dict):
            return NOTHING if value is None else value
        found: dict[str, Any] = {}
        keys = sorted(value, key=lambda key: order.get(key, last))
        if strict and always:
            value = {**{key: item for key, item in always.items() if key not in value}, **value}
            keys = sorted(value, key=lambda key: order.get(key, last))
        for key in keys:
            field = fields.get(key)
            if field is None:
                if strict:
                    strict.dropped = True
                elif extensions:
                    found[key] = value[key]
                continue
            item = field(value[key], strict)
            if item is NOTHING:
                if strict and always and key in always:
                    found[key] = always[key]
                continue
            found[key] = item
        return found if found or keep_empty else NOTHING

    return convert


def each(item: Convert) -> Convert:
    """A list of structures."""

    def convert(value: Any, strict: Strict) -> Any:
        if not isinstance(value, list):
            return NOTHING if value is None else value
        found = [item(entry, strict) for entry in value]
        return [entry for entry in found if entry is not NOTHING] or NOTHING

    return convert


def keyed(item: Convert) -> Convert:
    """A map of names to structures or null."""

    def convert(value: Any, strict: Strict) -> Any:
        if not isinstance(value, dict):
            return NOTHING if value is None else value
        found = {}
        for key in sorted(value):
            made = item(value[key], strict)
            found[key] = None if made is NOTHING else made
        return found or NOTHING

    return convert


_ULIMIT = struct({"single": integer, "soft": integer, "hard": integer})
_RATE = struct(
    {"path": text, "rate": _guarded(lambda v: str(units.size(v)), keep_zero=False)}, extensions=False
)
_WEIGHT = struct({"path": text, "weight": integer}, extensions=False)
_GRANT = struct({"source": text, "target": text, "uid": text, "gid": text, "mode": octal})
_HOOK = struct(
    {
        "command": kept_command,
        "image": text,
        "user": text,
        "privileged": flag,
        "working_dir": text,
        "environment": environment,
        "per_replica": flag,
    }
)
_DEVICE_REQUEST = struct(
    {"capabilities": texts, "driver": text, "count": count, "device_ids": texts, "options": string_map}
)
_UPDATE = struct(
    {
        "parallelism": kept_integer,
        "delay": duration,
        "failure_action": text,
        "monitor": duration,
        "max_failure_ratio": number,
        "order": text,
    }
)


def _only_set(value: Any, strict: Strict) -> Any:
    """Zero durations of an update are left out."""
    found = _UPDATE(value, strict)
    if isinstance(found, dict):
        for key in ("delay", "monitor"):
            if found.get(key) == "0s":
                del found[key]
    return found


_LIMITS = struct(
    {
        "cpus": number,
        "memory": size,
        "pids": integer,
        "devices": each(_DEVICE_REQUEST),
        "generic_resources": each(
            struct({"discrete_resource_spec": struct({"kind": text, "value": integer})})
        ),
    }
)
_BUILD = struct(
    {
        "context": text,
        "dockerfile": text,
        "dockerfile_inline": text,
        "entitlements": texts,
        "args": resolved,
        "provenance": text,
        "sbom": text,
        "ssh": ssh,
        "labels": string_map,
        "cache_from": texts,
        "cache_to": texts,
        "no_cache": flag,
        "no_cache_filter": texts,
        "additional_contexts": string_map,
        "pull": flag,
        "extra_hosts": hosts,
        "isolation": text,
        "network": text,
        "target": text,
        "secrets": each(_GRANT),
        "shm_size": size,
        "tags": texts,
        "ulimits": ulimits,
        "platforms": texts,
        "privileged": flag,
    }
)
_DEPLOY = struct(
    {
        "mode": text,
        "replicas": kept_integer,
        "labels": string_map,
        "update_config": _only_set,
        "rollback_config": _only_set,
        "resources": struct({"limits": _LIMITS, "reservations": _LIMITS}, keep_empty=False),
        "restart_policy": struct(
            {"condition": text, "delay": duration, "max_attempts": kept_integer, "window": duration}
        ),
        "placement": struct(
            {
                "constraints": texts,
                "preferences": each(struct({"spread": text})),
                "max_replicas_per_node": integer,
            },
            keep_empty=False,
        ),
        "endpoint_mode": text,
    },
    always={"resources": {}, "placement": {}},
)
_WATCH = struct(
    {
        "path": text,
        "action": text,
        "target": text,
        "exec": struct(
            {
                "command": kept_command,
                "user": text,
                "privileged": flag,
                "working_dir": text,
                "environment": environment,
            }
        ),
        "include": texts,
        "ignore": texts,
        "initial_sync": flag,
    }
)
_MOUNT = struct(
    {
        "type": text,
        "source": text,
        "target": text,
        "read_only": flag,
        "consistency": text,
        "bind": struct(
            {"selinux": text, "propagation": text, "create_host_path": kept_flag, "recursive": text}
        ),
        "volume": struct({"labels": string_map, "nocopy": flag, "subpath": text}),
        "tmpfs": struct({"size": size, "mode": mode}),
        "image": struct({"subpath": text}),
    }
)
_PORT = struct(
    {
        "name": text,
        "mode": text,
        "host_ip": text,
        "target": integer,
        "published": text,
        "protocol": text,
        "app_protocol": text,
    }
)
_ATTACHMENT = struct(
    {
        "aliases": texts,
        "driver_opts": string_map,
        "gw_priority": integer,
        "interface_name": text,
        "ipv4_address": text,
        "ipv6_address": text,
        "link_local_ips": texts,
        "mac_address": text,
        "priority": integer,
    }
)
_DEPENDENCY = struct({"condition": text, "restart": flag, "required": kept_flag})
_HEALTH = struct(
    {
        "test": health_test,
        "timeout": duration,
        "interval": duration,
        "retries": kept_integer,
        "start_period": duration,
        "start_interval": duration,
        "disable": flag,
    }
)

SERVICE: dict[str, Convert] = {
    "profiles": texts,
    "annotations": string_map,
    "attach": kept_flag,
    "build": _BUILD,
    "develop": struct({"watch": each(_WATCH)}),
    "blkio_config": struct(
        {
            "weight": integer,
            "weight_device": each(_WEIGHT),
            "device_read_bps": each(_RATE),
            "device_read_iops": each(_RATE),
            "device_write_bps": each(_RATE),
            "device_write_iops": each(_RATE),
        },
        extensions=False,
    ),
    "cap_add": texts,
    "cap_drop": texts,
    "cgroup_parent": text,
    "cgroup": text,
    "cpu_count": integer,
    "cpu_percent": number,
    "cpu_period": integer,
    "cpu_quota": integer,
    "cpu_rt_period": _guarded(lambda v: realtime(v), keep_zero=False),
    "cpu_rt_runtime": _guarded(lambda v: realtime(v), keep_zero=False),
    "cpus": number,
    "cpuset": text,
    "cpu_shares": integer,
    "command": command,
    "configs": each(_GRANT),
    "container_name": text,
    "credential_spec": struct({"config": text, "file": text, "registry": text}),
    "depends_on": keyed(_DEPENDENCY),
    "deploy": _DEPLOY,
    "device_cgroup_rules": texts,
    "devices": each(struct({"source": text, "target": text, "permissions": text})),
    "dns": texts,
    "dns_opt": texts,
    "dns_search": texts,
    "domainname": text,
    "entrypoint": command,
    "provider": struct({"type": text, "options": provider_options}),
    "environment": environment,
    "env_file": each(struct({"path": text, "required": kept_flag, "format": text})),
    "expose": texts,
    "external_links": texts,
    "extra_hosts": hosts,
    "group_add": texts,
    "gpus": each(_DEVICE_REQUEST),
    "hostname": text,
    "healthcheck": _HEALTH,
    "image": text,
    "init": kept_flag,
    "ipc": text,
    "isolation": text,
    "labels": string_map,
    "label_file": texts,
    "links": texts,
    "logging": struct({"driver": text, "options": string_map}),
    "mem_limit": size,
    "mem_reservation": size,
    "memswap_limit": size,
    "mem_swappiness": size,
    "mac_address": text,
    "models": keyed(struct({"endpoint_var": text, "model_var": text})),
    "network_mode": text,
    "networks": keyed(_ATTACHMENT),
    "oom_kill_disable": flag,
    "oom_score_adj": integer,
    "pid": text,
    "pids_limit": integer,
    "platform": text,
    "ports": each(_PORT),
    "privileged": flag,
    "pull_policy": text,
    "pull_refresh_after": text,
    "read_only": flag,
    "restart": text,
    "runtime": text,
    "scale": kept_integer,
    "secrets": each(_GRANT),
    "security_opt": texts,
    "shm_size": size,
    "stdin_open": flag,
    "stop_grace_period": duration,
    "stop_signal": text,
    "storage_opt": string_map,
    "sysctls": string_map,
    "tmpfs": texts,
    "tty": flag,
    "ulimits": ulimits,
    "use_api_socket": flag,
    "user": text,
    "userns_mode": text,
    "uts": text,
    "volumes": each(_MOUNT),
    "volumes_from": texts,
    "working_dir": text,
    "pre_start": each(_HOOK),
    "post_start": each(_HOOK),
    "pre_stop": each(_HOOK),
}


def realtime(value: Any) -> int:
    """Microseconds, as a number or a duration."""
    try:
        return units.whole(value)
    except ValueError:
        return units.duration(str(value)) // 1000


_service = struct(SERVICE)
_POOL = struct({"subnet": text, "gateway": text, "ip_range": text, "aux_addresses": string_map})
_RESOURCES: dict[str, Convert] = {
    "networks": struct(
        {
            "name": text,
            "driver": text,
            "driver_opts": string_map,
            "ipam": struct({"driver": text, "config": each(_POOL), "options": string_map}, keep_empty=False),
            "external": flag,
            "internal": flag,
            "attachable": flag,
            "labels": string_map,
            "enable_ipv4": kept_flag,
            "enable_ipv6": kept_flag,
        },
        always={"ipam": {}},
    ),
    "volumes": struct(
        {"name": text, "driver": text, "driver_opts": string_map, "external": flag, "labels": string_map}
    ),
    "secrets": struct(
        {
            "name": text,
            "file": text,
            "environment": text,
            "content": text,
            "external": flag,
            "labels": string_map,
            "driver": text,
            "driver_opts": string_map,
            "template_driver": text,
        }
    ),
    "configs": struct(
        {
            "name": text,
            "file": text,
            "environment": text,
            "content": text,
            "external": flag,
            "labels": string_map,
            "driver": text,
            "driver_opts": string_map,
            "template_driver": text,
        }
    ),
    "models": struct({"name": text, "model": text, "context_size": integer, "runtime_flags": texts}),
}


def service(data: dict[str, Any], *, strict: bool) -> dict[str, Any]:
    """The canonical form of a service. ``strict`` is the JSON form."""
    if not strict:
        found: dict[str, Any] = _service(data, False)
        return found
    return both(data)[1]


def both(data: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The form with extensions and the JSON form; the same maps where no extension is."""
    form = Form()
    shown: dict[str, Any] = _service(data, form)
    full = _service(data, False) if form.dropped else shown
    if "command" not in shown or "entrypoint" not in shown:
        shown = {"command": None, "entrypoint": None, **shown}
        shown = dict(sorted(shown.items(), key=lambda item: _PLACE.get(item[0], 999)))
    return full, shown


_PLACE = {key: place for place, key in enumerate(SERVICE)}


def resource(section: str, data: Any, *, strict: bool) -> dict[str, Any]:
    """The canonical form of one entry of networks, volumes, secrets, configs or models."""
    found = _RESOURCES[section](data if isinstance(data, dict) else {}, Form() if strict else False)
    return found if isinstance(found, dict) else {}
