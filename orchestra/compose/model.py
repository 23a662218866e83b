"""The compose project as frozen values: what everything after loading works with.

Source: the Compose Specification. Durations are seconds (float), sizes bytes (int), file modes int.
``None`` means "not set" (the image's or the engine's default applies). Mappings are plain dicts that
nobody changes after loading. ``extensions`` hold ``x-`` keys. Field names are the specification's.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestra.record import field, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = Any  # JSON-like data whose shape is the user's
else:
    Json = object


@record
class Dependency:
    """``condition``: service_started, service_healthy or service_completed_successfully."""

    condition: str = "service_started"
    required: bool = True
    restart: bool = False


@record
class HealthCheck:
    """``test`` starts with CMD, CMD-SHELL or NONE; empty means the image's own."""

    test: tuple[str, ...] = ()
    interval: float | None = None
    timeout: float | None = None
    retries: int | None = None
    start_period: float | None = None
    start_interval: float | None = None
    disable: bool = False


@record
class Port:
    """``published`` is text: empty (any free port), a number, or a range."""

    target: int
    published: str = ""
    host_ip: str = ""
    protocol: str = "tcp"
    mode: str = "ingress"
    name: str = ""
    app_protocol: str = ""
    extensions: Mapping[str, Json] = field(default_factory=dict)


@record
class BindOptions:
    propagation: str = ""
    create_host_path: bool = True
    recursive: str = ""
    selinux: str = ""
    idmap: bool = False


@record
class VolumeOptions:
    nocopy: bool = False
    subpath: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@record
class TmpfsOptions:
    size: int | None = None
    mode: int | None = None


@record
class Mount:
    """One entry of ``services.*.volumes``: type bind, volume, tmpfs, image, npipe or cluster.
    ``source`` is an absolute host path, a key of ``Project.volumes``, an image reference, or ''
    (anonymous volume)."""

    type: str
    target: str
    source: str = ""
    read_only: bool = False
    consistency: str = ""
    bind: BindOptions | None = None
    volume: VolumeOptions | None = None
    tmpfs: TmpfsOptions | None = None
    image_subpath: str = ""
    extensions: Mapping[str, Json] = field(default_factory=dict)


@record
class FileGrant:
    """A secret or config given to a service; ``target`` is absolute."""

    source: str
    target: str
    uid: str = ""
    gid: str = ""
    mode: int | None = None


@record
class Device:
    source: str
    target: str
    permissions: str = "rwm"


@record
class Ulimit:
    soft: int
    hard: int
    single: bool = False  # written as one integer


@record
class NetworkAttachment:
    """One entry of ``services.*.networks``."""

    aliases: tuple[str, ...] = ()
    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: tuple[str, ...] = ()
    mac_address: str = ""
    interface_name: str = ""
    driver_opts: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    gw_priority: int = 0
    extensions: Mapping[str, Json] = field(default_factory=dict)


@record
class DeviceRate:
    path: str
    rate: int


@record
class BlkioConfig:
    """``weight_device`` holds the weight as its ``rate``."""

    weight: int | None = None
    weight_device: tuple[DeviceRate, ...] = ()
    device_read_bps: tuple[DeviceRate, ...] = ()
    device_read_iops: tuple[DeviceRate, ...] = ()
    device_write_bps: tuple[DeviceRate, ...] = ()
    device_write_iops: tuple[DeviceRate, ...] = ()


@record
class Logging:
    driver: str = ""
    options: Mapping[str, str] = field(default_factory=dict)


@record
class Hook:
    """pre_start, post_start or pre_stop. ``image`` and ``per_replica`` only for pre_start."""

    command: tuple[str, ...] = ()
    user: str = ""
    privileged: bool = False
    working_dir: str = ""
    environment: Mapping[str, str | None] = field(default_factory=dict)
    image: str = ""
    per_replica: bool = False


@record
class BuildSecret:
    source: str
    target: str = ""
    uid: str = ""
    gid: str = ""
    mode: int | None = None


@record
class Build:
    context: str = ""
    dockerfile: str = ""
    dockerfile_inline: str = ""
    args: Mapping[str, str | None] = field(default_factory=dict)
    target: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    pull: bool = False
    network: str = ""
    extra_hosts: tuple[str, ...] = ()
    shm_size: int | None = None
    ulimits: Mapping[str, Ulimit] = field(default_factory=dict)
    privileged: bool = False
    entitlements: tuple[str, ...] = ()
    secrets: tuple[BuildSecret, ...] = ()
    ssh: tuple[str, ...] = ()
    additional_contexts: Mapping[str, str] = field(default_factory=dict)
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    provenance: str = ""
    sbom: str = ""
    isolation: str = ""
    extensions: Mapping[str, Json] = field(default_factory=dict)


@record
class ResourceSet:
    """``deploy.resources.limits`` or ``.reservations``. ``cpus`` in cores, ``memory`` in bytes."""

    cpus: float | None = None
    memory: int | None = None
    pids: int | None = None
    devices: tuple[Json, ...] = ()
    generic_resources: tuple[Json, ...] = ()


@record
class RestartPolicy:
    condition: str = ""
    delay: float | None = None
    max_attempts: int | None = None
    window: float | None = None


@record
class UpdateConfig:
    parallelism: int | None = None
    delay: float | None = None
    order: str = ""
    failure_action: str = ""
    monitor: float | None = None
    max_failure_ratio: float | None = None


@record
class Deploy:
    mode: str = ""
    replicas: int | None = None
    endpoint_mode: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    limits: ResourceSet | None = None
    reservations: ResourceSet | None = None
    restart_policy: RestartPolicy | None = None
    update_config: UpdateConfig | None = None
    rollback_config: UpdateConfig | None = None
    placement: Json = None
    extensions: Mapping[str, Json] = field(default_factory=dict)


@record
class WatchRule:
    path: str
    action: str
    target: str = ""
    ignore: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    initial_sync: bool = False
    exec: Hook | None = None


@record
class CredentialSpec:
    config: str = ""
    file: str = ""
    registry: str = ""


@record
class Provider:
    type: str
    options: Mapping[str, Json] = field(default_factory=dict)


@record
class Service:
    """One service. ``environment`` and ``labels`` already hold env_file and label_file; an
    environment value of None is unresolved and never reaches the container. ``command`` and
    ``entrypoint``: None is the image's, ``()`` is cleared. ``canonical`` is the service exactly as
    ``config --format json`` prints it (ordered like the specification's output)."""

    name: str
    image: str = ""
    build: Build | None = None
    provider: Provider | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    attach: bool = True
    blkio_config: BlkioConfig | None = None
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    cgroup: str = ""
    cgroup_parent: str = ""
    command: tuple[str, ...] | None = None
    configs: tuple[FileGrant, ...] = ()
    container_name: str = ""
    cpu_count: int | None = None
    cpu_percent: float | None = None
    cpu_shares: int | None = None
    cpu_quota: int | None = None
    cpu_period: int | None = None
    cpu_rt_period: int | None = None
    cpu_rt_runtime: int | None = None
    cpus: float | None = None
    cpuset: str = ""
    credential_spec: CredentialSpec | None = None
    depends_on: Mapping[str, Dependency] = field(default_factory=dict)
    deploy: Deploy | None = None
    develop: tuple[WatchRule, ...] = ()
    device_cgroup_rules: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    dns: tuple[str, ...] = ()
    dns_opt: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    domainname: str = ""
    entrypoint: tuple[str, ...] | None = None
    environment: Mapping[str, str | None] = field(default_factory=dict)
    expose: tuple[str, ...] = ()
    external_links: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()  # "host=ip"
    gpus: tuple[Json, ...] = ()
    group_add: tuple[str, ...] = ()
    healthcheck: HealthCheck | None = None
    hostname: str = ""
    init: bool | None = None
    ipc: str = ""
    isolation: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    links: tuple[str, ...] = ()
    logging: Logging | None = None
    mac_address: str = ""
    mem_limit: int | None = None
    mem_reservation: int | None = None
    mem_swappiness: int | None = None
    memswap_limit: int | None = None
    models: Mapping[str, Json] = field(default_factory=dict)
    network_mode: str = ""
    networks: Mapping[str, NetworkAttachment] = field(default_factory=dict)
    oom_kill_disable: bool = False
    oom_score_adj: int | None = None
    pid: str = ""
    pids_limit: int | None = None
    platform: str = ""
    ports: tuple[Port, ...] = ()
    post_start: tuple[Hook, ...] = ()
    pre_start: tuple[Hook, ...] = ()
    pre_stop: tuple[Hook, ...] = ()
    privileged: bool = False
    profiles: tuple[str, ...] = ()
    pull_policy: str = ""
    pull_refresh_after: str = ""
    read_only: bool = False
    restart: str = ""
    runtime: str = ""
    scale: int | None = None
    secrets: tuple[FileGrant, ...] = ()
    security_opt: tuple[str, ...] = ()
    shm_size: int | None = None
    stdin_open: bool = False
    stop_grace_period: float | None = None
    stop_signal: str = ""
    storage_opt: Mapping[str, str] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    tmpfs: tuple[str, ...] = ()
    tty: bool = False
    ulimits: Mapping[str, Ulimit] = field(default_factory=dict)
    use_api_socket: bool = False
    user: str = ""
    userns_mode: str = ""
    uts: str = ""
    volumes: tuple[Mount, ...] = ()
    volumes_from: tuple[str, ...] = ()
    working_dir: str = ""
    extensions: Mapping[str, Json] = field(default_factory=dict)
    canonical: Mapping[str, Json] = field(default_factory=dict)

    @property
    def replicas(self) -> int:
        """How many containers are wanted: scale, else deploy.replicas, else 1."""
        if self.scale is not None:
            return self.scale
        if self.deploy is not None and self.deploy.replicas is not None:
            return self.deploy.replicas
        return 1


@record
class IpamPool:
    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    aux_addresses: Mapping[str, str] = field(default_factory=dict)


@record
class Network:
    """``key`` is the name in the file, ``name`` the real one."""

    key: str
    name: str
    driver: str = ""
    driver_opts: Mapping[str, str] = field(default_factory=dict)
    ipam_driver: str = ""
    ipam: tuple[IpamPool, ...] = ()
    ipam_options: Mapping[str, str] = field(default_factory=dict)
    external: bool = False
    internal: bool = False
    attachable: bool = False
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    extensions: Mapping[str, Json] = field(default_factory=dict)
    canonical: Mapping[str, Json] = field(default_factory=dict)


@record
class Volume:
    key: str
    name: str
    driver: str = ""
    driver_opts: Mapping[str, str] = field(default_factory=dict)
    external: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    extensions: Mapping[str, Json] = field(default_factory=dict)
    canonical: Mapping[str, Json] = field(default_factory=dict)


@record
class FileSource:
    """A top-level secret or config. ``environment`` names a variable of the project environment,
    whose value is ``value`` (never printed); ``content`` is inline text (configs only)."""

    key: str
    name: str
    file: str = ""
    environment: str = ""
    content: str | None = None
    value: str | None = None
    external: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    driver: str = ""
    driver_opts: Mapping[str, str] = field(default_factory=dict)
    template_driver: str = ""
    extensions: Mapping[str, Json] = field(default_factory=dict)
    canonical: Mapping[str, Json] = field(default_factory=dict)


@record
class Model:
    key: str
    name: str
    model: str
    context_size: int | None = None
    runtime_flags: tuple[str, ...] = ()
    canonical: Mapping[str, Json] = field(default_factory=dict)


@record
class Project:
    """A loaded project: only active services (and what they use, unless all resources were asked
    for); ``disabled`` are the services that profiles switched off (known, so never orphans)."""

    name: str
    working_dir: str
    files: tuple[str, ...] = ()  # absolute; "-" is standard input
    env_files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    services: Mapping[str, Service] = field(default_factory=dict)
    disabled: Mapping[str, Service] = field(default_factory=dict)
    networks: Mapping[str, Network] = field(default_factory=dict)
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    secrets: Mapping[str, FileSource] = field(default_factory=dict)
    configs: Mapping[str, FileSource] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)
    extensions: Mapping[str, Json] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)  # for interpolation; never sent on
    locations: Mapping[str, tuple[str, int, int]] = field(default_factory=dict)
    """Where the value of a document path stands: ``services.web.ports[0]`` → (file, line, column)."""
