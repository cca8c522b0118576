"""Message values to bytes, by the declarations in `formats`: what `decode` accepted comes back byte for byte.

Counts, lengths and checksums are derived. A value that does not fit its field, or contradicts its own flag bits,
raises LocalError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from construct import ConstructError

from lispfmc.wire import formats, inner, words
from lispfmc.wire.address import Address, InstanceAddress
from lispfmc.wire.errors import LocalError
from lispfmc.wire.messages import (
    Ecm,
    EidRecord,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapReply,
    MapRequest,
    Message,
    Signed,
)

Fields = dict[str, Any]
"""What construct builds from."""


def encode(message: Message) -> bytes:
    """The bytes of `message`. Raises LocalError when a value does not fit its field."""
    kind, to_fields = _ENCODERS[type(message)]
    try:
        return bytes(kind.build(to_fields(message)))
    except ConstructError as error:
        raise LocalError(f"{type(message).__name__} cannot be encoded: {error}") from error


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


def _security_fields(declared: Any, security: bytes) -> Any:
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
