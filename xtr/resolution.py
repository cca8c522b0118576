"""Asking the mapping system: Map-Requests through the Map-Resolver, and what becomes of the Map-Replies.

One request a second per EID, ten tries and then a pause of 30 s (RFC 9301 §5.3), all EIDs together under one budget.
A reply counts only with the nonce of a question that is open, and only for the EID that was asked for; with a key for
the Map-Resolver only what LISP-SEC (RFC 9303) proves to be vouched for by the Map-Server.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator

import msgspec

from lispfmc.core import lispsec
from lispfmc.core.deadlines import Deadlines
from lispfmc.core.effects import Reject, Send
from lispfmc.core.mapcache import Mapping, ttl_s
from lispfmc.core.versions import newer
from lispfmc.wire.address import Endpoint, Ip, Prefix
from lispfmc.wire.messages import Action, Ecm, EidRecord, MapReply, MapRequest, RequestRecord, address_of
from lispfmc.wire.security import EcmSecurity
from xtr.effects import XtrEffect
from xtr.forwarding import Forwarding
from xtr.settings import XtrSettings

CONTROL_PORT = 4342
RETRY_S = 1.0  # RFC 9301 §5.3: at most one Map-Request a second for an EID-Prefix ...
TRIES = 10  # ... and after ten without an answer ...
PAUSE_S = 30.0  # ... none for this long
SMR_INVOKED_S = 3.0  # RFC 9301 §6.1: one SMR-invoked Map-Request per EID-Prefix in this time
ABSENT_S = 10.0  # the mapping system says that an EID is here, and it is not: ask again after this
MOST_QUESTIONS = 4096  # a scan of the address space by a host of ours must not fill the memory
LONGEST_WAIT_S = 2.0  # a question that cannot be sent sooner is refused: the packets would not be kept that long


class _Question(msgspec.Struct, frozen=True, gc=False):
    eid: Prefix
    nonce: int
    tries: int
    smr_invoked: bool
    protection: lispsec.Protection | None = None  # its one-time key goes with the question


class Resolution:
    """The open questions."""

    def __init__(
        self,
        settings: XtrSettings,
        nonces: Iterator[int],
        forwarding: Forwarding,
        is_here: Callable[[Prefix], bool],
    ) -> None:
        self._settings = settings
        self._nonces = nonces
        self._forwarding = forwarding
        self._is_here = is_here
        self._questions: dict[Prefix, _Question] = {}
        self._asked: dict[int, Prefix] = {}
        self._due: Deadlines[Prefix] = Deadlines()
        self._cooling: Deadlines[Prefix] = Deadlines()
        self._budget = _Budget(settings.limits.map_requests_per_s)

    def ask(self, eid: Prefix, now: float, *, smr_invoked: bool = False) -> list[XtrEffect]:
        """Find out where `eid` is; nothing new when that is being asked already."""
        if eid in self._questions:
            return []
        for _ in self._cooling.pop_expired(now):
            pass
        at = self._budget.slot(max(now, self._cooling.at(eid) or now))
        if len(self._questions) >= MOST_QUESTIONS or at is None:
            return [] if smr_invoked else self._drop(eid, RETRY_S, "refused", now)
        nonce = next(self._nonces)
        self._questions[eid] = _Question(eid, nonce, 0, smr_invoked, self._protection())
        self._asked[nonce] = eid
        if at > now:
            self._due.set(eid, at)
            return []
        return [self._try(eid, now)]

    def replied(self, reply: MapReply, datagram: bytes, source: Endpoint, now: float) -> list[XtrEffect]:
        """A Map-Reply: the mapping that was asked for and its more-specifics, or a negative one."""
        eid = self._asked.get(reply.nonce)
        if eid is None or reply.probe:
            return [Reject("unasked-reply", source, f"nonce {reply.nonce:016x}")]
        try:
            believed = self._believed(self._questions[eid], reply, datagram)
        except lispsec.Unsafe as error:
            return [Reject(error.reason, source, f"asked for {eid}: {error}")]
        records = {record.prefix: record for record in believed if record.prefix is not None}
        answers = sorted((prefix for prefix in records if prefix.covers(eid)), key=lambda prefix: prefix.length)
        if not answers or not all(answers[0].covers(prefix) for prefix in records):
            return [Reject("unrelated-reply", source, f"asked for {eid}")]
        self._close(eid)
        effects = self._forget_superseded(answers[0], records)
        for prefix in sorted(records, key=lambda prefix: prefix.length):
            effects += self._learn(prefix, records[prefix], now)
        if self._forwarding.ours(_rlocs(records[answers[-1]])) and not self._is_here(eid):
            # It would come back to us; a host that has just left is registered elsewhere any moment.
            return effects + self._drop(eid, ABSENT_S, "local", now)
        return effects + self._settled(eid, now)

    def next_deadline(self) -> float | None:
        return self._due.next()

    def expired(self, now: float) -> list[XtrEffect]:
        """Ask again, or give up."""
        effects: list[XtrEffect] = []
        for eid in list(self._due.pop_expired(now)):
            tries = self._questions[eid].tries
            if tries >= TRIES:
                effects += self._give_up(eid, now)
                continue
            request = self._try(eid, now)
            # the first try has its slot; a repetition that finds no free one is left out
            if tries == 0 or self._budget.slot(now) == now:
                effects.append(request)
        return effects

    def cancel(self, eid: Prefix) -> None:
        """The answer is no longer wanted: the host is here."""
        if eid in self._questions:
            self._close(eid)

    def _try(self, eid: Prefix, now: float) -> XtrEffect:
        question = self._questions[eid]
        self._questions[eid] = msgspec.structs.replace(question, tries=question.tries + 1)
        self._due.set(eid, now + RETRY_S)
        self._cooling.set(eid, now + (SMR_INVOKED_S if question.smr_invoked else RETRY_S))
        return self._request(question)

    def _request(self, question: _Question) -> Send:
        """An ECM with the Map-Request (RFC 9301 §5.8); the reply comes to our control port."""
        eid, settings = question.eid, self._settings
        homes = (settings.placed(prefix) for prefix in settings.prefixes)
        home = next((prefix for prefix in homes if len(prefix.ip) == len(eid.ip)), None)
        source = next((rloc for rloc in settings.rlocs if len(rloc) == len(eid.ip)), home.ip if home else None)
        request = MapRequest.of(
            RequestRecord.of(eid),
            nonce=question.nonce,
            itr_rlocs=settings.rlocs,
            source_eid=address_of(home) if home else None,
            smr_invoked=question.smr_invoked,
        )
        ecm = Ecm.of(
            request,
            source=source if source is not None else bytes(len(eid.ip)),
            destination=eid.ip,
            source_port=CONTROL_PORT,
            security=self._security(question),
        )
        return Send(ecm, Endpoint(settings.resolver, CONTROL_PORT))

    def _protection(self) -> lispsec.Protection | None:
        """A one-time key for one question (RFC 9303 §6.4)."""
        if not self._settings.protects_requests:
            return None
        halves = (next(self._nonces).to_bytes(8, "big") for _ in range(2))
        return lispsec.Protection(b"".join(halves))

    def _security(self, question: _Question) -> EcmSecurity | None:
        resolver = self._settings.map_resolver
        if question.protection is None or resolver is None:
            return None
        return lispsec.asking(question.protection, question.nonce, resolver.key_id, resolver.secret.encode())

    def _believed(self, question: _Question, reply: MapReply, datagram: bytes) -> tuple[EidRecord, ...]:
        """RFC 9303 §6.9: who asked with a one-time key discards what is not signed by it. Raises Unsafe."""
        if question.protection is None:
            return reply.records
        return lispsec.believable(reply, datagram, question.protection)

    def _forget_superseded(self, answer: Prefix, told: Container[Prefix]) -> list[XtrEffect]:
        # RFC 9301 §5.4: the reply holds every more-specific of the answer; what else we hold inside it is gone.
        effects: list[XtrEffect] = []
        for mapping in self._forwarding.cache.inside(answer):
            if mapping.eid not in told and not mapping.away:
                effects += self._forwarding.forget(mapping.eid, "superseded")
        return effects

    def _learn(self, prefix: Prefix, record: EidRecord, now: float) -> list[XtrEffect]:
        if self._is_here(prefix) or self._forwarding.ours(_rlocs(record)):
            return []
        before = self._forwarding.cache.get(prefix)
        if before is not None and record.map_version and newer(before.version, record.map_version):
            return []  # a move overtook this answer
        if record.ttl_minutes == 0:
            return self._forwarding.forget(prefix, "withdrawn")
        return self._forwarding.learn(
            Mapping(
                prefix,
                record.locators,
                record.action,
                record.map_version,
                "map-reply",
                now,
                now + ttl_s(record),
                away=before is not None and before.away,
            )
        )

    def _settled(self, eid: Prefix, now: float) -> list[XtrEffect]:
        """Packets that wait for `eid` go where the map-cache now says; where it says nothing, they are dropped."""
        mapping = self._forwarding.cache.lookup(eid)
        return [self._forwarding.install(mapping)] if mapping else self._drop(eid, RETRY_S, "refused", now)

    def _drop(self, eid: Prefix, seconds: float, source: str, now: float) -> list[XtrEffect]:
        """An entry of our own, so that the data plane waits no more and asks again later."""
        return self._forwarding.learn(Mapping(eid, (), Action.DROP_NO_REASON, 0, source, now, now + seconds))

    def _give_up(self, eid: Prefix, now: float) -> list[XtrEffect]:
        question = self._questions[eid]
        self._close(eid)
        if question.smr_invoked:
            return []  # what we have is better than nothing
        mapping = self._forwarding.cache.lookup(eid)
        if mapping is not None:  # the answer to another question covers it
            return [self._forwarding.install(mapping)]
        return self._drop(eid, PAUSE_S, "unanswered", now)

    def _close(self, eid: Prefix) -> None:
        question = self._questions.pop(eid)
        del self._asked[question.nonce]
        self._due.cancel(eid)


class _Budget:
    """Slots for requests, `rate` a second, a second's worth at once."""

    def __init__(self, rate: float) -> None:
        self._step = 1 / rate
        self._free_at = float("-inf")

    def slot(self, wanted: float) -> float | None:
        """When a request that is wanted at `wanted` may go; None when that is too late to be of use."""
        at = max(wanted, self._free_at)
        if at > wanted + LONGEST_WAIT_S:
            return None
        self._free_at = max(self._free_at, wanted - 1.0) + self._step
        return at


def _rlocs(record: EidRecord) -> tuple[Ip, ...]:
    return tuple(locator.address for locator in record.locators if isinstance(locator.address, bytes))
