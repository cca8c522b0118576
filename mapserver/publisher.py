"""Publications (RFC 9437 §7): every change goes to those who subscribed, until they acknowledge it.

What is to be published is planned first, from the state before the change, and becomes state only by `commit`. A large
fan-out is paced: as many Map-Notifies at once as configured, the rest at a configured rate, with what is current then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from lispfmc.core.effects import Effect, Emit, Send
from lispfmc.core.limits import Pace
from lispfmc.core.registry import Change, Kind, View
from lispfmc.core.subscriptions import Subscribed, Subscription, Subscriptions
from lispfmc.wire.address import Endpoint, Prefix
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import Action, EidRecord, MapNotify
from mapserver.notices import Notices, Publication
from mapserver.settings import MapServerSettings

NONCES_SKIPPED = 1 << 24
"""Publications to one subscriber between two restarts, at most: a subscriber takes any nonce above its last one."""
TOLD_APART = 64
"""More subscribers than this are one `publication.sent` event with their number: telling must not cost like sending."""


class Plan(msgspec.Struct, frozen=True):
    """One subscription, the records that join what it has not acknowledged, and the Map-Notify, if one goes out."""

    subscription: Subscription
    fresh: dict[Prefix, EidRecord]
    notify: Send | None


class Publisher:
    """Subscriptions and their publications."""

    def __init__(self, settings: MapServerSettings, notices: Notices) -> None:
        self.subscriptions = Subscriptions()
        self._notices = notices
        self.configure(settings)
        self._queued: dict[Publication, None] = {}  # in order; no more of them than subscriptions
        self._queue_at = float("-inf")

    def configure(self, settings: MapServerSettings) -> None:
        """Go by these settings from now on."""
        self._ports = {each.name: each.port or settings.port for each in settings.subscribers}
        self._pace = Pace(settings.limits.publications_rate, settings.limits.publications_burst)

    def begin(
        self,
        subscription: Subscription,
        records: dict[Prefix, EidRecord],
        until: float | None,
        now: float,
        *,
        known: bool,
    ) -> list[Effect]:
        """Keep `subscription`, and tell it `records` with the nonce of its request (RFC 9437 §5)."""
        sent = subscription.next_records(records)
        notify = self._notify(subscription, sent, subscription.nonce)
        self._queued.pop(_notice(subscription), None)
        self.subscriptions.put(subscription, until)
        subscription.publish(records, sent, subscription.nonce)
        added = [] if known else [event("subscription.added", subscription, subscription.eid)]
        return [*self._notices.start(_notice(subscription), notify, now), *added]

    def restore(self, kept: Subscribed, key: Key) -> None:
        """Take back a subscription after a restart. The nonces of its publications were not kept, so go past them."""
        nonce = (kept.nonce + NONCES_SKIPPED) % (1 << 64)
        restored = Subscription(
            kept.eid, kept.xtr_id, kept.subscriber, key, kept.itr_rlocs, nonce, {}, muted=kept.muted
        )
        self.subscriptions.put(restored, kept.until)

    def end(self, subscription: Subscription, nonce: int | None = None) -> None:
        """Forget `subscription`, not its nonce, or the later `nonce` that ended it."""
        self._queued.pop(_notice(subscription), None)
        self._notices.cancel(_notice(subscription))
        self.subscriptions.remove(subscription.eid, subscription.xtr_id, nonce)

    def plan(self, changes: Sequence[Change], view: View) -> list[Plan]:
        """The publications of `changes`, each subscription once, from the state before them."""
        fresh: dict[int, tuple[Subscription, dict[Prefix, EidRecord]]] = {}
        for change in changes:
            if change.kind is Kind.REFRESHED:
                continue
            # RFC 9437 §7: a mapping that is gone is published with TTL 0
            record = change.after.mapping if change.after else EidRecord.of(change.eid, ttl_minutes=0)
            for subscription in self.subscriptions.interested(change.eid, view):
                fresh.setdefault(id(subscription), (subscription, {}))[1][change.eid] = record
        return [self._plan(subscription, records) for subscription, records in fresh.values()]

    def commit(self, plans: Sequence[Plan], now: float) -> list[Effect]:
        """Make the plans state and send them."""
        sends: list[Effect] = []
        told: list[tuple[Subscription, Send, dict[Prefix, EidRecord]]] = []
        for plan in plans:
            subscription = plan.subscription
            self.subscriptions.keep(subscription.eid, subscription.xtr_id)
            message = plan.notify.message if plan.notify else None
            if plan.notify is None or not isinstance(message, MapNotify):
                subscription.pending.update(plan.fresh)  # the window is full: they follow the acknowledgement
            elif self._queued or not self._pace.take(now):
                subscription.pending.update(plan.fresh)
                self._queued[_notice(subscription)] = None
                self._queue_at = self._pace.next(now)
            else:
                subscription.publish(plan.fresh, message.records, message.nonce)
                sends.extend(self._notices.start(_notice(subscription), plan.notify, now))
                told.append((subscription, plan.notify, plan.fresh))
        return [*sends, *_sent(told)]

    def acknowledged(self, notice: Publication, after_s: float, now: float) -> list[Effect]:
        """The subscriber has what was in flight; what has gathered meanwhile goes out."""
        subscription = self.subscriptions.get(notice.eid, notice.xtr_id)
        if subscription is None:
            return []
        after_ms = round(after_s * 1000, 3)
        effects: list[Effect] = [
            event("publication.acknowledged", subscription, eid, after_ms=after_ms)
            for record in subscription.sent
            if (eid := record.prefix) is not None
        ]
        subscription.acknowledge()
        if subscription.pending:
            effects[:0] = self.commit([self._plan(subscription, {})], now)
        return effects

    def given_up(self, notice: Publication, now: float) -> list[Effect]:
        """No acknowledgement: try the next ITR-RLOC, and after the last one end the subscription (RFC 9437 §7)."""
        subscription = self.subscriptions.get(notice.eid, notice.xtr_id)
        if subscription is None:
            return []
        if subscription.rloc + 1 < len(subscription.itr_rlocs):
            subscription.rloc += 1
            return list(self._notices.start(notice, self._again(subscription), now))
        lost = EidRecord.of(subscription.eid, ttl_minutes=0, action=Action.DROP_AUTH_FAILURE)
        effects: list[Effect] = [
            self._notify(subscription, (lost,), subscription.nonce),
            event("subscription.removed", subscription, subscription.eid, cause="not acknowledged"),
        ]
        self.end(subscription)
        return effects

    def expired(self, now: float) -> list[Effect]:
        """Send what had to wait for its turn; end the temporary subscriptions whose time is over."""
        effects = self._work_off(now)
        ended = self.subscriptions.expired(now)
        for subscription in ended:
            self._queued.pop(_notice(subscription), None)
            self._notices.cancel(_notice(subscription))
        return [
            *effects,
            *(event("subscription.removed", each, each.eid, cause="no mapping appeared") for each in ended),
        ]

    def next_deadline(self) -> float | None:
        temporary = self.subscriptions.next_deadline()
        if not self._queued:
            return temporary
        return self._queue_at if temporary is None else min(temporary, self._queue_at)

    def queued(self) -> int:
        """Subscriptions whose next Map-Notify waits for its turn."""
        return len(self._queued)

    def _work_off(self, now: float) -> list[Effect]:
        sends: list[Effect] = []
        told: list[tuple[Subscription, Send, dict[Prefix, EidRecord]]] = []
        while self._queued and self._pace.take(now):
            notice = next(iter(self._queued))
            del self._queued[notice]
            subscription = self.subscriptions.get(notice.eid, notice.xtr_id)
            plan = self._plan(subscription, {}) if subscription is not None and subscription.pending else None
            if subscription is None or plan is None or plan.notify is None:
                continue
            message = plan.notify.message
            if isinstance(message, MapNotify):
                fresh = {prefix: each for each in message.records if (prefix := each.prefix)}
                subscription.publish({}, message.records, message.nonce)
                sends.extend(self._notices.start(notice, plan.notify, now))
                told.append((subscription, plan.notify, fresh))
        self._queue_at = self._pace.next(now)
        return [*sends, *_sent(told)]

    def _plan(self, subscription: Subscription, fresh: dict[Prefix, EidRecord]) -> Plan:
        records = subscription.next_records(fresh)
        if records == subscription.sent and _notice(subscription) in self._notices:
            return Plan(subscription, fresh, None)
        return Plan(subscription, fresh, self._notify(subscription, records, subscription.next_nonce))

    def _again(self, subscription: Subscription) -> Send:
        return self._notify(subscription, subscription.sent, subscription.nonce)

    def _notify(self, subscription: Subscription, records: tuple[EidRecord, ...], nonce: int) -> Send:
        to = Endpoint(subscription.address, self._ports[subscription.subscriber])
        return Send(MapNotify.of(*records, nonce=nonce), to, subscription.key)


def event(name: str, subscription: Subscription, eid: Prefix, **fields: str | float) -> Emit:
    """An event about what `subscription` hears of `eid`."""
    what = {"eid": str(eid), "subscriber": subscription.subscriber, "xtr_id": subscription.xtr_id.hex()}
    return Emit(name, {**what, "subscription": str(subscription.eid), **fields})


def _notice(subscription: Subscription) -> Publication:
    return Publication(subscription.eid, subscription.xtr_id)


def _sent(told: Sequence[tuple[Subscription, Send, dict[Prefix, EidRecord]]]) -> list[Effect]:
    if len(told) <= TOLD_APART:
        return [
            event("publication.sent", subscription, eid, to=str(send.to))
            for subscription, send, fresh in told
            for eid in fresh
        ]
    numbers = Counter(eid for _, _, fresh in told for eid in fresh)
    return [Emit("publication.sent", {"eid": str(eid), "subscribers": number}) for eid, number in numbers.items()]
