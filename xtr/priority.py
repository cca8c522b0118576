"""Change priority (Raad et al., IEEE TNSM 11(2), 2014): a hypervisor says that a machine has come, and the routers of
the data centres settle it among themselves, without a controller.

The router where it came registers it and tells the others' that its own locator has the best priority and theirs 255,
"must not be used". The one that had it tells the routers that it exchanged packets with. The paper's message was type
5, today Map-Notify-Ack: here the hypervisor's is a move message with EIDs, the routers' a signed Map-Notify.
"""

from __future__ import annotations

from lispfmc.core.effects import Reject, Send
from lispfmc.core.mapcache import UNUSABLE_PRIORITY
from lispfmc.wire.address import Endpoint, Ip, Prefix
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import EidRecord, Locator
from lispfmc.wire.moves import MoveMessage, MovePhase, Verdict
from xtr.effects import XtrEffect
from xtr.informer import Informer
from xtr.mobility import Mobilities
from xtr.ownership import Ownership
from xtr.registrar import Registrar
from xtr.replay import Freshness, Replays
from xtr.settings import XtrSettings

NO_VERSION = 0  # RFC 9302 §6: nobody gives epochs here; of two messages the later nonce is the newer


class ChangePriority:
    """See the module. The data centres are the locators that a controller may move EIDs to."""

    def __init__(
        self, settings: XtrSettings, *, ownership: Ownership, registrar: Registrar, informer: Informer
    ) -> None:
        self._mobilities = Mobilities(settings)
        self._replays = Replays()
        self._ownership = ownership
        self._registrar = registrar
        self._informer = informer
        self._datacenters = frozenset(rloc for each in settings.controllers for rloc in each.rlocs)
        family = len(settings.rlocs[0])  # one address of each: the same message twice says nothing more
        self._others = sorted(rloc for rloc in self._datacenters - set(settings.rlocs) if len(rloc) == family)

    def hosted(self, message: MoveMessage, key: Key, source: Endpoint, now: float) -> list[XtrEffect]:
        """This site's hypervisor, authenticated: the machine with these EIDs runs here."""
        eids = [record.prefix for record in message.records]
        known = [eid for eid in eids if eid is not None and eid.is_host and self._mobilities.of(eid).among_routers]
        if message.phase != MovePhase.ACTIVATE or len(known) < len(eids):
            return [Reject("unusable-move", source, f"a machine's EIDs in move {message.move:016x}")]
        freshness = {eid: self._replays.freshness(key, eid, message.nonce) for eid in known}
        old = next((eid for eid, each in freshness.items() if each is Freshness.OLD), None)
        if old is not None:  # there is no epoch that would show it: who has recorded the word must not take the EID
            return [Reject("replayed-nonce", source, str(old))]
        arrived: list[XtrEffect] = []
        for eid in [eid for eid, each in freshness.items() if each is Freshness.NEW]:
            self._replays.accept(key, eid, message.nonce)
            arrived += self._arrived(eid, now)
        return [*arrived, Send(message.acknowledgement(Verdict.ACTIVE), source, key)]

    def believes(self, eid: Prefix, source: Ip, rlocs: tuple[Ip, ...]) -> bool:
        """Whether the router at `source` may say of itself that `eid` is at `rlocs`."""
        return self._mobilities.of(eid).among_routers and source in rlocs and self._datacenters.issuperset(rlocs)

    def _arrived(self, eid: Prefix, now: float) -> list[XtrEffect]:
        if self._registrar.version(eid) is not None:
            return []  # told again: our answer was lost
        effects = self._ownership.arrive(eid, NO_VERSION, now)
        (record, *_) = self._registrar.answer(eid)
        old = tuple(Locator.of(rloc, priority=UNUSABLE_PRIORITY) for rloc in self._others)
        told = EidRecord.of(eid, (*record.locators, *old), ttl_minutes=record.ttl_minutes)
        return [*effects, *self._informer.inform(told, eid, self._others, now)]
