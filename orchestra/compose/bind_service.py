"""One service's canonical data as the frozen :class:`~orchestra.compose.model.Service`."""

from __future__ import annotations

from collections.abc import Callable

from orchestra.compose import units
from orchestra.compose.model import (
    BindOptions,
    BlkioConfig,
    Build,
    BuildSecret,
    CredentialSpec,
    Dependency,
    Deploy,
    Device,
    DeviceRate,
    FileGrant,
    HealthCheck,
    Hook,
    Logging,
    Mount,
    NetworkAttachment,
    Port,
    Provider,
    ResourceSet,
    RestartPolicy,
    Service,
    TmpfsOptions,
    Ulimit,
    UpdateConfig,
    VolumeOptions,
    WatchRule,
)
from orchestra.compose.normalize_volumes import IDMAP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

Data: TypeAlias = "dict[str, Any]"


def service(name: str, data: Data, shown: Data) -> Service:
    """``data`` is canonical with extensions; ``shown`` becomes ``canonical``."""
    fields: Data = {}
    extensions: Data = {}
    for key, value in data.items():
        make = _FIELDS.get(key)
        if make is not None:
            fields[key] = make(value)
        elif key.startswith("x-"):
            extensions[key] = value
    develop = data.get("develop")
    if isinstance(develop, dict):
        fields["develop"] = tuple(_watch(rule) for rule in develop.get("watch", ()))
    return Service(name=name, extensions=extensions, canonical=shown, **fields)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(item) for item in value) if isinstance(value, list) else ()


def _command(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, list):
        return _texts(value)
    return (value,) if isinstance(value, str) else None


def _map(value: Any) -> Data:
    return value if isinstance(value, dict) else {}


def _flag(value: Any) -> bool:
    return value is True


def _attach(value: Any) -> bool:
    return value is not False


def _maybe(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _size(value: Any) -> int | None:
    try:
        return None if value is None else units.size(value)
    except ValueError:
        return None


def _seconds(value: Any) -> float | None:
    try:
        return None if value is None else units.duration(str(value)) / 1e9
    except ValueError:
        return None


def _mode(value: Any) -> int | None:
    try:
        return None if value is None else units.mode(value)
    except ValueError:
        return None


def _extensions(data: Data) -> Data:
    return {key: value for key, value in data.items() if key.startswith("x-")}


def _maps(value: Any) -> list[Data]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _dependency(data: Any) -> Dependency:
    data = _map(data)
    return Dependency(
        data.get("condition") or "service_started",
        data.get("required") is not False,
        data.get("restart") is True,
    )


def _health(data: Any) -> HealthCheck:
    data = _map(data)
    test = _texts(data.get("test"))
    return HealthCheck(
        test=test,
        interval=_seconds(data.get("interval")),
        timeout=_seconds(data.get("timeout")),
        retries=_integer(data.get("retries")),
        start_period=_seconds(data.get("start_period")),
        start_interval=_seconds(data.get("start_interval")),
        disable=data.get("disable") is True or test[:1] == ("NONE",),
    )


def _port(data: Data) -> Port:
    return Port(
        target=_integer(data.get("target")) or 0,
        published=_text(data.get("published")),
        host_ip=_text(data.get("host_ip")),
        protocol=_text(data.get("protocol")) or "tcp",
        mode=_text(data.get("mode")) or "ingress",
        name=_text(data.get("name")),
        app_protocol=_text(data.get("app_protocol")),
        extensions=_extensions(data),
    )


def _mount(data: Data) -> Mount:
    bind, volume, tmpfs = data.get("bind"), data.get("volume"), data.get("tmpfs")
    return Mount(
        type=_text(data.get("type")) or "volume",
        target=_text(data.get("target")),
        source=_text(data.get("source")),
        read_only=data.get("read_only") is True,
        consistency=_text(data.get("consistency")),
        bind=None
        if not isinstance(bind, dict)
        else BindOptions(
            propagation=_text(bind.get("propagation")),
            create_host_path=bind.get("create_host_path") is not False,
            recursive=_text(bind.get("recursive")),
            selinux=_text(bind.get("selinux")),
            idmap=bind.get(IDMAP) is True or bind.get("x-idmap") is True,
        ),
        volume=None
        if not isinstance(volume, dict)
        else VolumeOptions(
            nocopy=volume.get("nocopy") is True,
            subpath=_text(volume.get("subpath")),
            labels=_map(volume.get("labels")),
        ),
        tmpfs=None
        if not isinstance(tmpfs, dict)
        else TmpfsOptions(size=_size(tmpfs.get("size")), mode=_integer(tmpfs.get("mode"))),
        image_subpath=_text(_map(data.get("image")).get("subpath")),
        extensions=_extensions(data),
    )


def _grants(folder: str) -> Callable[[Any], tuple[FileGrant, ...]]:
    def make(value: Any) -> tuple[FileGrant, ...]:
        found = []
        for data in _maps(value):
            target = _text(data.get("target")) or _text(data.get("source"))
            if not target.startswith("/"):
                target = f"{folder}/{target}"
            found.append(
                FileGrant(
                    _text(data.get("source")),
                    target,
                    _text(data.get("uid")),
                    _text(data.get("gid")),
                    _mode(data.get("mode")),
                )
            )
        return tuple(found)

    return make


def _ulimits(value: Any) -> dict[str, Ulimit]:
    found = {}
    for name, data in _map(value).items():
        if isinstance(data, dict):
            found[name] = Ulimit(_integer(data.get("soft")) or 0, _integer(data.get("hard")) or 0)
        elif _integer(data) is not None:
            found[name] = Ulimit(data, data, single=True)
    return found


def _attachment(data: Any) -> NetworkAttachment:
    if not data:
        return NetworkAttachment()
    return NetworkAttachment(
        aliases=_texts(data.get("aliases")),
        ipv4_address=_text(data.get("ipv4_address")),
        ipv6_address=_text(data.get("ipv6_address")),
        link_local_ips=_texts(data.get("link_local_ips")),
        mac_address=_text(data.get("mac_address")),
        interface_name=_text(data.get("interface_name")),
        driver_opts=_map(data.get("driver_opts")),
        priority=_integer(data.get("priority")) or 0,
        gw_priority=_integer(data.get("gw_priority")) or 0,
        extensions=_extensions(data),
    )


def _rates(value: Any) -> tuple[DeviceRate, ...]:
    return tuple(
        DeviceRate(_text(data.get("path")), _size(data.get("rate", data.get("weight"))) or 0)
        for data in _maps(value)
    )


def _blkio(data: Any) -> BlkioConfig:
    data = _map(data)
    return BlkioConfig(
        weight=_integer(data.get("weight")),
        weight_device=_rates(data.get("weight_device")),
        device_read_bps=_rates(data.get("device_read_bps")),
        device_read_iops=_rates(data.get("device_read_iops")),
        device_write_bps=_rates(data.get("device_write_bps")),
        device_write_iops=_rates(data.get("device_write_iops")),
    )


def _hook(data: Data) -> Hook:
    return Hook(
        command=_command(data.get("command")) or (),
        user=_text(data.get("user")),
        privileged=data.get("privileged") is True,
        working_dir=_text(data.get("working_dir")),
        environment=_map(data.get("environment")),
        image=_text(data.get("image")),
        per_replica=data.get("per_replica") is True,
    )


def _hooks(value: Any) -> tuple[Hook, ...]:
    return tuple(_hook(data) for data in _maps(value))


def _watch(data: Data) -> WatchRule:
    run = data.get("exec")
    return WatchRule(
        path=_text(data.get("path")),
        action=_text(data.get("action")),
        target=_text(data.get("target")),
        ignore=_texts(data.get("ignore")),
        include=_texts(data.get("include")),
        initial_sync=data.get("initial_sync") is True,
        exec=_hook(run) if isinstance(run, dict) else None,
    )


def _build(data: Any) -> Build:
    data = _map(data)
    secrets = tuple(
        BuildSecret(
            _text(item.get("source")),
            _text(item.get("target")),
            _text(item.get("uid")),
            _text(item.get("gid")),
            _mode(item.get("mode")),
        )
        for item in _maps(data.get("secrets"))
    )
    texts = (
        "context",
        "dockerfile",
        "dockerfile_inline",
        "target",
        "network",
        "provenance",
        "sbom",
        "isolation",
    )
    lists = (
        "tags",
        "no_cache_filter",
        "extra_hosts",
        "entitlements",
        "ssh",
        "cache_from",
        "cache_to",
        "platforms",
    )
    maps = ("args", "labels", "additional_contexts")
    fields: Data = {key: _text(data[key]) for key in texts if key in data}
    fields |= {key: _texts(data[key]) for key in lists if key in data}
    fields |= {key: _map(data[key]) for key in maps if key in data}
    fields |= {key: data[key] is True for key in ("no_cache", "pull", "privileged") if key in data}
    return Build(
        shm_size=_size(data.get("shm_size")),
        ulimits=_ulimits(data.get("ulimits")),
        secrets=secrets,
        extensions=_extensions(data),
        **fields,
    )


def _resources(data: Any) -> ResourceSet | None:
    if not isinstance(data, dict):
        return None
    return ResourceSet(
        cpus=_number(data.get("cpus")),
        memory=_size(data.get("memory")),
        pids=_integer(data.get("pids")),
        devices=tuple(data.get("devices", ())),
        generic_resources=tuple(data.get("generic_resources", ())),
    )


def _update(data: Any) -> UpdateConfig | None:
    if not isinstance(data, dict):
        return None
    return UpdateConfig(
        parallelism=_integer(data.get("parallelism")),
        delay=_seconds(data.get("delay")),
        order=_text(data.get("order")),
        failure_action=_text(data.get("failure_action")),
        monitor=_seconds(data.get("monitor")),
        max_failure_ratio=_number(data.get("max_failure_ratio")),
    )


def _deploy(data: Any) -> Deploy:
    data = _map(data)
    resources, policy = _map(data.get("resources")), data.get("restart_policy")
    return Deploy(
        mode=_text(data.get("mode")),
        replicas=_integer(data.get("replicas")),
        endpoint_mode=_text(data.get("endpoint_mode")),
        labels=_map(data.get("labels")),
        limits=_resources(resources.get("limits")),
        reservations=_resources(resources.get("reservations")),
        restart_policy=None
        if not isinstance(policy, dict)
        else RestartPolicy(
            condition=_text(policy.get("condition")),
            delay=_seconds(policy.get("delay")),
            max_attempts=_integer(policy.get("max_attempts")),
            window=_seconds(policy.get("window")),
        ),
        update_config=_update(data.get("update_config")),
        rollback_config=_update(data.get("rollback_config")),
        placement=data.get("placement") or None,
        extensions=_extensions(data),
    )


def _devices(value: Any) -> tuple[Device, ...]:
    return tuple(
        Device(
            _text(data.get("source")),
            _text(data.get("target")) or _text(data.get("source")),
            _text(data.get("permissions")) or "rwm",
        )
        for data in _maps(value)
    )


_FIELDS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(
        (
            "image",
            "cgroup",
            "cgroup_parent",
            "container_name",
            "cpuset",
            "domainname",
            "hostname",
            "ipc",
            "isolation",
            "mac_address",
            "network_mode",
            "pid",
            "platform",
            "pull_policy",
            "pull_refresh_after",
            "restart",
            "runtime",
            "stop_signal",
            "user",
            "userns_mode",
            "uts",
            "working_dir",
        ),
        _text,
    ),
    **dict.fromkeys(
        (
            "cap_add",
            "cap_drop",
            "device_cgroup_rules",
            "dns",
            "dns_opt",
            "dns_search",
            "expose",
            "external_links",
            "extra_hosts",
            "group_add",
            "links",
            "profiles",
            "security_opt",
            "tmpfs",
            "volumes_from",
        ),
        _texts,
    ),
    **dict.fromkeys(("annotations", "environment", "labels", "storage_opt", "sysctls"), _map),
    **dict.fromkeys(
        (
            "cpu_count",
            "cpu_shares",
            "cpu_quota",
            "cpu_period",
            "cpu_rt_period",
            "cpu_rt_runtime",
            "oom_score_adj",
            "pids_limit",
            "scale",
        ),
        _integer,
    ),
    **dict.fromkeys(("cpu_percent", "cpus"), _number),
    **dict.fromkeys(("mem_limit", "mem_reservation", "mem_swappiness", "memswap_limit", "shm_size"), _size),
    **dict.fromkeys(
        ("oom_kill_disable", "privileged", "read_only", "stdin_open", "tty", "use_api_socket"), _flag
    ),
    **dict.fromkeys(("command", "entrypoint"), _command),
    **dict.fromkeys(("post_start", "pre_start", "pre_stop"), _hooks),
    "attach": _attach,
    "init": _maybe,
    "build": _build,
    "blkio_config": _blkio,
    "configs": _grants(""),
    "secrets": _grants("/run/secrets"),
    "credential_spec": lambda data: CredentialSpec(
        _text(_map(data).get("config")), _text(_map(data).get("file")), _text(_map(data).get("registry"))
    ),
    "depends_on": lambda data: {name: _dependency(item) for name, item in _map(data).items()},
    "deploy": _deploy,
    "devices": _devices,
    "gpus": lambda value: tuple(_maps(value)),
    "healthcheck": _health,
    "logging": lambda data: Logging(_text(_map(data).get("driver")), _map(_map(data).get("options"))),
    "models": lambda data: {name: item or {} for name, item in _map(data).items()},
    "networks": lambda data: {name: _attachment(item) for name, item in _map(data).items()},
    "ports": lambda value: tuple(_port(data) for data in _maps(value)),
    "provider": lambda data: Provider(_text(_map(data).get("type")), _map(_map(data).get("options"))),
    "stop_grace_period": _seconds,
    "ulimits": _ulimits,
    "volumes": lambda value: tuple(_mount(data) for data in _maps(value)),
}
