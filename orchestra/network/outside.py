"""The host's links as another eye sees them: by pyroute2, for ``orchestra info``.

Never on the start path (importing pyroute2 costs 0.2 s): that speaks netlink by hand.
"""

from __future__ import annotations

from typing import Any


def links() -> list[dict[str, Any]]:
    """name, kind, state and addresses of every link of the host that is up, ours among them."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        addresses: dict[int, list[str]] = {}
        for message in route.get_addr():
            text = f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}"
            addresses.setdefault(message["index"], []).append(text)
        found = []
        for message in route.get_links():
            info = message.get_attr("IFLA_LINKINFO")
            kind = info.get_attr("IFLA_INFO_KIND") if info is not None else "device"
            found.append(
                {
                    "name": message.get_attr("IFLA_IFNAME"),
                    "kind": kind,
                    "state": str(message.get_attr("IFLA_OPERSTATE")).lower(),
                    "addresses": addresses.get(message["index"], []),
                }
            )
    return [link for link in found if link["kind"] != "veth" and link["addresses"]]
