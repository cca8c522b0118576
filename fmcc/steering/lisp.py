"""Scheme "fig9", the papers' own: when the controller hears that the service runs at the target, it informs both
data centres' tunnel routers of the EID's new locators, and they do the rest.

The message is an authenticated Map-Notify (RFC 9301 §5.7) with map-version v + 1, retransmitted until acknowledged.
Nothing is sent before RESUMED: the controller's distance is part of the gap, as in the papers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fmcc.steering import Acknowledged, Outcome, Redirect, Repeated
from fmcc.steering.plain import Plain
from fmcc.world import DataCenter
from lispfmc.core.effects import Reject, Send
from lispfmc.core.retransmission import Retransmissions, Schedule
from lispfmc.wire import auth
from lispfmc.wire.address import Endpoint, Ip, Prefix
from lispfmc.wire.messages import EidRecord, Locator, MapNotify, MapNotifyAck

CONTROL_PORT = 4342
TTL_MINUTES = 1440
# A site that cannot be reached for a while must still learn of the move when it comes back.
UNTIL_ACKNOWLEDGED = Schedule(first_s=0.2, longest_s=30.0)


def records_of(eids: tuple[Prefix, ...], rlocs: tuple[Ip, ...], version: int) -> tuple[EidRecord, ...]:
    """The EIDs at `rlocs`, IPv4 locators preferred, as tunnel routers register them."""
    locators = tuple(Locator.of(rloc, priority=1 if len(rloc) == 4 else 2) for rloc in rlocs)
    return tuple(EidRecord.of(eid, locators, ttl_minutes=TTL_MINUTES, map_version=version) for eid in eids)


class Fig9(Plain):
    """Authenticated Map-Notifies to source and target once the service runs at the target."""

    scheme = "fig9"

    def __init__(
        self, sites: Mapping[str, tuple[Ip, ...]], datacenters: Mapping[str, DataCenter], nonces: Iterator[int]
    ) -> None:
        super().__init__()
        self._sites = sites
        self._datacenters = datacenters
        self._datacenter_by_rloc = {rloc: name for name in datacenters for rloc in sites[name]}
        self._nonces = nonces
        # by nonce; at most two of each configured service
        self._pending: dict[int, Acknowledged] = {}
        self._nonces_of: dict[str, list[int]] = {}
        self._exchanges: Retransmissions[int] = Retransmissions()

    def activate(self, redirect: Redirect, now: float) -> list[Send]:
        # an earlier move's notification must not chase this one's: the newest alone is retransmitted
        for nonce in self._nonces_of.pop(redirect.service, []):
            self._forget(nonce)
        # the target first: until it knows, packets that the source forwards have nowhere to go
        return [
            send
            for datacenter in (redirect.target, redirect.source)
            for send in self._notify(redirect, datacenter, now)
        ]

    def commit(self, redirect: Redirect, now: float) -> list[Send]:
        return []  # who has not acknowledged yet is still told

    def acknowledged(self, ack: MapNotifyAck, datagram: bytes, source: Endpoint) -> Outcome:
        """Authenticate an acknowledgement and end the exchange that it answers."""
        datacenter = self._datacenter_by_rloc.get(source.ip)
        if datacenter is None:
            return Reject("unexpected-ack", source, "no data centre has this locator")
        if not auth.verify(ack, datagram, self._datacenters[datacenter].key):
            return Reject("bad-authentication", source, f"Map-Notify-Ack of {datacenter}")
        pending = self._pending.get(ack.nonce)
        if pending is None or pending.datacenter != datacenter:
            return Repeated()
        self._forget(ack.nonce)
        return pending

    def next_deadline(self) -> float | None:
        return self._exchanges.next()

    def expired(self, now: float) -> list[Send]:
        due, _ = self._exchanges.expired(now)
        return due

    def _notify(self, redirect: Redirect, datacenter: str, now: float) -> list[Send]:
        nonce = next(self._nonces)
        records = records_of(redirect.eids, self._sites[redirect.target], redirect.version)
        to = Endpoint(self._sites[datacenter][0], CONTROL_PORT)
        send = Send(MapNotify.of(*records, nonce=nonce), to, self._datacenters[datacenter].key)
        self._pending[nonce] = Acknowledged(redirect.move, redirect.service, datacenter)
        self._nonces_of.setdefault(redirect.service, []).append(nonce)
        return self._exchanges.start(nonce, [send], UNTIL_ACKNOWLEDGED, now)

    def _forget(self, nonce: int) -> None:
        self._pending.pop(nonce, None)
        self._exchanges.acknowledged(nonce)
