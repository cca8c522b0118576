"""The default store: everything in this process, nothing kept when it ends (replay state included).

Memory is bounded by the configured number of registrations; a Map-Server checks `len` before it accepts more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from lispfmc.core.leases import Leases
from lispfmc.core.merging import is_whole, without
from lispfmc.core.prefixes import PrefixTable
from lispfmc.core.registry import STATIC, Accepted, Change, Kind, Lease, Owner, Registration, Retold, View
from lispfmc.core.subscriptions import Subscribed
from lispfmc.store import Dropped, Gap, Item, Numbered, Query, Released
from lispfmc.wire.address import Ip, Prefix

EVENTS_KEPT = 65_536  # a follower that is further behind reads everything anew
DISPLACED_PER_EID = 16  # xTRs an EID is remembered to have left; a host that flips about cannot fill the memory
LEASES_AT_A_TIME = 64  # that end in one call: when all xTRs fall silent at once, requests are still answered


class MemoryStore:
    """Registrations in one `PrefixTable`. It is its own view: no decision outlives the call that asked for it."""

    def __init__(self) -> None:
        self.table: PrefixTable[Registration] = PrefixTable()
        self.nonces: dict[tuple[Owner, int], int] = {}  # bounded by the Map-Server, which looks at `xtrs`
        self.departed: dict[Prefix, dict[Owner, Registration]] = {}
        self.leases = Leases()
        self.ended: list[Lease] = []  # by the last call of `expired`
        self._memos: dict[int, Lease] = {}  # of leases that live
        self._static: dict[Prefix, Registration] = {}
        # what each EID came to, and those that are gone; the last of them is number `_event_id`
        self._events: deque[Registration | Prefix] = deque(maxlen=EVENTS_KEPT)
        self._event_id = 0

    # the view

    def view(self, query: Query) -> View:
        return self

    def exact(self, eid: Prefix) -> Registration | None:
        return self.table.get(eid)

    def hosts(self, size: int) -> Mapping[Ip, Registration]:
        return self.table.hosts(size)

    def longest(self, eid: Prefix) -> Registration | None:
        match = self.table.longest(eid)
        return match[1] if match else None

    def alone(self, iid: int, ip: Ip) -> Registration | None:
        return self.table.alone(iid, ip)

    def within(self, eid: Prefix) -> Iterator[Registration]:
        return (registration for _, registration in self.table.covered_by(eid))

    def hole(self, eid: Prefix, shortest: int) -> Prefix:
        return self.table.hole(eid, shortest)

    def last_nonce(self, owner: Owner, key_id: int) -> int | None:
        return self.nonces.get((owner, key_id))

    def is_displaced(self, eid: Prefix, owner: Owner) -> bool:
        return bool(self.departed) and owner in self.departed.get(eid, ())

    def xtrs(self) -> int:
        return len(self.nonces)

    def displaced(self, eid: Prefix) -> tuple[Registration, ...]:
        return tuple(self.departed.get(eid, {}).values()) if self.departed else ()

    def registrations(self, after: Prefix | None = None) -> Iterator[Registration]:
        return (registration for _, registration in self.table.following(after))

    def static(self) -> Iterable[Registration]:
        return list(self._static.values())

    @property
    def settled(self) -> bool:
        return not self.departed

    def departures(self) -> Iterator[tuple[Prefix, Registration]]:
        return ((eid, left) for eid, owners in self.departed.items() for left in owners.values())

    def recent(self) -> Sequence[Change]:
        return ()

    def subscriptions(self) -> Iterable[Subscribed]:
        return ()

    def __len__(self) -> int:
        return len(self.table)

    # changes

    def apply(self, batch: Sequence[Item], now: float) -> None:
        for item in batch:
            if isinstance(item, Accepted):
                self._accept(item, now)
            elif isinstance(item, Retold):
                self._retell(item, now)
            elif isinstance(item, Released):
                self._release(item.eid, item.owner)
            elif isinstance(item, Dropped):
                self._drop(item, now)

    def commit(self) -> None:
        """Nothing outlives this process."""

    def close(self) -> None:
        """Likewise."""

    def remembered(self, memo: int) -> Lease | None:
        """The lease that a Map-Register with this memo renews as a whole, if it comes from that registrant."""
        lease = self._memos.get(memo)
        return lease if lease is not None and is_whole(lease) else None

    def forget(self) -> None:
        for lease in self.leases:
            lease.memo = 0
        self._memos.clear()

    def renew(self, lease: Lease, nonce: int, now: float) -> None:
        """The same Map-Register came once more, with a nonce that is greater than the last."""
        registrant = lease.registrant
        self.nonces[registrant.owner, registrant.key.id] = nonce
        lease.expires_at = now + lease.lifetime_s

    def expired(self, now: float) -> list[Change]:
        changes: list[Change] = []
        self.ended.clear()
        while len(self.ended) < LEASES_AT_A_TIME and (lease := self.leases.pop(now)) is not None:
            self.ended.append(lease)
            changes.extend(self.end(lease, now))
        return changes

    def end(self, lease: Lease, now: float) -> list[Change]:
        """Remove what belongs to a lease that is over."""
        changes: list[Change] = []
        for member in lease.members:
            eid = member.eid
            current = self.table.get(eid)
            change = without(eid, current, member, Kind.EXPIRED, now) if current is not None else None
            if change is not None:
                changes.append(change)
                self._commit(change)
        return changes

    def next_deadline(self) -> float | None:
        return self.leases.next()

    def events(self, after: int | None) -> Iterator[Numbered]:
        first = self._event_id - len(self._events)
        if after is not None and not first <= after <= self._event_id:
            raise Gap(f"changes {after + 1} to {first} are no longer kept")
        newer = self._event_id - (after if after is not None else first)
        latest = list(islice(reversed(self._events), newer))  # followers are near the end
        return (_numbered(self._event_id - back, latest[back]) for back in reversed(range(newer)))

    @property
    def last_event(self) -> int:
        return self._event_id

    def _accept(self, accepted: Accepted, now: float) -> None:
        register, lease = accepted.register, accepted.lease
        registrant = register.registrant
        if registrant.owner != STATIC:
            self.nonces[registrant.owner, registrant.key.id] = register.nonce
        for eid in accepted.released:
            self._release(eid, registrant.owner)
        if lease is None:
            return
        lease.expires_at = now + register.lifetime_s
        if not accepted.renewed:
            self._register(accepted, lease)

    def _register(self, accepted: Accepted, lease: Lease) -> None:
        lease.claimed = len(accepted.register.claims)
        mine: list[Registration] = []
        for change in accepted.changes:
            self._commit(change)
            after = change.after
            if after is None:
                continue
            if after.lease is lease and not after.parts:
                mine.append(after)
            else:
                mine.extend(part for part in after.each if part.lease is lease)
        lease.members = tuple(mine)
        if mine:
            self.leases.add(lease)
            if lease.memo and is_whole(lease):
                self._memos[lease.memo] = lease

    def _retell(self, retold: Retold, now: float) -> None:
        """`_accept` where nothing but the records of hosts, and perhaps their lease, is another: all at once."""
        register, lease, ips = retold.register, retold.lease, retold.ips
        registrant = register.registrant
        self.nonces[registrant.owner, registrant.key.id] = register.nonce
        hosts = self.table.hosts(len(ips[0]))
        lease.expires_at = now + register.lifetime_s
        if lease.live:
            if lease.memo != register.memo and self._memos.get(lease.memo) is lease:
                del self._memos[lease.memo]
        else:
            leave = self._leave
            for ip in ips:
                leave(hosts[ip].lease)
            lease.live = len(ips)
            self.leases.add(lease)
        hosts.update(zip(ips, retold.registrations, strict=True))
        lease.claimed = len(ips)
        lease.members = retold.registrations
        lease.memo = register.memo
        if lease.memo:
            self._memos[lease.memo] = lease
        self._event_id += len(retold.changed)
        self._events.extend(retold.changed)

    def _drop(self, dropped: Dropped, now: float) -> None:
        current = self.table.get(dropped.eid)
        for part in current.each if current is not None else ():
            if part.owner == dropped.owner and current is not None:
                change = without(dropped.eid, current, part, Kind.WITHDRAWN, now)
                if change is not None:
                    self._commit(change)

    def _commit(self, change: Change) -> None:
        before, after = change.before, change.after
        if (
            after is not None
            and not after.parts
            and (before is None or not before.parts)
            and not self._static
            and not self.departed
            and after.lease.registrant.owner != STATIC
        ):
            # the usual case, in few steps
            self.table.set(change.eid, after)
            after.lease.live += 1
            if before is not None:
                lease = before.lease
                if lease.live > 1 and (lease.live - 1) * 4 >= len(lease.members):
                    lease.live -= 1
                else:
                    self._leave(lease)
            if change.displaced:
                for left in change.displaced:
                    self._remember(change.eid, left)
            if change.kind is not Kind.REFRESHED:
                self._happened(after)
            return
        if before is not None and before.owner == STATIC:
            del self._static[change.eid]
        if after is not None and after.owner == STATIC:
            self._static[change.eid] = after
        if after is None:
            self.table.remove(change.eid)
            self.departed.pop(change.eid, None)  # nobody is there: whoever sees the host may register it
        else:
            self.table.set(change.eid, after)
            self._release(change.eid, after.owner)
            held = before.each if before is not None else ()
            for part in after.each:
                if not _among(part, held):
                    part.lease.live += 1
        kept = after.each if after is not None else ()
        for part in before.each if before is not None else ():
            if not _among(part, kept):
                self._leave(part.lease)
        for left in change.displaced:
            self._remember(change.eid, left)
        if change.kind is not Kind.REFRESHED:
            self._happened(after if after is not None else change.eid)

    def _happened(self, now: Registration | Prefix) -> None:
        self._event_id += 1
        self._events.append(now)

    def _remember(self, eid: Prefix, left: Registration) -> None:
        known = self.departed.setdefault(eid, {})
        known[left.owner] = left
        if len(known) > DISPLACED_PER_EID:
            del known[next(iter(known))]

    def _release(self, eid: Prefix, owner: Owner) -> None:
        known = self.departed.get(eid) if self.departed else None
        if known is not None and known.pop(owner, None) is not None and not known:
            del self.departed[eid]

    def _leave(self, lease: Lease) -> None:
        """One registration less belongs to the lease."""
        lease.live -= 1
        if not lease.live:
            lease.members = ()
            if self._memos.get(lease.memo) is lease:
                del self._memos[lease.memo]
        elif lease.live * 4 < len(lease.members):
            # what it lost must not be kept in memory by the little that is left
            kept = ((member, self.table.get(member.eid)) for member in lease.members)
            lease.members = tuple(member for member, now in kept if now is not None and _among(member, now.each))


def _numbered(number: int, what: Registration | Prefix) -> Numbered:
    return Numbered(number, what, None) if isinstance(what, Prefix) else Numbered(number, what.eid, what)


def _among(part: Registration, parts: tuple[Registration, ...]) -> bool:
    """Whether it is one of them; equal ones are not the same."""
    for each in parts:  # noqa: SIM110 - there is one, mostly, and this is asked for every registration
        if part is each:
            return True
    return False
