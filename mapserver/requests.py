"""Map-Requests (RFC 9301 §8.3-8.4): answered by proxy, forwarded to the ETR that wants them, or a subscription."""

from __future__ import annotations

from lispfmc.core.effects import Effect, Reject, Send
from lispfmc.core.registry import Registration, View
from lispfmc.store import Query, Store
from lispfmc.wire.address import Endpoint, Prefix
from lispfmc.wire.messages import Ecm, EidRecord, MapReply, MapRequest
from mapserver.publisher import Publisher, Refused
from mapserver.resolver import Resolver, refused
from mapserver.settings import MapServerSettings

QUESTIONS = 8  # EIDs that one Map-Request may ask for; senders use one (RFC 9301 §5.2)


class Requests:
    """Answers Map-Requests and counts what became of them."""

    def __init__(self, settings: MapServerSettings, store: Store, resolver: Resolver, publisher: Publisher) -> None:
        self._settings = settings
        self._store = store
        self._resolver = resolver
        self._publisher = publisher
        self._families = {len(ip) for ip in settings.listen}
        self.answers = {"positive": 0, "negative": 0, "forwarded": 0}

    def requested(self, request: MapRequest, ecm: Ecm | None, source: Endpoint, now: float) -> list[Effect]:
        """A Map-Request, inside an ECM unless it is a subscription sent straight to us."""
        subscribes = any(record.notification_requested for record in request.records)
        if (refusal := _inadmissible(request, source, plain=ecm is None and not subscribes)) is not None:
            return [refusal]
        eids = tuple(eid for record in request.records if (eid := record.prefix) is not None)
        if len(eids) < len(request.records):
            return [Reject("unsupported-eid", source, "Map-Request")]
        view = self._store.view(Query(eids))
        if subscribes:
            return self._subscribed(request, eids, ecm, source, view, now)
        etr = view.longest(eids[0])
        if ecm is not None and etr is not None and not etr.lease.register.proxy_reply:
            return self._forwarded(ecm, etr)
        answers = {record.prefix: record for eid in eids for record in self._resolver.answer(eid, view)}
        return self._replied(request, tuple(answers.values()), ecm, source)

    def _subscribed(
        self,
        request: MapRequest,
        eids: tuple[Prefix, ...],
        ecm: Ecm | None,
        source: Endpoint,
        view: View,
        now: float,
    ) -> list[Effect]:
        effects: list[Effect] = []
        answers: list[EidRecord] = []
        for record, eid in zip(request.records, eids, strict=True):
            if not record.notification_requested:
                answers.extend(self._resolver.answer(eid, view))
                continue
            outcome = self._publisher.requested(request, eid, source, view, now)
            if isinstance(outcome, Refused):
                effects.append(Reject("subscription-refused", source, outcome.detail))
                answers.append(refused(eid, outcome.action))
            else:
                effects.extend(outcome)
        return [*(self._replied(request, tuple(answers), ecm, source) if answers else ()), *effects]

    def _forwarded(self, ecm: Ecm, etr: Registration) -> list[Effect]:
        # RFC 9301 §8.3: without the proxy-reply bit the ETR answers; the request goes to it unmodified
        self.answers["forwarded"] += 1
        return [Send(ecm, Endpoint(etr.lease.register.source.ip, self._settings.port))]

    def _replied(
        self, request: MapRequest, answers: tuple[EidRecord, ...], ecm: Ecm | None, source: Endpoint
    ) -> list[Effect]:
        """RFC 9301 §5.4: to an ITR-RLOC that we can reach, and the port that the request came from."""
        if request.no_reply:
            return []
        port = ecm.source_port if ecm is not None else source.port
        if not port:
            return [Reject("bad-port", source, "the sender leaves no port to reply to")]
        rlocs = (rloc for rloc in request.itr_rlocs if isinstance(rloc, bytes) and len(rloc) in self._families)
        if (rloc := next(rlocs, None)) is None:
            return [Reject("no-itr-rloc", source, "no ITR-RLOC of an address family that we have")]
        positive = any(record.locators for record in answers)
        self.answers["positive" if positive else "negative"] += 1
        return [Send(MapReply.of(*answers, nonce=request.nonce), Endpoint(rloc, port))]


def _inadmissible(request: MapRequest, source: Endpoint, *, plain: bool) -> Reject | None:
    if request.probe:
        return Reject("probe", source, "RLOC-probe to a Map-Server")  # RFC 9301 §7.1: MUST be dropped
    if request.smr:
        return Reject("unexpected-message", source, "Solicit-Map-Request to a Map-Server")
    if not 1 <= len(request.records) <= QUESTIONS:
        return Reject("record-count", source, f"Map-Request for {len(request.records)} EIDs")
    if plain:
        return Reject("unencapsulated-request", source, "a Map-Request to a Map-Resolver comes in an ECM")
    return None
