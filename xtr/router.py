"""The tunnel router's core: messages, misses and evidence in, effects out.

It composes the map-cache, resolution, presence, registration and moves, and dispatches to them. A data packet never
enters it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lispfmc.core.effects import Reject
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_text
from lispfmc.wire.messages import MapNotify, MapNotifyAck, MapReply, MapRequest, Message
from xtr.effects import Deliver, Forward, Native, XtrEffect
from xtr.forwarding import Forwarding
from xtr.informer import Informer
from xtr.moves import Moves
from xtr.presence import Activation, Presence
from xtr.registrar import Registrar
from xtr.resolution import Resolution
from xtr.senders import Role, Senders
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
        self._settings = settings
        self._senders = Senders(settings)
        self._forwarding = Forwarding(settings)
        self._presence = Presence(settings)
        self._registrar = Registrar(settings, nonces)
        self._resolution = Resolution(settings, request_nonces, self._forwarding, self._presence.__contains__)
        self._informer = Informer(settings, nonces, request_nonces, self._senders, self._forwarding)
        self._moves = Moves(
            forwarding=self._forwarding,
            presence=self._presence,
            registrar=self._registrar,
            resolution=self._resolution,
            informer=self._informer,
            peers=peers,
        )
        self._timed = (self._forwarding, self._registrar, self._resolution, self._informer)

    def start(self, now: float) -> list[XtrEffect]:
        """Begin: register the fixed prefixes."""
        return self._registrar.start([self._settings.placed(prefix) for prefix in self._settings.prefixes], now)

    def received(self, message: Message, datagram: bytes, source: Endpoint, now: float) -> list[XtrEffect]:
        """One control message from the network."""
        match message:
            case MapReply():
                return self._resolution.replied(message, source, now)
            case MapNotify():
                return self._notified(message, datagram, source, now)
            case MapNotifyAck():
                return self._acknowledged(message, datagram, source)
            case MapRequest() if message.smr:
                return self._moves.solicited(message, source, now)
            case _:
                return [Reject("unexpected-message", source, type(message).__name__)]

    def next_deadline(self) -> float | None:
        """When `expired` wants to be called."""
        return min((at for part in self._timed if (at := part.next_deadline()) is not None), default=None)

    def expired(self, now: float) -> list[XtrEffect]:
        """Work off what is due."""
        return [effect for part in self._timed for effect in part.expired(now)]

    def missed(self, eid: Prefix, now: float) -> list[XtrEffect]:
        """The data plane has no mapping for the host `eid` and holds its packets."""
        host = self._presence.get(eid)
        if host is not None:
            return [Deliver(eid, host.interface, host.mac)]
        mapping = self._forwarding.cache.lookup(eid)
        if mapping is not None:  # it came while the miss was on its way
            return [self._forwarding.install(mapping)]
        # a range of ours: it may be here and silent, and packets that came for it by the tunnel wait for that
        ours = self._presence.activation(eid) is not Activation.FOREIGN
        probes = self._presence.probe(eid, now) if ours else []
        return [*probes, *self._resolution.ask(eid, now)]

    def announced(self, eid: Prefix, interface: str, mac: bytes, now: float) -> list[XtrEffect]:
        """The host `eid` showed itself on a site interface (ARP, gratuitous ARP, Neighbour Discovery)."""
        return self._moves.announced(eid, interface, mac, now)

    def unknown_source(self, eid: Prefix, now: float) -> list[XtrEffect]:
        """A packet left the site with a source EID that is not known to be here."""
        return [] if eid in self._presence else self._presence.probe(eid, now)

    def moved_away(self, eid: Prefix, sender: Ip, now: float) -> list[XtrEffect]:
        """The xTR at `sender` still encapsulates to us for `eid`, which has left."""
        return self._moves.moved_away(eid, sender, now)

    def map_cache(self, now: float) -> list[dict[str, object]]:
        """The map-cache as the HTTP API shows it."""
        items: list[dict[str, object]] = []
        for mapping in self._forwarding.cache:
            forwarding = self._forwarding.install(mapping).forwarding
            locators = [locator for locator in mapping.locators if isinstance(locator.address, bytes)]
            items.append(
                {
                    "eid": str(mapping.eid),
                    "iid": mapping.eid.iid,
                    "state": "forward"
                    if isinstance(forwarding, Forward)
                    else "native"
                    if isinstance(forwarding, Native) or forwarding.native
                    else "drop",
                    "locators": [
                        {"rloc": ip_text(rloc), "priority": locator.priority, "weight": locator.weight}
                        for locator in locators
                        if isinstance(rloc := locator.address, bytes)
                    ],
                    "version": mapping.version,
                    "ttl_s": round(mapping.expires - now, 3),
                    "age_s": round(now - mapping.learned, 3),
                    "source": mapping.source,
                    "away": mapping.away,
                }
            )
        return items

    def hosts(self, now: float) -> list[dict[str, object]]:
        """The hosts that are here, as the HTTP API shows them."""
        return [
            {
                "eid": str(host.eid),
                "iid": host.eid.iid,
                "interface": host.interface,
                "mac": host.mac.hex(":"),
                "since_s": round(now - host.since, 3),
                "registered": self._registrar.version(host.eid) is not None,
                "version": self._registrar.version(host.eid) or 0,
            }
            for host in self._presence
        ]

    def _notified(self, notify: MapNotify, datagram: bytes, source: Endpoint, now: float) -> list[XtrEffect]:
        sender = self._senders.authenticate(notify, datagram, source)
        if isinstance(sender, Reject):
            return [sender]
        if sender.role is Role.MAP_SERVER:
            answer = self._registrar.acknowledged(notify, source.ip, now)
            if answer is not None:
                effects, contested = answer
                for record in contested:
                    effects += self._moves.contested(record, sender, source, now)
                return effects
        return self._moves.notified(notify, sender, source, now)

    def _acknowledged(self, ack: MapNotifyAck, datagram: bytes, source: Endpoint) -> list[XtrEffect]:
        sender = self._senders.authenticate(ack, datagram, source)
        if isinstance(sender, Reject):
            return [sender]
        self._informer.acknowledged(ack, source)
        return []
