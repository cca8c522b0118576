"""Map-Requests (RFC 9301 §8.3-8.4): answered by proxy, forwarded to the ETR that wants them, or a subscription.

Anybody may ask, and name any address for the answer: so answers are limited for each RLOC and EID-Prefix, and for each
RLOC altogether (RFC 9301 §5.4 wants the former).
"""

from __future__ import annotations

from struct import Struct

from lispfmc.core.effects import Effect, Reject, Send, Transmit
from lispfmc.core.limits import TokenBuckets
from lispfmc.core.lispsec import Unsafe
from lispfmc.core.registry import Registration, View
from lispfmc.store import Query, Store
from lispfmc.wire import records
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_text
from lispfmc.wire.messages import Action, Ecm, MapRequest
from lispfmc.wire.questions import question
from mapserver.protection import Protector
from mapserver.resolver import ANSWER_BYTES, Resolver, unmapped
from mapserver.settings import MapServerSettings
from mapserver.subscribing import Declined, Refused, Subscribing

QUESTIONS = 8  # EIDs that one Map-Request may ask for; senders use one (RFC 9301 §5.2)
_SPECIAL = 0x0710_2000  # the bits M, P, S, I and D of a Map-Request
_PROXY_REPLY = 0x0800_0000  # of a Map-Register
_REPLY_HEADER, _REPLY = Struct("!IQ"), 0x2000_0000  # word with the count of records, nonce
_ONE_RECORD = (_REPLY | 1).to_bytes(4, "big")
_LOCATOR_COUNT = 4  # where it is in a record
_ABOUT = slice(5, 40)  # what a record is about: from its mask length to the end of an EID of any kind
_ANY = Query(())
BUCKETS = 262_144  # (RLOC, EID-Prefix) pairs whose answers are counted; see `TokenBuckets` for when there are more


class Requests:
    """Answers Map-Requests and counts what became of them."""

    def __init__(self, settings: MapServerSettings, store: Store, resolver: Resolver, subscribing: Subscribing) -> None:
        self._settings = settings
        self._store = store
        self._resolver = resolver
        self._subscribing = subscribing
        self._protector = Protector(settings.itrs)
        self._families = {len(ip) for ip in settings.listen}
        self._speaks_ipv4 = 4 in self._families
        limits = settings.limits
        self._per_prefix: TokenBuckets[bytes] = TokenBuckets(limits.reply_rate, limits.reply_burst, BUCKETS)
        self._per_rloc: TokenBuckets[Ip] = TokenBuckets(limits.rloc_rate, limits.rloc_burst, BUCKETS)
        self.answers = {"positive": 0, "negative": 0, "forwarded": 0}

    def at_once(self, ecm: Ecm, source: Endpoint, now: float) -> Transmit | Reject | None:
        """The answer to what nearly all ask: where one host of Instance-ID 0 is, when one registration tells.

        None leaves it to `requested`, which would answer the same.
        """
        request = ecm.message
        if request.__class__ is not MapRequest or ecm.security or not ecm.source_port:
            return None
        if request.word & _SPECIAL or len(request.records) != 1:
            return None
        question, rloc = request.records[0], request.itr_rlocs[0]
        eid = question.eid
        if question.flags or eid.__class__ is not bytes or question.mask_length != len(eid) * 8:
            return None
        if rloc.__class__ is not bytes or len(rloc) not in self._families:
            return None
        return self._alone(eid, rloc, request.nonce.to_bytes(8, "big"), ecm.source_port, source, now)

    def undecoded(self, datagram: bytes, source: Endpoint, now: float) -> Transmit | Reject | None:
        """`at_once` for a datagram that nobody has decoded."""
        asked = question(datagram)
        if asked is None or not self._speaks_ipv4:
            return None
        eid, rloc, nonce, port = asked
        return self._alone(eid, rloc, nonce, port, source, now)

    def _alone(
        self, eid: bytes, rloc: Ip, nonce: bytes, port: int, source: Endpoint, now: float
    ) -> Transmit | Reject | None:
        found = self._store.view(_ANY).alone(0, eid)
        if found is None or not found.lease.registrant.word & _PROXY_REPLY:
            return None
        record = found.record
        if not (self._per_prefix.take(rloc + record[_ABOUT], now) and self._per_rloc.take(rloc, now)):
            return Reject("rate-limited", source, ip_text(rloc))
        self.answers["positive" if record[_LOCATOR_COUNT] else "negative"] += 1
        return Transmit(_ONE_RECORD + nonce + record, Endpoint(rloc, port))

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
        return self._answered(request, eids, ecm, source, view, now)

    def _answered(
        self, request: MapRequest, eids: tuple[Prefix, ...], ecm: Ecm | None, source: Endpoint, view: View, now: float
    ) -> list[Effect]:
        etr = view.longest(eids[0])
        secured = ecm is not None and ecm.security is not None
        if ecm is None or etr is None or _answers_by_proxy(etr):
            return self._replied(request, self._answers(eids, view), ecm, source, now)
        if not secured:
            return self._forwarded(ecm, etr, etr, source, now)
        able = next((each for each in etr.each if each.registrant.security_capable), None)
        if able is not None:
            return self._forwarded(ecm, etr, able, source, now)
        # RFC 9303 §6.7, table 1: nobody could sign; the E-bit says that a question without protection may get further
        nobody = unmapped(etr.eid, Action.SEND_MAP_REQUEST)
        return self._replied(request, (nobody,), ecm, source, now, etr_cant_sign=True)

    def _answers(self, eids: tuple[Prefix, ...], view: View) -> tuple[bytes, ...]:
        """All about the first EID; of the others what still fits the packet and no ETR wants to answer itself."""
        found = dict.fromkeys(self._resolver.answer(eids[0], view))
        size = sum(map(len, found))
        for eid in eids[1:]:
            etr = view.longest(eid)
            if etr is not None and not _answers_by_proxy(etr):
                continue
            more = [record for record in self._resolver.answer(eid, view) if record not in found]
            size += sum(map(len, more))
            if size > ANSWER_BYTES:
                break
            found.update(dict.fromkeys(more))
        return tuple(found)

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
        refusals: list[bytes] = []
        others: list[Prefix] = []
        for record, eid in zip(request.records, eids, strict=True):
            if not record.notification_requested:
                others.append(eid)
                continue
            outcome = self._subscribing.requested(request, eid, ecm, source, view, now)
            if isinstance(outcome, Refused):
                effects.append(Reject("subscription-refused", source, outcome.detail))
                refusals.append(unmapped(eid, outcome.action))
            elif isinstance(outcome, Declined):
                others.append(eid)
            else:
                effects.extend(outcome)
        if refusals:
            effects[:0] = self._replied(request, tuple(refusals), ecm, source, now)
        if others:
            effects[:0] = self._answered(request, tuple(others), ecm, source, view, now)
        return effects

    def _forwarded(
        self, ecm: Ecm, match: Registration, etr: Registration, source: Endpoint, now: float
    ) -> list[Effect]:
        """RFC 9301 §8.3: without the proxy-reply bit an ETR of the match answers; the request goes to it unmodified."""
        to = Endpoint(etr.registrant.source.ip, self._settings.port)
        if not self._per_rloc.take(to.ip, now):
            return [Reject("rate-limited", source, f"request for {match.eid} to its ETR")]
        if ecm.security is None:
            self.answers["forwarded"] += 1
            return [Send(ecm, to)]
        try:
            datagram = self._protector.forwarding(ecm, match, etr.registrant.key)
        except Unsafe as error:
            return [Reject(error.reason, source, str(error))]
        self.answers["forwarded"] += 1
        return [Transmit(datagram, to)]

    def _replied(
        self,
        request: MapRequest,
        answers: tuple[bytes, ...],
        ecm: Ecm | None,
        source: Endpoint,
        now: float,
        *,
        etr_cant_sign: bool = False,
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
        if not (self._per_prefix.take(rloc + answers[0][_ABOUT], now) and self._per_rloc.take(rloc, now)):
            return [Reject("rate-limited", source, f"answer about {records.eid_of(answers[0])} to {ip_text(rloc)}")]
        if ecm is not None and ecm.security is not None:
            return self._protected(ecm, answers, Endpoint(rloc, port), source, etr_cant_sign=etr_cant_sign)
        self._count(answers)
        header = _REPLY_HEADER.pack(_REPLY | len(answers), request.nonce)
        return [Transmit(header + b"".join(answers), Endpoint(rloc, port))]

    def _protected(
        self, ecm: Ecm, answers: tuple[bytes, ...], to: Endpoint, source: Endpoint, *, etr_cant_sign: bool
    ) -> list[Effect]:
        try:
            datagram = self._protector.reply(ecm, answers, etr_cant_sign=etr_cant_sign)
        except Unsafe as error:
            return [Reject(error.reason, source, str(error))]
        self._count(answers)
        return [Transmit(datagram, to)]

    def _count(self, answers: tuple[bytes, ...]) -> None:
        positive = any(record[_LOCATOR_COUNT] for record in answers)
        self.answers["positive" if positive else "negative"] += 1


def _answers_by_proxy(etr: Registration) -> bool:
    return any(each.registrant.proxy_reply for each in etr.each)


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
