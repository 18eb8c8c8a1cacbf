"""Who asks, where proxies stand between: only those that the settings name are believed."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

FORWARDED_FOR = b"x-forwarded-for"
TRACES = frozenset(
    (
        *(FORWARDED_FOR, b"forwarded", b"via", b"x-real-ip", b"x-forwarded-host"),
        *(b"x-forwarded-proto", b"x-forwarded-port", b"x-forwarded-server"),
        *(b"x-client-ip", b"x-cluster-client-ip", b"cf-connecting-ip", b"true-client-ip"),
    )
)
"""Headers that a proxy leaves behind; no browser and no program of this machine sends them."""
UNKNOWN = "unknown"


class Proxies:
    """The proxies whose `X-Forwarded-For` is believed, by address or network."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks: Sequence[Network] = tuple(
            ipaddress.ip_network(network, strict=False) for network in networks
        )
        self.trusts = lru_cache(maxsize=1024)(self._trusts)

    def _trusts(self, address: str) -> bool:
        """Whether what this address says of others is believed."""
        found = _parsed(address)
        return found is not None and any(found in network for network in self._networks)

    def caller(self, scope: Any) -> str:
        """The address of who asks: the peer, or the last one before it that is no proxy of ours.
        What stands further left in `X-Forwarded-For` anybody may have written."""
        client = scope.get("client")
        address: str = client[0] if client else ""
        if not self._networks or not self.trusts(address):
            return address
        chain = [
            part.strip()
            for name, value in scope["headers"]
            if name == FORWARDED_FOR
            for part in value.decode("latin-1").split(",")
        ]
        for part in reversed(chain):
            found = _parsed(part)
            if found is None:
                return UNKNOWN
            address = str(found)
            if not self.trusts(address):
                break
        return address

    def leads_beyond(self, scope: Any) -> bool:
        """Whether a request came through a proxy, and not surely from this machine: what listens on
        loopback alone is reached by everybody who reaches a proxy here."""
        names = {name for name, _ in scope["headers"]} & TRACES
        if not names:
            return False
        client = scope.get("client")
        if FORWARDED_FOR not in names or not self.trusts(client[0] if client else ""):
            return True
        found = _parsed(self.caller(scope))
        return found is None or not found.is_loopback


def _parsed(text: str) -> Address | None:
    """An address, perhaps with a port or in brackets; None for anything else."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found
