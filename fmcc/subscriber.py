"""Subscriptions to EID ranges at the Map-Server (RFC 9437), and the publications that come of them. Pure.

A Map-Request with I and N set, inside an ECM, goes out until a Map-Notify answers it, and again every minute: a
Map-Server that has forgotten us is told, and what was lost meanwhile comes with the answer. Publications are
authenticated, checked for replay per EID-record, and acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from fmcc.world import World
from lispfmc.core.deadlines import Deadlines
from lispfmc.core.effects import Emit, Reject, Send, Transmit
from lispfmc.core.prefixes import PrefixTable
from lispfmc.wire import auth
from lispfmc.wire.address import Endpoint, Prefix
from lispfmc.wire.messages import (
    SITE_ID_BYTES,
    Action,
    Ecm,
    EidRecord,
    MapNotify,
    MapNotifyAck,
    MapReply,
    MapRequest,
    RequestRecord,
)

CONTROL_PORT = 4342
FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0
REFRESH_S = 60.0
TRIES_REMEMBERED = 8
"""Requests whose late answer still counts: the last few of a minute-long backoff."""
REFUSED_RETRY_S = 1.0
"""How long a Map-Server that has dropped our subscription is left alone before we ask again."""


class _Subscription(msgspec.Struct, frozen=True, gc=False):
    """`asked` are the nonces of the last requests, oldest first; `confirmed` that of the newest answered one."""

    asked: tuple[int, ...] = ()
    confirmed: int | None = None
    waits: bool = False
    interval_s: float = FIRST_RETRY_S


class Received(msgspec.Struct, frozen=True):
    """What a Map-Notify brought: the records that are news, in order, and what to do about the message."""

    records: tuple[tuple[Prefix, EidRecord], ...]
    effects: tuple[Send | Transmit | Emit | Reject, ...]


class Subscriber:
    """Keeps every range subscribed. `knows` says for which EIDs replay state is kept: the bound of that table."""

    def __init__(self, world: World, knows: Callable[[Prefix], bool], nonces: Iterator[int]) -> None:
        self._world = world
        self._knows = knows
        self._nonces = nonces
        self._subscriptions: dict[Prefix, _Subscription] = {prefix: _Subscription() for prefix in world.ranges}
        self._ranges: PrefixTable[Prefix] = PrefixTable()
        self._due: Deadlines[Prefix] = Deadlines()
        self._last_nonce: dict[Prefix, int] = {}
        for prefix in world.ranges:
            self._ranges.set(prefix, prefix)
            self._due.set(prefix, 0.0)

    def confirmed(self, prefix: Prefix) -> bool:
        """True while the Map-Server is known to keep this subscription."""
        return self._subscriptions[prefix].confirmed is not None

    @property
    def whole(self) -> bool:
        """True while every range is known to be subscribed: each EID of anybody's is told of."""
        return all(one.confirmed is not None for one in self._subscriptions.values())

    def covers(self, eid: Prefix) -> bool:
        """True while a confirmed subscription tells of `eid`: its absence from what was published means something."""
        within = self._ranges.longest(eid)
        return within is not None and self.confirmed(within[1])

    def ask_anew(self, now: float) -> None:
        """Somebody new is of interest: the answers to subscriptions tell of all that is registered."""
        for prefix, subscription in self._subscriptions.items():
            if not subscription.waits:
                self._due.set(prefix, now)

    def forget(self, eid: Prefix) -> None:
        """Nobody's EID any more: no replay state is kept for it."""
        if eid not in self._subscriptions:
            self._last_nonce.pop(eid, None)

    def next_deadline(self) -> float | None:
        return self._due.next()

    def expired(self, now: float) -> list[Send]:
        return [self._ask(prefix, now) for prefix in list(self._due.pop_expired(now))]

    def replied(self, reply: MapReply, source: Endpoint, now: float) -> list[Emit | Reject]:
        """A Map-Reply where a Map-Notify was hoped for: the Map-Server does not subscribe us (RFC 9437 §5)."""
        prefix = self._asked_by(reply.nonce)
        if prefix is None or source.ip != self._world.map_server.ip:
            return [Reject("unexpected-reply", source, "Map-Reply that answers no subscription")]
        action = Action(reply.records[0].action).name if reply.records and reply.records[0].action < 6 else "NONE"
        self._subscriptions[prefix] = msgspec.structs.replace(
            self._subscriptions[prefix], confirmed=None, waits=False, interval_s=LONGEST_RETRY_S
        )
        self._due.set(prefix, now + LONGEST_RETRY_S)
        return [Emit("subscription.refused", {"eid": str(prefix), "action": action.lower()})]

    def notified(self, notify: MapNotify, datagram: bytes, source: Endpoint, now: float) -> Received:
        """A publication, an answer to a subscription, or the end of one."""
        if source.ip != self._world.map_server.ip:
            return Received((), (Reject("unexpected-notify", source, "not the Map-Server"),))
        if not auth.verify(notify, datagram, self._world.map_server_key):
            return Received((), (Reject("bad-authentication", source, "Map-Notify"),))
        effects: list[Send | Transmit | Emit | Reject] = []
        asked = self._asked_by(notify.nonce)
        ended = [prefix for record in notify.records if (prefix := self._ended_by(record, notify.nonce)) is not None]
        if ended:
            return Received((), tuple(self._lost(prefix, now) for prefix in ended))
        if asked is not None:
            effects.extend(self._confirm(asked, notify.nonce, now))
        fresh: list[tuple[Prefix, EidRecord]] = []
        stale = foreign = False
        for record in notify.records:
            prefix = record.prefix
            age = "foreign" if prefix is None else self._age(prefix, notify.nonce)
            stale, foreign = stale or age == "stale", foreign or age == "foreign"
            if age == "fresh" and prefix is not None:
                fresh.append((prefix, record))
        if stale and not fresh:
            return Received((), (*effects, Reject("replayed-nonce", source, f"Map-Notify {notify.nonce:#x}")))
        if foreign:
            effects.append(Reject("foreign-prefix", source, "a publication outside the subscribed ranges"))
        effects.append(self._acknowledgement(notify, datagram, source))
        for prefix, _ in fresh:
            self._remember(prefix, notify.nonce)
        return Received(tuple(fresh), tuple(effects))

    def _acknowledgement(self, notify: MapNotify, datagram: bytes, source: Endpoint) -> Send | Transmit:
        """RFC 9301 §5.8: the message as it came, but for its type and its tag."""
        key = self._world.map_server_key
        ack = MapNotifyAck.of(notify)
        if notify.xtr_id is not None:
            return Send(ack, source, key)
        word = ack.word | len(notify.records)
        records = datagram[auth.AUTH_OFFSET + len(notify.auth) :]
        return Transmit(auth.tagged(word, datagram[4:12], records, key), source)

    def _age(self, prefix: Prefix, nonce: int) -> str:
        """ "fresh", "repeated", "stale" or "foreign".

        RFC 9437 §7 counts nonces for each EID-record by itself: a late publication about one EID is still news after a
        newer one about another.
        """
        last = self._last_nonce.get(prefix)
        if last is None:  # one that has been published before lies in a range
            subscription = self._subscription_of(prefix)
            if subscription is None:
                return "foreign"
            return "fresh" if subscription.confirmed is not None and nonce >= subscription.confirmed else "stale"
        if nonce == last:
            return "repeated"
        return "fresh" if nonce > last else "stale"

    def _subscription_of(self, prefix: Prefix) -> _Subscription | None:
        """The subscription that `prefix` is published for: a range that covers it, or, in the answer to a subscription,
        one that has no mapping of its own and lies within it."""
        within = self._ranges.longest(prefix) or next(self._ranges.covered_by(prefix), None)
        return self._subscriptions[within[1]] if within is not None else None

    def _remember(self, prefix: Prefix, nonce: int) -> None:
        if self._knows(prefix) or prefix in self._subscriptions:
            self._last_nonce[prefix] = nonce

    def _confirm(self, prefix: Prefix, nonce: int, now: float) -> list[Emit]:
        before = self._subscriptions[prefix]
        confirmed = max(nonce, before.confirmed or 0)
        self._subscriptions[prefix] = msgspec.structs.replace(
            before, confirmed=confirmed, waits=False, interval_s=FIRST_RETRY_S
        )
        if before.waits:
            self._due.set(prefix, now + REFRESH_S)
        return [Emit("subscription.added", {"eid": str(prefix)})] if before.confirmed is None else []

    def _lost(self, prefix: Prefix, now: float) -> Emit:
        # RFC 9437 §7: ACT "Drop/Authentication-Failure" without locators ends the subscription; subscribe anew
        self._subscriptions[prefix] = msgspec.structs.replace(
            self._subscriptions[prefix], confirmed=None, waits=False, interval_s=FIRST_RETRY_S
        )
        self._due.set(prefix, now + REFUSED_RETRY_S)
        return Emit("subscription.removed", {"eid": str(prefix)})

    def _ended_by(self, record: EidRecord, nonce: int) -> Prefix | None:
        if record.locators or record.action != Action.DROP_AUTH_FAILURE:
            return None
        prefix = record.prefix
        if prefix is None or prefix not in self._subscriptions:
            return None
        # an old end must not end a newer subscription
        return prefix if nonce >= (self._subscriptions[prefix].confirmed or 0) else None

    def _asked_by(self, nonce: int) -> Prefix | None:
        return next((prefix for prefix, one in self._subscriptions.items() if nonce in one.asked), None)

    def _ask(self, prefix: Prefix, now: float) -> Send:
        """Subscribe. Each try has a nonce of its own, above every one used before: RFC 9437 §5 has the Map-Server
        drop a nonce that it has seen, so a repeated request would never be answered when the answer was lost."""
        before = self._subscriptions[prefix]
        interval_s = min(before.interval_s * 2, LONGEST_RETRY_S) if before.waits else FIRST_RETRY_S
        nonce = max(next(self._nonces), self._newest(prefix) + 1)
        asked = (*before.asked, nonce)[-TRIES_REMEMBERED:]
        self._subscriptions[prefix] = msgspec.structs.replace(before, asked=asked, waits=True, interval_s=interval_s)
        self._due.set(prefix, now + interval_s)
        return Send(self._request(prefix, nonce), self._world.map_server)

    def _newest(self, prefix: Prefix) -> int:
        seen = (nonce for eid, nonce in self._last_nonce.items() if prefix.covers(eid))
        return max((0, *self._subscriptions[prefix].asked, *seen))

    def _request(self, prefix: Prefix, nonce: int) -> Ecm:
        request = MapRequest.of(
            RequestRecord.of(prefix, notify=True),
            nonce=nonce,
            itr_rlocs=self._world.rlocs,
            xtr_id=self._world.xtr_id,
            site_id=bytes(SITE_ID_BYTES),
        )
        server = self._world.map_server.ip
        local = next(rloc for rloc in self._world.rlocs if len(rloc) == len(server))
        return Ecm.of(request, source=local, destination=server, source_port=CONTROL_PORT)
