"""EID-records by themselves (RFC 9301 §5.4): how a mapping is kept and passed on, as the bytes that a reply carries.

`packed` and `unpacked` are inverse. `split` takes the records of a message that was decoded apart without decoding
them again, and `alike` those that differ in nothing but the EID; `eid_of`, `eid_at` and `version_of` read one field.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

import msgspec

from lispfmc.wire.address import InstanceAddress, Ip, Prefix
from lispfmc.wire.decoding import decode
from lispfmc.wire.encoding import encode
from lispfmc.wire.messages import EidRecord, Locator, MapReply

HEADER = 12  # of a record, before its EID; the AFI is in the last two of these bytes
LOCATOR_HEADER = 8  # of a locator, before its address; likewise
_REPLY_HEADER = 12  # a record travels in a Map-Reply: its first word, and a nonce
_LCAF = 16387
_LCAF_HEADER = 8  # AFI included
_INSTANCE = b"\x40\x03\x02"  # its AFI, and the LCAF type of an address inside an Instance-ID (RFC 8060 §4.1)
_INSTANCE_HEADER = 12  # from the LCAF's flags to the address
_SIZES = {0: 0, 1: 4, 2: 16}
_HOSTS = {b"\0\1": 4, b"\0\2": 16}  # bytes of an EID by its AFI


def packed(record: EidRecord) -> bytes:
    """The bytes of one record. Raises LocalError when a value does not fit its field."""
    return encode(MapReply.of(record, nonce=0))[_REPLY_HEADER:]


def unpacked(record: bytes) -> EidRecord:
    """The value of one record. Raises PeerError for anything that is not exactly one."""
    message = decode(b"\x20\0\0\x01" + bytes(8) + record)
    assert isinstance(message, MapReply)
    return message.records[0]


def split(records: bytes, count: int) -> list[bytes] | None:
    """The first `count` records in `records`, or None when one holds an address whose length takes decoding."""
    found: list[bytes] = []
    start = 0
    for _ in range(count):
        size = _size(records, start + HEADER - 2)
        if size is None:
            return None
        end = start + HEADER + size
        for _ in range(records[start + 4]):
            size = _size(records, end + LOCATOR_HEADER - 2)
            if size is None:
                return None
            end += LOCATOR_HEADER + size
        found.append(records[start:end])
        start = end
    return found


def locators_at(data: bytes, start: int, count: int) -> bytes:
    """`count` locators from `start` on; nothing when they do not fit, or one takes decoding."""
    end = start
    for _ in range(count):
        if end + LOCATOR_HEADER > len(data):
            return b""
        size = _SIZES.get(data[end + 6] << 8 | data[end + 7])
        if size is None:
            return b""
        end += LOCATOR_HEADER + size
    return data[start:end]


class Alike(msgspec.Struct, frozen=True, gc=False):
    """Host records that share everything but the EID: what stands before it, the EIDs, and what follows."""

    header: bytes
    eids: tuple[Ip, ...]
    locators: bytes


def alike(data: bytes, start: int, end: int, count: int) -> Alike | None:
    """The `count` records that fill `data` from `start` to `end`, if they are hosts and differ in their EIDs alone.

    What the header and the locators say is not looked at, but for the kind of EID.
    """
    header = data[start : start + HEADER]
    host = _HOSTS.get(header[10:])
    if host is None or header[5] != host * 8 or not count:
        return None
    after = HEADER + host
    if count == 1 and end >= start + after:
        return Alike(header, (data[start + HEADER : start + after],), data[start + after : end])
    size, odd = divmod(end - start, count)
    if odd or size < after:
        return None
    locators = data[start + after : start + size]
    eids: tuple[Ip, ...] = _eids(host, size, count).unpack_from(data, start)
    # put together again it is the same, so that nothing of it was overlooked
    if header + (locators + header).join(eids) + locators != data[start:end]:
        return None
    return Alike(header, eids, locators)


@lru_cache(maxsize=256)
def _eids(host: int, size: int, count: int) -> Struct:
    """The EIDs of records of one size."""
    return Struct(f"{HEADER}x{host}s{size - HEADER - host}x" * count)


def eid_of(record: bytes) -> Prefix:
    """The EID-Prefix of a record that names one. The record comes from `packed`: host bits are clear."""
    afi = record[10] << 8 | record[11]
    if afi == 1:
        return Prefix(0, record[12:16], record[5])
    if afi == 2:
        return Prefix(0, record[12:28], record[5])
    prefix = unpacked(record).prefix
    assert prefix is not None, "only records with an EID-Prefix are kept"
    return prefix


def eid_at(data: bytes, start: int) -> Prefix | None:
    """The EID-Prefix of the record that begins at `start`, if it is one of the usual kinds and all there. Nobody has
    looked at the bytes: host bits may be set."""
    iid, at = 0, start + HEADER
    afi = data[at - 2 : at]
    if afi == _INSTANCE[:2] and data[at + 2 : at + 3] == _INSTANCE[2:]:
        iid, at = int.from_bytes(data[at + 6 : at + 10], "big"), at + _INSTANCE_HEADER
        afi = data[at - 2 : at]
    size = _HOSTS.get(afi)
    ip = data[at : at + size] if size is not None else b""
    return Prefix(iid, ip, data[start + 5]) if ip and len(ip) == size else None


def version_of(record: bytes) -> int:
    """The Map-Version (RFC 9302)."""
    return (record[8] & 0xF) << 8 | record[9]


def with_version(record: bytes, version: int) -> bytes:
    return record[:8] + version.to_bytes(2, "big") + record[10:]


def locator_order(locator: Locator) -> tuple[int, bytes]:
    """RFC 9301 §5.4: locators ascend, IPv4 before IPv6, addresses of other kinds after both."""
    address = locator.address
    if isinstance(address, bytes):
        return len(address), address
    if isinstance(address, InstanceAddress):
        return 1 << 16, address.ip or b""
    return 1 << 17, repr(address).encode()


def _size(data: bytes, at: int) -> int | None:
    """The bytes of the address after the AFI at `at`."""
    afi = data[at] << 8 | data[at + 1]
    if afi == _LCAF:
        return _LCAF_HEADER - 2 + (data[at + 6] << 8 | data[at + 7])
    return _SIZES.get(afi)
