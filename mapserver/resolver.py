"""What the mapping system answers to a question (RFC 9301 §8): the records of a Map-Reply or of a first Map-Notify.

A match comes with all its more-specifics, so that no map-cache sends a roaming host to its home (§5.5). An EID that
nobody registered gets the hole around it, for one minute where somebody may register it soon, else for fifteen.
Records are answered as the bytes that they are kept as (`lispfmc.wire.records`).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import msgspec

from lispfmc.core.prefixes import PrefixTable
from lispfmc.core.registry import View
from lispfmc.wire import records
from lispfmc.wire.address import Prefix
from lispfmc.wire.messages import Action, EidRecord, address_of
from mapserver.settings import MapServerSettings

MORE_SPECIFICS = 16
ANSWER_BYTES = 1200
"""What one answer carries at most, so that it fits a packet and a question of 64 bytes with somebody else's address in
it does not bring that much more there; beyond it the answer names the part of the match that has no more-specifics."""
HOLE_MINUTES = 15  # RFC 9301 §8.1: no such EID is configured anywhere
UNREGISTERED_MINUTES = 1  # RFC 9301 §8.1: configured, but nobody has registered it now


class Resolver:
    """Answers from a view of the registrations and from what is configured."""

    def __init__(self, settings: MapServerSettings) -> None:
        self._configured: PrefixTable[None] = PrefixTable()
        for site in settings.sites:
            for prefix in (*site.prefixes, *site.roaming):
                self._configured.set(site.placed(prefix), None)
        for mobility_range in settings.mobility_ranges:
            self._configured.set(mobility_range.prefix, None)

    def is_configured(self, eid: Prefix) -> bool:
        """Whether a site of ours may register `eid`, or it lies in a mobility range."""
        return self._configured.longest(eid) is not None

    def answer(self, eid: Prefix, view: View) -> tuple[bytes, ...]:
        """The records of a Map-Reply about `eid`: at least one."""
        match = view.longest(eid)
        if match is None:
            return self._unmatched(eid, view)
        inside = [each.record for each in islice(view.within(match.eid), MORE_SPECIFICS + 2) if each is not match]
        if inside and _too_much(match.record, *inside):
            # too many for a packet: what covers the question and no more-specific can be cached without them
            part = view.hole(eid, match.eid.length)
            if any(each is not match for each in view.within(part)):  # the question itself is about many
                return (unmapped(eid, Action.SEND_MAP_REQUEST),)
            return (_narrowed(match.record, part),)
        return _same_ttl((match.record, *inside))

    def _unmatched(self, eid: Prefix, view: View) -> tuple[bytes, ...]:
        """Nothing covers the question; a question about a whole range may still have registrations within it."""
        inside = tuple(each.record for each in islice(view.within(eid), MORE_SPECIFICS + 1))
        if _too_much(*inside):
            return (unmapped(eid, Action.SEND_MAP_REQUEST),)  # ask about the EIDs themselves
        return _same_ttl(inside) if inside else (records.packed(self.negative(eid, view)),)

    def everything(self, eid: Prefix, view: View) -> Iterator[EidRecord]:
        """The match of `eid` and every registration within it: what a new subscriber must know. At least one."""
        match = view.longest(eid)
        if match is not None:
            yield match.mapping
        inside = (each.mapping for each in view.within(eid) if each is not match)
        first = next(inside, None)
        if first is not None:
            yield first
            yield from inside
        elif match is None:
            yield self.negative(eid, view)

    def negative(self, eid: Prefix, view: View) -> EidRecord:
        """RFC 9301 §8.1: the least-specific prefix that covers the question and no EID that exists."""
        configured = self._configured.longest(eid)
        # inside a configured prefix the hole ends at its edges; outside, it must not reach into one
        shortest = configured[0].length if configured else 0
        hole = max(view.hole(eid, shortest), self._configured.hole(eid, shortest), key=lambda prefix: prefix.length)
        ttl_minutes = UNREGISTERED_MINUTES if configured else HOLE_MINUTES
        return EidRecord.of(hole, ttl_minutes=ttl_minutes, action=Action.NATIVELY_FORWARD)


def unmapped(eid: Prefix, action: Action) -> bytes:
    """A record that says no more about `eid` than what to do now, for a minute."""
    return records.packed(EidRecord.of(eid, ttl_minutes=UNREGISTERED_MINUTES, action=action))


def _too_much(*found: bytes) -> bool:
    """More than one packet should carry."""
    return len(found) > MORE_SPECIFICS + 1 or sum(map(len, found)) > ANSWER_BYTES


def _narrowed(record: bytes, part: Prefix) -> bytes:
    mapping = records.unpacked(record)
    return records.packed(msgspec.structs.replace(mapping, mask_length=part.length, eid=address_of(part)))


def _same_ttl(found: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """RFC 9301 §5.5: overlapping prefixes SHOULD have one TTL, so that none outlives its more-specifics."""
    ttl = min(record[:4] for record in found)
    return tuple(record if record[:4] == ttl else ttl + record[4:] for record in found)
