"""Who wants to hear of which EID (RFC 9437): the table of subscriptions and what each subscriber has not acknowledged.

A subscription has one Map-Notify in flight at most. What changes meanwhile joins it under the next nonce, so a
subscriber that takes only growing nonces (RFC 9437 §7) never misses a record because packets overtook one another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec

from lispfmc.core.deadlines import Deadlines
from lispfmc.core.lispsec import Sealed
from lispfmc.core.prefixes import PrefixTable
from lispfmc.core.registry import View
from lispfmc.wire.address import Ip, Prefix
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import EidRecord

RECORDS_IN_FLIGHT = 16  # what fits one unfragmented IPv6 packet with two locators each; the rest follows its ack
MUTED = 1024  # more-specifics that a subscriber may have unsubscribed below one subscription
ONE_TIME_KEYS_KEPT = 65_536
"""RFC 9437 §7.1: an OTK MUST NOT serve twice. Only holders of a key can fill this; beyond it nonces alone guard."""
NONCES_KEPT = 65_536  # of ended subscriptions, so that an old request cannot revive one (RFC 9437 §5)

_NONCES = 1 << 64


class Subscribed(msgspec.Struct, frozen=True, gc=False):
    """What of a subscription outlives a restart: a store overwrites what it had of the EID and the xTR.

    `nonce` is the last one that is known to be used; one that has ended is kept for that alone. `until` ends a
    temporary one. `sealed` is what its key derives from, if that was not agreed beforehand. `heard` see `Subscription`.
    """

    eid: Prefix
    xtr_id: bytes
    subscriber: str
    itr_rlocs: tuple[Ip, ...]
    nonce: int
    until: float | None = None
    ended: bool = False
    muted: frozenset[Prefix] = frozenset()
    sealed: Sealed | None = None
    heard: int | None = None


class Subscription(msgspec.Struct, eq=False):
    """One xTR's interest in an EID-Prefix and everything more specific; equal to none but itself.

    Attributes:
        nonce: of the last Map-Notify; the next one has one more.
        pending: records not yet acknowledged, the oldest first.
        answer: those of them that answer the request, and have not changed since.
        sent: those of them that are in flight.
        rloc: index of the ITR-RLOC that is written to.
        muted: more-specifics that the subscriber has unsubscribed.
        sealed: the one-time key that `key` derives from; None when that was agreed beforehand.
        told: when the oldest change that is in flight was received.
        waiting: the same of those that wait for their turn; None when none does.
        heard: after a restart, until the next Map-Notify, the last nonce that the subscriber has surely seen: `nonce`
            was moved beyond all that may have been used, and a request goes on from what was seen.
    """

    eid: Prefix
    xtr_id: bytes
    subscriber: str
    key: Key
    itr_rlocs: tuple[Ip, ...]
    nonce: int
    pending: dict[Prefix, EidRecord]
    answer: frozenset[Prefix] = frozenset()
    sent: tuple[EidRecord, ...] = ()
    rloc: int = 0
    muted: frozenset[Prefix] = frozenset()
    sealed: Sealed | None = None
    told: float = 0.0
    waiting: float | None = None
    heard: int | None = None

    @property
    def next_nonce(self) -> int:
        return (self.nonce + 1) % _NONCES

    @property
    def address(self) -> Ip:
        return self.itr_rlocs[self.rloc]

    def next_records(self, fresh: dict[Prefix, EidRecord]) -> tuple[EidRecord, ...]:
        """What the next Map-Notify carries once `fresh` has joined what is pending; changes nothing."""
        if not self.pending:
            return tuple(islice(fresh.values(), RECORDS_IN_FLIGHT))
        joined = (fresh.get(eid, record) for eid, record in self.pending.items())
        added = (record for eid, record in fresh.items() if eid not in self.pending)
        records = tuple(islice(joined, RECORDS_IN_FLIGHT))
        return (*records, *islice(added, RECORDS_IN_FLIGHT - len(records)))

    def publish(self, fresh: dict[Prefix, EidRecord], records: tuple[EidRecord, ...], nonce: int, now: float) -> None:
        """`records` go out under `nonce`; what else is in `fresh` waits."""
        oldest = now if self.waiting is None else self.waiting
        self.told = min(oldest, self.told) if self.sent else oldest
        self.pending.update(fresh)
        self.sent = records
        self.nonce = nonce
        self.heard = None
        self.waiting = self.told if len(self.pending) > len(records) else None

    def postpone(self, fresh: dict[Prefix, EidRecord], now: float) -> None:
        """`fresh` waits for an acknowledgement, or for its turn."""
        self.pending.update(fresh)
        if fresh and self.waiting is None:
            self.waiting = now

    def acknowledge(self) -> None:
        """The message in flight has arrived."""
        for record in self.sent:
            if (eid := record.prefix) is not None:
                self.pending.pop(eid, None)
        if self.answer:
            self.answer &= self.pending.keys()
        self.sent = ()


class Subscriptions:
    """The table. The Map-Server bounds it by what each configured subscriber may have (`count`)."""

    def __init__(self) -> None:
        self._table: PrefixTable[dict[bytes, Subscription]] = PrefixTable()
        self._counts: dict[str, int] = {}
        self._ended: dict[tuple[Prefix, bytes], int] = {}
        self._temporary: Deadlines[tuple[Prefix, bytes]] = Deadlines()
        self._one_time_keys: dict[bytes, None] = {}
        self.unsaved: list[Subscribed] = []  # for the store, which the Map-Server gives them after each message

    def get(self, eid: Prefix, xtr_id: bytes) -> Subscription | None:
        return (self._table.get(eid) or {}).get(xtr_id)

    def last_nonce(self, eid: Prefix, xtr_id: bytes) -> int | None:
        """What a request's nonce must be above: the last one used with this subscription, also after its end."""
        held = self.get(eid, xtr_id)
        if held is None:
            return self._ended.get((eid, xtr_id))
        return held.nonce if held.heard is None else held.heard

    def put(self, subscription: Subscription, until: float | None = None) -> None:
        """Add it, or overwrite what this xTR had for the EID; a temporary one ends at `until`."""
        eid, xtr_id = subscription.eid, subscription.xtr_id
        self._take_out(eid, xtr_id)
        self.unsaved.append(_saved(subscription, until))
        of_eid = self._table.get(eid)
        if of_eid is None:
            of_eid = {}
            self._table.set(eid, of_eid)
        of_eid[xtr_id] = subscription
        self._counts[subscription.subscriber] = self.count(subscription.subscriber) + 1
        self._ended.pop((eid, xtr_id), None)
        if until is not None:
            self._temporary.set((eid, xtr_id), until)

    def remove(self, eid: Prefix, xtr_id: bytes, nonce: int | None = None) -> Subscription | None:
        """End a subscription and remember its nonce, or the later `nonce` that ended it."""
        held = self._take_out(eid, xtr_id)
        last_nonce = nonce if nonce is not None else held.nonce if held else None
        if last_nonce is not None:
            self._remember(eid, xtr_id, last_nonce)
            self.unsaved.append(Subscribed(eid, xtr_id, held.subscriber if held else "", (), last_nonce, ended=True))
            if held is None and (above := self.covering(eid, xtr_id)) is not None:
                # what was unsubscribed may lie below another subscription, which goes on without it
                self.unsaved.append(_saved(above, self._temporary.at((above.eid, xtr_id))))
        return held

    def used_key(self, sealed: Sealed) -> bool:
        """Whether this one-time key came before."""
        return sealed.wrapped in self._one_time_keys

    def use_key(self, sealed: Sealed) -> None:
        """It is not to come again. Wrapped by the key of one nonce it always looks the same; under another nonce it
        does not open."""
        self._one_time_keys[sealed.wrapped] = None
        if len(self._one_time_keys) > ONE_TIME_KEYS_KEPT:
            del self._one_time_keys[next(iter(self._one_time_keys))]

    def restore_ended(self, ended: Subscribed) -> None:
        """Take back the nonce of one that had ended."""
        self._remember(ended.eid, ended.xtr_id, ended.nonce)

    def keep(self, eid: Prefix, xtr_id: bytes) -> None:
        """A temporary subscription has got its mapping and stays."""
        if (eid, xtr_id) in self._temporary and (held := self.get(eid, xtr_id)) is not None:
            self._temporary.cancel((eid, xtr_id))
            self.unsaved.append(_saved(held, None))

    def _take_out(self, eid: Prefix, xtr_id: bytes) -> Subscription | None:
        self._temporary.cancel((eid, xtr_id))
        of_eid = self._table.get(eid)
        held = of_eid.pop(xtr_id, None) if of_eid else None
        if held is not None:
            self._counts[held.subscriber] -= 1
            if not of_eid:
                self._table.remove(eid)
        return held

    def _remember(self, eid: Prefix, xtr_id: bytes, nonce: int) -> None:
        self._ended[eid, xtr_id] = nonce
        if len(self._ended) > NONCES_KEPT:
            del self._ended[next(iter(self._ended))]

    def covering(self, eid: Prefix, xtr_id: bytes) -> Subscription | None:
        """The xTR's most specific subscription that covers `eid`."""
        return next((subs[xtr_id] for _, subs in self._table.covering(eid) if xtr_id in subs), None)

    def interested(self, eid: Prefix, view: View) -> Iterable[Subscription]:
        """Who must hear that the mapping of `eid` changes, given the state before it: once per xTR and subscription.

        Above: subscriptions to `eid` or a less-specific prefix (RFC 9437 §7.1), each xTR's most specific one. Below:
        subscriptions to EIDs that `eid` answers, having no more specific mapping.
        """
        heard: set[bytes] = set()
        for _, subscriptions in self._table.covering(eid):
            for xtr_id, subscription in subscriptions.items():
                if xtr_id not in heard:
                    heard.add(xtr_id)
                    if not any(muted.covers(eid) for muted in subscription.muted):
                        yield subscription
        for below, subscriptions in self._table.covered_by(eid):
            if below.length > eid.length:
                match = view.longest(below)
                if match is None or match.eid.length <= eid.length:
                    yield from subscriptions.values()

    def count(self, subscriber: str) -> int:
        return self._counts.get(subscriber, 0)

    def next_deadline(self) -> float | None:
        return self._temporary.next()

    def expired(self, now: float) -> list[Subscription]:
        """Remove the temporary subscriptions whose EID nobody registered in time."""
        ended = [self.remove(*key) for key in list(self._temporary.pop_expired(now))]
        return [subscription for subscription in ended if subscription is not None]

    def __iter__(self) -> Iterator[Subscription]:
        for subscriptions in self._table.values():
            yield from subscriptions.values()

    def __bool__(self) -> bool:
        return len(self._table) > 0  # asked for each registration

    def __len__(self) -> int:
        return sum(self._counts.values())


def _saved(subscription: Subscription, until: float | None) -> Subscribed:
    held = subscription
    return Subscribed(
        held.eid,
        held.xtr_id,
        held.subscriber,
        held.itr_rlocs,
        held.nonce,
        until,
        muted=held.muted,
        sealed=held.sealed,
        heard=held.heard,
    )
