"""Subscriptions to the EIDs that we send to (RFC 9437), so that their moves are told and need not be found out.

A question may be put as a subscription: a Map-Notify answers it, a Map-Reply means that there is none. A Map-Server
that refuses is asked plainly for a while. What nobody has sent to for some minutes is unsubscribed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from lispfmc.core.deadlines import Deadlines
from lispfmc.core.effects import Emit
from lispfmc.wire.address import Prefix
from xtr.publicationkeys import PublicationKeys
from xtr.settings import XtrSettings

REFUSED_S = 300.0  # how long a Map-Server that refused is not asked again
REFRESH_S = 600.0  # a Map-Server that has forgotten us is told
CHECK_S = 30.0


class _Subscription(msgspec.Struct, frozen=True, gc=False):
    since: float
    refreshed: float


class Subscribing:
    """What is subscribed. `used` says when a packet last went to an EID."""

    def __init__(self, settings: XtrSettings, nonces: Iterator[int], used: Callable[[Prefix], float | None]) -> None:
        enabled = any(server.subscription for server in settings.map_servers)
        self._most = settings.limits.subscriptions if enabled else 0
        self._unused_s = settings.timers.unused_s
        self.keys = PublicationKeys(settings)
        self._nonces = nonces
        self._used = used
        self._subscriptions: dict[Prefix, _Subscription] = {}
        self._check: Deadlines[None] = Deadlines()
        self._refused_until = float("-inf")

    def wanted(self, eid: Prefix, now: float) -> bool:
        """Whether to put a question about `eid` as a subscription."""
        room = len(self._subscriptions) < self._most or (eid in self._subscriptions and self._most > 0)
        return room and now >= self._refused_until

    def nonce(self) -> int:
        """RFC 9437 §5: above every one that was used before for this EID. Ours grow over restarts, too."""
        return next(self._nonces)

    def added(self, eid: Prefix, nonce: int, now: float) -> list[Emit]:
        """The Map-Server has confirmed what was asked with `nonce`."""
        self.keys.subscribed(eid, nonce)
        before = self._subscriptions.get(eid)
        self._subscriptions[eid] = _Subscription(before.since if before else now, now)
        if self._check.next() is None:
            self._check.set(None, now + CHECK_S)
        return [] if before else [Emit("subscription.added", {"eid": str(eid)})]

    def refused(self, eid: Prefix, action: str, now: float) -> list[Emit]:
        """The Map-Server does not want us as a subscriber."""
        self._refused_until = now + REFUSED_S
        self.keys.ended(eid)
        self._subscriptions.pop(eid, None)
        return [Emit("subscription.refused", {"eid": str(eid), "action": action})]

    def ended(self, eid: Prefix, cause: str) -> list[Emit]:
        """It is no longer subscribed; [] when it was not."""
        self.keys.ended(eid)
        if self._subscriptions.pop(eid, None) is None:
            return []
        return [Emit("subscription.removed", {"eid": str(eid), "cause": cause})]

    def next_deadline(self) -> float | None:
        return self._check.next()

    def expired(self, now: float) -> tuple[list[Prefix], list[Prefix]]:
        """The EIDs to subscribe to anew, and those that nobody sends to any more."""
        if not list(self._check.pop_expired(now)):
            return [], []
        anew: list[Prefix] = []
        unused: list[Prefix] = []
        for eid, subscription in self._subscriptions.items():
            if now - max(subscription.since, self._used(eid) or subscription.since) > self._unused_s:
                unused.append(eid)
            elif now - subscription.refreshed > REFRESH_S:
                anew.append(eid)
        if self._subscriptions:
            self._check.set(None, now + CHECK_S)
        return anew, unused

    def __contains__(self, eid: Prefix) -> bool:
        return eid in self._subscriptions

    def __len__(self) -> int:
        return len(self._subscriptions)
