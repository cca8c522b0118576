"""Asking the mapping system: Map-Requests through the Map-Resolver, and what becomes of the answers.

One request a second per EID, ten tries and then a pause of 30 s (RFC 9301 §5.3), all EIDs together under one budget.
Requests that another xTR's SMR asks for have a budget of their own: SMRs can be forged, and packets that wait cannot
wait for them. An answer counts only with the nonce of a question that is open, and only for the EID that was asked for;
with a key for the Map-Resolver only what LISP-SEC (RFC 9303) proves to be vouched for by the Map-Server.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence

import msgspec

from lispfmc.core import lispsec
from lispfmc.core.deadlines import Deadlines
from lispfmc.core.effects import Reject
from lispfmc.core.mapcache import Mapping, ttl_s
from lispfmc.core.versions import newer
from lispfmc.wire.address import Endpoint, Ip, Prefix
from lispfmc.wire.messages import Action, EidRecord, MapNotify, MapReply
from xtr.asking import Asking, Budget
from xtr.effects import XtrEffect
from xtr.forwarding import Forwarding
from xtr.settings import XtrSettings
from xtr.subscribing import Subscribing

RETRY_S = 1.0  # RFC 9301 §5.3: at most one Map-Request a second for an EID-Prefix ...
TRIES = 10  # ... and after ten without an answer ...
PAUSE_S = 30.0  # ... none for this long
SMR_INVOKED_S = 3.0  # RFC 9301 §6.1: one SMR-invoked Map-Request per EID-Prefix in this time
ABSENT_S = 10.0  # the mapping system says that an EID is here, and it is not: ask again after this
MOST_QUESTIONS = 4096  # a scan of the address space by a host of ours must not fill the memory
MOST_SOLICITED = 1024  # nor may forged SMRs take the room of misses


class _Question(msgspec.Struct, frozen=True, gc=False):
    eid: Prefix
    nonces: tuple[int, ...]
    tries: int
    solicited: bool
    subscribes: bool


class Resolution:
    """The open questions."""

    def __init__(
        self,
        settings: XtrSettings,
        nonces: Iterator[int],
        forwarding: Forwarding,
        is_here: Callable[[Prefix], bool],
        subscribing: Subscribing,
    ) -> None:
        self._nonces = nonces
        self._asking = Asking(settings)
        self._forwarding = forwarding
        self._is_here = is_here
        self._subscribing = subscribing
        self._questions: dict[Prefix, _Question] = {}
        self._asked: dict[int, Prefix] = {}
        self._protected: dict[int, lispsec.Protection] = {}  # by nonce: one-time keys go with their questions
        self._due: Deadlines[Prefix] = Deadlines()
        self._cooling: Deadlines[Prefix] = Deadlines()
        self._solicited = 0
        self._budgets = {
            False: Budget(settings.limits.map_requests_per_s),
            True: Budget(settings.limits.smr_requests_per_s),
        }

    def ask(self, eid: Prefix, now: float, *, smr_invoked: bool = False) -> list[XtrEffect]:
        """Find out where `eid` is; nothing new when that is being asked already."""
        open_one = self._questions.get(eid)
        if open_one is not None:
            if open_one.solicited and not smr_invoked:  # now packets wait for it
                self._questions[eid] = msgspec.structs.replace(open_one, solicited=False)
                self._solicited -= 1
            return []
        for _ in self._cooling.pop_expired(now):
            pass
        full = self._solicited >= MOST_SOLICITED if smr_invoked else self._missed >= MOST_QUESTIONS
        at = None if full else self._budgets[smr_invoked].slot(max(now, self._cooling.at(eid) or now))
        if at is None:
            return [] if smr_invoked else self._drop(eid, RETRY_S, "refused", now)
        subscribes = self._subscribing.wanted(eid, now)
        self._questions[eid] = _Question(eid, (), 0, smr_invoked, subscribes)
        self._solicited += smr_invoked
        if at > now:
            self._due.set(eid, at)
            return []
        return [self._try(eid, now)]

    def is_open(self, eid: Prefix) -> bool:
        """Whether `eid` is being asked for, or about to be."""
        return eid in self._questions

    def replied(self, reply: MapReply, datagram: bytes, source: Endpoint, now: float) -> list[XtrEffect]:
        """A Map-Reply: the mapping that was asked for and its more-specifics, or a negative one."""
        if reply.probe:
            return self._forwarding.probed(reply, source, now)
        eid = self._asked.get(reply.nonce)
        if eid is None:
            return [Reject("unasked-reply", source, f"nonce {reply.nonce:016x}")]
        try:
            believed = _believed(self._protected.get(reply.nonce), reply, datagram)
        except lispsec.Unsafe as error:
            return [Reject(error.reason, source, f"asked for {eid}: {error}")]
        if self._questions[eid].subscribes and (refusal := _refusal(believed, eid)) is not None:
            # RFC 9437 §5: it does not want us as a subscriber, and has told us nothing else: ask plainly, at once
            effects: list[XtrEffect] = [*self._subscribing.refused(eid, refusal.name.lower(), now)]
            self._questions[eid] = msgspec.structs.replace(self._questions[eid], subscribes=False)
            return [*effects, self._try(eid, now)]
        return self._answered(eid, believed, source, now)

    def notified(self, notify: MapNotify, source: Endpoint, now: float) -> list[XtrEffect] | None:
        """The answer to a subscription, authenticated; None when it answers none."""
        eid = self._asked.get(notify.nonce)
        if eid is None or not self._questions[eid].subscribes:
            return None
        effects = self._answered(eid, notify.records, source, now)
        if eid not in self._questions:
            effects += self._subscribing.added(eid, notify.nonce, now)
        return effects

    def unsubscribed(self, eid: Prefix, cause: str, now: float) -> list[XtrEffect]:
        """The Map-Server has ended the subscription to `eid`: what we have of it is nobody's word any more."""
        ended = self._subscribing.ended(eid, cause)
        return [*ended, *self.ask(eid, now)] if ended else []

    def next_deadline(self) -> float | None:
        deadlines = (self._due.next(), self._subscribing.next_deadline())
        return min((at for at in deadlines if at is not None), default=None)

    def expired(self, now: float) -> list[XtrEffect]:
        """Ask again, or give up; end the subscriptions that are of no use any more."""
        effects: list[XtrEffect] = []
        for eid in list(self._due.pop_expired(now)):
            question = self._questions[eid]
            if question.tries >= TRIES:
                effects += self._give_up(eid, now)
                continue
            request = self._try(eid, now)
            # the first try has its slot; a repetition that finds no free one is left out
            if question.tries == 0 or self._budgets[question.solicited].slot(now) == now:
                effects.append(request)
        anew, unused = self._subscribing.expired(now)
        for eid in anew:
            effects += self.ask(eid, now)
        for eid in unused:
            effects += self._unsubscribe(eid)
        return effects

    def cancel(self, eid: Prefix) -> None:
        """The answer is no longer wanted: the host is here."""
        if eid in self._questions:
            self._close(eid)

    @property
    def _missed(self) -> int:
        return len(self._questions) - self._solicited

    def _try(self, eid: Prefix, now: float) -> XtrEffect:
        question = self._questions[eid]
        nonces = question.nonces
        if question.subscribes or not nonces:
            # RFC 9437 §5: a Map-Server drops a nonce that it has seen, so that each try of a subscription has its own
            nonce = self._subscribing.nonce() if question.subscribes else next(self._nonces)
            nonces = (*nonces, nonce)
            self._asked[nonce] = eid
            # RFC 9303 §6.4, RFC 9437 §7.1: a one-time key serves one message
            if (protection := self._asking.protection(self._nonces)) is not None:
                self._protected[nonce] = protection
                if question.subscribes:
                    self._subscribing.keys.asked(eid, nonce, protection)
        self._questions[eid] = msgspec.structs.replace(question, tries=question.tries + 1, nonces=nonces)
        self._due.set(eid, now + RETRY_S)
        self._cooling.set(eid, now + (SMR_INVOKED_S if question.solicited else RETRY_S))
        return self._asking.request(
            eid,
            nonces[-1],
            smr_invoked=question.solicited,
            subscribe=question.subscribes,
            protection=self._protected.get(nonces[-1]),
        )

    def _answered(self, eid: Prefix, told: Sequence[EidRecord], source: Endpoint, now: float) -> list[XtrEffect]:
        records = {record.prefix: record for record in told if record.prefix is not None}
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
        mapping = self._forwarding.cache.lookup(eid)
        if question.solicited:
            return []  # what we have is better than nothing
        if mapping is not None:  # the answer to another question covers it, or what we have is being refreshed
            return [self._forwarding.install(mapping)]
        return self._drop(eid, PAUSE_S, "unanswered", now)

    def _unsubscribe(self, eid: Prefix) -> list[XtrEffect]:
        # nobody will tell us when it changes, so that it is asked for anew when it is wanted again
        forgotten = self._forwarding.forget(eid, "unused")
        nonce, protection = self._subscribing.nonce(), self._asking.protection(self._nonces)
        request = self._asking.end_of_subscription(eid, nonce, protection)
        self._subscribing.keys.asked(eid, nonce, protection)
        return [*self._subscribing.ended(eid, "unused"), request, *forgotten]

    def _close(self, eid: Prefix) -> None:
        question = self._questions.pop(eid)
        for nonce in question.nonces:
            del self._asked[nonce]
            self._protected.pop(nonce, None)
        self._solicited -= question.solicited
        self._due.cancel(eid)


def _refusal(records: Sequence[EidRecord], eid: Prefix) -> Action | None:
    """RFC 9437 §5: a negative record that says that we may not subscribe."""
    for record in records:
        if not record.locators and record.prefix == eid:
            for action in (Action.DROP_POLICY_DENIED, Action.DROP_AUTH_FAILURE):
                if record.action == action:
                    return action
    return None


def _rlocs(record: EidRecord) -> tuple[Ip, ...]:
    return tuple(locator.address for locator in record.locators if isinstance(locator.address, bytes))


def _believed(protection: lispsec.Protection | None, reply: MapReply, datagram: bytes) -> Sequence[EidRecord]:
    """RFC 9303 §6.9: who asked with a one-time key discards what is not signed by it. Raises Unsafe."""
    if protection is None:
        return reply.records
    return lispsec.believable(reply, datagram, protection)
