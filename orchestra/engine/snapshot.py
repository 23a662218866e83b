"""``inspect``: a container in docker's JSON form, as far as it has a meaning here."""

from __future__ import annotations

import datetime
from typing import Any

from orchestra.engine.codec import encode
from orchestra.engine.container import Container
from orchestra.engine.mounts import public
from orchestra.engine.parts import Parts
from orchestra.engine.process import stop_signal, user_of, working_dir

_NEVER = "0001-01-01T00:00:00Z"


def stamp(seconds: float) -> str:
    if not seconds:
        return _NEVER
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def inspect(container: Container, parts: Parts) -> dict[str, Any]:
    info, state, spec, service = container.info(), container.state, container.spec, container.spec.service
    command = list(info.command)
    return {
        "Id": container.id,
        "Name": f"/{spec.name}",
        "Created": stamp(state.created),
        "Path": command[0] if command else "",
        "Args": command[1:],
        "Image": spec.image_id,
        "RestartCount": state.restart_count,
        "Driver": "overlay",
        "Platform": "linux",
        "LogPath": str(parts.log_path(container.id)),
        "HostnamePath": str(parts.etc(container.id) / "hostname"),
        "HostsPath": str(parts.etc(container.id) / "hosts"),
        "ResolvConfPath": str(parts.etc(container.id) / "resolv.conf"),
        "State": _state(container),
        "Config": {
            "Hostname": parts.hostname(container),
            "Domainname": service.domainname,
            "User": user_of(service, container.image),
            "Tty": service.tty,
            "OpenStdin": service.stdin_open,
            "Env": list((container.process or {}).get("env", ())),
            "Cmd": list(service.command) if service.command is not None else container.image.get("Cmd"),
            "Entrypoint": (
                list(service.entrypoint)
                if service.entrypoint is not None
                else container.image.get("Entrypoint")
            ),
            "Image": info.image,
            "WorkingDir": working_dir(service, container.image),
            "Labels": dict(spec.labels),
            "StopSignal": stop_signal(service, container.image),
            "Healthcheck": encode(container.probe) if container.probe else None,
        },
        "HostConfig": _host_config(container),
        "Mounts": [public(record) for record in state.mounts],
        "NetworkSettings": _network(container),
        "Warnings": list(state.warnings),
        "Service": encode(service),
    }


def _state(container: Container) -> dict[str, Any]:
    state = container.state
    found: dict[str, Any] = {
        "Status": state.status,
        "Running": state.status in ("running", "paused", "restarting"),
        "Paused": state.status == "paused",
        "Restarting": state.status == "restarting",
        "OOMKilled": state.oom_killed,
        "Dead": state.status == "dead",
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": stamp(state.started),
        "FinishedAt": stamp(state.finished),
    }
    if container.probe:
        tracker = container.health
        found["Health"] = {
            "Status": state.health or "starting",
            "FailingStreak": tracker.streak if tracker else 0,
            "Log": [
                {**one.to_dict(), "Start": stamp(one.start), "End": stamp(one.end)}
                for one in (tracker.results if tracker else ())
            ],
        }
    return found


def _host_config(container: Container) -> dict[str, Any]:
    spec, service = container.spec, container.spec.service
    return {
        "AutoRemove": spec.auto_remove,
        "RestartPolicy": {"Name": spec.restart.name, "MaximumRetryCount": spec.restart.maximum},
        "NetworkMode": spec.namespaces.get("network", "")
        or (spec.networks[0].network if spec.networks else "none"),
        "PidMode": spec.namespaces.get("pid", ""),
        "IpcMode": spec.namespaces.get("ipc", "") or "private",
        "UTSMode": spec.namespaces.get("uts", ""),
        "UsernsMode": spec.namespaces.get("userns", "") or service.userns_mode,
        "CgroupnsMode": spec.namespaces.get("cgroup", "") or service.cgroup or "private",
        "Privileged": service.privileged,
        "ReadonlyRootfs": service.read_only,
        "CapAdd": list(service.cap_add) or None,
        "CapDrop": list(service.cap_drop) or None,
        "SecurityOpt": list(service.security_opt) or None,
        "ShmSize": service.shm_size or 64 << 20,
        "Devices": [
            {
                "PathOnHost": device.source,
                "PathInContainer": device.target,
                "CgroupPermissions": device.permissions,
            }
            for device in service.devices
        ],
        "DeviceCgroupRules": list(service.device_cgroup_rules) or None,
        "Sysctls": dict(service.sysctls) or None,
        "Ulimits": [
            {"Name": name, "Soft": limit.soft, "Hard": limit.hard} for name, limit in service.ulimits.items()
        ],
        "OomScoreAdj": service.oom_score_adj or 0,
        "BlkioWeight": (service.blkio_config.weight if service.blkio_config else 0) or 0,
        "CpuQuota": service.cpu_quota or 0,
        "CpuPeriod": service.cpu_period or 0,
        "CpusetCpus": service.cpuset,
        "MemoryReservation": service.mem_reservation or 0,
        "MemorySwap": service.memswap_limit or 0,
        "MemorySwappiness": service.mem_swappiness,
        "Memory": service.mem_limit or 0,
        "NanoCpus": round((service.cpus or 0) * 1e9),
        "PidsLimit": service.pids_limit,
        "Init": bool(service.init),
        "ExtraHosts": list(service.extra_hosts),
        "Dns": list(service.dns),
        "GroupAdd": list(service.group_add),
    }


def _network(container: Container) -> dict[str, Any]:
    ports: dict[str, list[dict[str, str]]] = {}
    for publisher in container.state.ports:
        key = f"{publisher.target_port}/{publisher.protocol}"
        ports.setdefault(key, []).append({"HostIp": publisher.url, "HostPort": str(publisher.published_port)})
    networks = {}
    for use in container.spec.networks:
        place = container.state.networks.get(use.network)
        networks[use.network] = {
            "NetworkID": place.network_id if place else "",
            "IPAddress": place.ipv4 if place else "",
            "GlobalIPv6Address": place.ipv6 if place else "",
            "MacAddress": place.mac if place else "",
            "Aliases": list(use.aliases),
        }
    return {"Ports": ports, "Networks": networks}
