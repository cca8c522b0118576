"""The codec once more, by construct itself: what the compiled one is held against.

The declarations are the same; everything from there to the values is written by hand, and slowly, on purpose. Of the
codec it uses values, declarations and the checksum, and no more.
"""

from __future__ import annotations

from typing import Any

from construct import ConstructError

from lispfmc.wire import address_formats, formats, lcaf, security
from lispfmc.wire.address import Address, InstanceAddress, OpaqueLcaf
from lispfmc.wire.checksum import internet_checksum, udp_checksum
from lispfmc.wire.dataheader import DataHeader, ShimHeader
from lispfmc.wire.extensions import Info, MapReferral, ReferralRecord, ReferralSignature, SharedExtension
from lispfmc.wire.messages import (
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
NUMBERS: dict[type, int] = {
    MapRequest: 1,
    MapReply: 2,
    MapRegister: 3,
    MapNotify: 4,
    MapNotifyAck: 5,
    MapReferral: 6,
    Info: 7,
    Ecm: 8,
    SharedExtension: 15,
}
SIGNED: dict[int, type[MapRegister | MapNotify | MapNotifyAck]] = {3: MapRegister, 4: MapNotify, 5: MapNotifyAck}


class Refused(Exception):  # noqa: N818 - not an error of the test's
    """Not a message, or not a value of one."""


def decode(datagram: bytes) -> Message:
    """The message, or Refused."""
    return _decode(datagram, inside=False)


def decode_data_header(packet: bytes) -> DataHeader:
    parsed = _parsed(formats.DataHeader, packet)
    return DataHeader(joined(formats.DataHeader.word, parsed.word), parsed.instance_and_status)


def decode_shim_header(packet: bytes) -> ShimHeader:
    parsed = _parsed(formats.ShimHeader, packet)
    return ShimHeader(parsed.type, parsed.next_protocol, parsed.fields, parsed.reserved)


def _parsed(declared: Any, datagram: bytes) -> Parsed:
    try:
        return declared.parse(datagram)
    except ConstructError as error:
        raise Refused(str(error)) from error


def _decode(datagram: bytes, *, inside: bool) -> Message:
    kind = datagram[0] >> 4 if datagram else 0
    if kind not in formats.MESSAGES or (inside and kind == 8):
        raise Refused("type")
    parsed = _parsed(formats.MESSAGES[kind], datagram)
    word = joined(formats.MESSAGES[kind].word, parsed.word)
    if kind == 8:
        return _ecm(parsed, datagram, word)
    if kind == 7:
        fields = (parsed.ttl_minutes, parsed.mask_length, address(parsed.eid_afi, parsed.eid))
        nat = address(parsed.nat_afi, parsed.nat)
        return Info(word, parsed.nonce, *fields, nat, parsed.key_id, parsed.auth, parsed.reserved)
    if kind == 15:
        return SharedExtension(word, parsed.body)
    word <<= 8
    if kind == 1:
        return _map_request(parsed, word & ~0x1F00)
    if kind == 6:
        return MapReferral(word, parsed.nonce, tuple(_referral(one) for one in parsed.records))
    records = tuple(record(one) for one in parsed.records)
    if kind == 2:
        return MapReply(word, parsed.nonce, records, _reply_security(parsed.security))
    signed = SIGNED[kind]
    auth = parsed.key_id, parsed.algorithm_id, parsed.auth
    return signed(word, parsed.nonce, records, *auth, *_trailer(parsed.trailer))


def joined(declared: Any, bits: Parsed) -> int:
    word = 0
    for part in _bits(declared):
        word = word << part.sizeof() | bits[part.name]
    return word


def _bits(declared: Any) -> list[Any]:
    return list(declared.subcon.subcon.subcons)


def _trailer(parsed: Parsed) -> tuple[bytes | None, bytes | None]:
    return (None, None) if parsed is None else (parsed.xtr_id, parsed.site_id)


def address(afi: int, content: Parsed) -> Address:
    if afi in (address_formats.AFI_NONE, address_formats.AFI_IPV4, address_formats.AFI_IPV6):
        return content or None
    if afi == address_formats.AFI_NAME:
        return lcaf.DistinguishedName(content.name)
    if afi == address_formats.AFI_MAC:
        return lcaf.MacAddress(content.octets)
    kind, body = content.lcaf_type, content.content
    if kind == address_formats.LCAF_INSTANCE_ID:
        return InstanceAddress(body.iid, body.ip or None, content.reserved2, content.reserved)
    ends = content.reserved, content.reserved2
    match kind:
        case address_formats.LCAF_AFI_LIST:
            return lcaf.AfiList(_addresses(body.addresses), *ends)
        case address_formats.LCAF_NAT:
            three = ("global_etr_rloc", "ms_rloc", "private_etr_rloc")
            known, server, private = (address(body[f"{name}_afi"], body[name]) for name in three)
            ports, rtrs = (body.ms_port, body.etr_port), _addresses(body.rtr_rlocs)
            return lcaf.NatTraversal(*ports, known, server, private, rtrs, *ends)
        case address_formats.LCAF_PATH:
            declared = address_formats.hop({}).flags
            hops = [lcaf.Hop(joined(declared, one.flags), address(one.address_afi, one.address)) for one in body.hops]
            return lcaf.LocatorPath(tuple(hops), *ends)
        case address_formats.LCAF_SOURCE_DEST:
            masks = body.source_mask_length, body.destination_mask_length
            pair = address(body.source_afi, body.source), address(body.destination_afi, body.destination)
            return lcaf.SourceDestination(*masks, *pair, body.reserved3, *ends)
        case address_formats.LCAF_REPLICATION:
            declared = address_formats.replication_entry({}).level_word
            entries = [
                lcaf.ReplicationEntry(joined(declared, one.level_word), address(one.address_afi, one.address))
                for one in body.entries
            ]
            return lcaf.ReplicationList(tuple(entries), *ends)
        case address_formats.LCAF_JSON:
            return lcaf.JsonAddress(body.json, address(body.address_afi, body.address), *ends)
        case address_formats.LCAF_KEY_VALUE:
            return lcaf.KeyValue(address(body.key_afi, body.key), address(body.value_afi, body.value), *ends)
        case address_formats.LCAF_VENDOR:
            return lcaf.VendorAddress(body.vendor.reserved << 24 | body.vendor.oui, body.body, *ends)
    return OpaqueLcaf(kind, body, *ends)


def _addresses(parsed: Parsed) -> tuple[Address, ...]:
    return tuple(address(one.address_afi, one.address) for one in parsed)


def _locators(parsed: Parsed) -> tuple[Locator, ...]:
    return tuple(
        Locator(
            address(one.address_afi, one.address),
            one.priority,
            one.weight,
            one.multicast_priority,
            one.multicast_weight,
            joined(formats.Locator.flags, one.flags),
        )
        for one in parsed
    )


def record(parsed: Parsed) -> EidRecord:
    flags = joined(formats.EidRecord.flags, parsed.flags)
    version = joined(formats.EidRecord.version_word, parsed.version_word)
    eid = address(parsed.eid_afi, parsed.eid)
    return EidRecord(parsed.ttl_minutes, parsed.mask_length, flags, version, eid, _locators(parsed.locators))


def _referral(parsed: Parsed) -> ReferralRecord:
    signatures = tuple(
        ReferralSignature(
            *(one.original_ttl_minutes, one.expiration, one.inception, one.key_tag, one.algorithm),
            one.signature,
            one.reserved,
        )
        for one in parsed.signatures
    )
    flags = joined(formats.ReferralRecord.flags, parsed.flags)
    version = parsed.version_word.map_version
    eid = address(parsed.eid_afi, parsed.eid)
    locators = _locators(parsed.locators)
    return ReferralRecord(parsed.ttl_minutes, parsed.mask_length, flags, version, eid, locators, signatures)


def _map_request(parsed: Parsed, word: int) -> MapRequest:
    asked = tuple(
        RequestRecord(joined(formats.RequestRecord.flags, one.flags), one.mask_length, address(one.eid_afi, one.eid))
        for one in parsed.records
    )
    source = address(parsed.source_eid_afi, parsed.source_eid)
    own = None if parsed.reply_record is None else record(parsed.reply_record)
    trailer = _trailer(parsed.trailer)
    return MapRequest(word, parsed.nonce, source, _addresses(parsed.itr_rlocs), asked, own, *trailer)


def _eid_authentication(parsed: Parsed) -> security.EidAuthentication:
    if parsed.proof is None:
        return security.EidAuthentication(parsed.kdf_id)
    proof = parsed.proof
    prefixes = tuple(
        security.SecuredPrefix(one.reserved, one.mask_length, address(one.eid_afi, one.eid)) for one in proof.records
    )
    flags = joined(formats.EidProof.flags, proof.flags)
    return security.EidAuthentication(parsed.kdf_id, security.EidProof(flags, proof.hmac_id, prefixes, proof.hmac))


def _reply_security(parsed: Parsed) -> security.MapReplySecurity | None:
    if parsed is None:
        return None
    packet = security.PacketAuthentication(parsed.packet_authentication.hmac_id, parsed.packet_authentication.hmac)
    return security.MapReplySecurity(_eid_authentication(parsed.eid_authentication), packet, parsed.reserved)


def _ecm_security(parsed: Parsed) -> security.EcmSecurity | None:
    if parsed is None:
        return None
    return security.EcmSecurity(
        *(parsed.requested_hmac_id, parsed.key_id, parsed.otk_wrapping_id, parsed.one_time_key),
        _eid_authentication(parsed.eid_authentication),
        parsed.reserved,
    )


def _ecm(parsed: Parsed, datagram: bytes, word: int) -> Ecm:
    """RFC 9301 §5.8 and what any IP stack asks of IP and UDP headers."""
    payload_at = len(datagram) - len(parsed.payload)
    udp_at = payload_at - 8
    ip, ipv4 = parsed.ip, parsed.first.version == 4
    at = udp_at - (parsed.first.low * 4 if ipv4 else 40)
    head = datagram[at:udp_at]
    ports = {parsed.source_port, parsed.destination_port}
    good = parsed.udp_length == len(datagram) - udp_at and 4342 in ports and 4341 not in ports
    if ipv4:
        good = good and ip.total_length == len(datagram) - at
        good = good and not ip.fragment.more_fragments and not ip.fragment.offset
        good = good and ip.checksum == internet_checksum(head[:10] + head[12:])
    else:
        good = good and ip.payload_length == len(datagram) - udp_at
    if parsed.udp_checksum or not ipv4:
        segment = datagram[udp_at : udp_at + 6] + b"\0\0" + parsed.payload
        good = good and parsed.udp_checksum == udp_checksum(ip.source, ip.destination, segment)
    if not good:
        raise Refused("inner headers")
    message = _decode(parsed.payload, inside=True)
    ends = ip.source, ip.destination, parsed.source_port, parsed.destination_port
    value = Ecm(word, *ends, message, _ecm_security(parsed.security))
    # The header is kept when ours would differ: what a plain value encodes to is known from the RFCs alone.
    if ipv4:
        plain = head[:2] == b"\x45\0" and head[4:10] == b"\0\0\x40\0\x40\x11" and parsed.udp_checksum != 0
    else:
        plain = head[:4] == b"\x60\0\0\0" and head[6:8] == b"\x11\x40"
    return value if plain else Ecm(word, *ends, message, value.security, datagram[at:payload_at])
