"""From values to what construct builds from: the other half of `interpreted`."""

from __future__ import annotations

from typing import Any

import msgspec
from construct import ConstructError

from lispfmc.wire import address_formats, formats, lcaf, security
from lispfmc.wire.address import InstanceAddress, OpaqueLcaf
from lispfmc.wire.checksum import internet_checksum, udp_checksum
from lispfmc.wire.dataheader import DataHeader, ShimHeader
from lispfmc.wire.extensions import Info, MapReferral, ReferralRecord, ReferralSignature, SharedExtension
from lispfmc.wire.messages import (
    Ecm,
    EidRecord,
    MapNotify,
    MapNotifyAck,
    MapReply,
    MapRequest,
    Message,
)
from tests.properties.interpreted import NUMBERS, Refused

Fields = dict[str, Any]
LCAF_TYPES: dict[type, int] = {
    lcaf.AfiList: 1,
    InstanceAddress: 2,
    lcaf.NatTraversal: 7,
    lcaf.LocatorPath: 10,
    lcaf.SourceDestination: 12,
    lcaf.ReplicationList: 13,
    lcaf.JsonAddress: 14,
    lcaf.KeyValue: 15,
    lcaf.VendorAddress: 255,
}


def encode(message: Message | DataHeader | ShimHeader) -> bytes:
    """The bytes of a value, or Refused."""
    try:
        return _encode(message)
    except (ConstructError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise Refused(repr(error)) from error


def _encode(message: Any) -> bytes:
    if isinstance(message, DataHeader):
        word = split(formats.DataHeader.word, message.word)
        return bytes(formats.DataHeader.build({"word": word, "instance_and_status": message.instance_and_status}))
    if isinstance(message, ShimHeader):
        return bytes(formats.ShimHeader.build(msgspec.structs.asdict(message)))
    kind = NUMBERS[type(message)]
    declared = formats.MESSAGES[kind]
    fields: Fields = msgspec.structs.asdict(message)
    counted = kind not in (7, 8, 15)
    if counted and message.word & 0xFF:
        refuse("the count is derived")
    fields["word"] = split(declared.word, message.word >> 8 if counted else message.word)
    if isinstance(message, Ecm):
        return bytes(declared.build(fields | _ecm(message)))
    if isinstance(message, Info):
        return bytes(declared.build(fields | address("eid", message.eid) | address("nat", message.nat)))
    if isinstance(message, SharedExtension):
        return bytes(declared.build(fields))
    if isinstance(message, MapReferral):
        fields["records"] = [_referral(one) for one in message.records]
        return bytes(declared.build(fields))
    if isinstance(message, MapRequest):
        return bytes(declared.build(fields | _map_request(message, fields["word"])))
    fields["records"] = [record(one) for one in message.records]
    if isinstance(message, MapReply):
        together(fields["word"]["security_present"], message.security)
        fields["security"] = message.security and _reply_security(message.security)
    else:
        fields["trailer"] = _trailer(message, fields["word"]["xtr_id_present"])
    return bytes(declared.build(fields))


def refuse(why: str) -> None:
    raise Refused(why)


def together(bit: int, *things: Any) -> None:
    """A bit and what it announces come together or not at all."""
    if any(bool(bit) != (one is not None) for one in things):
        refuse("announced and missing, or there and not announced")


def split(declared: Any, word: int) -> Fields:
    """The bits of a word; those that the declaration derives must be zero."""
    parts = declared.subcon.subcon.subcons
    size = sum(part.sizeof() for part in parts)
    if not 0 <= word < 1 << size:
        refuse("a word of too many bits")
    fields = {}
    for part in parts:
        size -= part.sizeof()
        fields[part.name] = word >> size & (1 << part.sizeof()) - 1
        if type(part.subcon).__name__ == "Rebuild" and fields[part.name]:
            refuse("derived bits")
    return fields


def _trailer(message: Any, bit: int) -> Fields | None:
    if isinstance(message, MapNotify | MapNotifyAck) and message.xtr_id is not None:
        bit = 1  # the trailer may come without the bit in these, and never the bit without the trailer
    together(bit, message.xtr_id, message.site_id)
    if bit and (len(message.xtr_id), len(message.site_id)) != (16, 8):
        refuse("identity of a wrong length")
    return {"xtr_id": message.xtr_id, "site_id": message.site_id} if bit else None


def address(name: str, one: Any) -> Fields:
    """The AFI and the content of the address field `name`."""
    if one is None:
        return {f"{name}_afi": 0, name: b""}
    if isinstance(one, bytes):
        return {f"{name}_afi": {4: 1, 16: 2}[len(one)], name: one}
    if isinstance(one, lcaf.DistinguishedName):
        if b"\0" in one.name:
            refuse("a zero byte in a name")
        return {f"{name}_afi": address_formats.AFI_NAME, name: {"name": one.name}}
    if isinstance(one, lcaf.MacAddress):
        return {f"{name}_afi": address_formats.AFI_MAC, name: {"octets": one.octets}}
    if isinstance(one, OpaqueLcaf):
        if one.lcaf_type in LCAF_TYPES.values():
            refuse("not opaque")
        content = {"reserved": one.reserved, "reserved2": one.reserved2, "lcaf_type": one.lcaf_type}
        return {f"{name}_afi": address_formats.AFI_LCAF, name: content | {"content": one.body}}
    kind = LCAF_TYPES[type(one)]
    reserved2 = one.iid_mask_length if isinstance(one, InstanceAddress) else one.reserved2
    content = {"reserved": one.reserved, "reserved2": reserved2, "lcaf_type": kind, "content": _body(one)}
    return {f"{name}_afi": address_formats.AFI_LCAF, name: content}


def _body(one: Any) -> Any:
    fields = msgspec.structs.asdict(one)
    match one:
        case InstanceAddress():
            if one.ip is not None and not isinstance(one.ip, bytes):
                refuse("only an IP address in an Instance-ID")
            return fields | address("ip", one.ip)
        case lcaf.AfiList():
            return {"addresses": [address("address", each) for each in one.addresses]}
        case lcaf.NatTraversal():
            for name in ("global_etr_rloc", "ms_rloc", "private_etr_rloc"):
                fields |= address(name, getattr(one, name))
            return fields | {"rtr_rlocs": [address("address", each) for each in one.rtr_rlocs]}
        case lcaf.LocatorPath():
            flags = address_formats.hop({}).flags
            hops = [{"flags": split(flags, hop.flags)} | address("address", hop.address) for hop in one.hops]
            return {"hops": hops}
        case lcaf.SourceDestination():
            return fields | address("source", one.source) | address("destination", one.destination)
        case lcaf.ReplicationList():
            word = address_formats.replication_entry({}).level_word
            entries = [
                {"level_word": split(word, each.level_word)} | address("address", each.address) for each in one.entries
            ]
            return {"entries": entries}
        case lcaf.JsonAddress():
            return fields | address("address", one.address)
        case lcaf.KeyValue():
            return address("key", one.key) | address("value", one.value)
    return fields | {"vendor": split(address_formats.BODIES[255].vendor, one.vendor)}


def _locators(locators: Any) -> list[Fields]:
    return [
        msgspec.structs.asdict(one)
        | {"flags": split(formats.Locator.flags, one.flags)}
        | address("address", one.address)
        for one in locators
    ]


def record(one: EidRecord) -> Fields:
    fields = msgspec.structs.asdict(one) | address("eid", one.eid)
    fields["flags"] = split(formats.EidRecord.flags, one.flags)
    fields["version_word"] = split(formats.EidRecord.version_word, one.version_word)
    return fields | {"locators": _locators(one.locators)}


def _referral(one: ReferralRecord) -> Fields:
    fields = msgspec.structs.asdict(one) | address("eid", one.eid)
    fields["flags"] = split(formats.ReferralRecord.flags, one.flags)
    fields["version_word"] = split(formats.ReferralRecord.version_word, one.version_word)
    signatures = [msgspec.structs.asdict(each) for each in one.signatures]
    for each in one.signatures:
        assert isinstance(each, ReferralSignature)
    return fields | {"locators": _locators(one.locators), "signatures": signatures}


def _map_request(message: MapRequest, word: Fields) -> Fields:
    together(word["map_data_present"], message.reply_record)
    asked = [
        msgspec.structs.asdict(one) | {"flags": split(formats.RequestRecord.flags, one.flags)} | address("eid", one.eid)
        for one in message.records
    ]
    return {
        **address("source_eid", message.source_eid),
        "itr_rlocs": [address("address", one) for one in message.itr_rlocs],
        "records": asked,
        "reply_record": message.reply_record and record(message.reply_record),
        "trailer": _trailer(message, word["xtr_id_present"]),
    }


def _eid_authentication(one: security.EidAuthentication) -> Fields:
    if one.proof is None:
        return {"kdf_id": one.kdf_id, "proof": None}
    prefixes = [msgspec.structs.asdict(each) | address("eid", each.eid) for each in one.proof.records]
    flags = split(formats.EidProof.flags, one.proof.flags)
    proof = {"flags": flags, "hmac_id": one.proof.hmac_id, "records": prefixes, "hmac": one.proof.hmac}
    formats.EidProof.build(proof)  # construct's Optional would swallow what is wrong with it
    return {"kdf_id": one.kdf_id, "proof": proof}


def _reply_security(one: security.MapReplySecurity) -> Fields:
    packet = msgspec.structs.asdict(one.packet_authentication)
    eid = _eid_authentication(one.eid_authentication)
    return {"reserved": one.reserved, "eid_authentication": eid, "packet_authentication": packet}


def _ecm(message: Ecm) -> Fields:
    """The headers that an ECM's value stands for."""
    if isinstance(message.message, Ecm):
        refuse("an ECM in an ECM")
    bit = message.word >> 27 & 1
    together(bit, message.security)
    source, destination = message.source, message.destination
    ports = message.source_port, message.destination_port
    if len(source) != len(destination) or len(source) not in (4, 16) or 4341 in ports or 4342 not in ports:
        refuse("inner addresses or ports")
    payload = _encode(message.message)
    length = 8 + len(payload)
    if length > 0xFFFF - 60:
        refuse("too long")
    segment = b"".join(number.to_bytes(2, "big") for number in (*ports, length, 0)) + payload
    ipv4 = len(source) == 4
    kept = message.header[:-8]
    if message.header and not kept:
        refuse("a header shorter than UDP's")
    first, ip = _ipv4(message, kept, length) if ipv4 else _ipv6(message, kept, length)
    unchecked = ipv4 and message.header[-2:] == b"\0\0"
    fields: Fields = {"first": {"version": first >> 4, "low": first & 15}, "ip": ip, "payload": payload}
    fields |= {"source_port": ports[0], "destination_port": ports[1], "udp_length": length}
    fields["udp_checksum"] = 0 if unchecked else udp_checksum(source, destination, segment)
    if message.security is not None:
        secured = msgspec.structs.asdict(message.security)
        secured["eid_authentication"] = _eid_authentication(message.security.eid_authentication)
        fields["security"] = secured
    return fields


def _ipv4(message: Ecm, kept: bytes, length: int) -> tuple[int, Fields]:
    header = bytearray(kept or bytes([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, *bytes(10)]))
    if len(header) < 20 or header[0] != 0x40 | len(header) >> 2 or len(header) % 4:
        refuse("no IPv4 header")
    header[2:4] = (len(header) + length).to_bytes(2, "big")
    header[10:20] = b"\0\0" + message.source + message.destination
    header[6] &= 0xC0
    header[7] = 0
    fragment = header[6] >> 6
    return header[0], {
        "tos": header[1],
        "total_length": len(header) + length,
        "identification": int.from_bytes(header[4:6], "big"),
        "fragment": {"reserved": fragment >> 1, "dont_fragment": fragment & 1, "more_fragments": 0, "offset": 0},
        "ttl": header[8],
        "checksum": internet_checksum(bytes(header)),
        "source": message.source,
        "destination": message.destination,
        "options": bytes(header[20:]),
    }


def _ipv6(message: Ecm, kept: bytes, length: int) -> tuple[int, Fields]:
    header = kept or bytes([0x60, 0, 0, 0, 0, 0, 17, 64, *bytes(32)])
    if len(header) != 40 or header[0] >> 4 != 6:
        refuse("no IPv6 header")
    fields: Fields = {"class_and_flow": header[1:4], "payload_length": length, "hop_limit": header[7]}
    return header[0], fields | {"source": message.source, "destination": message.destination}
