"""Map-Requests to us as an ETR: RLOC-probes, and requests that a Map-Server passes on (RFC 9301 §5.3, §7, §8.3).

The answer is authoritative, and has the mapping as it is now; to a probe, the locator that was probed has the p-bit.
Requests are not authenticated, so there are only so many answers a second, and they go to the asker itself.
"""

from __future__ import annotations

import msgspec

from lispfmc.core.deadlines import Deadlines
from lispfmc.core.effects import Reject, Send
from lispfmc.wire.address import Endpoint, Ip
from lispfmc.wire.messages import EidRecord, MapReply, MapRequest
from xtr.effects import XtrEffect
from xtr.registrar import Registrar
from xtr.settings import XtrSettings

REPLIES_PER_S = 500.0  # all askers together
REPLY_S = 0.2  # RFC 9301 §5.5 recommends 3 s for one asker; a probe that is repeated after 1 s must be answered
MOST_ASKERS = 4096


class Answering:
    """Speaks for what is registered."""

    def __init__(self, settings: XtrSettings, registrar: Registrar) -> None:
        self._settings = settings
        self._registrar = registrar
        self._answered: Deadlines[Ip] = Deadlines()
        self._free_at = float("-inf")

    def asked(self, request: MapRequest, source: Endpoint, reply_port: int, now: float) -> list[XtrEffect]:
        """A Map-Request for an EID of ours."""
        eid = request.records[0].prefix if request.records else None
        if eid is None:
            return [Reject("unusable-eid", source)]
        to = self._reply_to(request, source)
        if to is None or not reply_port:
            return [Reject("no-itr-rloc", source, "no ITR-RLOC of an address family that we have")]
        mapping = self._registrar.mapping(eid)
        if mapping is None:
            return [Reject("not-our-eid", source, str(eid))]
        if not self._may_answer(to, now):
            return [Reject("too-many-requests", source)]
        records = [_probed(mapping, len(to))] if request.probe else self._registrar.answer(eid)
        reply = MapReply.of(*records, nonce=request.nonce, probe=request.probe)
        return [Send(reply, Endpoint(to, reply_port))]

    def _reply_to(self, request: MapRequest, source: Endpoint) -> Ip | None:
        sizes = {len(rloc) for rloc in self._settings.rlocs}
        rlocs = [rloc for rloc in request.itr_rlocs if isinstance(rloc, bytes) and len(rloc) in sizes]
        return source.ip if source.ip in rlocs else next(iter(rlocs), None)

    def _may_answer(self, to: Ip, now: float) -> bool:
        for _ in self._answered.pop_expired(now):
            pass
        if to in self._answered or len(self._answered) >= MOST_ASKERS or self._free_at > now:
            return False
        self._answered.set(to, now + REPLY_S)
        self._free_at = max(self._free_at, now - 1.0) + 1 / REPLIES_PER_S
        return True


def _probed(record: EidRecord, size: int) -> EidRecord:
    """The p-bit on the locator that the probe came to: the first of its family, as our sockets are."""
    locators = list(record.locators)
    for index, locator in enumerate(locators):
        if isinstance(locator.address, bytes) and len(locator.address) == size:
            locators[index] = msgspec.structs.replace(locator, flags=locator.flags | 2)
            break
    return msgspec.structs.replace(record, locators=tuple(locators))
