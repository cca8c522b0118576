"""Lossless moves at one router: move messages and evidence in, switches of local delivery and messages out. Pure.

It keeps one role for each set of EIDs that moves together (`xtr.roles`), checks who may say what, and repeats what is
not answered. Replayed messages need no memory of nonces: within an epoch they are duplicates, which change nothing, and
an earlier epoch is refused for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

import msgspec

from lispfmc.core.deadlines import Deadlines
from lispfmc.core.effects import Emit, FieldValue, Reject, Send
from lispfmc.core.exchanges import Exchanges
from lispfmc.core.plans import Ask, Party, Plan, Restarted, Settle, TimedOut, plan_of
from lispfmc.core.versions import newer
from lispfmc.wire.address import Endpoint, Ip, Prefix
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import EidRecord, Locator
from lispfmc.wire.moves import MoveMessage, MovePhase, in_parts, since_s
from xtr.roles import Role, State, peer, step
from xtr.roles.state import (
    IN_HAND,
    MESSAGES,
    Event,
    Evidence,
    ExportPeers,
    Register,
    Release,
    Remember,
    Resumed,
    Returned,
    RoleEffect,
    Stopped,
    Superseded,
    Switch,
    Told,
    Unregister,
    Warm,
    verdict,
)
from xtr.senders import Role as SenderRole
from xtr.senders import Sender

Eids: TypeAlias = tuple[Prefix, ...]
LosslessEffect: TypeAlias = (
    Send
    | Emit
    | Reject
    | Switch
    | Release
    | Register
    | Unregister
    | Remember
    | Warm
    | peer.Use
    | peer.Mark
    | peer.Await
)
MOST_ROLES = 65_536  # one for each service that ever moved here; who has a key is trusted, but may be broken
MOST_PEERS = 64
_SAID: dict[MovePhase, type[Stopped | Resumed | Returned]] = {
    MovePhase.FREEZE: Stopped,
    MovePhase.ACTIVATE: Resumed,
    MovePhase.ABORT: Returned,
}
_FROM_SOURCE = frozenset({MovePhase.PEERS, MovePhase.FREEZE, MovePhase.ABORT})
_FROM_TARGET = frozenset({MovePhase.ACTIVATE})


class Lossless:
    """See the module. `peers` and `mappings` are what the data plane and the map-cache know."""

    def __init__(
        self,
        rlocs: Iterable[Ip],
        nonces: Iterator[int],
        key_of: Callable[[Ip], Key | None],
        *,
        owned: Callable[[Prefix], int | None],
        peers: Callable[[Prefix], list[Ip]],
        mappings: Callable[[Ip], list[EidRecord]],
        peer_of: Callable[[Prefix], peer.Peer],
    ) -> None:
        """`owned`: the version under which an EID that is here is registered; None when it is not here."""
        self._ours = frozenset(rlocs)
        self._nonces = nonces
        self._owned = owned
        self._peers = peers
        self._mappings = mappings
        self._peer_of = peer_of
        self._exchanges = Exchanges(nonces, key_of)
        self._roles: dict[Eids, Role] = {}
        self._eids: dict[Prefix, Eids] = {}
        self._warm: dict[int, set[Ip]] = {}  # by move: the peers that the source has named
        self._deadlines: Deadlines[Eids] = Deadlines()
        self._owed: dict[Eids, tuple[float, list[RoleEffect]]] = {}
        """Whom a router that has just activated still has to tell, and since when."""

    # --- what others ask ----------------------------------------------------------------------------------------------

    @property
    def roles(self) -> Mapping[Eids, Role]:
        return self._roles

    def leads(self, eid: Prefix) -> bool:
        """Whether this EID's delivery is decided here, and not by presence."""
        eids = self._eids.get(eid)
        return eids is not None and self._roles[eids].state is not State.ABSENT

    def role(self, eid: Prefix) -> Role:
        """This router's part in the moves of an EID."""
        return self._roles.get(self._eids.get(eid, ()), Role())

    def restored(self, roles: Iterable[Role], now: float) -> list[LosslessEffect]:
        """After a restart: what was remembered."""
        effects: list[LosslessEffect] = []
        # of EIDs that were regrouped since, the sets that stand last have the say
        for role in sorted(roles, key=lambda each: each.state is not State.ABSENT):
            if role.plan is not None:
                self._keep(role.plan.eids, role)
                effects += [*_interrupted(role, role.plan), *self._step(role.plan.eids, Restarted(), now)]
        return effects

    # --- inputs -------------------------------------------------------------------------------------------------------

    def received(self, message: MoveMessage, sender: Sender, source: Endpoint, now: float) -> list[LosslessEffect]:
        """An authenticated message from the controller or another router."""
        if message.is_acknowledgement:
            answered = self._exchanges.answered(message, source.ip, now)
            return self._step(answered.plan.eids, answered, now) if answered else []
        if message.phase == MovePhase.PEERS:
            return self._warmed(message, sender, source, now)
        plan = plan_of(message)
        if plan is None or message.phase not in MESSAGES:
            return [Reject("unusable-move", source)]
        phase = MovePhase(message.phase)
        party = self._party(plan, phase, sender, source)
        if isinstance(party, Reject):
            return [party]
        if self._ours.isdisjoint(plan.source + plan.target):
            return self._as_peer(message, plan, sender, source, now)
        ours = Party.TARGET if self._ours & set(plan.target) else Party.SOURCE
        others = {eids for eid in plan.eids if (eids := self._eids.get(eid, plan.eids)) != plan.eids}
        if others and not any(newer(plan.epoch, self._roles[eids].promised) for eids in others):
            said = verdict(self._roles[others.pop()], phase, plan)  # of the time before it had the EIDs that it has now
            return [Send(message.acknowledgement(said), source, sender.key)]
        if others and (party is not Party.CONTROLLER or any(self._roles[eids].state in IN_HAND for eids in others)):
            return [Reject("overlapping-move", source)]
        effects = self._regrouped(plan.eids, others)
        told: Told = MESSAGES[phase](plan, ours, party)
        effects += self._step(plan.eids, told, now)
        said = verdict(self._roles.get(plan.eids, Role()), phase, plan)
        return [*effects, Send(message.acknowledgement(said), source, sender.key)]

    def reported(self, message: MoveMessage, key: Key, source: Endpoint, now: float) -> list[LosslessEffect]:
        """The hypervisor agent of this site speaks, authenticated, of a move by its id."""
        if message.is_acknowledgement:  # we ask it nothing; to answer one would be answered for ever
            return [Reject("unusable-move", source)]
        said = _SAID.get(MovePhase(message.phase)) if message.phase in list(MovePhase) else None
        if said is None:
            return [Reject("unusable-move", source)]
        eids = next((e for e, role in self._roles.items() if role.plan and role.plan.move == message.move), None)
        event: Event = said(message.move)
        if said is Stopped and source.ip in self._ours:  # the agent is on this host, so its clock is ours
            event = Stopped(message.move, since_s(message.stopped, now))
        effects = self._step(eids, event, now) if eids is not None else []
        role = self._roles[eids] if eids is not None else Role()
        plan = role.plan or Plan(message.move, message.epoch, (), (), ())
        return [*effects, Send(message.acknowledgement(verdict(role, MovePhase(message.phase), plan)), source, key)]

    def announced(self, eid: Prefix, now: float) -> list[LosslessEffect]:
        """RARP, GARP, NA or a packet from `eid` at its prepared port; whoever calls has checked the port."""
        eids = self._eids.get(eid)
        return self._step(eids, Evidence(), now) if eids is not None else []

    def superseded(self, record: EidRecord, now: float) -> list[LosslessEffect]:
        """The Map-Server says who has an EID; it may say so of each EID of a service in turn."""
        eids = self._eids.get(record.prefix) if record.prefix is not None else None
        rlocs = tuple(one.address for one in record.locators if isinstance(one.address, bytes))
        if eids is None or not rlocs or self._ours & set(rlocs):
            return []
        return self._step(eids, Superseded(Plan(0, record.map_version, eids, tuple(self._ours), rlocs)), now)

    def outdone(self, eid: Prefix, version: int) -> list[LosslessEffect]:
        """Another scheme has moved an EID by this version: its delivery is not ours to decide any more."""
        eids = self._eids.get(eid, ())
        role = self._roles.get(eids)
        if role is None or role.plan is None or role.state in (State.ABSENT, *IN_HAND):
            return []
        promised = version if newer(version, role.promised) else role.promised
        after = msgspec.structs.replace(role, state=State.ABSENT, promised=promised, deadline=None)
        self._exchanges.settle(role.plan)
        self._keep(eids, after)
        return [Remember(after), Release(role.plan)]

    def _regrouped(self, eids: Eids, others: Iterable[Eids]) -> list[LosslessEffect]:
        """A service has got other EIDs since it moved last: what was promised of any of them holds for all."""
        effects: list[LosslessEffect] = []
        role = self._roles.get(eids, Role())
        for past in others:
            before = self._roles.pop(past)
            self._deadlines.cancel(past)
            for eid in [eid for eid in past if self._eids.get(eid) == past]:
                del self._eids[eid]
            if newer(before.promised, role.promised):
                role = msgspec.structs.replace(role, promised=before.promised)
            if before.plan is not None:
                self._exchanges.settle(before.plan)
                absent = msgspec.structs.replace(before, state=State.ABSENT, deadline=None)
                effects += [Remember(absent), Release(before.plan)]
            self._keep(eids, role)
        return effects

    def next_deadline(self) -> float | None:
        owed = min((since for since, _ in self._owed.values()), default=None)
        deadlines = (self._deadlines.next(), self._exchanges.next_deadline(), owed)
        return min((at for at in deadlines if at is not None), default=None)

    def expired(self, now: float) -> list[LosslessEffect]:
        effects: list[LosslessEffect] = [each for eids in list(self._owed) for each in self._paid(eids, now)]
        effects += self._exchanges.expired(now)
        for eids in list(self._deadlines.pop_expired(now)):
            effects += self._step(eids, TimedOut(), now)
        return effects

    # --- who may say what ---------------------------------------------------------------------------------------------

    def _party(self, plan: Plan, phase: MovePhase, sender: Sender, source: Endpoint) -> Party | Reject:
        if sender.role is SenderRole.CONTROLLER:
            if not all(any(allowed.covers(eid) for allowed in sender.ranges) for eid in plan.eids):
                return Reject("foreign-prefix", source, f"move {plan.move:016x}")
            if not sender.rlocs.issuperset(plan.source + plan.target):
                return Reject("foreign-locator", source, f"move {plan.move:016x}")
            return Party.CONTROLLER
        if sender.role is SenderRole.PEER and source.ip in plan.source and phase in _FROM_SOURCE:
            return Party.SOURCE
        if sender.role is SenderRole.PEER and source.ip in plan.target and phase in _FROM_TARGET:
            return Party.TARGET
        return Reject("not-a-party", source, f"{phase.name} of move {plan.move:016x} from a {sender.role.value}")

    def _warmed(self, message: MoveMessage, sender: Sender, source: Endpoint, now: float) -> list[LosslessEffect]:
        """Part of the source's list of peers: they are told directly when the service runs here, or now if it does."""
        role = next((r for r in self._roles.values() if r.plan and r.plan.move == message.move), None)
        if role is None or role.plan is None or source.ip not in role.plan.source:
            return [Reject("not-a-party", source, f"PEERS of move {message.move:016x}")]
        named = self._warm.setdefault(message.move, set()) if role.state is State.HOLDING else set()
        for record in message.records:
            for locator in record.locators:
                if isinstance(locator.address, bytes) and len(named) < MOST_PEERS:
                    named.add(locator.address)
        told: list[LosslessEffect] = []
        if role.state is State.HERE:
            others = sorted(named.difference(role.plan.source, role.plan.target, self._ours))
            told = self._tell_peers(Ask(Party.PEERS, MovePhase.ACTIVATE, role.plan), others, now)
        said = verdict(role, MovePhase.PEERS, role.plan)
        return [Warm(message.records), *told, Send(message.acknowledgement(said), source, sender.key)]

    def _as_peer(
        self, message: MoveMessage, plan: Plan, sender: Sender, source: Endpoint, now: float
    ) -> list[LosslessEffect]:
        effects: list[LosslessEffect] = []
        for eid in plan.eids:
            used = self._peer_of(eid)
            # only of an EID that we send to, and only from the place that we send to to the place that claims it
            if message.phase == MovePhase.ACTIVATE and set(used.rlocs) & set(plan.source + plan.target):
                one = msgspec.structs.replace(plan, eids=(eid,))
                effects += peer.step(used, peer.Moved(one), now)[1]
        said = peer.verdict(self._peer_of(plan.eids[0]), MovePhase(message.phase), plan)
        return [*effects, Send(message.acknowledgement(said), source, sender.key)]

    # --- a step -------------------------------------------------------------------------------------------------------

    def _step(self, eids: Eids, event: Event, now: float) -> list[LosslessEffect]:
        before = self._before(eids)
        after, wanted = step(before, event, now)
        effects = self._paid(eids, now) if wanted else []
        if before.state is State.HOLDING and after.state is State.HERE:
            wanted = self._packets_first(eids, wanted, now)
        effects += [each for effect in wanted for each in self._performed(effect, now)]
        if after != before or eids not in self._roles:
            self._keep(eids, after)
        if before.state is State.HOLDING and before.plan is not None:
            held_on = after.state is State.HOLDING and before.plan.same(after.plan)
            if not held_on and after.state is not State.HERE:  # there it is used up
                self._warm.pop(before.plan.move, None)
        if after.state is not before.state and after.plan is not None:
            fields: dict[str, FieldValue] = {
                "move": f"{after.plan.move:016x}",
                "eid": str(eids[0]),
                "state": str(after.state),
                "before": str(before.state),
                "version": after.plan.epoch,
                "cause": type(event).__name__.lower(),
                "monotonic_ns": int(now * 1e9),
            }
            effects.append(Emit("move.standing", fields))
        return effects

    def _packets_first(self, eids: Eids, wanted: list[RoleEffect], now: float) -> list[RoleEffect]:
        """The service runs, and its packets wait: to make out all the messages takes milliseconds, in which they could
        be delivered. What has to be said is owed until the next turn; it is said anew after a crash before that."""
        at = next(at for at, effect in enumerate(wanted, 1) if isinstance(effect, Remember))
        self._owed[eids] = now, wanted[at:]
        return wanted[:at]

    def _paid(self, eids: Eids, now: float) -> list[LosslessEffect]:
        """What is owed, before anything else that concerns these EIDs."""
        _, owed = self._owed.pop(eids, (now, []))
        return [each for effect in owed for each in self._performed(effect, now)]

    def _before(self, eids: Eids) -> Role:
        """A service that has never moved here, or was moved by other means: it is here when all of its EIDs are."""
        role = self._roles.get(eids, Role())
        versions = [self._owned(eid) for eid in eids]
        known = [version for version in versions if version is not None]
        if role.state is not State.ABSENT or not eids or len(known) < len(eids):
            return role
        owned = max(known)
        promised = owned if newer(owned, role.promised) else role.promised
        return msgspec.structs.replace(role, state=State.HERE, owned=owned, promised=promised)

    def _performed(self, effect: RoleEffect, now: float) -> list[LosslessEffect]:
        match effect:
            case Ask(to=Party.PEERS, plan=plan):
                return self._tell_peers(effect, self._rlocs(Party.PEERS, plan), now)
            case Ask(to=to, plan=plan):
                return [*self._exchanges.ask(effect, self._rlocs(to, plan), now)]
            case Settle(plan=plan):
                self._exchanges.settle(plan)
                return []
            case ExportPeers(plan=plan):
                return [*self._export(plan, now)]
            case Switch() | Release() | Register() | Unregister() | Remember():
                return [effect]

    def _tell_peers(self, ask: Ask, rlocs: list[Ip], now: float) -> list[LosslessEffect]:
        sends = self._exchanges.ask(ask, rlocs, now)
        if not sends:
            return []
        return [peer.Await(ask.plan, tuple(send.to.ip for send in sends)), *sends]

    def _rlocs(self, to: Party, plan: Plan) -> list[Ip]:
        if to is Party.PEERS:
            sites = {*plan.source, *plan.target, *self._ours}
            talkers = (rloc for eid in plan.eids for rloc in self._peers(eid))
            named = self._warm.pop(plan.move, set())
            return [rloc for rloc in dict.fromkeys([*talkers, *sorted(named)]) if rloc not in sites][:MOST_PEERS]
        return [plan.source[0] if to is Party.SOURCE else plan.target[0]]

    def _export(self, plan: Plan, now: float) -> list[Send]:
        talkers = list(dict.fromkeys(rloc for eid in plan.eids for rloc in self._peers(eid)))[:MOST_PEERS]
        # as in an SMR, its RLOC stands for a peer that sends and is sent nothing
        records = [record for rloc in talkers for record in self._mappings(rloc) or [_standing_for(rloc)]]
        if not records:
            return []
        parts = in_parts(records)[:255]

        def part(number: int, these: tuple[EidRecord, ...]) -> Callable[[int], MoveMessage]:
            return lambda nonce: MoveMessage.of(
                MovePhase.PEERS, *these, nonce=nonce, move=plan.move, epoch=plan.epoch, part=number, parts=len(parts)
            )

        made = [part(number, these) for number, these in enumerate(parts, 1)]
        return self._exchanges.tell_parts(Ask(Party.TARGET, MovePhase.PEERS, plan), plan.target[0], made, now)

    def _keep(self, eids: Eids, role: Role) -> None:
        if not eids or (eids not in self._roles and len(self._roles) >= MOST_ROLES):
            return
        self._roles[eids] = role
        self._eids.update(dict.fromkeys(eids, eids))
        if role.deadline is None:
            self._deadlines.cancel(eids)
        else:
            self._deadlines.set(eids, role.deadline)


def _interrupted(role: Role, plan: Plan) -> list[Emit]:
    """What was held or kept died with the process, and nobody has counted it: that much can be said."""
    if role.state not in IN_HAND:
        return []
    fields: dict[str, FieldValue] = {
        "move": f"{plan.move:016x}",
        "eid": str(plan.eids[0]),
        "state": str(role.state),
        "version": plan.epoch,
        "lost": "held" if role.state is State.HOLDING else "copies",
    }
    return [Emit("move.interrupted", fields)]


def _standing_for(rloc: Ip) -> EidRecord:
    return EidRecord.of(Prefix.host(rloc), [Locator.of(rloc)], ttl_minutes=1)
