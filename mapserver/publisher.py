"""Publications (RFC 9437 §7): every change goes to those who subscribed, until they acknowledge it.

What is to be published is planned first, from the state before the change, and becomes state only by `commit`. A large
fan-out is paced: as many Map-Notifies at once as configured, the rest at a configured rate, with what is current then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from math import inf

import msgspec

from lispfmc.core.effects import Effect, Emit, Send, Transmit
from lispfmc.core.limits import Pace
from lispfmc.core.registry import Change, Kind, View
from lispfmc.core.subscriptions import RECORDS_IN_FLIGHT, Subscribed, Subscription, Subscriptions
from lispfmc.wire import records
from lispfmc.wire.address import Endpoint, Prefix
from lispfmc.wire.auth import Key, tagged
from lispfmc.wire.messages import Action, EidRecord, MapNotify
from mapserver.notices import Notices
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


class _Batch:
    """Map-Notifies that leave together. Those that carry the same records share the bytes of these."""

    def __init__(self) -> None:
        self._sends: list[Effect] = []
        self._told: list[tuple[Plan, Endpoint]] = []
        self._packed: dict[tuple[int, ...], bytes] = {}

    def add(self, plan: Plan, notify: Send, message: MapNotify) -> None:
        carried, key = message.records, notify.key
        assert key is not None
        which = tuple(map(id, carried))  # they live as long as their subscriptions, which is longer than this batch
        packed = self._packed.get(which)
        if packed is None:
            packed = self._packed[which] = b"".join(map(records.packed, carried))
        datagram = tagged(message.word | len(carried), message.nonce.to_bytes(8, "big"), packed, key)
        self._sends.append(Transmit(datagram, notify.to))
        self._told.append((plan, notify.to))

    def effects(self) -> list[Effect]:
        """Everything to send, and then what there is to tell of it."""
        if len(self._told) <= TOLD_APART:
            return [
                *self._sends,
                *(
                    event("publication.sent", plan.subscription, eid, to=str(to))
                    for plan, to in self._told
                    for eid in plan.fresh
                ),
            ]
        numbers = Counter(eid for plan, _ in self._told for eid in plan.fresh)
        told = (Emit("publication.sent", {"eid": str(eid), "subscribers": number}) for eid, number in numbers.items())
        return [*self._sends, *told]


class Publisher:
    """Subscriptions and their publications."""

    def __init__(self, settings: MapServerSettings, notices: Notices) -> None:
        self.subscriptions = Subscriptions()
        self._notices = notices
        self.configure(settings)
        self._queued: dict[Subscription, None] = {}  # in order; no more of them than subscriptions
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
        before = self.subscriptions.get(subscription.eid, subscription.xtr_id)
        subscription.answer = frozenset(records)
        told = inf  # an answer tells of no change
        if before is not None:
            # a change that was on its way goes with this answer: its publication is acknowledged with it
            subscription.answer -= before.pending.keys() - before.answer
            self._queued.pop(before, None)
            self._notices.cancel(before)
            told = min(before.told if before.sent else inf, inf if before.waiting is None else before.waiting)
        self.subscriptions.put(subscription, until)
        subscription.publish(records, sent, subscription.nonce, now)
        subscription.told = told
        added = [] if known else [event("subscription.added", subscription, subscription.eid)]
        return [*self._notices.start(subscription, notify, now), *added]

    def restore(self, kept: Subscribed, key: Key) -> None:
        """Take back a subscription after a restart. The nonces of its publications were not kept, so go past them."""
        nonce = (kept.nonce + NONCES_SKIPPED) % (1 << 64)
        restored = Subscription(
            kept.eid,
            kept.xtr_id,
            kept.subscriber,
            key,
            kept.itr_rlocs,
            nonce,
            {},
            muted=kept.muted,
            sealed=kept.sealed,
            heard=kept.nonce if kept.heard is None else kept.heard,
        )
        if kept.sealed is not None:
            self.subscriptions.use_key(kept.sealed)
        self.subscriptions.put(restored, kept.until)

    def end(self, subscription: Subscription, nonce: int | None = None) -> None:
        """Forget `subscription`, not its nonce, or the later `nonce` that ended it."""
        self._queued.pop(subscription, None)
        self._notices.cancel(subscription)
        self.subscriptions.remove(subscription.eid, subscription.xtr_id, nonce)

    def plan(self, changes: Sequence[Change], view: View) -> list[Plan]:
        """The publications of `changes`, each subscription once, from the state before them."""
        if not self.subscriptions:
            return []
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
        batch = _Batch()
        for plan in plans:
            subscription, notify = plan.subscription, plan.notify
            self.subscriptions.keep(subscription.eid, subscription.xtr_id)
            if subscription.answer:
                subscription.answer -= plan.fresh.keys()
            if notify is None:
                subscription.postpone(plan.fresh, now)  # the window is full: they follow the acknowledgement
            elif self._queued or not self._pace.take(now):
                subscription.postpone(plan.fresh, now)
                self._queued[subscription] = None
                self._queue_at = self._pace.next(now)
            else:
                self._publish(plan, notify, batch, now)
        return batch.effects()

    def _publish(self, plan: Plan, notify: Send, batch: _Batch, now: float) -> None:
        message = notify.message
        assert isinstance(message, MapNotify)
        plan.subscription.publish(plan.fresh, message.records, message.nonce, now)
        self._notices.start(plan.subscription, notify, now)
        batch.add(plan, notify, message)

    def acknowledged(self, subscription: Subscription, after_s: float, now: float) -> list[Effect]:
        """The subscriber has what was in flight; what has gathered meanwhile goes out."""
        after_ms, change_ms = round(after_s * 1000, 3), round((now - subscription.told) * 1000, 3)
        effects: list[Effect] = [
            event("publication.acknowledged", subscription, eid, after_ms=after_ms, change_ms=change_ms)
            for record in subscription.sent
            # subscribers subscribe anew every minute: what they know already is no news to the operator either
            if (eid := record.prefix) is not None and eid not in subscription.answer
        ]
        subscription.acknowledge()
        if subscription.pending:
            effects[:0] = self.commit([self._plan(subscription, {})], now)
        return effects

    def given_up(self, subscription: Subscription, now: float) -> list[Effect]:
        """No acknowledgement: try the next ITR-RLOC, and after the last one end the subscription (RFC 9437 §7)."""
        if subscription.rloc + 1 < len(subscription.itr_rlocs):
            subscription.rloc += 1
            return list(self._notices.start(subscription, self._again(subscription), now))
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
            self._queued.pop(subscription, None)
            self._notices.cancel(subscription)
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
        batch = _Batch()
        while self._queued and self._pace.take(now):
            subscription = next(iter(self._queued))
            del self._queued[subscription]
            plan = self._plan(subscription, dict(islice(subscription.pending.items(), RECORDS_IN_FLIGHT)))
            if subscription.pending and plan.notify is not None:
                self._publish(plan, plan.notify, batch, now)
        self._queue_at = self._pace.next(now)
        return batch.effects()

    def _plan(self, subscription: Subscription, fresh: dict[Prefix, EidRecord]) -> Plan:
        records = subscription.next_records(fresh)
        if records == subscription.sent and subscription in self._notices:
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
