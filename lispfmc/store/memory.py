"""The default store: everything in this process, nothing kept when it ends (replay state included).

Memory is bounded by the configured number of registrations; a Map-Server checks `len` before it accepts more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from lispfmc.core.deadlines import Deadlines
from lispfmc.core.prefixes import PrefixTable
from lispfmc.core.registry import Accepted, Change, Kind, Lease, Owner, Registration, View
from lispfmc.store import Gap, Numbered, Query, Released
from lispfmc.wire.address import Prefix

EVENTS_KEPT = 65_536  # a follower that is further behind reads everything anew
DISPLACED_PER_EID = 16  # xTRs an EID is remembered to have left; a host that flips about cannot fill the memory


class MemoryStore:
    """Registrations in one `PrefixTable`. It is its own view: no decision outlives the call that asked for it."""

    def __init__(self) -> None:
        self._table: PrefixTable[Registration] = PrefixTable()
        self._nonces: dict[tuple[Owner, int], int] = {}  # bounded by the Map-Server, which looks at `xtrs`
        self._displaced: dict[Prefix, dict[Owner, Registration]] = {}
        self._leases: dict[int, Lease] = {}
        self._deadlines: Deadlines[int] = Deadlines()
        self._lease_number = 0
        self._events: deque[Numbered] = deque(maxlen=EVENTS_KEPT)
        self._event_id = 0

    # the view

    def view(self, query: Query) -> View:
        return self

    def exact(self, eid: Prefix) -> Registration | None:
        return self._table.get(eid)

    def longest(self, eid: Prefix) -> Registration | None:
        match = self._table.longest(eid)
        return match[1] if match else None

    def within(self, eid: Prefix) -> Iterator[Registration]:
        return (registration for _, registration in self._table.covered_by(eid))

    def hole(self, eid: Prefix, shortest: int) -> Prefix:
        return self._table.hole(eid, shortest)

    def last_nonce(self, owner: Owner, key_id: int) -> int | None:
        return self._nonces.get((owner, key_id))

    def is_displaced(self, eid: Prefix, owner: Owner) -> bool:
        return owner in self._displaced.get(eid, ())

    def xtrs(self) -> int:
        return len(self._nonces)

    def displaced(self, eid: Prefix) -> tuple[Registration, ...]:
        return tuple(self._displaced.get(eid, {}).values())

    def registrations(self) -> Iterator[Registration]:
        return self._table.values()

    def __len__(self) -> int:
        return len(self._table)

    # changes

    def apply(self, batch: Sequence[Accepted | Released], now: float) -> None:
        for item in batch:
            if isinstance(item, Released):
                self._release(item.eid, item.owner)
            else:
                self._accept(item, now)

    def expired(self, now: float) -> list[Change]:
        changes: list[Change] = []
        for number in self._deadlines.pop_expired(now):
            lease = self._leases.pop(number)
            for record in lease.register.records:
                eid = record.prefix
                current = self._table.get(eid) if eid is not None else None
                if eid is not None and current is not None and current.lease is lease:
                    changes.append(Change(Kind.EXPIRED, eid, current, None))
                    self._commit(changes[-1])
        return changes

    def next_deadline(self) -> float | None:
        return self._deadlines.next()

    def events(self, after: int | None) -> Iterator[Numbered]:
        first = self._event_id - len(self._events)
        if after is not None and not first <= after <= self._event_id:
            raise Gap(f"changes {after + 1} to {first} are no longer kept")
        return (numbered for numbered in tuple(self._events) if after is None or numbered.id > after)

    def _accept(self, accepted: Accepted, now: float) -> None:
        register = accepted.register
        self._nonces[register.owner, register.key.id] = register.nonce
        for eid in accepted.released:
            self._release(eid, register.owner)
        lease = accepted.renewed
        if lease is None:
            lease = next((change.after.lease for change in accepted.changes if change.after is not None), None)
        for change in accepted.changes:
            self._commit(change)
        if lease is None:
            return
        if accepted.renewed is None:
            self._lease_number += 1
            lease.number = self._lease_number
            self._leases[lease.number] = lease
        lease.expires_at = now + register.lifetime_s
        self._deadlines.set(lease.number, lease.expires_at)

    def _commit(self, change: Change) -> None:
        if change.after is not None:
            self._table.set(change.eid, change.after)
            change.after.lease.live += 1
            self._release(change.eid, change.after.owner)
        else:
            self._table.remove(change.eid)
            self._displaced.pop(change.eid, None)  # nobody is there: whoever sees the host may register it
        if change.before is not None:
            self._leave(change.before.lease)
        if change.displaced is not None:
            known = self._displaced.setdefault(change.eid, {})
            known[change.displaced.owner] = change.displaced
            if len(known) > DISPLACED_PER_EID:
                del known[next(iter(known))]
        if change.kind is not Kind.REFRESHED:
            self._event_id += 1
            self._events.append(Numbered(self._event_id, change))

    def _release(self, eid: Prefix, owner: Owner) -> None:
        known = self._displaced.get(eid)
        if known is not None and known.pop(owner, None) is not None and not known:
            del self._displaced[eid]

    def _leave(self, lease: Lease) -> None:
        """One registration less belongs to the lease; an empty one needs no deadline."""
        lease.live -= 1
        if lease.live == 0 and lease.number:
            self._deadlines.cancel(lease.number)
            self._leases.pop(lease.number, None)
