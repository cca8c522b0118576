"""The tunnel router's core: messages, misses and evidence in, effects out.

It composes the map-cache, resolution, presence, registration and moves, and dispatches to them. A data packet never
enters it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lispfmc.wire.address import Endpoint, Ip, Prefix
from lispfmc.wire.messages import Message
from xtr.effects import XtrEffect
from xtr.settings import XtrSettings


class Router:
    """One xTR's decisions. `peers` is the data plane's list of RLOCs that talked to an EID lately."""

    def __init__(
        self,
        settings: XtrSettings,
        nonces: Iterator[int],
        request_nonces: Iterator[int],
        peers: Callable[[Prefix], list[Ip]],
    ) -> None:
        raise NotImplementedError

    def start(self, now: float) -> list[XtrEffect]:
        """Begin: register the fixed prefixes."""
        raise NotImplementedError

    def received(self, message: Message, datagram: bytes, source: Endpoint, now: float) -> list[XtrEffect]:
        """One control message from the network."""
        raise NotImplementedError

    def next_deadline(self) -> float | None:
        """When `expired` wants to be called."""
        raise NotImplementedError

    def expired(self, now: float) -> list[XtrEffect]:
        """Work off what is due."""
        raise NotImplementedError

    def missed(self, eid: Prefix, now: float) -> list[XtrEffect]:
        """The data plane has no mapping for the host `eid` and holds its packets."""
        raise NotImplementedError

    def announced(self, eid: Prefix, interface: str, mac: bytes, now: float) -> list[XtrEffect]:
        """The host `eid` showed itself on a site interface (ARP, gratuitous ARP, Neighbour Discovery)."""
        raise NotImplementedError

    def unknown_source(self, eid: Prefix, now: float) -> list[XtrEffect]:
        """A packet left the site with a source EID that is not known to be here."""
        raise NotImplementedError

    def moved_away(self, eid: Prefix, sender: Ip, now: float) -> list[XtrEffect]:
        """The xTR at `sender` still encapsulates to us for `eid`, which has left."""
        raise NotImplementedError

    def map_cache(self, now: float) -> list[dict[str, object]]:
        """The map-cache as the HTTP API shows it."""
        raise NotImplementedError

    def hosts(self, now: float) -> list[dict[str, object]]:
        """The hosts that are here, as the HTTP API shows them."""
        raise NotImplementedError
