"""What a Map-Register's records claim: each as the Map-Server will tell it, or as a withdrawal, and for how long.

From validated records to `Claim` values; the records of one xTR mostly differ in nothing but the EID, so that what
follows the EID is worked out once for each list of locators.
"""

from __future__ import annotations

from collections.abc import Sequence

from lispfmc.core.registry import Claim
from lispfmc.wire import records
from lispfmc.wire.address import Prefix
from lispfmc.wire.errors import PeerError
from lispfmc.wire.messages import TTL_RECEIVER_DECIDES, Action, EidRecord, Locator

LONGEST_LIFE_S = 24 * 3600.0  # whatever TTL an xTR asks for with the T-bit: soft state must go one day


def claims(of: Sequence[EidRecord]) -> tuple[Claim, ...]:
    """One claim for each EID; the last record of a prefix counts. Each record must name a prefix."""
    found: dict[Prefix, Claim] = {}
    for record in of:
        eid = record.prefix
        assert eid is not None, "the Map-Server refuses records without a prefix"
        found[eid] = Claim(eid, None if is_withdrawal(record) else records.packed(told(record, eid)))
    return tuple(found.values())


def claims_in(body: bytes, of: Sequence[EidRecord]) -> tuple[Claim, ...]:
    """`claims` where the bytes of the records are at hand, at the start of `body`: the same, for less work.

    What follows the EID is worked out once for each list of locators, which an xTR's records mostly share.
    """
    raw = records.split(body, len(of))
    if raw is None:
        return claims(of)
    found: dict[bytes, Claim] = {}
    for each, record in zip(raw, of, strict=True):
        # whatever is not plainly a host with locators goes the long way
        host = _HOSTS.get(each[10:12])
        if (
            host is None
            or each[5] != host * 8
            or not each[4]
            or each[:4] == _NOW
            or each[6] >= _ODD_ACTION
            or each[8] >= _ODD_VERSION
        ):
            return claims(of)
        end = records.HEADER + host
        rest = each[end:]
        locators = _told_locators.get(rest)
        if locators is None:
            locators = _tell_locators(rest, record)
        eid = each[records.HEADER : end]
        # the A-bit and the reserved bits are not told, ACT is nothing where there are locators
        found[eid] = Claim(Prefix(0, eid, host * 8), each[:6] + _NO_FLAGS + each[8:10] + each[10:end] + locators)
    return tuple(found.values())


def claims_seen(datagram: bytes, start: int, count: int) -> tuple[tuple[Claim, ...], int] | None:
    """`claims_in` for a datagram that nobody has decoded, and where its records end.

    None when a record is no host, or its locators have not been seen in a datagram that was decoded.
    """
    found: dict[bytes, Claim] = {}
    rest = locators = b""
    shared = 0  # locators in `rest`
    at = start
    for _ in range(count):
        header = datagram[at : at + records.HEADER]
        host = _HOSTS.get(header[10:])
        if (
            host is None
            or header[5] != host * 8
            or not header[4]
            or header[:4] == _NOW
            or header[6] >= _ODD_ACTION
            or header[8] >= _ODD_VERSION
        ):
            return None
        end = at + records.HEADER + host
        if not rest or header[4] != shared or not datagram.startswith(rest, end):
            shared = header[4]
            rest = records.locators_at(datagram, end, shared)
            locators = _told_locators.get(rest, b"")
            if not locators:
                return None
        eid = datagram[at + records.HEADER : end]
        found[eid] = Claim(Prefix(0, eid, host * 8), header[:6] + _NO_FLAGS + header[8:] + eid + locators)
        at = end + len(rest)
    return tuple(found.values()), at


def told_alike(header: bytes, locators: bytes) -> tuple[bytes, bytes] | None:
    """What stands before the EID, and what follows, where records `alike` are told; remembered. None for withdrawals,
    for what is no record, and where the EID is no host.

    To be asked about authenticated records only: otherwise anybody could fill the memory of it.
    """
    key = header + locators
    if key in _told_around:
        return _told_around[key]
    if len(_told_around) >= _LOCATORS_REMEMBERED:
        _told_around.clear()
    around = _told_around[key] = _tell_around(header, locators)
    return around


def _tell_around(header: bytes, locators: bytes) -> tuple[bytes, bytes] | None:
    host = _HOSTS.get(header[10:])
    if host is None or header[5] != host * 8:
        return None
    try:
        record = records.unpacked(header + bytes(host) + locators)
    except PeerError:
        return None
    if is_withdrawal(record):
        return None
    whole = records.packed(told(record, Prefix(0, bytes(host), host * 8)))
    return whole[: records.HEADER], whole[records.HEADER + host :]


_HOSTS = {b"\0\1": 4, b"\0\2": 16}
_NOW = bytes(4)
_NO_FLAGS = bytes(2)
_ODD_ACTION = 0x20
_ODD_VERSION = 0x10  # reserved bits
_LOCATORS_REMEMBERED = 4096
_told_locators: dict[bytes, bytes] = {}
_told_around: dict[bytes, tuple[bytes, bytes] | None] = {}


def _tell_locators(rest: bytes, record: EidRecord) -> bytes:
    """The locators as they are told, remembered by the bytes in which they came; a function of these alone."""
    if len(_told_locators) >= _LOCATORS_REMEMBERED:
        _told_locators.clear()
    eid = record.prefix
    assert eid is not None
    whole = records.packed(told(record, eid))
    _told_locators[rest] = whole[len(whole) - len(rest) :]
    return _told_locators[rest]


def is_withdrawal(record: EidRecord) -> bool:
    """RFC 9301 defines no withdrawal; deployed xTRs send TTL 0, or ACT = Drop without locators."""
    return record.ttl_minutes == 0 or (not record.locators and record.action == Action.DROP_NO_REASON)


def lifetime_s(of: Sequence[EidRecord], *, use_ttl: bool, default_s: float) -> float:
    """How long a Map-Register lasts: 3 minutes unless the T-bit asks for the records' TTL (RFC 9301 §5.6)."""
    if not use_ttl:
        return default_s
    ttls = [record.ttl_minutes for record in of if record.ttl_minutes not in (0, TTL_RECEIVER_DECIDES)]
    return min(min(ttls) * 60.0, LONGEST_LIFE_S) if ttls else default_s


def told(record: EidRecord, eid: Prefix) -> EidRecord:
    """The record as a Map-Server tells it: not authoritative, no locator local, locators in order (RFC 9301 §5.4)."""
    locators = tuple(sorted((_told(locator) for locator in record.locators), key=records.locator_order))
    return EidRecord.of(
        eid,
        locators,
        ttl_minutes=record.ttl_minutes,
        action=Action(record.action) if record.action in _ACTIONS else Action.NO_ACTION,
        map_version=record.map_version,
    )


_ACTIONS = frozenset(Action)


def _told(locator: Locator) -> Locator:
    return Locator(
        locator.address,
        locator.priority,
        locator.weight,
        locator.multicast_priority,
        locator.multicast_weight,
        locator.flags & 1,
    )
