"""The tunnel router's core: messages, misses and evidence in, effects out.

It composes the map-cache, resolution, presence, registration and moves, and dispatches to them. A data packet never
enters it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from lispfmc.core.effects import Reject, Send
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_text
from lispfmc.wire.messages import Action, Ecm, MapNotify, MapNotifyAck, MapReply, MapRequest, Message
from lispfmc.wire.moves import MoveMessage
from xtr.answering import Answering
from xtr.effects import Deliver, Forward, Native, XtrEffect
from xtr.forwarding import Forwarding
from xtr.informer import Informer
from xtr.moves import Moves
from xtr.ownership import Ownership
from xtr.presence import Activation, Presence
from xtr.priority import ChangePriority
from xtr.proxying import Proxying
from xtr.registrar import Registrar
from xtr.relocations import Relocations
from xtr.resolution import Resolution
from xtr.roles import Role
from xtr.senders import Role as SenderRole
from xtr.senders import Senders
from xtr.settings import XtrSettings
from xtr.subscribing import Subscribing


def _never(_: Prefix) -> float | None:
    return None


class Router:
    """One xTR's decisions. `peers`, `heard` and `used` are what the data plane knows of its packets."""

    def __init__(
        self,
        settings: XtrSettings,
        nonces: Iterator[int],
        request_nonces: Iterator[int],
        peers: Callable[[Prefix], list[Ip]],
        *,
        heard: Callable[[Prefix], float | None] = _never,
        used: Callable[[Prefix], float | None] = _never,
    ) -> None:
        self._settings = settings
        self._used = used
        self._senders = Senders(settings)
        self._forwarding = Forwarding(settings, request_nonces, used)
        self._presence = Presence(settings, heard)
        self._registrar = Registrar(settings, nonces)
        self._subscribing = subscribing = Subscribing(settings, nonces, self._sent_to)
        self._resolution = Resolution(
            settings, request_nonces, self._forwarding, self._presence.__contains__, subscribing
        )
        self._informer = Informer(settings, nonces, request_nonces, self._senders, self._forwarding)
        self._answering = Answering(settings, self._registrar)
        self._proxying = Proxying(settings, self._presence, self._forwarding)
        self._ownership = Ownership(
            settings,
            forwarding=self._forwarding,
            presence=self._presence,
            registrar=self._registrar,
            resolution=self._resolution,
            informer=self._informer,
            proxying=self._proxying,
            peers=peers,
        )
        self._priority = ChangePriority(
            settings, ownership=self._ownership, registrar=self._registrar, informer=self._informer
        )
        self._relocations = Relocations(
            settings,
            nonces,
            senders=self._senders,
            forwarding=self._forwarding,
            presence=self._presence,
            registrar=self._registrar,
            proxying=self._proxying,
            ownership=self._ownership,
            peers=peers,
            priority=self._priority,
        )
        self._moves = Moves(
            forwarding=self._forwarding,
            presence=self._presence,
            registrar=self._registrar,
            resolution=self._resolution,
            informer=self._informer,
            proxying=self._proxying,
            ownership=self._ownership,
            relocations=self._relocations,
            priority=self._priority,
        )
        self._timed = (
            self._forwarding,
            self._registrar,
            self._resolution,
            self._informer,
            self._moves,
            self._proxying,
            self._relocations,
        )

    def start(self, now: float) -> list[XtrEffect]:
        """Begin: register the fixed prefixes."""
        return self._registrar.start([self._settings.placed(prefix) for prefix in self._settings.prefixes], now)

    def restored(self, roles: Iterable[Role], now: float) -> list[XtrEffect]:
        """After a restart, before anything is received: our part in lossless moves, as it was remembered."""
        return self._relocations.restored(roles, now)

    def stop(self, now: float) -> list[XtrEffect]:
        """End: withdraw what is registered, so that nobody sends to us for three minutes more."""
        return self._registrar.stop(now)

    def received(self, message: Message, datagram: bytes, source: Endpoint, now: float) -> list[XtrEffect]:
        """One control message from the network."""
        match message:
            case MapReply():
                return self._resolution.replied(message, datagram, source, now)
            case MapNotify():
                return self._notified(message, datagram, source, now)
            case MapNotifyAck():
                return self._acknowledged(message, datagram, source)
            case MoveMessage():
                return self._relocations.received(message, datagram, source, now)
            case MapRequest() if message.smr:
                return self._moves.solicited(message, source, now)
            case MapRequest():
                return self._asked(message, source, source.port, now)
            case Ecm(message=MapRequest(smr=False, probe=False) as request, source_port=port):
                # RFC 9301 §8.3: a Map-Server passes on what it does not answer for us
                return self._asked(request, source, port, now)
            case _:
                return [Reject("unexpected-message", source, type(message).__name__)]

    def next_deadline(self) -> float | None:
        """When `expired` wants to be called."""
        return min((at for part in self._timed if (at := part.next_deadline()) is not None), default=None)

    def expired(self, now: float) -> list[XtrEffect]:
        """Work off what is due."""
        return [effect for part in self._timed for effect in part.expired(now)]

    def version(self, eid: Prefix) -> int | None:
        """The map-version of an EID that we register or have a mapping of; 0 is none."""
        ours = self._registrar.mapping(eid)
        if ours is not None:
            return ours.map_version
        mapping = self._forwarding.cache.lookup(eid)
        return mapping.version if mapping else None

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
        return self._moves.unknown_source(eid, now)

    def sought(self, eid: Prefix, interface: str, asker: Ip, mac: bytes, now: float) -> list[XtrEffect]:
        """A host of the site looks for the MAC address of `eid`."""
        spoke = self._moves.asked(Prefix.host(asker, eid.iid), interface, mac, now)
        return [*spoke, *self._proxying.sought(eid, interface, asker, mac, now)]

    def mac_announced(self, mac: bytes, interface: str, iid: int, now: float) -> list[XtrEffect]:
        """A machine showed its MAC address only (RARP)."""
        return self._moves.mac_announced(mac, interface, iid, now)

    def outdated(self, eid: Prefix, sender: Ip, now: float) -> list[XtrEffect]:
        """The xTR at `sender` encapsulates for our `eid` by an older map-version than ours."""
        return self._ownership.outdated(eid, sender, now)

    def newer_source(self, eid: Prefix, now: float) -> list[XtrEffect]:
        """A packet from `eid` carries a newer map-version than our mapping of it."""
        return self._resolution.ask(eid, now, smr_invoked=True)

    def moved_away(self, eid: Prefix, sender: Ip, now: float) -> list[XtrEffect]:
        """The xTR at `sender` still encapsulates to us for `eid`, which has left."""
        return self._ownership.moved_away(eid, sender, now)

    def worked_off(self, eids: tuple[Prefix, ...], packets: Mapping[str, int], now: float) -> list[XtrEffect]:
        """The data plane has dealt with what it held or kept for a move."""
        return self._relocations.worked_off(eids, packets, now)

    def moves(self, packets: Callable[[tuple[Prefix, ...]], dict[str, int]], now: float) -> list[dict[str, object]]:
        """Our part in lossless moves, as the HTTP API shows it; `packets` counts a move's packets."""
        return self._relocations.view(packets, now)

    def measured(self) -> dict[Ip, tuple[float, float]]:
        """The last round-trip time to every locator that answers probes, and when it was measured."""
        return self._forwarding.locators.measured()

    @property
    def unacknowledged(self) -> int:
        """EID-Prefixes whose last Map-Register some Map-Server has not acknowledged."""
        return self._registrar.unacknowledged

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
                        {
                            "rloc": ip_text(rloc),
                            "priority": locator.priority,
                            "weight": locator.weight,
                            "up": rloc not in self._forwarding.locators.down,
                            "rtt_ms": _ms(self._forwarding.locators.rtt_s(rloc)),
                        }
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

    def _sent_to(self, eid: Prefix) -> float | None:
        """When a packet last went by the mapping that `eid` uses."""
        mapping = self._forwarding.cache.lookup(eid)
        return self._used(mapping.eid) if mapping else None

    def _asked(self, request: MapRequest, source: Endpoint, reply_port: int, now: float) -> list[XtrEffect]:
        if request.no_reply:
            return []
        effects = self._answering.asked(request, source, reply_port, now)
        eid = request.records[0].prefix if request.records else None
        if request.probe and eid is not None:
            effects += self._ownership.moved_away(eid, source.ip, now)  # if it has left, the prober does not know
        return effects

    def _notified(self, notify: MapNotify, datagram: bytes, source: Endpoint, now: float) -> list[XtrEffect]:
        publisher = self._subscribing.keys.sender(notify, datagram, source)
        sender = publisher or self._senders.authenticate(notify, datagram, source)
        if isinstance(sender, Reject):
            return [sender]
        if sender.role is SenderRole.MAP_SERVER:
            answer = self._registrar.acknowledged(notify, source.ip, now)
            if answer is not None:
                effects, contested = answer
                for record in contested:
                    effects += self._moves.contested(record, sender, source, now)
                return effects
        if sender.role is SenderRole.PUBLISHER:
            effects = self._published(notify, source, now)
            if effects:
                return [*effects, Send(MapNotifyAck.of(notify), source, sender.key)]
        return self._moves.notified(notify, sender, source, now)

    def _published(self, notify: MapNotify, source: Endpoint, now: float) -> list[XtrEffect]:
        """The answer to a subscription, or its end; [] for every other publication."""
        answered = self._resolution.notified(notify, source, now)
        if answered is not None:
            return answered
        ended = [
            record.prefix
            for record in notify.records
            if record.prefix is not None and not record.locators and record.action == Action.DROP_AUTH_FAILURE
        ]
        return [effect for eid in ended for effect in self._resolution.unsubscribed(eid, "map-server", now)]

    def _acknowledged(self, ack: MapNotifyAck, datagram: bytes, source: Endpoint) -> list[XtrEffect]:
        sender = self._senders.authenticate(ack, datagram, source)
        if isinstance(sender, Reject):
            return [sender]
        self._informer.acknowledged(ack, source)
        return []


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
