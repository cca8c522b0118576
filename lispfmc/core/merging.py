"""The one rule that changes the mapping database.

`merge(register, view, now)` decides what an authenticated, authorised Map-Register does (RFC 9301 §5.6): replay
protection, who owns an EID (map-version is the epoch of a move, RFC 9302 §7), locators of several xTRs, withdrawal,
refresh. It is pure; every store calls it or must give equal outcomes. A displaced xTR stays refused until it
acknowledges that the EID has moved.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import msgspec

from lispfmc.core.registry import (
    STATIC,
    Accepted,
    Change,
    Claim,
    Kind,
    Lease,
    Outcome,
    Owner,
    Refusal,
    Register,
    Registration,
    Replayed,
    ToldAlike,
    View,
)
from lispfmc.core.versions import newer
from lispfmc.wire import records
from lispfmc.wire.address import Ip, Prefix
from lispfmc.wire.messages import EidRecord

LOCATORS = 255  # that one record can carry
MERGED = 64  # xTRs that share one EID: each change looks at all of them, and whoever has the key can make up more


def merge(register: Register, view: View, now: float, held: Collection[Prefix] = ()) -> Outcome:
    """Decide what `register` changes. No EID of `held` gets another owner."""
    last_nonce = view.last_nonce(register.owner, register.registrant.key.id)
    if last_nonce is not None and register.nonce <= last_nonce:
        return Replayed(last_nonce)
    if (lease := _unchanged(register, view)) is not None:
        return Accepted(register, (), lease=lease, renewed=True)
    lease = _new_lease(register, now)
    changes: list[Change] = []
    refusals: list[Refusal] = []
    released: list[Prefix] = []
    registrant, exact, change = register.registrant, view.exact, changes.append
    for claim in register.claims:
        eid, record = claim.eid, claim.record
        current = exact(eid)
        if (
            current is not None
            and record is not None
            and current.lease.registrant is registrant
            and not current.parts
            and not records.version_of(current.record)
        ):
            # the usual case, in few steps: the xTR alone has the EID, at a version that none is older than
            same = record == current.record
            after = Registration(record, lease, current.since if same else now)
            change(Change(Kind.REFRESHED if same else Kind.CHANGED, eid, current, after))
            continue
        displaced = view.is_displaced(eid, register.owner)
        if claim.record is None:
            if displaced:
                released.append(eid)
            if (left := _withdrawn(eid, current, register.owner, now)) is not None:
                changes.append(left)
            elif current is not None and not displaced:
                refusals.append(Refusal("not-owner", eid, current))
            continue
        if current is not None and (
            reason := _refused(claim.record, current, register, displaced=displaced, held=eid in held)
        ):
            refusals.append(Refusal(reason, eid, current))
            continue
        changes.append(_change(claim, claim.record, current, lease, view, now))
    return Accepted(register, tuple(changes), tuple(refusals), tuple(released), lease)


def merge_alike(register: Register, told: records.Alike, view: View, now: float) -> ToldAlike | None:
    """`merge` of a Map-Register of hosts that it tells alike, if its xTR has each alone already or nobody has any.

    That is what an xTR mostly has to say: its locators changed, or it has just started. Nobody else gains or loses
    anything, so it is one pass over the hosts. None for everything else, which `merge` decides.
    """
    eids = told.eids
    if len(eids) > 1 and len(set(eids)) < len(eids):
        return None
    hosts = view.hosts(len(eids[0]))
    first = hosts.get(eids[0])
    if first is None:
        return _first_told(register, told, now) if len(view.uncovered(eids)) == len(eids) else None
    lease = first.lease
    if lease.live == len(eids) and lease.lifetime_s == register.lifetime_s:
        # all that it has left, so it seems: the lease then goes on, with what its hosts are told to be
        anew = _retold(register, told, hosts, lease, now)
        if anew is not None:
            return anew
    return _retold(register, told, hosts, _new_lease(register, now), now)


def _first_told(register: Register, told: records.Alike, now: float) -> ToldAlike:
    header, locators = told.header, told.locators
    lease = _new_lease(register, now)
    registrations = tuple([Registration(header + ip + locators, lease, now) for ip in told.eids])
    return ToldAlike(register, lease, told.eids, registrations, registrations, first=True)


def _retold(
    register: Register, told: records.Alike, hosts: Mapping[Ip, Registration], lease: Lease, now: float
) -> ToldAlike | None:
    """With hosts that belong to `lease` now if it lives, and to any of the xTR's if it is new."""
    registrant, header, eids, locators = register.registrant, told.header, told.eids, told.locators
    if lease.registrant is not registrant:
        return None
    lives, version, held = lease.live, header[8:10], hosts.get
    afters: list[Registration] = []
    changed: list[Registration] = []
    for ip in eids:
        before = held(ip)
        if before is None or before.parts:
            return None
        if before.lease is not lease and (lives or before.lease.registrant is not registrant):
            return None
        was, record = before.record, header + ip + locators
        if was[8:10] != version and was[8:10] != _NO_VERSION:
            return None  # an older version than it has, or none
        if was == record:
            afters.append(Registration(record, lease, before.since))
        else:
            afters.append(after := Registration(record, lease, now))
            changed.append(after)
    return ToldAlike(register, lease, eids, tuple(afters), tuple(changed))


def _new_lease(register: Register, now: float) -> Lease:
    expires_at = now + register.lifetime_s
    return Lease(expires_at, 0, expires_at, register.registrant, register.memo, register.lifetime_s)


_NO_VERSION = bytes(2)


def without(eid: Prefix, current: Registration, gone: Registration, kind: Kind, now: float) -> Change | None:
    """The change when one xTR's registration ends; None when it had been replaced already."""
    if current is gone:
        return Change(kind, eid, current, None)
    left = tuple(part for part in current.parts if part is not gone)
    if len(left) == len(current.parts):
        return None
    return Change(Kind.CHANGED, eid, current, union(left, current, now))


def _unchanged(register: Register, view: View) -> Lease | None:
    """The lease that this register renews as a whole; the usual case, so it must not cost a walk of the records."""
    if not register.memo or not register.claims:
        return None
    current = view.exact(register.claims[0].eid)
    lease = remembered(current, register.memo) if current is not None else None
    return lease if lease is not None and lease.registrant == register.registrant else None


def remembered(first: Registration, memo: int) -> Lease | None:
    """The lease that a Map-Register with this memo renews as a whole, if it comes from that registrant; `first` is
    what its first EID has now. Everything that the lease's Map-Register said must still stand."""
    lease = first.lease
    if lease.memo != memo:
        lease = next((part.lease for part in first.parts if part.lease.memo == memo), lease)
    return lease if lease.memo == memo and 0 < lease.live == lease.claimed else None


def _withdrawn(eid: Prefix, current: Registration | None, owner: Owner, now: float) -> Change | None:
    if current is None:
        return None
    mine = next((part for part in current.each if part.owner == owner), None)
    return without(eid, current, mine, Kind.WITHDRAWN, now) if mine is not None else None


def _refused(record: bytes, current: Registration, register: Register, *, displaced: bool, held: bool) -> str | None:
    version, owner = records.version_of(record), register.owner
    mine = _of(current, owner)
    if mine is not None:
        # RFC 9302 §7: an old version is dropped. An xTR that restarts knows no version and keeps what it holds.
        return "stale-version" if version and newer(mine.version, version) else None
    if owner == STATIC:
        return None
    if current.owner == STATIC:
        return "static-mapping"
    if newer(current.version, version):
        return "stale-version"  # a late refresh of the old site cannot steal the EID back
    if _joins(register, current):
        return "too-many-xtrs" if len(current.parts) >= MERGED else None
    if displaced and not newer(version, current.version):
        return "displaced"
    return "damped" if held and not newer(version, current.version) else None


def _of(current: Registration, owner: Owner) -> Registration | None:
    """The xTR's own part of a registration."""
    if not current.parts:
        return current if current.lease.registrant.owner == owner else None
    return next((part for part in current.parts if part.owner == owner), None)


def _joins(register: Register, current: Registration) -> bool:
    """RFC 9301 §5.6, the a-bit: xTRs of one site that all ask for it are merged."""
    return register.registrant.merges and current.registrant.merges and current.owner.site == register.owner.site


def _change(claim: Claim, record: bytes, current: Registration | None, lease: Lease, view: View, now: float) -> Change:
    eid, owner = claim.eid, lease.registrant.owner
    if current is None:
        after = Registration(record, lease, now)
        # a host that was covered by another xTR's prefix has left it just as if it had been registered there
        return Change(Kind.ADDED, eid, None, after, _displaced(view.longest(eid), after))
    mine = _of(current, owner)
    if mine is not None and not records.version_of(record) and (version := mine.version):
        record = records.with_version(record, version)
    part = Registration(record, lease, mine.since if mine is not None and mine.record == record else now)
    others = tuple(each for each in current.each if each is not mine)
    if (
        lease.registrant.merges
        and others
        and all(each.registrant.merges for each in others)
        and (current.owner.site == owner.site)
    ):
        # each keeps its place: who says the same again, before or after a restart, changes nothing
        shared = (*others, part) if mine is None else tuple(part if each is mine else each for each in current.each)
        after = union(shared, current, now)
        same = after.record == current.record
        return Change(Kind.REFRESHED if same else Kind.CHANGED, eid, current, after)
    if mine is current:
        return Change(Kind.REFRESHED if part.record == current.record else Kind.CHANGED, eid, current, part)
    return Change(Kind.CHANGED, eid, current, part, _displaced(current, part))


def union(parts: tuple[Registration, ...], before: Registration | None, now: float) -> Registration:
    """The registration that several xTRs share, who joined last behind the others; of one alone it is its own."""
    if len(parts) == 1:
        return parts[0]
    mappings = [part.mapping for part in parts]
    locators = {each.address: each for mapping in mappings for each in mapping.locators}
    told = msgspec.structs.replace(
        mappings[-1],
        ttl_minutes=min(mapping.ttl_minutes for mapping in mappings),
        version_word=max((mapping.version_word for mapping in mappings), key=lambda word: word & 0xFFF),
        locators=tuple(sorted(locators.values(), key=records.locator_order))[:LOCATORS],
    )
    record = records.packed(told)
    same = before is not None and record == before.record
    return Registration(record, parts[-1].lease, before.since if before is not None and same else now, parts)


def _displaced(before: Registration | None, after: Registration) -> tuple[Registration, ...]:
    """RFC 9301 §8.2: a Map-Notify goes to previous locators that are not in the new set."""
    if before is None or (not before.parts and before.owner == after.owner):
        return ()
    kept = {after.registrant.source.ip, *_locators(after.mapping)}
    left = (part for part in before.each if part.owner not in (after.owner, STATIC))
    return tuple(part for part in left if part.registrant.source.ip not in kept)


def _locators(mapping: EidRecord) -> Iterator[Ip]:
    return (each.address for each in mapping.locators if isinstance(each.address, bytes))
