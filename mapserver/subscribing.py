"""Who may subscribe to what (RFC 9437 §4-§6): a Map-Request with the N-bit becomes a subscription, its end, or nothing.

A subscription is answered by a Map-Notify with everything that is known, a refusal by a negative Map-Reply. Only who
subscribes with LISP-SEC is authenticated, so what requests can do is bounded: answers go to configured addresses only,
nonces only grow, and the last stretch of the nonces is out of a request's reach.
"""

from __future__ import annotations

from itertools import islice
from typing import TypeAlias

import msgspec

from lispfmc.core import lispsec
from lispfmc.core.effects import Effect, Reject, Send
from lispfmc.core.limits import TokenBuckets
from lispfmc.core.lispsec import Sealed
from lispfmc.core.registry import View
from lispfmc.core.subscriptions import MUTED, Subscription
from lispfmc.wire import records
from lispfmc.wire.address import Endpoint, Prefix
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import Action, Ecm, MapNotify, MapRequest
from mapserver.protection import PubSubKeys
from mapserver.publisher import Publisher, event
from mapserver.resolver import Resolver
from mapserver.settings import MapServerSettings, SubscriberSettings

NONCES_RESERVED = 1 << 32
"""Publications count on from the request's nonce: a forged request may not bring it so near to the end that the real
subscriber, which never takes a lower one, could not be told anything any more."""
BUCKETS = 65_536  # (subscriber, EID) pairs whose requests are counted


class Refused(msgspec.Struct, frozen=True, gc=False):
    """RFC 9437 §5: the request is answered with a negative Map-Reply whose ACT says why."""

    action: Action
    detail: str


class Declined(msgspec.Struct, frozen=True, gc=False):
    """RFC 9437 §5: not subscribed for another reason; the Map-Request is treated as if it had no N-bit."""

    detail: str


Outcome: TypeAlias = list[Effect] | Refused | Declined


class _Asked(msgspec.Struct, frozen=True, gc=False):
    """A request that may be followed."""

    request: MapRequest
    eid: Prefix
    xtr_id: bytes
    subscriber: SubscriberSettings
    outer: Endpoint
    key: Key
    sealed: Sealed | None


class Subscribing:
    """Turns requests into subscriptions, which `publisher` keeps."""

    def __init__(self, settings: MapServerSettings, resolver: Resolver, publisher: Publisher) -> None:
        self._settings = settings
        self._resolver = resolver
        self._publisher = publisher
        self._keys = PubSubKeys(settings.itrs)
        self._families = {len(ip) for ip in settings.listen}
        limits = settings.limits
        self._buckets: TokenBuckets[tuple[str, Prefix]] = TokenBuckets(
            limits.subscribe_rate, limits.subscribe_burst, BUCKETS
        )

    def requested(
        self, request: MapRequest, eid: Prefix, ecm: Ecm | None, outer: Endpoint, view: View, now: float
    ) -> Outcome:
        """A Map-Request whose record for `eid` has the N-bit; `outer` is the source of the datagram itself."""
        xtr_id = request.xtr_id
        if xtr_id is None:
            return Refused(Action.DROP_AUTH_FAILURE, "a subscription needs an xTR-ID (RFC 9437 §5)")
        subscriber = self._subscriber(xtr_id, request, outer)
        if isinstance(subscriber, Refused):
            return subscriber
        if not subscriber.may_subscribe(eid):
            return Refused(Action.DROP_POLICY_DENIED, f"{subscriber.name} may not subscribe to {eid}")
        subscriptions = self._publisher.subscriptions
        last_nonce = subscriptions.last_nonce(eid, xtr_id)
        if last_nonce is not None and request.nonce <= last_nonce:
            return [Reject("replayed-nonce", outer, f"subscription to {eid}")]
        if request.nonce >= (1 << 64) - NONCES_RESERVED and request.nonce != (last_nonce or 0) + 1:
            return [Reject("exhausted-nonce", outer, f"subscription to {eid}")]
        try:
            sealed = _sealed(subscriber, request, ecm)
            key = self._keys.key(subscriber, sealed)
        except lispsec.Unsafe as error:
            return [Reject(error.reason, outer, f"subscription to {eid}: {error}")]
        if sealed is not None and subscriptions.used_key(sealed):
            return [Reject("reused-key", outer, f"subscription to {eid}")]
        if not self._buckets.take((subscriber.name, eid), now):
            return [Reject("rate-limited", outer, f"subscription to {eid}")]
        asked = _Asked(request, eid, xtr_id, subscriber, outer, key, sealed)
        if sealed is not None:
            subscriptions.use_key(sealed)
        if request.itr_rlocs == (None,):  # RFC 9437 §6: AFI 0 as the only ITR-RLOC ends the subscription
            return self._unsubscribe(asked, view)
        return self._subscribe(asked, view, now)

    def _subscriber(self, xtr_id: bytes, request: MapRequest, outer: Endpoint) -> SubscriberSettings | Refused:
        """RFC 9437 §5: the xTR-ID must be one that may use the N-bit, the Site-ID and the ITR-RLOCs its own."""
        rlocs = {rloc for rloc in request.itr_rlocs if rloc is not None} or {outer.ip}
        unknown = False
        for subscriber in self._settings.subscribers:
            if subscriber.xtr_id and subscriber.xtr_id != xtr_id:
                continue
            same_site = subscriber.site_id is None or subscriber.site_id == int.from_bytes(
                request.site_id or b"", "big"
            )
            if same_site and rlocs <= set(subscriber.address):
                return subscriber
            unknown = unknown or bool(subscriber.xtr_id)
        if unknown:
            return Refused(Action.DROP_AUTH_FAILURE, "Site-ID or ITR-RLOCs are not those of this xTR-ID")
        return Refused(Action.DROP_POLICY_DENIED, "no subscriber is configured with this xTR-ID and these ITR-RLOCs")

    def _subscribe(self, asked: _Asked, view: View, now: float) -> Outcome:
        eid, subscriber, limits = asked.eid, asked.subscriber, self._settings.limits
        rlocs = tuple(
            rloc for rloc in asked.request.itr_rlocs if isinstance(rloc, bytes) and len(rloc) in self._families
        )
        if not rlocs:
            return Refused(Action.DROP_POLICY_DENIED, "no ITR-RLOC of an address family that we have")
        subscriptions = self._publisher.subscriptions
        known = subscriptions.get(eid, asked.xtr_id) is not None
        count = subscriptions.count(subscriber.name)
        if not known and count >= limits.subscriptions_per_subscriber:
            return Refused(Action.DROP_POLICY_DENIED, f"{subscriber.name} has {count} subscriptions")
        match = view.longest(eid)
        if match is not None and not match.registrant.proxy_reply:
            # RFC 9437 §4: who answers by itself is not published by us
            return Declined(f"the ETR of {match.eid} answers for itself")
        known_of = islice(self._resolver.everything(eid, view), limits.records_per_subscription + 1)
        known_now = {prefix: each for each in known_of if (prefix := each.prefix)}
        if len(known_now) > limits.records_per_subscription:
            why = f"{eid} holds more than {limits.records_per_subscription} registrations; subscribe to parts of it"
            return Refused(Action.DROP_POLICY_DENIED, why)
        subscription = Subscription(
            eid, asked.xtr_id, subscriber.name, asked.key, rlocs, asked.request.nonce, {}, sealed=asked.sealed
        )
        found = any(record.locators for record in known_now.values())
        # RFC 9437 §5: a subscription to an EID that nobody serves is temporary
        temporary = not found and not self._resolver.is_configured(eid)
        until = now + self._settings.timers.temporary_subscription_s if temporary else None
        return self._publisher.begin(subscription, known_now, until, now, known=known)

    def _unsubscribe(self, asked: _Asked, view: View) -> Outcome:
        subscriptions, eid, xtr_id = self._publisher.subscriptions, asked.eid, asked.xtr_id
        held = subscriptions.get(eid, xtr_id)
        above = subscriptions.covering(eid, xtr_id)
        # RFC 9437 §6: the removal is confirmed to the source of the request, with its nonce
        told = map(records.unpacked, self._resolver.answer(eid, view))
        notify = MapNotify.of(*told, nonce=asked.request.nonce)
        to = Endpoint(asked.outer.ip, asked.subscriber.port or self._settings.port)
        effects: list[Effect] = [Send(notify, to, asked.key)]
        if held is not None:
            self._publisher.end(held, asked.request.nonce)
            effects.append(event("subscription.removed", held, eid, cause="unsubscribed"))
        elif above is not None:
            if len(above.muted) >= MUTED:
                return Refused(Action.DROP_POLICY_DENIED, f"{MUTED} more-specifics are unsubscribed already")
            above.muted |= {eid}
            for muted in [each for each in above.pending if eid.covers(each)]:
                del above.pending[muted]
            subscriptions.remove(eid, xtr_id, asked.request.nonce)
        return effects


def _sealed(subscriber: SubscriberSettings, request: MapRequest, ecm: Ecm | None) -> Sealed | None:
    """The one-time key that the publications' key derives from (RFC 9437 §7.1). Raises `lispsec.Unsafe`."""
    if not subscriber.itr or ecm is None or ecm.security is None:
        return None
    return lispsec.sealed(ecm.security, request.nonce)
