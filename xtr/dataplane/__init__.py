"""The seam between the tunnel router's decisions and the planes that forward its packets.

A plane reads plain tables that the effects of `xtr.effects` maintain, and reports misses and evidence. The TUN plane
(`tun.py`) is portable and complete; the kernel plane (`ebpf.py`) accelerates what is usual. Every Instance-ID is a
world of its own: an interface belongs to one of them, and `Prefix.iid` says which one a call is about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from lispfmc.core.plans import Plan
from lispfmc.wire.address import Ip, Prefix
from xtr.effects import Forwarding
from xtr.roles.peer import Await, Mark
from xtr.roles.state import Switch


class Evidence(Protocol):
    """What a data plane and the sniffer of the site's interfaces report upwards. Calls must not block."""

    def missed(self, eid: Prefix) -> None:
        """A packet for the host `eid` found no mapping; it is queued. Reported once until the EID is installed."""

    def unknown_source(self, eid: Prefix) -> None:
        """A host of this site sent a packet with a source EID that is not known to be here."""

    def moved_away(self, eid: Prefix, sender: Ip) -> None:
        """The xTR at `sender` still encapsulates to us for `eid`, which has moved (an away entry)."""

    def announced(self, eid: Prefix, interface: str, mac: bytes) -> None:
        """A host showed itself on a site interface: ARP, gratuitous ARP, Neighbour Discovery or DHCP."""

    def sought(self, eid: Prefix, interface: str, asker: Ip, mac: bytes) -> None:
        """The host `asker` at `mac` on a site interface wants to know the MAC address of `eid`."""

    def mac_announced(self, mac: bytes, interface: str, iid: int) -> None:
        """A MAC address showed itself without saying which EIDs it has (RARP, as hypervisors send after a move)."""

    def outdated(self, eid: Prefix, sender: Ip) -> None:
        """The xTR at `sender` encapsulates for our `eid` by an older map-version than ours (RFC 9302 §7.1)."""

    def newer_source(self, eid: Prefix) -> None:
        """A packet from `eid` carries a newer map-version than our mapping of it (RFC 9302 §7.2)."""

    def version(self, eid: Prefix) -> int | None:
        """The map-version of `eid`, which we register or have in the map-cache; None when it is in neither."""

    def worked_off(self, eids: tuple[Prefix, ...], packets: Mapping[str, int]) -> None:
        """What was held or kept for these EIDs, which move together, is dealt with; its packets so far."""


class DataPlane(Protocol):
    """What every plane does. All calls are synchronous and take effect before they return."""

    def install(self, eid: Prefix, forwarding: Forwarding) -> None:
        """Set the forwarding of `eid` and send what was queued for it."""

    def remove(self, eid: Prefix) -> None: ...

    def deliver(self, eid: Prefix, interface: str, mac: bytes) -> None: ...

    def undeliver(self, eid: Prefix) -> None: ...

    def switch(self, switch: Switch) -> None:
        """Treat packets for the EIDs of a move in another way, once what is held was dealt with, in order.

        From then on `deliver` and `undeliver` only say where the host is; the switch decides what it gets.
        """

    def release(self, plan: Plan) -> None:
        """The move has ended: `deliver` and `install` alone say again what happens to packets for its EIDs."""

    def mark(self, mark: Mark) -> None:
        """Send the end marker of a move, after everything that was sent before."""

    def await_markers(self, waited: Await) -> None:
        """What these xTRs send directly to a move's EIDs is held until their end markers come, or a moment is over."""

    def moved(self, eids: tuple[Prefix, ...]) -> dict[str, int]:
        """Packets of the last move of these EIDs: "held", "forwarded", "replayed", "duplicate", "lost.<reason>"."""

    def peers(self, eid: Prefix) -> list[Ip]:
        """RLOCs that sent packets to `eid` or received packets from it in the last minute, newest first; bounded."""

    def heard(self, eid: Prefix) -> float | None:
        """When a packet last came from the host `eid` of this site (time.monotonic); None: not lately."""

    def used(self, eid: Prefix) -> float | None:
        """When a packet last went by the entry of exactly this prefix (time.monotonic); None: not lately."""

    def counters(self) -> dict[str, int]:
        """Packets by what happened to them: "encapsulated", "decapsulated", "reencapsulated", "queued",
        "dropped.<reason>"."""

    def start(self, evidence: Evidence) -> None:
        """Create the devices, routes and sockets, and hook into the running event loop. Raises OSError."""

    def close(self) -> None:
        """Leave nothing behind that black-holes traffic which is not LISP's."""
