"""The map-cache (RFC 9300 §4, RFC 9301 §5.4): where EIDs are, as far as we were told, and until when.

Invariants: no less-specific entry outlives a more-specific one that lies in it; there are never more than `capacity`
entries. Every change returns the EID-Prefixes that left, so that the owner can take them out of the data plane.

When it is full, negative entries leave first, then the oldest that nobody has used for a while. An entry counts as in
use once packets went by it in different seconds, so that a scan of the address space pushes out what it has brought.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator

import msgspec

from lispfmc.core.deadlines import Deadlines
from lispfmc.core.prefixes import PrefixTable
from lispfmc.wire.address import Ip, Prefix
from lispfmc.wire.messages import TTL_RECEIVER_DECIDES, EidRecord, Locator

LONGEST_TTL_S = 1440 * 60.0  # a peer may say 8000 years; nobody will tell us about every change in between
UNUSABLE_PRIORITY = 255  # RFC 9301 §5.4: MUST NOT be used for unicast
IN_USE_S = 60.0  # an entry that a packet went by so lately stays
TRIED_S = 1.0  # ... unless all of its packets came as it was learned, as a scan's do
LOOKS = 64  # entries in use that one eviction passes over; beyond that the oldest goes, used or not


class Mapping(msgspec.Struct, frozen=True, gc=False):
    """One entry. Without locators it is negative, and `action` says what to do with packets."""

    eid: Prefix
    locators: tuple[Locator, ...]
    action: int
    version: int
    source: str
    """Who told us: "map-reply", "map-server", "peer", "controller"; ours: "unanswered", "refused", "local"."""
    learned: float
    expires: float
    away: bool = False
    """The EID was here and has moved: what still arrives for it is sent on, and its senders are told."""

    @property
    def rlocs(self) -> tuple[Ip, ...]:
        """The locators that are plain addresses and may be used."""
        return tuple(
            locator.address
            for locator in self.locators
            if isinstance(locator.address, bytes) and locator.priority != UNUSABLE_PRIORITY
        )


def ttl_s(record: EidRecord) -> float:
    """How long a record may be kept."""
    if record.ttl_minutes == TTL_RECEIVER_DECIDES:
        return LONGEST_TTL_S
    return min(record.ttl_minutes * 60.0, LONGEST_TTL_S)


def best(
    locators: Iterable[Locator], address_sizes: Collection[int], avoid: Container[Ip] = ()
) -> tuple[tuple[Ip, int], ...]:
    """The locators to use and their shares: the lowest priority among those that we can reach, by weight.

    `address_sizes` are the families that we have an RLOC of: 4, 16 or both. Those to `avoid`, because they do not
    answer, are used only when there is no other: dropping the packets would help nobody.
    """
    usable = [
        (locator.priority, locator.address, locator.weight)
        for locator in locators
        if isinstance(locator.address, bytes)  # RFC 9306 §3: a locator that we cannot interpret is ignored
        and len(locator.address) in address_sizes
        and _is_routable(locator.address)
        and locator.reachable
        and locator.priority != UNUSABLE_PRIORITY
    ]
    usable = [each for each in usable if each[1] not in avoid] or usable
    if not usable:
        return ()
    lowest = min(priority for priority, _, _ in usable)
    shares = [(address, weight) for priority, address, weight in usable if priority == lowest]
    # RFC 9301 §5.4: all weights zero means that the sender leaves the split to us
    if all(weight == 0 for _, weight in shares):
        return tuple((address, 1) for address, _ in shares)
    return tuple((address, weight) for address, weight in shares if weight)


def _is_routable(rloc: Ip) -> bool:
    """Not one that would lead to ourselves, to many, or, written as IPv6, to IPv4 by a socket of the other family."""
    if len(rloc) == 4:
        return 0 < rloc[0] < 224 and rloc[0] != 127
    return rloc[0] != 0xFF and rloc[:2] != _LINK_LOCAL and rloc[:12] not in _IPV4_OR_OURSELVES


_LINK_LOCAL = b"\xfe\x80"
_IPV4_OR_OURSELVES = (bytes(12), bytes(10) + b"\xff\xff")


class MapCache:
    """Entries by EID-Prefix, bounded by `capacity`."""

    def __init__(self, capacity: int = 100_000, used: Callable[[Prefix], float | None] = lambda _: None) -> None:
        """`used` says when a packet last went by the entry of a prefix."""
        self._capacity = capacity
        self._used = used
        self._negative: dict[Prefix, None] = {}
        self._positive: dict[Prefix, None] = {}
        self._table: PrefixTable[Mapping] = PrefixTable()
        self._expiry: Deadlines[Prefix] = Deadlines()
        self._behind: dict[Ip, dict[Prefix, None]] = {}

    def put(self, mapping: Mapping) -> list[Prefix]:
        """Add or replace an entry. Returns the entries that had to leave for it."""
        # RFC 9301 §5.4: a less-specific that comes later gets the least expiration time of its more-specifics ...
        inside = (entry.expires for eid, entry in self._table.covered_by(mapping.eid) if eid != mapping.eid)
        self._store(msgspec.structs.replace(mapping, expires=min(mapping.expires, *inside, mapping.expires)))
        # ... and one that is there already may not outlive the more-specific that comes now
        around = [entry for eid, entry in self._table.covering(mapping.eid) if eid != mapping.eid]
        for entry in around:
            if entry.expires > mapping.expires:
                self._store(msgspec.structs.replace(entry, expires=mapping.expires))
        left: list[Prefix] = []
        while len(self._table) > self._capacity:
            left.extend(self._evict(mapping.learned))
        return left

    def remove(self, eid: Prefix) -> list[Prefix]:
        """Forget an entry, and with it the less-specific ones that would answer in its place; [] if not there."""
        if eid not in self._table:
            return []
        gone = [covering for covering, _ in self._table.covering(eid)]
        for prefix in gone:
            self._drop(prefix)
        return gone

    def get(self, eid: Prefix) -> Mapping | None:
        """The entry of exactly this EID-Prefix."""
        return self._table.get(eid)

    def lookup(self, eid: Prefix) -> Mapping | None:
        """The entry that a packet for `eid` uses: the longest match."""
        found = self._table.longest(eid)
        return found[1] if found else None

    def inside(self, eid: Prefix) -> list[Mapping]:
        """The entries within an EID-Prefix, itself included."""
        return [mapping for _, mapping in self._table.covered_by(eid)]

    def behind(self, rloc: Ip) -> Prefix | None:
        """An EID-Prefix that has `rloc` among its locators."""
        return next(iter(self._behind.get(rloc, ())), None)

    def next_deadline(self) -> float | None:
        """When the next entry expires."""
        return self._expiry.next()

    def all_behind(self, rloc: Ip) -> list[Mapping]:
        """The entries that have `rloc` among their locators."""
        found = (self._table.get(eid) for eid in self._behind.get(rloc, ()))
        return [mapping for mapping in found if mapping is not None]

    def expired(self, now: float) -> list[Prefix]:
        """Drop what has expired and return it."""
        gone: list[Prefix] = []
        for eid in list(self._expiry.pop_expired(now)):
            gone.extend(self.remove(eid))
        return gone

    def __iter__(self) -> Iterator[Mapping]:
        return (mapping for _, mapping in self._table.items())

    def __len__(self) -> int:
        return len(self._table)

    def _evict(self, now: float) -> list[Prefix]:
        if self._negative:
            return self.remove(next(iter(self._negative)))
        for _ in range(LOOKS):
            oldest = next(iter(self._positive))
            if not self._in_use(oldest, now):
                break
            del self._positive[oldest]
            self._positive[oldest] = None
        return self.remove(next(iter(self._positive)))

    def _in_use(self, eid: Prefix, now: float) -> bool:
        used, mapping = self._used(eid), self._table.get(eid)
        return used is not None and mapping is not None and used > max(now - IN_USE_S, mapping.learned + TRIED_S)

    def _store(self, mapping: Mapping) -> None:
        self._unindex(mapping.eid)
        self._table.set(mapping.eid, mapping)
        order = self._positive if mapping.locators else self._negative
        if mapping.eid not in order:
            self._order_forgets(mapping.eid)
            order[mapping.eid] = None
        self._expiry.set(mapping.eid, mapping.expires)
        for rloc in mapping.rlocs:
            self._behind.setdefault(rloc, {})[mapping.eid] = None

    def _drop(self, eid: Prefix) -> None:
        self._unindex(eid)
        self._table.remove(eid)
        self._order_forgets(eid)
        self._expiry.cancel(eid)

    def _order_forgets(self, eid: Prefix) -> None:
        self._negative.pop(eid, None)
        self._positive.pop(eid, None)

    def _unindex(self, eid: Prefix) -> None:
        before = self._table.get(eid)
        for rloc in before.rlocs if before else ():
            prefixes = self._behind.get(rloc, {})
            prefixes.pop(eid, None)
            if not prefixes:
                self._behind.pop(rloc, None)
