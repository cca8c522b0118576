"""Datagrams to message values and back, by the declarations in `formats`.

`decode` gives one whole value or raises `PeerError`, and nothing else; what it accepts, `encode` gives back byte for
byte, reserved bits included. The work is linear in the length of the datagram: each counted record costs bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from construct import CheckError, ConstError, ConstructError, ExplicitError, StreamError

from lispfmc.wire import formats, inner, words
from lispfmc.wire.address import Address, InstanceAddress, OpaqueLcaf
from lispfmc.wire.errors import LocalError, PeerError
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
    Signed,
)

Parsed = Any
"""What construct gives for a declaration: attributes by field name."""


def decode(datagram: bytes) -> Message:
    """The message in a UDP payload of port 4342. Raises PeerError for anything that is not exactly one message."""
    return _decode(bytes(datagram), 0, inside_ecm=False)


def encode(message: Message) -> bytes:
    """The bytes of `message`. Raises LocalError when a value does not fit its field."""
    kind, to_fields = _ENCODERS[type(message)]
    try:
        return bytes(kind.build(to_fields(message)))
    except ConstructError as error:
        raise LocalError(f"{type(message).__name__} cannot be encoded: {error}") from error


# --- Decoding --------------------------------------------------------------------------------------------------------


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

# --- Encoding --------------------------------------------------------------------------------------------------------

Fields = dict[str, Any]
"""What construct builds from."""


def _address_fields(name: str, address: Address) -> Fields:
    """The AFI and the content of the address field `name`."""
    if address is None:
        return {f"{name}_afi": formats.AFI_NONE, name: b""}
    if isinstance(address, bytes):
        return {f"{name}_afi": _afi(address), name: address}
    content: Fields = {"reserved": address.reserved}
    if isinstance(address, InstanceAddress):
        content |= {"lcaf_type": formats.LCAF_INSTANCE_ID, "reserved2": address.iid_mask_length}
        afi, ip = (formats.AFI_NONE, b"") if address.ip is None else (_afi(address.ip), address.ip)
        content["content"] = {"iid": address.iid, "ip_afi": afi, "ip": ip}
    else:
        if address.lcaf_type == formats.LCAF_INSTANCE_ID:
            raise LocalError("an Instance-ID LCAF is an InstanceAddress, not an OpaqueLcaf")
        content |= {"lcaf_type": address.lcaf_type, "reserved2": address.reserved2, "content": {"body": address.body}}
    return {f"{name}_afi": formats.AFI_LCAF, name: content}


def _afi(ip: bytes) -> int:
    if len(ip) == 4:
        return formats.AFI_IPV4
    if len(ip) == 16:
        return formats.AFI_IPV6
    raise LocalError(f"an IP address has 4 or 16 bytes, not {len(ip)}; no address is None")


def _record_fields(record: EidRecord) -> Fields:
    return {
        "ttl_minutes": record.ttl_minutes,
        "mask_length": record.mask_length,
        "flags": words.RECORD_FLAGS.split(record.flags),
        "version_word": words.RECORD_VERSION.split(record.version_word),
        "locators": [
            {
                "priority": one.priority,
                "weight": one.weight,
                "multicast_priority": one.multicast_priority,
                "multicast_weight": one.multicast_weight,
                "flags": words.LOCATOR_FLAGS.split(one.flags),
                **_address_fields("address", one.address),
            }
            for one in record.locators
        ],
        **_address_fields("eid", record.eid),
    }


def _trailer_fields(message: MapRequest | Signed, *, present: bool) -> Fields | None:
    if present != (message.xtr_id is not None) or present != (message.site_id is not None):
        raise LocalError("the I-bit, the xTR-ID and the Site-ID come together or not at all")
    return {"xtr_id": message.xtr_id, "site_id": message.site_id} if present else None


def _map_request_fields(message: MapRequest) -> Fields:
    if message.map_data_present != (message.reply_record is not None):
        raise LocalError("the M-bit and the record of the sender's own mapping come together or not at all")
    if message.word & words.ITR_RLOC_COUNT:
        raise LocalError("the count of ITR-RLOCs is derived; leave its bits zero")
    if not 1 <= len(message.itr_rlocs) <= 32:
        raise LocalError(f"a Map-Request carries 1 to 32 ITR-RLOCs, not {len(message.itr_rlocs)}")
    word = words.FIRST_WORD[1].split(words.without_count(message.word))
    word["itr_rloc_count"] = len(message.itr_rlocs) - 1
    return {
        "word": word,
        "nonce": message.nonce,
        "itr_rlocs": [_address_fields("address", one) for one in message.itr_rlocs],
        "records": [
            {
                "flags": words.REQUEST_FLAGS.split(one.flags),
                "mask_length": one.mask_length,
                **_address_fields("eid", one.eid),
            }
            for one in message.records
        ],
        "reply_record": message.reply_record and _record_fields(message.reply_record),
        "trailer": _trailer_fields(message, present=bool(word["xtr_id_present"])),
        **_address_fields("source_eid", message.source_eid),
    }


def _security_fields(declared: Any, security: bytes) -> Parsed:
    if not security:
        return None
    parsed = declared.parse(security)
    if declared.build(parsed) != security:
        raise LocalError("the LISP-SEC authentication data does not have the length that it declares")
    return parsed


def _map_reply_fields(message: MapReply) -> Fields:
    word = words.FIRST_WORD[2].split(words.without_count(message.word))
    if bool(word["security_present"]) != bool(message.security):
        raise LocalError("the S-bit and LISP-SEC authentication data come together or not at all")
    return {
        "word": word,
        "nonce": message.nonce,
        "records": [_record_fields(one) for one in message.records],
        "security": _security_fields(formats.MapReplySecurity, message.security),
    }


def _signed_fields(message: Signed, number: int) -> Fields:
    word = words.FIRST_WORD[number].split(words.without_count(message.word))
    fields = {
        "word": word,
        "nonce": message.nonce,
        "key_id": message.key_id,
        "algorithm_id": message.algorithm_id,
        "auth": message.auth,
        "records": [_record_fields(one) for one in message.records],
    }
    if number == 3:
        return fields | {"trailer": _trailer_fields(message, present=bool(word["xtr_id_present"]))}
    # A Map-Notify may carry the trailer without the bit (see formats.MapNotify), never the bit without the trailer.
    present = bool(word["xtr_id_present"]) or message.xtr_id is not None
    trailer = _trailer_fields(message, present=present)
    return fields | {"trailer": formats.XtrTrailer.build(trailer) if trailer else b""}


def _ecm_fields(message: Ecm) -> Fields:
    if isinstance(message.message, Ecm):
        raise LocalError("an ECM carries no ECM")
    word = words.FIRST_WORD[8].split(message.word)
    if bool(word["security_present"]) != bool(message.security):
        raise LocalError("the S-bit and LISP-SEC authentication data come together or not at all")
    return {
        "word": word,
        "security": _security_fields(formats.EcmSecurity, message.security),
        **inner.fields(message, encode(message.message)),
    }


_ENCODERS: dict[type, tuple[Any, Callable[[Any], Fields]]] = {
    MapRequest: (formats.MapRequest, _map_request_fields),
    MapReply: (formats.MapReply, _map_reply_fields),
    MapRegister: (formats.MapRegister, lambda message: _signed_fields(message, 3)),
    MapNotify: (formats.MapNotify, lambda message: _signed_fields(message, 4)),
    MapNotifyAck: (formats.MapNotifyAck, lambda message: _signed_fields(message, 5)),
    Ecm: (formats.Ecm, _ecm_fields),
}
