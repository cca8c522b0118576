"""The Map-Server and Map-Resolver's core: control messages and time in, effects out (RFC 9301 §8, RFC 9437).

What a message changes is decided and turned into effects first and made state last, so a refusal, or a bug, changes
nothing. Every refusal is a Reject with a fixed reason word.
"""

from __future__ import annotations

from collections.abc import Iterator

from lispfmc.core.effects import Effect, Emit, Reject, Transmit
from lispfmc.core.lispsec import Unsafe
from lispfmc.core.registry import Registration
from lispfmc.core.retransmission import Schedule
from lispfmc.core.roundtrips import RoundTrips
from lispfmc.core.subscriptions import Subscribed, Subscription
from lispfmc.store import Query, Released, Store
from lispfmc.store.memory import MemoryStore
from lispfmc.wire.address import Endpoint, Prefix
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import Ecm, MapNotifyAck, MapRegister, MapRequest, Message
from mapserver.notices import Move, Notices
from mapserver.protection import PubSubKeys
from mapserver.publisher import Publisher, event
from mapserver.refreshing import Refreshing, memo, wants_notify
from mapserver.registrar import Registrar
from mapserver.requests import Requests
from mapserver.resolver import Resolver
from mapserver.settings import MapServerSettings
from mapserver.subscribing import Subscribing

LONGEST_NOTIFY_S = 60.0
PLAIN_ECM = 0x80  # the first byte of an ECM without any flag


class MapServer:
    """`received`, `next_deadline` and `expired` for the driver; read-only views for the HTTP API."""

    def __init__(self, settings: MapServerSettings, nonces: Iterator[int], store: Store | None = None) -> None:
        timers = settings.timers
        self._store: Store = store if store is not None else MemoryStore()
        first_s = timers.notify_first_s
        roundtrips = RoundTrips(first_s=first_s, least_s=min(timers.notify_least_s, first_s), most_s=first_s)
        schedule = Schedule(first_s, LONGEST_NOTIFY_S, timers.notify_tries)
        self._notices = Notices(schedule, roundtrips)
        self._publisher = Publisher(settings, self._notices)
        self._registrar = Registrar(settings, self._store, self._notices, self._publisher, nonces)
        self._refreshing = Refreshing(self._store, settings.port)
        self._settings = settings
        self._requests = self._answering()

    def at_once(self, datagram: bytes, source: Endpoint, now: float) -> Transmit | list[Effect] | None:
        """The whole answer to a Map-Register or Map-Request that need not be decoded; None leaves it to `received`."""
        if datagram[0] == PLAIN_ECM:
            answer = self._requests.undecoded(datagram, source, now)
            return [answer] if isinstance(answer, Reject) else answer
        if not wants_notify(datagram):
            return None
        noted = memo(datagram, source)
        refreshed = self._refreshing.at_once(datagram, source, now, noted)
        if refreshed is not None:
            return refreshed
        effects = self._registrar.at_once(datagram, source, now, noted)
        return self._kept(effects, now) if effects is not None else None

    def _answering(self) -> Requests:
        resolver = Resolver(self._settings)
        subscribing = Subscribing(self._settings, resolver, self._publisher)
        return Requests(self._settings, self._store, resolver, subscribing)

    def started(self, now: float) -> list[Effect]:
        """Take up what the store has kept: static mappings, subscriptions, and those who may not have been told."""
        effects = self._registrar.pin(now)
        for kept in self._store.subscriptions():
            if kept.ended:
                self._publisher.subscriptions.restore_ended(kept)
            elif (key := self._key(kept)) is not None:
                self._publisher.restore(kept, key)
        effects.extend(self._registrar.remind(now))
        recent = self._store.recent()
        plans = self._publisher.plan(recent, self._store.view(Query(tuple(change.eid for change in recent))))
        return self._kept([*effects, *self._publisher.commit(plans, now)], now)

    def policed(self, now: float) -> list[Effect]:
        """End what was kept from under other settings and is not allowed by these."""
        return self._kept(self._registrar.purge({site.name for site in self._settings.sites}, now), now)

    def configured(self, settings: MapServerSettings, now: float) -> list[Effect]:
        """Go by other settings: what they do not allow any more ends."""
        before, self._settings = {site.name: site for site in self._settings.sites}, settings
        answers = self._requests.answers
        self._requests = self._answering()
        self._requests.answers = answers
        self._store.forget()
        self._registrar.configure(settings)
        self._publisher.configure(settings)
        effects: list[Effect] = []
        for subscription in list(self._publisher.subscriptions):
            key = self._key(subscription)
            if key is None:
                self._publisher.end(subscription)
                effects.append(event("subscription.removed", subscription, subscription.eid, cause="not allowed"))
            else:
                subscription.key = key
        after = {site.name: site for site in settings.sites}
        effects.extend(self._registrar.purge({name for name in before if before[name] != after.get(name)}, now))
        return self._kept([*effects, *self._registrar.pin(now)], now)

    def _key(self, held: Subscribed | Subscription) -> Key | None:
        """The key of a subscription, if its subscriber may still have it."""
        named = (each for each in self._settings.subscribers if each.name == held.subscriber)
        subscriber = next((each for each in named if each.may_subscribe(held.eid)), None)
        try:
            return PubSubKeys(self._settings.itrs).key(subscriber, held.sealed) if subscriber is not None else None
        except Unsafe:
            return None

    def _kept(self, effects: list[Effect], now: float) -> list[Effect]:
        """Give the store what changed about subscriptions, before the effects are performed."""
        unsaved = self._publisher.subscriptions.unsaved
        if unsaved:
            self._store.apply(unsaved, now)
            unsaved.clear()
        return effects

    def received(self, message: Message, datagram: bytes, source: Endpoint, now: float) -> list[Effect]:
        """One control message."""
        if message.__class__ is Ecm and (answer := self._requests.at_once(message, source, now)) is not None:
            return [answer]
        match message:
            case MapRegister():
                return self._kept(self._registrar.registered(message, datagram, source, now), now)
            case Ecm(message=MapRequest() as request):
                return self._kept(self._requests.requested(request, message, source, now), now)
            case MapRequest():
                return self._kept(self._requests.requested(message, None, source, now), now)
            case MapNotifyAck():
                return self._acknowledged(message, datagram, source, now)
            case _:
                return [Reject("unexpected-message", source, type(message).__name__)]

    def next_deadline(self) -> float | None:
        deadlines = (self._store.next_deadline(), self._notices.next_deadline(), self._publisher.next_deadline())
        return min((deadline for deadline in deadlines if deadline is not None), default=None)

    def expired(self, now: float) -> list[Effect]:
        """Registrations that end, Map-Notifies that go out again or are given up, subscriptions that end."""
        effects = self._registrar.expired(now)
        due, given_up = self._notices.expired(now)
        effects.extend(due)
        for notice in given_up:
            # an xTR that was displaced stays so: it is told again as soon as it registers the EID
            if not isinstance(notice, Move):
                effects.extend(self._publisher.given_up(notice, now))
        return self._kept([*effects, *self._publisher.expired(now)], now)

    def registrations(self, after: Prefix | None = None) -> Iterator[Registration]:
        return self._store.registrations(after)

    def registrations_for(self, eid: Prefix) -> Iterator[Registration]:
        """Those that answer for `eid` or a part of it."""
        view = self._store.view(Query((eid,)))
        match = view.longest(eid)
        if match is not None and match.eid != eid:
            yield match
        yield from view.within(eid)

    def subscriptions(self) -> Iterator[Subscription]:
        return iter(self._publisher.subscriptions)

    def counts(self) -> dict[str, int]:
        """Sizes of the tables, for the status and the metrics."""
        return {
            "registrations": len(self._store),
            "subscriptions": len(self._publisher.subscriptions),
            "notifies_pending": len(self._notices),
            "publications_queued": self._publisher.queued(),
        }

    def longest_unanswered(self, now: float) -> float:
        """For how many seconds the oldest Map-Notify has waited for its acknowledgement; 0 when none does."""
        since = self._notices.oldest
        return 0.0 if since is None else now - since

    def answers(self) -> dict[str, int]:
        """Map-Requests by what became of them."""
        return dict(self._requests.answers)

    def _acknowledged(self, ack: MapNotifyAck, datagram: bytes, source: Endpoint, now: float) -> list[Effect]:
        delivered = self._notices.acknowledged(ack, datagram, source, now)
        if delivered is None:
            return []  # RFC 9301 §5.7: acknowledging again what was acknowledged already is no fault
        if isinstance(delivered, str):
            return [Reject(delivered, source, "Map-Notify-Ack")]
        notice = delivered.notice
        if not isinstance(notice, Move):
            return self._publisher.acknowledged(notice, delivered.after_s, now)
        self._store.apply([Released(notice.eid, notice.owner)], now)
        after_ms = round(delivered.after_s * 1000, 3)
        return [
            Emit("move.acknowledged", {"eid": str(notice.eid), "site": notice.owner.site, "after_ms": after_ms}),
        ]
