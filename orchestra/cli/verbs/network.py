"""``network …``: networks without a compose file."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from orchestra.cli.render import words
from orchestra.cli.verbs.container import each
from orchestra.cli.verbs.container_run import pairs
from orchestra.errors import NotFoundError, OrchestraError

if TYPE_CHECKING:
    from orchestra.cli.context import Context


def find(context: Context, ref: str) -> dict[str, Any]:
    """A network by name, id or unique id prefix."""
    networks = context.client.call("networks")
    for found in (
        [n for n in networks if n["name"] == ref],
        [n for n in networks if n["id"] == ref],
        [n for n in networks if n["id"].startswith(ref)],
    ):
        if len(found) == 1:
            result: dict[str, Any] = found[0]
            return result
    raise NotFoundError(f"no such network: {ref}")


def add_ls(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.add_argument("-f", "--filter", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--format", default="")
    parser.add_argument("--no-trunc", action="store_true")


def run_ls(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.render.template import show

    found = sorted(context.client.call("networks"), key=lambda n: n["name"])
    for word in args.filter:
        key, _, value = word.partition("=")
        if key not in ("name", "driver", "label"):
            raise OrchestraError(f"invalid filter {key!r}", hint="there are: name, driver, label")
        if key == "label":
            name, sep, wanted = value.partition("=")
            found = [n for n in found if name in n["labels"] and (not sep or n["labels"][name] == wanted)]
        else:
            found = [n for n in found if (value in n["name"] if key == "name" else n["driver"] == value)]
    if args.quiet:
        for network in found:
            print(network["id"] if args.no_trunc else network["id"][:12], file=context.stdout)
        return 0
    rows = [
        {
            "ID": n["id"] if args.no_trunc else n["id"][:12],
            "Name": n["name"],
            "Driver": n["driver"],
            "Scope": "local",
            "Internal": n["internal"],
            "CreatedAt": words.local_stamp(n["created"]),
            "Labels": ",".join(f"{k}={v}" for k, v in n["labels"].items()),
        }
        for n in found
    ]
    if not show(context, args.format, rows, {"ID": "NETWORK ID"}):
        context.table(
            ["NETWORK ID", "NAME", "DRIVER", "SCOPE"],
            [[r["ID"], r["Name"], r["Driver"], r["Scope"]] for r in rows],
        )
    return 0


def add_create(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-d", "--driver", default="bridge")
    add("-o", "--opt", action="append", default=[], metavar="KEY=VALUE")
    add("--subnet", action="append", default=[])
    add("--gateway", action="append", default=[])
    add("--ip-range", action="append", default=[])
    add("--aux-address", action="append", default=[], metavar="NAME=IP")
    add("--internal", action="store_true")
    add("--attachable", action="store_true")
    add("--ipv4", action="store_true", default=True, help="IPv4 addresses (--ipv4=false: none)")
    add("--ipv6", action="store_true")
    add("--label", action="append", default=[], metavar="KEY=VALUE")
    add("--ipam-driver", default="default")
    add("name", metavar="NETWORK")


def run_create(context: Context, args: argparse.Namespace) -> int:
    pools = []
    for index, subnet in enumerate(args.subnet):
        pool: dict[str, Any] = {"subnet": subnet}
        if index < len(args.gateway):
            pool["gateway"] = args.gateway[index]
        if index < len(args.ip_range):
            pool["ip_range"] = args.ip_range[index]
        if index == 0:
            pool["aux_addresses"] = pairs(args.aux_address)
        pools.append(pool)
    network = {
        "key": args.name,
        "name": args.name,
        "driver": args.driver,
        "driver_opts": pairs(args.opt),
        "ipam": pools,
        "internal": args.internal,
        "attachable": args.attachable,
        "enable_ipv6": args.ipv6 or None,
        "enable_ipv4": None if args.ipv4 else False,
        "labels": pairs(args.label),
        "ipam_driver": "" if args.ipam_driver == "default" else args.ipam_driver,
    }
    made = context.client.call("network_create", {"network": network, "labels": pairs(args.label)})
    print(made["id"], file=context.stdout)
    return 0


def add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--format", default="")
    parser.add_argument("refs", nargs="+", metavar="NETWORK")


def run_inspect(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.render.template import render

    names = {c["id"]: c["name"] for c in context.client.call("containers")}
    found = []
    for ref in args.refs:
        n = find(context, ref)
        config = [
            {"Subnet": subnet, **({"Gateway": n["gateways"][i]} if i < len(n["gateways"]) else {})}
            for i, subnet in enumerate(n["subnets"])
        ]
        found.append(
            {
                "Name": n["name"],
                "Id": n["id"],
                "Created": words.rfc3339(n["created"]),
                "Scope": "local",
                "Driver": n["driver"],
                "EnableIPv6": any(":" in subnet for subnet in n["subnets"]),
                "IPAM": {"Driver": "default", "Config": config},
                "Internal": n["internal"],
                "Options": n["options"],
                "Labels": n["labels"],
                "Containers": {
                    cid: {"Name": names.get(cid, ""), "IPv4Address": address}
                    for cid, address in n["containers"].items()
                },
            }
        )
    if args.format and args.format != "json":
        for item in found:
            print(render(args.format, item), file=context.stdout)
    else:
        print(json.dumps(found, indent=4), file=context.stdout)
    return 0


def add_rm(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="no error when there is none")
    parser.add_argument("refs", nargs="+", metavar="NETWORK")


def run_rm(context: Context, args: argparse.Namespace) -> int:
    def remove(ref: str) -> None:
        try:
            context.client.call("network_remove", {"ref": ref})
        except OrchestraError as error:
            if not (args.force and "no such network" in error.brief.lower()):
                raise

    return each(context, args.refs, remove)


def add_prune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="ask nothing")
    parser.add_argument("--filter", action="append", default=[], metavar="KEY=VALUE", help="label, label!")


def run_prune(context: Context, args: argparse.Namespace) -> int:
    from orchestra.cli.verbs.system import confirm, labelled

    confirm(context, "This will remove all networks not used by a container.", force=args.force)
    used = {name for c in context.client.call("containers") for name in c["networks"]}
    removed = []
    for network in context.client.call("networks"):
        if network["name"] in used or network["containers"] or network["name"] in ("bridge", "host", "none"):
            continue
        if not labelled(network["labels"], args.filter):
            continue
        context.client.call("network_remove", {"ref": network["id"]})
        removed.append(network["name"])
    if removed:
        print("\n".join(["Deleted Networks:", *removed]), file=context.stdout)
    return 0


def add_connect(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--alias", action="append", default=[])
    add("--ip", default="")
    add("--ip6", default="")
    add("--link", action="append", default=[], metavar="CONTAINER:ALIAS")
    add("--mac-address", default="")
    add("--link-local-ip", action="append", default=[], metavar="IP")
    add("--driver-opt", action="append", default=[], metavar="KEY=VALUE")
    add("--gw-priority", type=int, default=0, metavar="N")
    add("network", metavar="NETWORK")
    add("ref", metavar="CONTAINER")


def run_connect(context: Context, args: argparse.Namespace) -> int:
    links = {}
    for link in args.link:
        target, _, alias = link.partition(":")
        links[alias or target] = target
    attachment = {
        "aliases": args.alias,
        "ipv4_address": args.ip,
        "ipv6_address": args.ip6,
        "mac_address": args.mac_address,
        "link_local_ips": args.link_local_ip,
        "driver_opts": pairs(args.driver_opt),
        "gw_priority": args.gw_priority,
    }
    network = find(context, args.network)["name"]
    context.client.call(
        "network_connect", {"ref": args.ref, "network": network, "attachment": attachment, "links": links}
    )
    return 0


def add_disconnect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-f", "--force", action="store_true", help="accepted: the state of the container does not matter"
    )
    parser.add_argument("network", metavar="NETWORK")
    parser.add_argument("ref", metavar="CONTAINER")


def run_disconnect(context: Context, args: argparse.Namespace) -> int:
    network = find(context, args.network)["name"]
    context.client.call("network_disconnect", {"ref": args.ref, "network": network, "force": args.force})
    return 0
