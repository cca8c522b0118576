"""The seam between the tunnel router's decisions and the planes that forward its packets.

A plane reads plain tables that the effects of `xtr.effects` maintain, and reports misses and evidence. The TUN plane
(`tun.py`) is portable and complete.
"""

from __future__ import annotations

from typing import Protocol

from lispfmc.wire.address import Ip, Prefix
from xtr.effects import Drop, Forward


class Evidence(Protocol):
    """What a data plane and the sniffer of the site's interfaces report upwards. Calls must not block."""

    def missed(self, eid: Prefix) -> None:
        """A packet for the host `eid` found no mapping; it is queued. Reported once until the EID is installed."""

    def unknown_source(self, eid: Prefix) -> None:
        """A host of this site sent a packet with a source EID that is not known to be here."""

    def moved_away(self, eid: Prefix, sender: Ip) -> None:
        """The xTR at `sender` still encapsulates to us for `eid`, which has moved (an away entry)."""

    def announced(self, eid: Prefix, interface: str, mac: bytes) -> None:
        """A host showed itself on a site interface: ARP, gratuitous ARP or Neighbour Discovery."""


class DataPlane(Protocol):
    """What every plane does. All calls are synchronous and take effect before they return."""

    def install(self, eid: Prefix, forwarding: Forward | Drop) -> None:
        """Set the forwarding of `eid` and send what was queued for it."""

    def remove(self, eid: Prefix) -> None: ...

    def deliver(self, eid: Prefix, interface: str, mac: bytes) -> None: ...

    def undeliver(self, eid: Prefix) -> None: ...

    def peers(self, eid: Prefix) -> list[Ip]:
        """RLOCs that sent packets to `eid` or received packets from it in the last minute, newest first; bounded."""

    def counters(self) -> dict[str, int]:
        """Packets by what happened to them: "encapsulated", "decapsulated", "reencapsulated", "queued",
        "dropped.<reason>"."""

    def start(self, evidence: Evidence) -> None:
        """Create the devices, routes and sockets, and hook into the running event loop. Raises OSError."""

    def close(self) -> None:
        """Leave nothing behind that black-holes traffic which is not LISP's."""
