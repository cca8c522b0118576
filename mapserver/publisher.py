"""Publish/subscribe (RFC 9437): who may subscribe, what a subscriber is told at once, and every change afterwards.

A subscription is answered by a Map-Notify, a refusal by a negative Map-Reply. What is to be published is planned
first, from the state before the change, and becomes state only by `commit`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import msgspec

from lispfmc.core.effects import Effect, Emit, Reject, Send
from lispfmc.core.registry import Change, Kind, View
from lispfmc.core.subscriptions import MUTED, Subscription, Subscriptions
from lispfmc.wire.address import Endpoint, Ip, Prefix
from lispfmc.wire.messages import Action, EidRecord, MapNotify, MapRequest
from mapserver.notices import Notices, Publication
from mapserver.resolver import HOLE_MINUTES, Resolver
from mapserver.settings import MapServerSettings, SubscriberSettings


class Refused(msgspec.Struct, frozen=True, gc=False):
    """RFC 9437 §5: the request is answered with a negative Map-Reply whose ACT says why."""

    action: Action
    detail: str


class Plan(msgspec.Struct, frozen=True):
    """One subscription, the records that join what it has not acknowledged, and the Map-Notify, if one goes out."""

    subscription: Subscription
    fresh: dict[Prefix, EidRecord]
    notify: Send | None


Subscribing: TypeAlias = list[Effect] | Refused


class Publisher:
    """Subscriptions and their publications."""

    def __init__(self, settings: MapServerSettings, resolver: Resolver, notices: Notices) -> None:
        self.subscriptions = Subscriptions()
        self._settings = settings
        self._resolver = resolver
        self._notices = notices
        self._families = {len(ip) for ip in settings.listen}

    def requested(self, request: MapRequest, eid: Prefix, outer: Endpoint, view: View, now: float) -> Subscribing:
        """A Map-Request whose record for `eid` has the N-bit; `outer` is the source of the datagram itself."""
        xtr_id = request.xtr_id
        if xtr_id is None:
            return Refused(Action.DROP_AUTH_FAILURE, "a subscription needs an xTR-ID (RFC 9437 §5)")
        subscriber = self._subscriber(xtr_id, request, outer)
        if isinstance(subscriber, Refused):
            return subscriber
        if not subscriber.may_subscribe(eid):
            return Refused(Action.DROP_POLICY_DENIED, f"{subscriber.name} may not subscribe to {eid}")
        last_nonce = self.subscriptions.last_nonce(eid, xtr_id)
        if last_nonce is not None and request.nonce <= last_nonce:
            return [Reject("replayed-nonce", outer, f"subscription to {eid}")]
        if request.itr_rlocs == (None,):  # RFC 9437 §6: AFI 0 as the only ITR-RLOC ends the subscription
            return self._unsubscribe(request, eid, xtr_id, subscriber, outer, view)
        count = self.subscriptions.count(subscriber.name)
        known = self.subscriptions.get(eid, xtr_id) is not None
        if not known and count >= self._settings.limits.subscriptions_per_subscriber:
            return Refused(Action.DROP_POLICY_DENIED, f"{subscriber.name} has {count} subscriptions")
        return self._subscribe(request, eid, xtr_id, subscriber, view, now)

    def _subscriber(self, xtr_id: bytes, request: MapRequest, outer: Endpoint) -> SubscriberSettings | Refused:
        """RFC 9437 §5: the xTR-ID must be one that may use the N-bit, and the ITR-RLOCs its own."""
        rlocs = {rloc for rloc in request.itr_rlocs if rloc is not None} or {outer.ip}
        unknown = False
        for subscriber in self._settings.subscribers:
            if subscriber.xtr_id and subscriber.xtr_id != xtr_id:
                continue
            if rlocs <= set(subscriber.address):
                return subscriber
            unknown = unknown or bool(subscriber.xtr_id)
        if unknown:
            return Refused(Action.DROP_AUTH_FAILURE, "the ITR-RLOCs are not those of this xTR-ID")
        return Refused(Action.DROP_POLICY_DENIED, "no subscriber is configured with this xTR-ID and these ITR-RLOCs")

    def _subscribe(
        self, request: MapRequest, eid: Prefix, xtr_id: bytes, subscriber: SubscriberSettings, view: View, now: float
    ) -> Subscribing:
        rlocs = tuple(rloc for rloc in request.itr_rlocs if isinstance(rloc, bytes) and len(rloc) in self._families)
        if not rlocs:
            return Refused(Action.DROP_POLICY_DENIED, "no ITR-RLOC of an address family that we have")
        records = {prefix: each for each in self._resolver.everything(eid, view) if (prefix := each.prefix)}
        subscription = Subscription(eid, xtr_id, subscriber.name, subscriber.key, rlocs, request.nonce, {})
        known = self.subscriptions.get(eid, xtr_id) is not None
        sent = subscription.next_records(records)
        notify = self._notify(subscription, sent, request.nonce)
        found = any(record.locators for record in sent)
        # RFC 9437 §5: a subscription to an EID that nobody serves is temporary
        until = None if found or self._resolver.is_configured(eid) else now + HOLE_MINUTES * 60.0
        self.subscriptions.put(subscription, until)
        subscription.publish(records, sent, request.nonce)
        added = [] if known else [_event("subscription.added", subscription, eid)]
        return [*self._notices.start(Publication(eid, xtr_id), notify, now), *added]

    def _unsubscribe(
        self,
        request: MapRequest,
        eid: Prefix,
        xtr_id: bytes,
        subscriber: SubscriberSettings,
        outer: Endpoint,
        view: View,
    ) -> Subscribing:
        held = self.subscriptions.get(eid, xtr_id)
        above = self.subscriptions.covering(eid, xtr_id)
        # RFC 9437 §6: the removal is confirmed to the source of the request, with its nonce
        notify = MapNotify.of(*self._resolver.answer(eid, view), nonce=request.nonce)
        effects: list[Effect] = [Send(notify, Endpoint(outer.ip, self._settings.port), subscriber.key)]
        if held is not None:
            self._end(held, request.nonce)
            effects.append(_event("subscription.removed", held, eid, cause="unsubscribed"))
        elif above is not None:
            if len(above.muted) >= MUTED:
                return Refused(Action.DROP_POLICY_DENIED, f"{MUTED} more-specifics are unsubscribed already")
            above.muted |= {eid}
            self.subscriptions.remove(eid, xtr_id, request.nonce)
        return effects

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
        effects: list[Effect] = []
        for plan in plans:
            subscription = plan.subscription
            if plan.notify is None or not isinstance(plan.notify.message, MapNotify):
                subscription.pending.update(plan.fresh)  # the window is full: they follow the acknowledgement
                continue
            message = plan.notify.message
            subscription.publish(plan.fresh, message.records, message.nonce)
            self.subscriptions.keep(subscription.eid, subscription.xtr_id)
            effects.extend(self._notices.start(_notice(subscription), plan.notify, now))
            effects.extend(_event("publication.sent", subscription, eid, to=str(plan.notify.to)) for eid in plan.fresh)
        return effects

    def acknowledged(self, notice: Publication, after_s: float, now: float) -> list[Effect]:
        """The subscriber has what was in flight; what has gathered meanwhile goes out."""
        subscription = self.subscriptions.get(notice.eid, notice.xtr_id)
        if subscription is None:
            return []
        after_ms = round(after_s * 1000, 3)
        effects: list[Effect] = [
            _event("publication.acknowledged", subscription, eid, after_ms=after_ms)
            for record in subscription.sent
            if (eid := record.prefix) is not None
        ]
        subscription.acknowledge()
        if subscription.pending:
            effects.extend(self.commit([self._plan(subscription, {})], now))
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
            _event("subscription.removed", subscription, subscription.eid, cause="not acknowledged"),
        ]
        self._end(subscription)
        return effects

    def expired(self, now: float) -> list[Effect]:
        """End the temporary subscriptions whose time is over."""
        ended = self.subscriptions.expired(now)
        for subscription in ended:
            self._notices.cancel(_notice(subscription))
        return [_event("subscription.removed", each, each.eid, cause="no mapping appeared") for each in ended]

    def next_deadline(self) -> float | None:
        return self.subscriptions.next_deadline()

    def pending(self) -> Iterator[tuple[Subscription, int]]:
        """Every subscription with the number of records that it has not acknowledged."""
        return ((subscription, len(subscription.pending)) for subscription in self.subscriptions)

    def _plan(self, subscription: Subscription, fresh: dict[Prefix, EidRecord]) -> Plan:
        records = subscription.next_records(fresh)
        if records == subscription.sent and _notice(subscription) in self._notices:
            return Plan(subscription, fresh, None)
        return Plan(subscription, fresh, self._notify(subscription, records, subscription.next_nonce))

    def _again(self, subscription: Subscription) -> Send:
        return self._notify(subscription, subscription.sent, subscription.nonce)

    def _notify(self, subscription: Subscription, records: tuple[EidRecord, ...], nonce: int) -> Send:
        to: Ip = subscription.address
        return Send(MapNotify.of(*records, nonce=nonce), Endpoint(to, self._settings.port), subscription.key)

    def _end(self, subscription: Subscription, nonce: int | None = None) -> None:
        self._notices.cancel(_notice(subscription))
        self.subscriptions.remove(subscription.eid, subscription.xtr_id, nonce)


def _notice(subscription: Subscription) -> Publication:
    return Publication(subscription.eid, subscription.xtr_id)


def _event(name: str, subscription: Subscription, eid: Prefix, **fields: str | float) -> Emit:
    what = {"eid": str(eid), "subscriber": subscription.subscriber, "xtr_id": subscription.xtr_id.hex()}
    return Emit(name, {**what, "subscription": str(subscription.eid), **fields})
