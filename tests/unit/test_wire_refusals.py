"""What decode refuses, with the field that it names and the byte where it stands."""

from __future__ import annotations

import pytest

from lispfmc.wire import LocalError, PeerError, decode, encode
from lispfmc.wire.address import OpaqueLcaf, Prefix, ip_of
from lispfmc.wire.checksum import internet_checksum, udp_checksum
from lispfmc.wire.messages import Ecm, EidRecord, Locator, MapNotify, MapReply, MapRequest, RequestRecord

HOST = Prefix.parse("10.1.0.5/32")
REQUEST = MapRequest.of(RequestRecord.of(HOST), nonce=1, itr_rlocs=[ip_of("192.0.2.3")])
REPLY = MapReply.of(EidRecord.of(HOST, [Locator.of(ip_of("192.0.2.2"))], ttl_minutes=1), nonce=1)
ECM4 = Ecm.of(REQUEST, source=ip_of("10.2.0.9"), destination=ip_of("10.1.0.5"), source_port=61000)
ECM6 = Ecm.of(REQUEST, source=ip_of("fd00::9"), destination=ip_of("fd00::5"), source_port=61000)
IP = 4  # where the inner header starts in an ECM
UDP4, UDP6 = IP + 20, IP + 40


def refusal(datagram: bytes) -> tuple[str, int]:
    with pytest.raises(PeerError) as caught:
        decode(datagram)
    return caught.value.field, caught.value.offset


def patched(datagram: bytes, at: int, new: bytes) -> bytes:
    return datagram[:at] + new + datagram[at + len(new) :]


def with_ipv4_checksum(datagram: bytes) -> bytes:
    cleared = patched(datagram, IP + 10, b"\0\0")
    return patched(cleared, IP + 10, internet_checksum(cleared[IP:UDP4]).to_bytes(2, "big"))


def test_no_bytes_and_unknown_types_are_refused_at_byte_0() -> None:
    assert refusal(b"") == ("first word", 0)
    for kind in (0, 9, 10, 11, 12, 13, 14):
        assert refusal(bytes([kind << 4]) + bytes(60)) == ("type", 0)


def test_unknown_afi_is_refused_where_it_stands() -> None:
    assert refusal(patched(encode(REPLY), 12 + 10, b"\x00\x12")) == ("records eid", 22)
    assert refusal(patched(encode(REPLY), 28 + 6, b"\x40\x04")) == ("records locators address", 34)


def test_counts_that_promise_more_than_there_is_are_refused() -> None:
    assert refusal(patched(encode(REPLY), 3, b"\xff"))[0].startswith("records")
    assert refusal(patched(encode(REPLY), 12 + 4, b"\xff"))[0].startswith("records locators")
    assert refusal(patched(encode(REQUEST), 2, b"\x1f"))[0].startswith("itr rlocs")


def test_counts_that_promise_less_leave_trailing_bytes() -> None:
    assert refusal(patched(encode(REPLY), 12 + 4, b"\x00")) == ("end of message", 28)


def test_mask_length_beyond_the_family_is_refused() -> None:
    assert refusal(patched(encode(REPLY), 12 + 5, b"\x21")) == ("records mask length", 17)
    assert refusal(patched(encode(REQUEST), 20 + 1, b"\x21")) == ("records mask length", 21)
    ecm = encode(Ecm.of(REQUEST, source=HOST.ip, destination=HOST.ip, source_port=4342))
    without_checksum = patched(ecm, UDP4 + 6, b"\0\0")
    assert refusal(patched(without_checksum, UDP4 + 8 + 21, b"\x21")) == ("records mask length", UDP4 + 8 + 21)
    instance = MapReply.of(EidRecord.of(Prefix.parse("[7]10.1.0.5/32"), ttl_minutes=1), nonce=1)
    assert refusal(patched(encode(instance), 12 + 5, b"\x21")) == ("records mask length", 17)


def test_lcaf_length_that_disagrees_with_its_body_is_refused() -> None:
    instance = encode(MapReply.of(EidRecord.of(Prefix.parse("[7]10.1.0.5/32"), ttl_minutes=1), nonce=1))
    assert instance[24:30].hex() == "00000200000a"
    assert refusal(patched(instance, 28, b"\x00\x09")) == ("records eid content ip", 36)
    assert refusal(patched(instance, 28, b"\x00\x0b")) == ("records eid content", 28)


def test_authentication_data_longer_than_the_message_is_refused() -> None:
    notify = encode(MapNotify.of(EidRecord.of(HOST, ttl_minutes=1), nonce=1))
    assert refusal(patched(notify, 14, b"\xff\xff"))[0] == "auth"


def test_ecm_refuses_wrong_inner_lengths_and_checksums() -> None:
    for ecm, udp, length_at in ((ECM4, UDP4, IP + 2), (ECM6, UDP6, IP + 4)):
        whole = encode(ecm)
        assert refusal(patched(whole, length_at, b"\x00\x20"))[1] == length_at
        assert refusal(whole[:-1])[1] == length_at
        assert refusal(patched(whole, udp + 4, b"\x00\x20")) == ("inner UDP length", udp + 4)
        assert refusal(patched(whole, udp + 6, b"\x12\x34")) == ("inner UDP checksum", udp + 6)
    assert refusal(patched(encode(ECM4), IP + 8, b"\x01")) == ("inner IPv4 header checksum", IP + 10)


def test_udp_without_checksum_is_taken_over_ipv4_and_refused_over_ipv6() -> None:
    assert encode(decode(patched(encode(ECM4), UDP4 + 6, b"\0\0"))) == patched(encode(ECM4), UDP4 + 6, b"\0\0")
    assert refusal(patched(encode(ECM6), UDP6 + 6, b"\0\0")) == ("inner UDP checksum", UDP6 + 6)


def test_a_computed_udp_checksum_of_zero_is_sent_as_all_ones() -> None:
    def checksum_with(nonce: int) -> bytes:
        request = MapRequest.of(RequestRecord.of(HOST), nonce=nonce, itr_rlocs=[ip_of("192.0.2.3")])
        ecm = Ecm.of(request, source=HOST.ip, destination=HOST.ip, source_port=4342)
        assert decode(encode(ecm)) == ecm
        return encode(ecm)[UDP4 + 6 : UDP4 + 8]

    completing = int.from_bytes(checksum_with(0), "big")  # added to the nonce's last word, the sum is all ones
    assert checksum_with(completing) == b"\xff\xff"


def test_ecm_refuses_what_is_not_one_whole_udp_datagram() -> None:
    whole = encode(ECM4)
    assert refusal(with_ipv4_checksum(patched(whole, IP + 6, b"\x20\x00"))) == ("inner IPv4 fragment", IP + 6)
    assert refusal(with_ipv4_checksum(patched(whole, IP + 6, b"\x00\x01"))) == ("inner IPv4 fragment", IP + 6)
    assert refusal(patched(whole, IP + 9, b"\x06")) == ("ip protocol", IP + 9)
    assert refusal(patched(encode(ECM6), IP + 6, b"\x2c")) == ("ip next header", IP + 6)
    assert refusal(patched(whole, IP, b"\x55"))[1] == IP
    assert refusal(patched(whole, IP, b"\x44"))[0] == "ip options"


def test_ecm_refuses_the_data_port_and_foreign_ports() -> None:
    for source, destination in ((4341, 4342), (4342, 4341), (61000, 61001)):
        ports = source.to_bytes(2, "big") + destination.to_bytes(2, "big")
        assert refusal(patched(encode(ECM4), UDP4, ports)) == ("inner UDP ports", UDP4)


def test_ecm_inside_an_ecm_is_refused() -> None:
    payload = encode(ECM4)
    source, destination = ip_of("fd00::9"), ip_of("fd00::5")
    segment = (61000).to_bytes(2, "big") + (4342).to_bytes(2, "big") + (len(payload) + 8).to_bytes(2, "big")
    checksum = udp_checksum(source, destination, segment + b"\0\0" + payload).to_bytes(2, "big")
    ip = b"\x60\0\0\0" + (len(payload) + 8).to_bytes(2, "big") + b"\x11\x40" + source + destination
    nested = b"\x80\0\0\0" + ip + segment + checksum + payload
    assert refusal(nested) == ("type", UDP6 + 8)
    with pytest.raises(LocalError):
        encode(Ecm.of(ECM4, source=source, destination=destination, source_port=4342))


def test_ip_options_and_odd_headers_of_an_ecm_survive() -> None:
    whole = bytearray(encode(ECM4))
    whole[IP] = 0x46
    whole[IP + 1] = 0xC0
    whole[IP + 3] += 4
    whole[UDP4:UDP4] = b"\x01\x01\x01\x00"
    whole[IP + 10 : IP + 12] = b"\0\0"
    whole[IP + 10 : IP + 12] = internet_checksum(bytes(whole[IP : UDP4 + 4])).to_bytes(2, "big")
    assert encode(decode(bytes(whole))) == bytes(whole)
    flow = patched(encode(ECM6), IP, b"\x6c\x01\x23\x45")
    assert encode(decode(flow)) == flow


def test_the_costliest_datagram_is_linear_work() -> None:
    """255 records that claim 255 locators each: the first that is not there ends it."""
    record = bytes([0, 0, 0, 1, 255, 0, 0, 0, 0, 0, 0, 0])
    assert refusal(b"\x20\0\0\xff" + bytes(8) + record * 255)[0].startswith("records")


def test_encode_refuses_what_contradicts_itself() -> None:
    wrong = (
        MapRequest(0x1010_0000, 1, None, (HOST.ip,), ()),  # I-bit, no xTR-ID
        MapRequest(0x1400_0000, 1, None, (HOST.ip,), ()),  # M-bit, no record
        MapRequest(0x1000_0100, 1, None, (HOST.ip,), ()),  # a count of its own
        MapRequest(0x1000_0000, 1, None, (), ()),
        MapReply(0x2200_0000, 1, ()),  # S-bit, no authentication data
        MapReply(0x3000_0000, 1, ()),  # a Map-Register's type
        MapReply(0x2000_0000, 1, (EidRecord.of(HOST, ttl_minutes=1),) * 256),
        MapReply.of(EidRecord(1, 32, 0, 0, OpaqueLcaf(2, b""), ()), nonce=1),
        MapReply.of(EidRecord(1, 32, 1 << 16, 0, HOST.ip, ()), nonce=1),
        MapReply.of(EidRecord(1, 32, 0, 0, b"\x0a\x01", ()), nonce=1),
    )
    for message in wrong:
        with pytest.raises(LocalError):
            encode(message)
