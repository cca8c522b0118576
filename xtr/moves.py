"""EIDs that come and go: arrival and departure of hosts, Map-Notifies, and who is told.

What a Map-Notify means is read in `xtr.notices`; here it takes effect, whole or not at all, and is acknowledged.
The rules of ownership: a Map-Server's word is taken unless our map-version is newer; a host that answers after all
comes back by its own evidence and registers anew; a controller moves only what it is configured to move.
"""

from __future__ import annotations

from lispfmc.core.deadlines import Deadlines
from lispfmc.core.effects import Emit, Reject, Send
from lispfmc.core.mapcache import Mapping
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_text
from lispfmc.wire.messages import EidRecord, MapNotify, MapNotifyAck, MapRequest, prefix_of
from xtr.damping import Damping
from xtr.effects import XtrEffect
from xtr.forwarding import Forwarding
from xtr.informer import Informer
from xtr.notices import Meaning, meaning, rlocs_of
from xtr.ownership import Ownership
from xtr.presence import MOST_PROBED, PROBE_S, Activation, Presence
from xtr.priority import ChangePriority
from xtr.proxying import Proxying
from xtr.registrar import Registrar
from xtr.relocations import Relocations
from xtr.replay import Freshness, Replays
from xtr.resolution import Resolution
from xtr.senders import Role, Sender

CONTRADICTION_S = 3.0  # a host that answers so soon after we were told that it left was here all the time


class Moves:
    """The parts of the router that a move touches. EIDs that a lossless move leads are left to `relocations`."""

    def __init__(
        self,
        *,
        forwarding: Forwarding,
        presence: Presence,
        registrar: Registrar,
        resolution: Resolution,
        informer: Informer,
        proxying: Proxying,
        ownership: Ownership,
        relocations: Relocations,
        priority: ChangePriority,
    ) -> None:
        self._forwarding = forwarding
        self._presence = presence
        self._registrar = registrar
        self._resolution = resolution
        self._informer = informer
        self._proxying = proxying
        self._ownership = ownership
        self._relocations = relocations
        self._priority = priority
        self._replays = Replays()
        self._damping = Damping()
        self._spoke: Deadlines[Prefix] = Deadlines()
        """Who sent something just now and is being asked where it is."""

    # what `xtr.notices` reads

    def registered(self, eid: Prefix) -> int | None:
        return self._registrar.version(eid)

    def departed(self, eid: Prefix) -> int | None:
        record = self._ownership.departed(eid)
        return record.map_version if record else None

    def leads(self, eid: Prefix) -> bool:
        return self._relocations.leads(eid)

    def in_hand(self, eid: Prefix) -> bool:
        return self._relocations.in_hand(eid)

    def present(self, eid: Prefix) -> bool:
        return eid in self._presence

    def in_range(self, eid: Prefix) -> bool:
        return self._presence.activation(eid) is not Activation.FOREIGN

    def mapping(self, eid: Prefix) -> Mapping | None:
        return self._forwarding.cache.lookup(eid)

    def believes(self, eid: Prefix, source: Ip, rlocs: tuple[Ip, ...]) -> bool:
        return self._priority.believes(eid, source, rlocs)

    def ours(self, rlocs: tuple[Ip, ...]) -> bool:
        return self._forwarding.ours(rlocs)

    # what happens

    def announced(self, eid: Prefix, interface: str, mac: bytes, now: float) -> list[XtrEffect]:
        """A host showed itself on a site interface."""
        if self.leads(eid):
            return self._relocations.announced(eid, interface, mac, now)
        was_here = eid in self._presence
        if not was_here and self._presence.must_speak(eid) and not self._first_at_home(eid):
            self._presence.remember_mac(mac, eid)
            if eid not in self._spoke and not any(one in self._presence for one in self._presence.with_mac(mac)):
                return []  # nor has its machine sent anything by another address
        if not was_here and self._presence.activation(eid) is Activation.PRESENCE:
            taken, alarms = self._damping.arrives(eid, now)
            if not taken:
                return [*alarms]
        effects = self._presence.seen(eid, interface, mac, now)
        if was_here or eid not in self._presence:
            return effects
        effects += self._contradiction(eid, mac, now)
        effects += self._beside(eid, mac, now)
        effects += self._ownership.showed(eid)
        activation = self._presence.activation(eid)
        if activation is Activation.PRESENCE:
            self._ownership.returned(eid)
        elif activation is not Activation.CONTROLLER or not self._first_at_home(eid):
            return effects
        # first the word, which is on its way while the kernel's tables change: nobody sends here before it has come
        return [*self._registrar.add(eid, 0, now), *effects]

    def mac_announced(self, mac: bytes, interface: str, iid: int, now: float) -> list[XtrEffect]:
        """A machine showed itself without its EIDs: those that it had when it was here last are asked."""
        effects = self._relocations.mac_announced(mac, interface, iid, now)
        for eid in self._presence.with_mac(mac):
            # an answer says nothing of one that has to send something of its own accord
            if not self.leads(eid) and not self._presence.must_speak(eid):
                effects += self._presence.probe(eid, now)
        return effects

    def unknown_source(self, eid: Prefix, now: float) -> list[XtrEffect]:
        """A packet left the site with a source that is not known to be here."""
        if self.leads(eid):
            return self._relocations.shown(eid, now)
        if eid in self._presence:
            return []
        self._heard_from(eid, now)
        return self._presence.probe(eid, now)

    def asked(self, eid: Prefix, interface: str, mac: bytes, now: float) -> list[XtrEffect]:
        """A host of ours looks for somebody's MAC address: what it asks with says where it is."""
        if eid in self._presence or not self._presence.must_speak(eid):
            return []
        self._heard_from(eid, now)
        return self.announced(eid, interface, mac, now)

    def _beside(self, eid: Prefix, mac: bytes, now: float) -> list[XtrEffect]:
        """`eid` has sent something itself: its machine is here, and is asked for what else was announced for it."""
        if eid not in self._spoke:
            return []
        self._spoke.cancel(eid)
        effects: list[XtrEffect] = []
        for other in self._presence.with_mac(mac):
            if other not in self._presence and self._presence.must_speak(other):
                self._heard_from(other, now)
                effects += self._presence.probe(other, now)
        return effects

    def _heard_from(self, eid: Prefix, now: float) -> None:
        for _ in self._spoke.pop_expired(now):
            pass
        if self._presence.must_speak(eid) and len(self._spoke) < MOST_PROBED:
            self._spoke.set(eid, now + PROBE_S)

    def next_deadline(self) -> float | None:
        deadlines = (self._presence.next_deadline(), self._damping.next_deadline())
        return min((at for at in deadlines if at is not None), default=None)

    def expired(self, now: float) -> list[XtrEffect]:
        """Silent hosts are asked, and given up; those that were held off are asked again."""
        effects, given_up = self._presence.expired(now)
        for eid in given_up:
            # a service that is being moved stands still for a while: its controller says when it has gone
            if self._presence.activation(eid) is not Activation.CONTROLLER and not self.leads(eid):
                effects += self._presence.lost(eid, "silent", now)
                effects += self._proxying.left(eid)
                effects += self._registrar.withdraw([eid], now)
        for eid in self._damping.expired(now):
            effects += self._presence.probe(eid, now)
        return effects

    def _contradiction(self, eid: Prefix, mac: bytes, now: float) -> list[XtrEffect]:
        """We were just told that the host left, and here it is: once is a quick return, again and again an alarm."""
        record, left = self._ownership.departed(eid), self._ownership.pop_left(eid)
        if record is None or left is None or now - left > CONTRADICTION_S or self._damping.count(eid, now) < 3:
            return []
        there = [ip_text(rloc) for rloc in rlocs_of(record)]
        return [Emit("host.at-two-sites", {"eid": str(eid), "mac": mac.hex(":"), "rlocs": there})]

    def _first_at_home(self, eid: Prefix) -> bool:
        # a service that left is back only when its controller says so: the epoch of the move is the controller's
        known = self._ownership.departed(eid) is not None or self._registrar.version(eid) is not None
        return self._presence.at_home(eid) and not known

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
            case Meaning.LED:
                return self._relocations.noticed(record, eid, now)
            case Meaning.DEPARTED:
                return self._moved(eid, record, sender, now)
            case Meaning.ARRIVED:
                yielded = self._relocations.outdone(eid, record.map_version, now) or []
                return [*yielded, *self._ownership.arrive(eid, record.map_version, now)]
            case Meaning.HELD:
                version = self._registrar.version(eid) or 0
                refused = Emit("registration.refused", {"eid": str(eid), "version": version, "cause": "older owner"})
                return [refused, *self._registrar.add(eid, version, now)]
            case Meaning.REMOVED:
                return self._forwarding.forget(eid, "withdrawn")
            case Meaning.LEARNED:
                return self._ownership.learn(eid, record, sender.role.value, now)

    def _moved(self, eid: Prefix, record: EidRecord, sender: Sender, now: float) -> list[XtrEffect]:
        by = sender.role.value
        yielded = self._relocations.outdone(eid, record.map_version, now) or []
        return [*yielded, *self._ownership.depart(eid, record, by, now, cause=f"notified by {by}")]
