"""No firewall: for machines without ``nft``. Networks work, but nothing leads out of them, nothing is
published, and they are isolated only by the lack of routes. The engine shows ``warning`` once."""

from __future__ import annotations

from collections.abc import Sequence

from orchestra.errors import UnsupportedError
from orchestra.network.firewall import Bridge
from orchestra.network.model import Forward

WARNING = "no nft program found: containers cannot reach the outside and networks are not isolated"


class NoFirewall:
    name = "none"

    def sync(self, bridges: Sequence[Bridge], forwards: Sequence[Forward], guarded: Sequence[str]) -> None:
        if any(bridge.internal or not bridge.icc for bridge in bridges):
            raise UnsupportedError(
                "an internal network cannot be kept apart without a firewall",
                hint="install nftables (the `nft` program)",
            )
        if forwards:
            raise UnsupportedError(
                f"cannot publish {forwards[0].port}: no firewall", hint="install nftables (the `nft` program)"
            )

    def remove(self) -> None:
        """Nothing was made."""
