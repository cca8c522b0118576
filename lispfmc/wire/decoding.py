"""Datagrams to message values, by the declarations in `formats`.

`decode` gives one whole value or raises `PeerError`, and nothing else. The work is linear in the length of the
datagram: each counted record costs bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from construct import CheckError, ConstError, ConstructError, ExplicitError, StreamError

from lispfmc.wire import formats, inner, words
from lispfmc.wire.address import Address, InstanceAddress, OpaqueLcaf
from lispfmc.wire.errors import PeerError
from lispfmc.wire.messages import (
    XTR_ID_BYTES,
    Ecm,
    EidRecord,
    Locator,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapReply,
    MapRequest,
    Message,
    RequestRecord,
)

Parsed = Any
"""What construct gives for a declaration: attributes by field name."""


def decode(datagram: bytes) -> Message:
    """The message in a UDP payload of port 4342. Raises PeerError for anything that is not exactly one message."""
    return _decode(bytes(datagram), 0, inside_ecm=False)


class _Cursor(io.BytesIO):
    """A stream that remembers its last read, so that an error can say where it stands."""

    at = 0
    last = b""

    def read(self, size: int | None = -1, /) -> bytes:
        self.at = self.tell()
        self.last = super().read(size)
        return self.last


def parse(datagram: bytes, base: int = 0) -> tuple[int, Parsed]:
    """The message type and the parsed fields of one message that starts at byte `base` of a datagram."""
    if len(datagram) < 4:
        raise PeerError("first word", offset=base, why=f"4 bytes wanted, {len(datagram)} left")
    kind = datagram[0] >> 4
    if kind not in formats.MESSAGES:
        raise PeerError("type", offset=base, why=f"message type {kind} is not one that we know")
    cursor = _Cursor(datagram)
    try:
        parsed = formats.MESSAGES[kind].parse_stream(cursor)
    except ConstructError as error:
        raise _refusal(error, cursor, len(datagram), base) from error
    left = len(datagram) - cursor.tell()
    if left:
        raise PeerError("end of message", offset=base + cursor.tell(), why=f"{left} bytes after the last field")
    return kind, parsed


def _decode(datagram: bytes, base: int, *, inside_ecm: bool) -> Message:
    kind, parsed = parse(datagram, base)
    if kind == 8:
        if inside_ecm:
            raise PeerError("type", offset=base, why="an ECM inside an ECM")
        return _ecm(parsed, datagram)
    return _DECODERS[kind](parsed, base)


def _refusal(error: ConstructError, cursor: _Cursor, size: int, base: int) -> PeerError:
    """Say what construct found wrong in our words, with the place in the datagram."""
    path = [part for part in (error.path or "").split(" -> ") if part and not part.startswith("(")]
    field = " ".join(path).replace("_", " ") or "message"
    at = base + cursor.at
    if isinstance(error, StreamError) and "negative" in str(error):
        return PeerError(field, offset=at, why="a length is less than the fields that it counts")
    if isinstance(error, StreamError):
        return PeerError(field, offset=at, why=f"the datagram ends too early: {size - cursor.at} bytes left")
    if isinstance(error, ExplicitError):
        return PeerError(field, offset=at, why=f"value {int.from_bytes(cursor.last, 'big')} is not one that we know")
    if isinstance(error, ConstError):
        return PeerError(field, offset=at, why=f"value {int.from_bytes(cursor.last, 'big')} is not allowed here")
    if isinstance(error, CheckError):
        return PeerError(field, offset=at, why="a length does not agree with what it measures")
    return PeerError(field, offset=at, why=str(error).splitlines()[0])


def _address(content: Parsed) -> Address:
    if isinstance(content, bytes):
        return content or None
    body = content.content
    if content.lcaf_type == formats.LCAF_INSTANCE_ID:
        return InstanceAddress(body.iid, body.ip or None, content.reserved2, content.reserved)
    return OpaqueLcaf(content.lcaf_type, body.body, content.reserved, content.reserved2)


def _eid(content: Parsed, mask_length: int, at: int) -> Address:
    """An EID with its mask length, which may not exceed its family's (RFC 9301 §5.4)."""
    eid = _address(content)
    ip = eid.ip if isinstance(eid, InstanceAddress) else eid
    if isinstance(ip, bytes) and mask_length > len(ip) * 8:
        raise PeerError(
            "EID mask length", offset=at, why=f"{mask_length} is more than the address's {len(ip) * 8} bits"
        )
    return eid


def _record(parsed: Parsed, base: int) -> EidRecord:
    eid = _eid(parsed.eid, parsed.mask_length, base + parsed.at + 5)
    locators = tuple(
        Locator(
            _address(one.address),
            one.priority,
            one.weight,
            one.multicast_priority,
            one.multicast_weight,
            words.LOCATOR_FLAGS.joined(one.flags),
        )
        for one in parsed.locators
    )
    flags = words.RECORD_FLAGS.joined(parsed.flags)
    version_word = words.RECORD_VERSION.joined(parsed.version_word)
    return EidRecord(parsed.ttl_minutes, parsed.mask_length, flags, version_word, eid, locators)


def _records(parsed: Parsed, base: int) -> tuple[EidRecord, ...]:
    return tuple(_record(one, base) for one in parsed)


def _map_request(parsed: Parsed, base: int) -> MapRequest:
    records = tuple(
        RequestRecord(
            words.REQUEST_FLAGS.joined(one.flags),
            one.mask_length,
            _eid(one.eid, one.mask_length, base + one.at + 1),
        )
        for one in parsed.records
    )
    trailer = parsed.trailer
    return MapRequest(
        words.FIRST_WORD[1].joined(parsed.word) << 8 & ~words.ITR_RLOC_COUNT,
        parsed.nonce,
        _address(parsed.source_eid),
        tuple(_address(one.address) for one in parsed.itr_rlocs),
        records,
        None if parsed.reply_record is None else _record(parsed.reply_record, base),
        trailer and trailer.xtr_id,
        trailer and trailer.site_id,
    )


def _map_reply(parsed: Parsed, base: int) -> MapReply:
    security = b"" if parsed.security is None else formats.MapReplySecurity.build(parsed.security)
    word = words.FIRST_WORD[2].joined(parsed.word) << 8
    return MapReply(word, parsed.nonce, _records(parsed.records, base), security)


def _map_register(parsed: Parsed, base: int) -> MapRegister:
    trailer = parsed.trailer
    return MapRegister(
        words.FIRST_WORD[3].joined(parsed.word) << 8,
        parsed.nonce,
        _records(parsed.records, base),
        parsed.key_id,
        parsed.algorithm_id,
        parsed.auth,
        trailer and trailer.xtr_id,
        trailer and trailer.site_id,
    )


def _notification(kind: type[MapNotify | MapNotifyAck]) -> Callable[[Parsed, int], MapNotify | MapNotifyAck]:
    number = 4 if kind is MapNotify else 5

    def decoded(parsed: Parsed, base: int) -> MapNotify | MapNotifyAck:
        trailer = parsed.trailer
        wanted = formats.XtrTrailer.sizeof()
        if len(trailer) != wanted and (trailer or parsed.word.xtr_id_present):
            why = f"{wanted} bytes wanted, {len(trailer)} left"
            raise PeerError("xTR-ID and Site-ID", offset=base + parsed.trailer_at, why=why)
        return kind(
            words.FIRST_WORD[number].joined(parsed.word) << 8,
            parsed.nonce,
            _records(parsed.records, base),
            parsed.key_id,
            parsed.algorithm_id,
            parsed.auth,
            trailer[:XTR_ID_BYTES] if trailer else None,
            trailer[XTR_ID_BYTES:] if trailer else None,
        )

    return decoded


def _ecm(parsed: Parsed, datagram: bytes) -> Ecm:
    inner.check(parsed, datagram)
    payload_at = parsed.payload_at
    message = _decode(parsed.payload, payload_at, inside_ecm=True)
    return Ecm(
        words.FIRST_WORD[8].joined(parsed.word),
        parsed.ip.source,
        parsed.ip.destination,
        parsed.source_port,
        parsed.destination_port,
        message,
        b"" if parsed.security is None else formats.EcmSecurity.build(parsed.security),
        inner.received(datagram, parsed.ip_at, payload_at),
    )


_DECODERS: dict[int, Callable[[Parsed, int], Message]] = {
    1: _map_request,
    2: _map_reply,
    3: _map_register,
    4: _notification(MapNotify),
    5: _notification(MapNotifyAck),
}
