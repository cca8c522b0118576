"""The Map-Server and Map-Resolver's core: control messages and time in, effects out (RFC 9301 §8, RFC 9437).

What a message changes is decided and turned into effects first and made state last, so a refusal, or a bug, changes
nothing. Every refusal is a Reject with a fixed reason word.
"""

from __future__ import annotations

from collections.abc import Iterator

from lispfmc.core.effects import Effect, Emit, Reject
from lispfmc.core.registry import Registration
from lispfmc.core.retransmission import Schedule
from lispfmc.core.roundtrips import RoundTrips
from lispfmc.core.subscriptions import Subscription
from lispfmc.store import Released, Store
from lispfmc.store.memory import MemoryStore
from lispfmc.wire.address import Endpoint
from lispfmc.wire.messages import Ecm, MapNotifyAck, MapRegister, MapRequest, Message
from mapserver.notices import Move, Notices
from mapserver.publisher import Publisher
from mapserver.registrar import Registrar
from mapserver.requests import Requests
from mapserver.resolver import Resolver
from mapserver.settings import MapServerSettings
from mapserver.subscribing import Subscribing

LONGEST_NOTIFY_S = 60.0


class MapServer:
    """`received`, `next_deadline` and `expired` for the driver; read-only views for the HTTP API."""

    def __init__(self, settings: MapServerSettings, nonces: Iterator[int], store: Store | None = None) -> None:
        timers = settings.timers
        self._store: Store = store if store is not None else MemoryStore()
        first_s = timers.notify_first_s
        roundtrips = RoundTrips(first_s=first_s, least_s=min(timers.notify_least_s, first_s), most_s=first_s)
        schedule = Schedule(first_s, LONGEST_NOTIFY_S, timers.notify_tries)
        self._notices = Notices(schedule, roundtrips)
        resolver = Resolver(settings)
        self._publisher = Publisher(settings, self._notices)
        self._registrar = Registrar(settings, self._store, self._notices, self._publisher, nonces)
        subscribing = Subscribing(settings, resolver, self._publisher)
        self._requests = Requests(settings, self._store, resolver, subscribing)

    def received(self, message: Message, datagram: bytes, source: Endpoint, now: float) -> list[Effect]:
        """One control message."""
        if message.__class__ is Ecm and (answer := self._requests.at_once(message, now)) is not None:
            return [answer]
        match message:
            case MapRegister():
                return self._registrar.registered(message, datagram, source, now)
            case Ecm(message=MapRequest() as request):
                return self._requests.requested(request, message, source, now)
            case MapRequest():
                return self._requests.requested(message, None, source, now)
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
        return [*effects, *self._publisher.expired(now)]

    def registrations(self) -> Iterator[Registration]:
        return self._store.registrations()

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
