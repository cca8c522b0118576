"""The data header, ECN and TTL across the tunnel, and the flow hash."""

from __future__ import annotations

import random

import pytest

from lispfmc.wire import LocalError, PeerError, encap
from lispfmc.wire.address import ip_of
from lispfmc.wire.checksum import internet_checksum

A4, B4 = ip_of("100.64.1.10"), ip_of("100.64.101.10")
A6, B6 = ip_of("fd00:0:0:1::10"), ip_of("fd00:0:0:101::10")


def ipv4(
    *, tos: int = 0, ttl: int = 64, ports: bytes = b"\x10\x00\x20\x00", fragment: int = 0, protocol: int = 17
) -> bytes:
    head = bytes([0x45, tos, 0, 28, 0, 1, fragment >> 8, fragment & 255, ttl, protocol, 0, 0]) + A4 + B4
    return head[:10] + internet_checksum(head).to_bytes(2, "big") + head[12:] + ports + bytes(4)


def ipv6(*, tos: int = 0, ttl: int = 64, ports: bytes = b"\x10\x00\x20\x00", next_header: int = 17) -> bytes:
    return bytes([0x60 | tos >> 4, (tos & 15) << 4 | 5, 1, 2, 0, 8, next_header, ttl]) + A6 + B6 + ports + bytes(4)


def test_header_examples_of_the_rfc_text() -> None:
    assert encap.header() == bytes(8)
    assert encap.header(7).hex() == "0800000000000700"
    assert encap.header(7, encap.NEXT_IPV4).hex() == "0c00000100000700"
    assert encap.parse(bytes.fromhex("0800000000000700")).iid == 7
    assert encap.parse(bytes.fromhex("80abcdef00000000")).nonce == 0xABCDEF
    versions = encap.parse(bytes.fromhex("1800500900000700"))
    assert (versions.source_version, versions.destination_version, versions.iid) == (5, 9, 7)
    assert encap.parse(bytes.fromhex("0c00000100000700")).next_protocol == encap.NEXT_IPV4


def test_nonce_and_version_together_are_a_nonce() -> None:
    both = encap.parse(bytes.fromhex("9000500900000000"))
    assert (both.nonce, both.source_version) == (0x5009, 0)


def test_status_bits_shrink_with_an_instance_id_and_count_only_with_the_l_bit() -> None:
    assert encap.parse(bytes.fromhex("40000000000000ff")).locator_status == 0xFF
    assert encap.parse(bytes.fromhex("48000000000007ff")).locator_status == 0xFF
    assert encap.parse(bytes.fromhex("08000000000007ff")).locator_status == 0


@pytest.mark.parametrize("packet", ["", "08000000000007", "0100000000000000"])
def test_headers_that_cannot_be_read_are_refused(packet: str) -> None:
    with pytest.raises(PeerError):
        encap.parse(bytes.fromhex(packet))


def test_header_refuses_an_instance_id_of_more_than_24_bits() -> None:
    with pytest.raises(LocalError):
        encap.header(1 << 24)


def test_inner_packet_is_whole_and_padding_is_cut() -> None:
    for packet in (ipv4(), ipv6()):
        head = encap.parse(encap.header())
        assert encap.inner(encap.header() + packet, head) == packet
        assert encap.inner(encap.header() + packet + b"pad", head) == packet
        for size in range(len(packet)):
            with pytest.raises(PeerError):
                encap.inner(encap.header() + packet[:size], head)


def test_next_protocol_must_be_what_follows() -> None:
    announced = encap.header(0, encap.NEXT_IPV6)
    assert encap.inner(announced + ipv6(), encap.parse(announced))
    with pytest.raises(PeerError):
        encap.inner(announced + ipv4(), encap.parse(announced))


@pytest.mark.parametrize(
    ("inner", "by_outer"),
    [  # RFC 6040 Figure 4; outer Not-ECT, ECT(0), ECT(1), CE; codes 0, 2, 1, 3
        (0, (0, 0, 0, None)),
        (2, (2, 2, 1, 3)),
        (1, (1, 1, 1, 3)),
        (3, (3, 3, 3, 3)),
    ],
)
def test_ecn_after_decapsulation(inner: int, by_outer: tuple[int | None, ...]) -> None:
    for outer, wanted in zip((0, 2, 1, 3), by_outer, strict=True):
        assert encap.decapsulated_ecn(0xB8 | inner, outer) == wanted
        for make in (ipv4, ipv6):
            out = encap.decapsulated(make(tos=0xB8 | inner), 64, 0xB8 | outer)
            assert out == (None if wanted is None else make(tos=0xB8 | wanted))


def test_dscp_comes_out_as_the_core_left_it() -> None:
    for make in (ipv4, ipv6):
        assert encap.decapsulated(make(tos=0xB8 | 2), 64, 0x28 | 2) == make(tos=0x28 | 2)
        assert encap.decapsulated(make(tos=0xB8), 64, 0) == make(tos=0)


def test_map_versions_stand_where_a_nonce_would_beside_the_instance_id() -> None:
    assert encap.versioned_header(7, 5, 9) == bytes.fromhex("1800500900000700")
    assert encap.versioned_header(0, 0, 4095) == bytes.fromhex("10000fff00000000")
    found = encap.parse(encap.versioned_header(7, 5, 9) + bytes(20))
    assert (found.iid, found.source_version, found.destination_version) == (7, 5, 9)


def test_ttl_becomes_the_lesser_of_the_two() -> None:
    for make in (ipv4, ipv6):
        assert encap.decapsulated(make(ttl=64), 20, 0) == make(ttl=20)
        assert encap.decapsulated(make(ttl=20), 64, 0) == make(ttl=20)
        unchanged = make(ttl=20)
        assert encap.decapsulated(unchanged, 20, 0) is unchanged


def test_rewriting_keeps_the_ipv4_checksum_right() -> None:
    chance = random.Random(1)
    for _ in range(5000):
        before = ipv4(tos=chance.randrange(256), ttl=chance.randrange(256))
        ttl, tos = chance.randrange(256), chance.randrange(256)
        assert encap.rewritten(before, ttl=ttl, tos=tos) == ipv4(tos=tos, ttl=ttl)


def test_internet_checksum_is_the_folded_sum_of_words() -> None:
    chance = random.Random(2)
    for size in (0, 1, 2, 3, 20, 21, 64):
        for data in (bytes(size), b"\xff" * size, *(chance.randbytes(size) for _ in range(200))):
            padded = data + bytes(size % 2)
            total = sum(int.from_bytes(padded[at : at + 2], "big") for at in range(0, len(padded), 2))
            while total >> 16:
                total = (total & 0xFFFF) + (total >> 16)
            assert internet_checksum(data) == ~total & 0xFFFF


def test_flow_hash_is_of_the_five_tuple_and_not_of_the_rest() -> None:
    for make in (ipv4, ipv6):
        assert encap.flow_hash(make()) == encap.flow_hash(make(tos=4, ttl=9))
        assert encap.flow_hash(make()) != encap.flow_hash(make(ports=b"\x10\x01\x20\x00"))
    assert encap.flow_hash(ipv4(protocol=1)) == encap.flow_hash(ipv4(protocol=1, ports=b"\x08\x00\x12\x34"))


def test_all_fragments_of_a_datagram_have_one_hash() -> None:
    first, second = ipv4(fragment=0x2000), ipv4(fragment=0x0010, ports=b"data")
    assert encap.flow_hash(first) == encap.flow_hash(second)
    dont_fragment = ipv4(fragment=0x4000)
    assert encap.flow_hash(dont_fragment) == encap.flow_hash(ipv4())


def test_source_ports_are_dynamic_and_spread() -> None:
    ports = {encap.source_port(encap.flow_hash(ipv4(ports=n.to_bytes(2, "big") + b"\0\x50"))) for n in range(1000)}
    assert all(0xC000 <= port <= 0xFFFF for port in ports)
    assert len(ports) > 900
