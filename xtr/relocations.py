"""Lossless moves in the router: what the roles decide becomes tables, registrations and switches of delivery.

Move messages and evidence go in; `xtr.lossless` decides. While it leads an EID (`leads`), presence and the mapping
system's notices only tell it things: whether the EID is delivered here, held or sent on is its decision alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

from lispfmc.core.effects import Emit, FieldValue, Reject, Send
from lispfmc.core.plans import TTL_MINUTES, Plan
from lispfmc.core.versions import newer
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_text
from lispfmc.wire.messages import EidRecord, Locator
from lispfmc.wire.moves import MoveMessage
from xtr.effects import Deliver, ProbeHost, XtrEffect
from xtr.forwarding import Forwarding
from xtr.lossless import Lossless, LosslessEffect
from xtr.ownership import Ownership
from xtr.presence import Presence
from xtr.priority import ChangePriority
from xtr.proxying import Proxying
from xtr.registrar import Registrar
from xtr.roles import Peer, Role, State
from xtr.roles.peer import Await, Mark, Use
from xtr.roles.state import DELIVERING, IN_HAND, Held, Mode, Register, Release, Remember, Switch, Unregister, Warm
from xtr.senders import Role as SenderRole
from xtr.senders import Senders
from xtr.settings import XtrSettings

Counts: TypeAlias = Mapping[str, int]
ASK_AGAIN_S = 0.02
"""A machine that has just resumed announces itself several times in a row: each time is worth a question."""
ASKED_AT_ONCE = 16
"""Where many machines are expected, one that shows its MAC address alone is asked for so many EIDs each time: for all,
a hundred that resume at once would be ten thousand questions, each to every port of the bridge."""
MAPPINGS_EXPORTED = 8  # of one peer: the prefixes of its site, not each host that ever roamed there


class Relocations:
    """The parts of the router that a lossless move touches."""

    def __init__(
        self,
        settings: XtrSettings,
        nonces: Iterator[int],
        *,
        senders: Senders,
        forwarding: Forwarding,
        presence: Presence,
        registrar: Registrar,
        proxying: Proxying,
        ownership: Ownership,
        peers: Callable[[Prefix], list[Ip]],
        priority: ChangePriority,
    ) -> None:
        self._senders = senders
        self._priority = priority
        self._forwarding = forwarding
        self._presence = presence
        self._registrar = registrar
        self._proxying = proxying
        self._ownership = ownership
        self._ports = frozenset((settings.agent and settings.agent.interfaces) or settings.site.interfaces)
        self._asked: dict[Prefix, float] = {}
        self._opened: dict[tuple[Prefix, ...], float] = {}  # by the EIDs of a role: the service runs here since
        self._lossless = Lossless(
            settings.rlocs,
            nonces,
            senders.key_of_peer,
            owned=registrar.version,
            peers=peers,
            mappings=self._exported,
            peer_of=self._as_peer,
        )

    # --- inputs -------------------------------------------------------------------------------------------------------

    def restored(self, roles: Iterable[Role], now: float) -> list[XtrEffect]:
        """After a restart: what was remembered."""
        return self._performed(self._lossless.restored(roles, now), now)

    def received(self, message: MoveMessage, datagram: bytes, source: Endpoint, now: float) -> list[XtrEffect]:
        """A move message, from whomever."""
        sender = self._senders.authenticate(message, datagram, source)
        if isinstance(sender, Reject):
            return [sender]
        if sender.role is SenderRole.AGENT and message.records:
            return self._priority.hosted(message, sender.key, source, now)
        if sender.role is SenderRole.AGENT:
            return self._performed(self._lossless.reported(message, sender.key, source, now), now)
        return self._performed(self._lossless.received(message, sender, source, now), now)

    def leads(self, eid: Prefix) -> bool:
        """Whether a move decides about this EID's delivery."""
        return self._lossless.leads(eid)

    def in_hand(self, eid: Prefix) -> bool:
        """Whether a move of this EID has begun and not ended."""
        return self._lossless.role(eid).state in IN_HAND

    def announced(self, eid: Prefix, interface: str, mac: bytes, now: float) -> list[XtrEffect]:
        """A led EID showed itself on a site interface."""
        waited_for = self._lossless.role(eid).state is State.HOLDING
        if waited_for and interface not in self._ports:
            return [Reject("wrong-port", Endpoint(eid.ip, 0), f"{eid} on {interface}, expected on {self._expected}")]
        effects = self._presence.seen(eid, interface, mac, now)
        if eid not in self._presence:
            return effects
        return effects + self._performed(self._lossless.announced(eid, now), now)

    def mac_announced(self, mac: bytes, interface: str, iid: int, now: float) -> list[XtrEffect]:
        """A machine showed its MAC address only (RARP): evidence if it is known, else worth a question."""
        effects: list[XtrEffect] = []
        known = self._presence.with_mac(mac)
        unknown: list[Prefix] = []
        for eid in self._waited_for(iid):
            if eid in known and eid not in self._presence:
                effects += self.announced(eid, interface, mac, now)
            elif interface in self._ports:
                unknown.append(eid)
        unknown.sort(key=lambda eid: self._asked.get(eid, float("-inf")))  # each in its turn
        return effects + [each for eid in unknown[:ASKED_AT_ONCE] for each in self._ask(eid, now)]

    def shown(self, eid: Prefix, now: float) -> list[XtrEffect]:
        """A packet came from a led EID: it says neither by which port nor from which MAC address."""
        return self._ask(eid, now) if eid not in self._presence else []

    def noticed(self, record: EidRecord, eid: Prefix, now: float) -> list[XtrEffect]:
        """The mapping system says who has a led EID: a higher epoch wins, a lower one is corrected."""
        role = self._lossless.role(eid)
        rlocs = tuple(one.address for one in record.locators if isinstance(one.address, bytes))
        if role.state in DELIVERING and not self._forwarding.ours(rlocs) and newer(role.owned, record.map_version):
            refused = Emit("registration.refused", {"eid": str(eid), "version": role.owned, "cause": "older owner"})
            return [refused, *self._registrar.add(eid, role.owned, now)]
        return self._performed(self._lossless.superseded(record, now), now)

    def outdone(self, eid: Prefix, version: int, now: float) -> list[XtrEffect]:
        """Another scheme has moved a led EID, whose move has ended."""
        return self._performed(self._lossless.outdone(eid, version), now)

    def next_deadline(self) -> float | None:
        return self._lossless.next_deadline()

    def expired(self, now: float) -> list[XtrEffect]:
        return self._performed(self._lossless.expired(now), now)

    def view(self, packets: Callable[[tuple[Prefix, ...]], dict[str, int]], now: float) -> list[dict[str, object]]:
        """The moves that this router has a part in, as the HTTP API shows them; `packets` is the data plane's count."""
        return [
            {
                "move": f"{plan.move:016x}",
                "eids": [str(eid) for eid in eids],
                "part": "target" if self._forwarding.ours(plan.target) else "source",
                "state": str(role.state),
                "epoch": plan.epoch,
                "owned": role.owned,
                "source": [ip_text(rloc) for rloc in plan.source],
                "target": [ip_text(rloc) for rloc in plan.target],
                "remaining_s": None if role.deadline is None else round(role.deadline - now, 3),
                "packets": packets(eids),
            }
            for eids, role in self._lossless.roles.items()
            if (plan := role.plan) is not None
        ]

    def worked_off(self, eids: tuple[Prefix, ...], packets: Counts, now: float) -> list[XtrEffect]:
        """The data plane has dealt with what it held or kept: how many packets, and what was lost. At the target also
        what the network has added to the machine's own standstill."""
        plan = self._lossless.role(eids[0]).plan
        opened = self._opened.pop(eids, None)
        if plan is None:
            return []
        fields: dict[str, FieldValue] = {"move": f"{plan.move:016x}", "eid": str(eids[0]), **packets}
        if opened is not None:
            fields["added_ms"] = round((now - opened) * 1000, 3)
        return [Emit("move.packets", fields)]

    # --- effects ------------------------------------------------------------------------------------------------------

    def _performed(self, wanted: Iterable[LosslessEffect], now: float) -> list[XtrEffect]:
        return [effect for each in wanted for effect in self._one(each, now)]

    def _one(self, effect: LosslessEffect, now: float) -> list[XtrEffect]:
        match effect:
            case Send() | Emit() | Reject() | Remember() | Mark() | Await():
                return [effect]
            case Switch(plan=plan, mode=mode, held=held):
                if mode is Mode.DELIVER and held is Held.DELIVER and self._forwarding.ours(plan.target):
                    self._opened[plan.eids] = now  # its first sign of life
                else:
                    self._opened.pop(plan.eids, None)
                return self._switched(effect)
            case Register(plan=plan, epoch=epoch):
                return [each for eid in plan.eids for each in self._ownership.arrive(eid, epoch, now)]
            case Unregister(plan=plan):
                # the target tells its peers itself: they answer with an end marker, which a Map-Notify asks nobody for
                return [
                    each
                    for eid, record in _there(plan)
                    for each in self._ownership.depart(eid, record, "peer", now, cause="moved", inform=False)
                ]
            case Release(plan=plan):
                forgotten = [each for eid in plan.eids for each in self._forwarding.forget(eid, "away entry ends")]
                return [effect, *forgotten]
            case Warm(records=records):
                return [each for record in records for each in self._warmed(record, now)]
            case Use(plan=plan):
                return self._used(plan, now)

    def _switched(self, switch: Switch) -> list[XtrEffect]:
        """The data plane must know where the hosts are before it delivers, and neighbours where they are no longer."""
        effects: list[XtrEffect] = []
        delivers = switch.mode in (Mode.DELIVER, Mode.MIRROR)
        for eid in switch.plan.eids if delivers else ():
            host = self._presence.get(eid)
            effects.append(Deliver(eid, host.interface, host.mac) if host else ProbeHost(eid))
        effects.append(switch)
        if switch.copies:  # the machine has just stopped here: from now on its neighbours' packets are ours to lead
            effects += [each for eid in switch.plan.eids for each in self._proxying.left(eid)]
        return effects

    def _warmed(self, record: EidRecord, now: float) -> list[XtrEffect]:
        """A mapping that the source uses: taken where we know nothing of our own."""
        eid = record.prefix
        rlocs = [one.address for one in record.locators if isinstance(one.address, bytes)]
        if eid is None or not rlocs or eid.ip in rlocs or self._forwarding.ours(rlocs):
            return []
        if self._forwarding.cache.get(eid) is not None or self._registrar.answer(eid):
            return []
        return self._ownership.learn(eid, record, "peer", now)

    def _used(self, plan: Plan, now: float) -> list[XtrEffect]:
        return [each for eid, record in _there(plan) for each in self._ownership.learn(eid, record, "peer", now)]

    # --- what the roles ask -------------------------------------------------------------------------------------------

    def _exported(self, rloc: Ip) -> list[EidRecord]:
        mappings = self._forwarding.cache.all_behind(rloc)[:MAPPINGS_EXPORTED]
        return [
            EidRecord.of(each.eid, each.locators, ttl_minutes=60, map_version=each.version)
            for each in mappings
            if not each.away
        ]

    def _as_peer(self, eid: Prefix) -> Peer:
        if self._registrar.version(eid) is not None or eid in self._presence:
            return Peer()
        mapping = self._forwarding.cache.lookup(eid)
        return Peer(mapping.rlocs, mapping.version) if mapping else Peer()

    def _waited_for(self, iid: int) -> list[Prefix]:
        """The EIDs of this Instance-ID that are to come here, or have and were not seen yet."""
        waiting = (eids for eids, role in self._lossless.roles.items() if role.state in (State.HOLDING, State.HERE))
        return [eid for eids in waiting for eid in eids if eid.iid == iid and eid not in self._presence]

    def _ask(self, eid: Prefix, now: float) -> list[XtrEffect]:
        if now - self._asked.get(eid, float("-inf")) < ASK_AGAIN_S:
            return []
        self._asked[eid] = now
        return [ProbeHost(eid)]

    @property
    def _expected(self) -> str:
        return ", ".join(sorted(self._ports))


def _there(plan: Plan) -> list[tuple[Prefix, EidRecord]]:
    """Each EID at the target alone: a mapping has no use for the old place."""
    locators = tuple(Locator.of(rloc, priority=1 if len(rloc) == 4 else 2) for rloc in plan.target)
    return [(eid, EidRecord.of(eid, locators, ttl_minutes=TTL_MINUTES, map_version=plan.epoch)) for eid in plan.eids]
