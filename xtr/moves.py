"""EIDs that come and go: arrival and departure of hosts, Map-Notifies, and who is told.

What a Map-Notify means is read in `xtr.notices`; here it takes effect, whole or not at all, and is acknowledged.
The rules of ownership: a Map-Server's word is taken unless our map-version is newer; a host that answers after all
comes back by its own evidence and registers anew; a controller moves only what it is configured to move.
"""

from __future__ import annotations

from collections.abc import Callable

from lispfmc.core.effects import Emit, Reject, Send
from lispfmc.core.mapcache import Mapping, ttl_s
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_text
from lispfmc.wire.messages import EidRecord, MapNotify, MapNotifyAck, MapRequest, prefix_of
from xtr.damping import Damping
from xtr.effects import XtrEffect
from xtr.forwarding import Forwarding
from xtr.informer import Informer
from xtr.notices import Meaning, meaning, rlocs_of
from xtr.presence import Activation, Presence
from xtr.proxying import Proxying
from xtr.registrar import Registrar
from xtr.replay import Freshness, Replays
from xtr.resolution import Resolution
from xtr.senders import Role, Sender

CONTRADICTION_S = 3.0  # a host that answers so soon after we were told that it left was here all the time
MOST_DEPARTED = 65_536  # the oldest is forgotten: its away entry goes on until it expires


class Moves:
    """The parts of the router that a move touches, and the EIDs that have left."""

    def __init__(
        self,
        *,
        forwarding: Forwarding,
        presence: Presence,
        registrar: Registrar,
        resolution: Resolution,
        informer: Informer,
        proxying: Proxying,
        peers: Callable[[Prefix], list[Ip]],
    ) -> None:
        self._forwarding = forwarding
        self._presence = presence
        self._registrar = registrar
        self._resolution = resolution
        self._informer = informer
        self._proxying = proxying
        self._peers = peers
        self._replays = Replays()
        self._departed: dict[Prefix, EidRecord] = {}
        self._left: dict[Prefix, float] = {}
        self._damping = Damping()

    # what `xtr.notices` reads

    def registered(self, eid: Prefix) -> int | None:
        return self._registrar.version(eid)

    def departed(self, eid: Prefix) -> int | None:
        record = self._departed.get(eid)
        return record.map_version if record else None

    def present(self, eid: Prefix) -> bool:
        return eid in self._presence

    def in_range(self, eid: Prefix) -> bool:
        return self._presence.activation(eid) is not Activation.FOREIGN

    def mapping(self, eid: Prefix) -> Mapping | None:
        return self._forwarding.cache.lookup(eid)

    def ours(self, rlocs: tuple[Ip, ...]) -> bool:
        return self._forwarding.ours(rlocs)

    # what happens

    def announced(self, eid: Prefix, interface: str, mac: bytes, now: float) -> list[XtrEffect]:
        """A host showed itself on a site interface."""
        was_here = eid in self._presence
        if not was_here and self._presence.activation(eid) is Activation.PRESENCE:
            taken, alarms = self._damping.arrives(eid, now)
            if not taken:
                return [*alarms]
        effects = self._presence.seen(eid, interface, mac, now)
        if was_here or eid not in self._presence:
            return effects
        effects += self._contradiction(eid, mac, now)
        self._resolution.cancel(eid)
        self._informer.stop(eid)
        effects += self._forwarding.forget(eid, "host here")
        activation = self._presence.activation(eid)
        if activation is Activation.PRESENCE:
            self._departed.pop(eid, None)
            effects += self._registrar.add(eid, 0, now)
        elif activation is Activation.CONTROLLER and self._first_at_home(eid):
            effects += self._registrar.add(eid, 0, now)
        return effects

    def mac_announced(self, mac: bytes, now: float) -> list[XtrEffect]:
        """A machine showed itself without its EIDs: those that it had when it was here last are asked."""
        return [effect for eid in self._presence.with_mac(mac) for effect in self._presence.probe(eid, now)]

    def next_deadline(self) -> float | None:
        deadlines = (self._presence.next_deadline(), self._damping.next_deadline())
        return min((at for at in deadlines if at is not None), default=None)

    def expired(self, now: float) -> list[XtrEffect]:
        """Silent hosts are asked, and given up; those that were held off are asked again."""
        effects, given_up = self._presence.expired(now)
        for eid in given_up:
            # a service that is being moved stands still for a while: its controller says when it has gone
            if self._presence.activation(eid) is not Activation.CONTROLLER:
                effects += self._presence.lost(eid, "silent", now)
                effects += self._proxying.left(eid)
                effects += self._registrar.withdraw([eid], now)
        for eid in self._damping.expired(now):
            effects += self._presence.probe(eid, now)
        return effects

    def _contradiction(self, eid: Prefix, mac: bytes, now: float) -> list[XtrEffect]:
        """We were just told that the host left, and here it is: once is a quick return, again and again an alarm."""
        record, left = self._departed.get(eid), self._left.pop(eid, None)
        if record is None or left is None or now - left > CONTRADICTION_S or self._damping.count(eid, now) < 3:
            return []
        there = [ip_text(rloc) for rloc in rlocs_of(record)]
        return [Emit("host.at-two-sites", {"eid": str(eid), "mac": mac.hex(":"), "rlocs": there})]

    def _first_at_home(self, eid: Prefix) -> bool:
        # a service that left is back only when its controller says so: the epoch of the move is the controller's
        known = eid in self._departed or self._registrar.version(eid) is not None
        return self._presence.at_home(eid) and not known

    def outdated(self, eid: Prefix, sender: Ip, now: float) -> list[XtrEffect]:
        """The xTR at `sender` encapsulates for `eid` of ours by an older map-version (RFC 9302 §7.1)."""
        record = self._registrar.mapping(eid)
        return self._informer.evidence(record, eid, sender, now) if record is not None else []

    def moved_away(self, eid: Prefix, sender: Ip, now: float) -> list[XtrEffect]:
        """A packet for `eid` came from the xTR at `sender`, and `eid` has left."""
        record = self._departed.get(eid) or self._elsewhere(eid, now)
        if record is None or eid in self._presence:
            return []
        return self._informer.evidence(record, eid, sender, now)

    def _elsewhere(self, eid: Prefix, now: float) -> EidRecord | None:
        """Where an EID that may be here is instead, by the mapping that we use: a restart forgot that it departed."""
        mapping = self.mapping(eid)
        ours = self.in_range(eid) and eid.is_host
        if not ours or mapping is None or not mapping.rlocs or self.ours(mapping.rlocs):
            return None
        if self._registrar.version(eid) is not None:
            return None  # it came to us, whatever a less-specific mapping says
        # the host alone: a peer replaces the entry that it sends by; and for as long as ours holds
        minutes = max(1, int((mapping.expires - now) / 60))
        return EidRecord.of(eid, mapping.locators, ttl_minutes=minutes, map_version=mapping.version)

    def notified(self, notify: MapNotify, sender: Sender, source: Endpoint, now: float) -> list[XtrEffect]:
        """An authenticated Map-Notify that acknowledges no registration."""
        reflected = self._informer.reflected(notify, source) if sender.role is Role.PEER else None
        if reflected:
            return [reflected]
        news: list[tuple[Prefix, EidRecord, Meaning]] = []
        for record in notify.records:
            eid = record.prefix
            if eid is None:
                return [Reject("unusable-eid", source)]
            freshness = self._replays.freshness(sender.key, eid, notify.nonce)
            if freshness is Freshness.OLD:
                return [Reject("replayed-nonce", source, str(eid))]
            if freshness is Freshness.REPEATED:
                continue  # our acknowledgement was lost, or this is its copy
            what = meaning(record, eid, sender, source, self)
            if isinstance(what, str):
                return [Reject(what, source, f"{eid} from a {sender.role.value}")]
            news.append((eid, record, what))
        effects: list[XtrEffect] = []
        for eid, record, what in news:
            self._replays.accept(sender.key, eid, notify.nonce)
            effects += self._apply(eid, record, what, sender, now)
        return [*effects, Send(MapNotifyAck.of(notify), source, sender.key)]

    def contested(self, record: EidRecord, sender: Sender, source: Endpoint, now: float) -> list[XtrEffect]:
        """The answer to our registration names another owner."""
        eid = record.prefix
        if eid is None:
            return []
        what = meaning(record, eid, sender, source, self)
        if isinstance(what, str):
            return [Reject(what, source, f"{eid} in the answer to a registration")]
        return self._apply(eid, record, what, sender, now)

    def solicited(self, request: MapRequest, source: Endpoint, now: float) -> list[XtrEffect]:
        """An SMR: unauthenticated, so all it can do is to make us ask the mapping system (RFC 9301 §6.1)."""
        host_bits = {4: 32, 16: 128}
        address = request.source_eid
        ip = address if isinstance(address, bytes) else getattr(address, "ip", None)
        eid = prefix_of(address, host_bits[len(ip)]) if ip else None
        if eid is None:
            return [Reject("smr-without-eid", source)]
        mapping = self._forwarding.cache.lookup(eid)
        if mapping is None or eid in self._presence:
            return [Reject("smr-for-unused-eid", source, str(eid))]
        if self._resolution.is_open(eid):
            return [Reject("rate-limited", source, f"SMR for {eid}, which is being asked for")]
        effects = self._resolution.ask(eid, now, smr_invoked=True)
        if not self._resolution.is_open(eid):
            return [Reject("rate-limited", source, f"SMR for {eid}")]
        return [Emit("smr.received", {"eid": str(eid), "sender": ip_text(source.ip)}), *effects]

    def _apply(self, eid: Prefix, record: EidRecord, what: Meaning, sender: Sender, now: float) -> list[XtrEffect]:
        match what:
            case Meaning.KNOWN:
                return []
            case Meaning.DEPARTED:
                return self._depart(eid, record, sender, now)
            case Meaning.ARRIVED:
                return self._arrive(eid, record, now)
            case Meaning.HELD:
                version = self._registrar.version(eid) or 0
                refused = Emit("registration.refused", {"eid": str(eid), "version": version, "cause": "older owner"})
                return [refused, *self._registrar.add(eid, version, now)]
            case Meaning.REMOVED:
                return self._forwarding.forget(eid, "withdrawn")
            case Meaning.LEARNED:
                return self._learn(eid, record, sender, now)

    def _depart(self, eid: Prefix, record: EidRecord, sender: Sender, now: float) -> list[XtrEffect]:
        before = self._departed.pop(eid, None)
        was_ours = eid in self._presence or self._registrar.version(eid) is not None
        self._departed[eid] = record
        if eid in self._presence:
            self._left[eid] = now
        for table in (self._departed, self._left):
            if len(table) > MOST_DEPARTED:
                del table[next(iter(table))]
        self._resolution.cancel(eid)
        # first the way to its new place, then the end of local delivery: no packet finds neither
        effects = self._learn(eid, record, sender, now, away=True)
        was_here = eid in self._presence
        effects += self._presence.lost(eid, f"notified by {sender.role.value}", now)
        effects += self._proxying.left(eid) if was_here else []
        self._registrar.drop(eid)
        moved = before is None or rlocs_of(before) != rlocs_of(record)
        if was_ours or moved:
            there = [ip_text(rloc) for rloc in rlocs_of(record)]
            effects.append(Emit("away.installed", {"eid": str(eid), "rlocs": there, "version": record.map_version}))
            effects += self._informer.inform(record, eid, self._peers(eid), now)
        if was_ours and self._presence.activation(eid) is Activation.PRESENCE:
            # It may have come back while the notify was on its way: if it answers, that evidence is the newer one.
            effects += self._presence.probe(eid, now)
        return effects

    def _arrive(self, eid: Prefix, record: EidRecord, now: float) -> list[XtrEffect]:
        self._departed.pop(eid, None)
        self._resolution.cancel(eid)
        self._informer.stop(eid)
        effects = self._forwarding.forget(eid, "adopted")
        effects += self._registrar.add(eid, record.map_version, now)
        effects.append(Emit("host.adopted", {"eid": str(eid), "version": record.map_version}))
        if eid not in self._presence:
            effects += self._presence.probe(eid, now)
        return effects

    def _learn(
        self, eid: Prefix, record: EidRecord, sender: Sender, now: float, *, away: bool = False
    ) -> list[XtrEffect]:
        before = self._forwarding.cache.get(eid)
        if eid in self._departed:
            away = True
            self._departed[eid] = record
        return self._forwarding.learn(
            Mapping(
                eid,
                record.locators,
                record.action,
                record.map_version,
                sender.role.value,
                now,
                now + ttl_s(record),
                away=away or (before is not None and before.away),
            )
        )
