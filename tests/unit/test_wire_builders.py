"""Builders: values from their named parts, as the RFCs draw them; what is out of range is refused with its field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lispfmc.wire import LocalError, PeerError, decode, encap, encode
from lispfmc.wire.address import Address, InstanceAddress, OpaqueLcaf, Prefix, ip_of
from lispfmc.wire.codec import build_data_header, build_shim_header
from lispfmc.wire.dataheader import DataHeader, ShimHeader
from lispfmc.wire.extensions import Info, MapReferral, ReferralAction, ReferralRecord, SharedExtension
from lispfmc.wire.lcaf import (
    AfiList,
    DistinguishedName,
    Hop,
    JsonAddress,
    KeyValue,
    LocatorPath,
    MacAddress,
    NatTraversal,
    ReplicationEntry,
    ReplicationList,
    SourceDestination,
    VendorAddress,
)
from lispfmc.wire.messages import Ecm, EidRecord, Locator, MapNotify, MapRegister, MapReply, MapRequest, RequestRecord
from lispfmc.wire.security import (
    EcmSecurity,
    EidAuthentication,
    EidProof,
    MapReplySecurity,
    PacketAuthentication,
    SecuredPrefix,
)

HOST = Prefix.parse("10.1.0.5/32")
IP4, IP6 = ip_of("192.0.2.2"), ip_of("2001:db8::1")
RECORD = EidRecord.of(HOST, ttl_minutes=1)


def locator(address: Address) -> MapReply:
    return MapReply.of(EidRecord.of(HOST, [Locator.of(address)], ttl_minutes=1), nonce=1)


ADDRESSES: dict[str, Address] = {
    "a name": DistinguishedName.of("router.abc.com"),
    "a MAC address": MacAddress.of(bytes(range(6))),
    "a list": AfiList.of(IP4, IP6, DistinguishedName.of("x")),
    "a list in a list": AfiList.of(AfiList.of(IP4), LocatorPath.of(Hop.of(IP4, strict=True))),
    "a NAT": NatTraversal.of(IP4, IP4, etr_port=61000, global_etr_rloc=IP4, ms_rloc=IP4),
    "a path": LocatorPath.of(Hop.of(IP4, lookup=True, probe=True), Hop.of(IP6)),
    "a replication list": ReplicationList.of(ReplicationEntry.of(IP4, level=0), ReplicationEntry.of(IP6, level=255)),
    "JSON": JsonAddress.of(b'{"a": 1}', IP4),
    "a key and a value": KeyValue.of(IP4, HOST.ip),
    "a vendor's": VendorAddress.of(0x00005E, b"abc"),
    "an unknown LCAF": OpaqueLcaf(3, b"\0\0\0\1\0\0"),
}


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
def test_any_address_can_be_a_locator(address: Address) -> None:
    message = locator(address)
    assert decode(encode(message)) == message


def test_a_source_and_a_destination_are_one_eid() -> None:
    pair = SourceDestination.of(ip_of("10.2.0.0"), HOST.ip, source_mask_length=24, destination_mask_length=32)
    message = MapRequest.of(RequestRecord(0, 32, pair), nonce=1, itr_rlocs=[IP4])
    assert decode(encode(message)) == message


def test_an_eid_of_an_unknown_kind_costs_the_message() -> None:
    """RFC 9306 §3; in a locator the same is carried, to be ignored."""
    whole = encode(MapReply.of(EidRecord(1, 32, 0, 0, AfiList.of(IP4), ()), nonce=1))
    assert whole[24:28].hex() == "00000100"
    with pytest.raises(PeerError, match="value 99 is not one that we know") as refused:
        decode(whole[:26] + b"\x63" + whole[27:])
    assert refused.value.offset == 26
    with pytest.raises(LocalError):
        encode(MapReply.of(EidRecord(1, 32, 0, 0, OpaqueLcaf(99, b""), ()), nonce=1))


def test_a_vendor_that_we_do_not_know_costs_the_message_even_in_a_locator() -> None:
    """RFC 9306 §4."""
    whole = encode(locator(VendorAddress.of(0x00005E, b"abc")))
    at = whole.index(b"\0\0\0\x5e")
    with pytest.raises(PeerError) as refused:
        decode(whole[:at] + b"\0\0\0\x5f" + whole[at + 4 :])
    assert refused.value.offset == at


def test_lcafs_go_two_deep_and_no_deeper() -> None:
    deep = AfiList.of(AfiList.of(AfiList.of(IP4)))
    with pytest.raises(LocalError):
        encode(locator(deep))


def test_lisp_sec_data_is_parsed_in_both_messages() -> None:
    proof = EidProof.of(SecuredPrefix(0, 32, HOST.ip), hmac_id=2, hmac=bytes(16), etr_cant_sign=True)
    signed = EidAuthentication(2, proof)
    reply = MapReply.of(RECORD, nonce=1, security=MapReplySecurity(signed, PacketAuthentication(2, bytes(16))))
    back = decode(encode(reply))
    assert back == reply
    assert isinstance(back, MapReply)
    assert back.security is not None
    assert back.security.eid_authentication.proof is not None
    assert back.security.eid_authentication.proof.etr_cant_sign
    key = EcmSecurity.of(bytes(24), EidAuthentication(2), requested_hmac_id=2, key_id=1, otk_wrapping_id=2)
    request = MapRequest.of(RequestRecord.of(HOST), nonce=1, itr_rlocs=[IP4])
    ecm = Ecm.of(request, source=IP4, destination=HOST.ip, source_port=61000, ddt=True, security=key)
    assert decode(encode(ecm)) == ecm
    assert encode(ecm)[:4].hex() == "8c000000"


def test_a_referral_points_to_the_next_nodes() -> None:
    action = ReferralAction.NODE_REFERRAL
    one = ReferralRecord.of(HOST.ip, 16, [Locator.of(IP4)], action=action, ttl_minutes=1440, incomplete=True)
    message = MapReferral.of(one, nonce=7)
    assert decode(encode(message)) == message
    assert one.incomplete
    assert one.action == action


def test_an_info_request_is_answered_with_what_was_seen() -> None:
    request = Info.request(nonce=5, eid=HOST.ip, mask_length=32)
    seen = NatTraversal.of(etr_port=40000, global_etr_rloc=IP4, ms_rloc=IP4, private_etr_rloc=HOST.ip)
    reply = Info.answering(request, seen, ttl_minutes=1440)
    assert (request.reply, reply.reply, reply.nonce) == (False, True, 5)
    assert decode(encode(request)) == request
    assert decode(encode(reply)) == reply


def test_a_shared_extension_has_its_sub_type_and_what_it_likes() -> None:
    message = SharedExtension.of(1024, b"abc", specific=7)
    assert (message.sub_type, message.specific) == (1024, 7)
    assert decode(encode(message)) == message


def test_a_data_header_says_what_it_was_made_of() -> None:
    whole = DataHeader.of(iid=1000, nonce=0x123456, echo_nonce_request=True, locator_status=3, key_id=1)
    assert build_data_header(whole).hex() == "e9123456" + "0003e803"
    assert (whole.iid, whole.nonce, whole.locator_status, whole.key_id) == (1000, 0x123456, 3, 1)
    versions = DataHeader.of(versions=(5, 9), locator_status=0xFFFFFFFF)
    assert build_data_header(versions).hex() == "50005009ffffffff"
    assert (versions.source_version, versions.destination_version, versions.nonce) == (5, 9, 0)
    assert build_data_header(DataHeader.of(next_protocol=3, iid=7)).hex() == "0c00000300000700"


def test_with_the_p_bit_the_other_features_are_ignored() -> None:
    """RFC 9305 §3: N, E, V and bits 8 to 23 are ignored on receipt."""
    head = encap.parse(bytes.fromhex("f4abcd0100000000"))
    assert (head.next_protocol, head.nonce, head.source_version) == (1, 0, 0)


def test_shim_headers_come_before_the_payload() -> None:
    chain = [ShimHeader.of(1, 0x81, b"abcd"), ShimHeader.of(2, encap.NEXT_IPV4)]
    packet = build_data_header(DataHeader.of(next_protocol=0x80)) + b"".join(map(build_shim_header, chain)) + b"rest"
    found, protocol, at = encap.shims(packet, encap.parse(packet).next_protocol)
    assert (found, protocol, packet[at:]) == (chain, encap.NEXT_IPV4, b"rest")
    for size in range(8, at):
        with pytest.raises(PeerError):
            encap.shims(packet[:size], 0x80)
    endless = packet[:8] + build_shim_header(ShimHeader.of(1, 0x80)) * 100
    with pytest.raises(PeerError):
        encap.shims(endless, 0x80)


TOO_MUCH: dict[str, Callable[[], Any]] = {
    "nonce": lambda: MapReply.of(nonce=1 << 64),
    "negative nonce": lambda: MapNotify.of(nonce=-1),
    "records": lambda: MapRegister.of(*[RECORD] * 256, nonce=1),
    "locators": lambda: EidRecord.of(HOST, [Locator.of(IP4)] * 256, ttl_minutes=1),
    "TTL": lambda: EidRecord.of(HOST, ttl_minutes=1 << 32),
    "map-version": lambda: EidRecord.of(HOST, ttl_minutes=1, map_version=4096),
    "action": lambda: EidRecord.of(HOST, ttl_minutes=1, action=8),
    "priority": lambda: Locator.of(IP4, priority=256),
    "a short address": lambda: Locator.of(b"\1\2\3"),
    "no ITR-RLOC": lambda: MapRequest.of(nonce=1, itr_rlocs=[]),
    "too many ITR-RLOCs": lambda: MapRequest.of(nonce=1, itr_rlocs=[IP4] * 33),
    "half an identity": lambda: MapRegister.of(nonce=1, xtr_id=bytes(16)),
    "a short identity": lambda: MapRegister.of(nonce=1, xtr_id=bytes(15), site_id=bytes(8)),
    "two families": lambda: Ecm.of(MapReply.of(nonce=1), source=IP4, destination=IP6, source_port=1),
    "an ECM without addresses": lambda: Ecm.of(MapReply.of(nonce=1), source=b"", destination=b"", source_port=1),
    "port": lambda: Ecm.of(MapReply.of(nonce=1), source=IP4, destination=IP4, source_port=65536),
    "one-time key": lambda: EcmSecurity.of(
        bytes(16), EidAuthentication(2), requested_hmac_id=2, key_id=1, otk_wrapping_id=2
    ),
    "sub-type": lambda: SharedExtension.of(4096, b""),
    "mask length": lambda: ReferralRecord.of(IP4, 33, action=0, ttl_minutes=1),
    "signatures": lambda: ReferralRecord.of(IP4, 32, action=0, ttl_minutes=1, signatures=[None] * 16),  # type: ignore[list-item]
    "info's mask length": lambda: Info.request(nonce=1, eid=IP4, mask_length=33),
    "a name with a zero": lambda: DistinguishedName.of("a\0b"),
    "a name that is not ASCII": lambda: DistinguishedName.of("ä"),
    "a long MAC address": lambda: MacAddress.of(bytes(8)),
    "source mask length": lambda: SourceDestination.of(IP4, IP4, source_mask_length=33, destination_mask_length=32),
    "level": lambda: ReplicationEntry.of(IP4, level=256),
    "OUI": lambda: VendorAddress.of(1 << 24, b""),
    "JSON": lambda: JsonAddress.of(bytes(70000)),
    "Instance-ID of a data header": lambda: DataHeader.of(iid=1 << 24),
    "nonce and versions": lambda: DataHeader.of(nonce=1, versions=(1, 2)),
    "echo without a nonce": lambda: DataHeader.of(echo_nonce_request=True),
    "status bits beside an Instance-ID": lambda: DataHeader.of(iid=1, locator_status=256),
    "a shim header of 3 bytes": lambda: ShimHeader.of(1, 1, b"abc"),
    "a long shim header": lambda: ShimHeader.of(1, 1, bytes(1024)),
    "an Instance-ID on the wire": lambda: encode(locator(InstanceAddress(1 << 32, IP4))),
}


@pytest.mark.parametrize("build", TOO_MUCH.values(), ids=TOO_MUCH)
def test_what_does_not_fit_its_field_is_refused(build: Callable[[], Any]) -> None:
    with pytest.raises(LocalError):
        build()
