"""What frames of the site's link say, and that nothing else can be made of them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lispfmc.wire.address import Ip, ip_of
from xtr.dataplane.claims import Claim, MacClaim, Question, heard
from xtr.dataplane.frames import announcement, answer, question

A, B = ip_of("100.64.1.10"), ip_of("100.64.1.1")
A6, B6 = ip_of("fd00:0:0:1::10"), ip_of("fd00:0:0:1::1")
MAC, OTHER = bytes.fromhex("020000000110"), bytes.fromhex("020000000111")


def arp(operation: int, mac: bytes, ip: Ip, target: Ip, *, source: bytes = MAC, ethertype: int = 0x0806) -> bytes:
    body = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, operation, mac, ip, bytes(6), target)
    return b"\xff" * 6 + source + ethertype.to_bytes(2, "big") + body


def dhcp(kind: int = 5, *, ports: tuple[int, int] = (67, 68), mac: bytes = MAC, fragment: int = 0) -> bytes:
    options = b"\x63\x82\x53\x63" + bytes([0, 53, 1, kind, 54, 4, 10, 0, 0, 1, 255])
    message = bytes([2, 1, 6, 0]) + bytes(12) + A + bytes(8) + mac + bytes(10) + bytes(192) + options
    udp = struct.pack("!HHHH", *ports, 8 + len(message), 0) + message
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, fragment, 64, 17, 0) + B + b"\xff" * 4
    return b"\xff" * 6 + OTHER + b"\x08\x00" + head + udp


def test_only_a_host_that_speaks_for_itself_makes_a_claim() -> None:
    announced = arp(1, MAC, A, A)
    assert heard(announced) == [Claim(A, MAC)]
    for cut in range(len(announced)):
        assert heard(announced[:cut]) == []
    assert heard(arp(1, OTHER, A, A)) == [], "another's MAC"
    assert heard(arp(1, MAC, ip_of("169.254.7.7"), A)) == [], "link-local"
    assert heard(arp(1, MAC, bytes(4), A)) == [], "a probe for a duplicate is nobody's yet"
    group = b"\x03" + MAC[1:]
    assert heard(arp(1, group, A, A, source=group)) == [], "a group's MAC"


def test_who_asks_says_where_it_is_and_whom_it_looks_for() -> None:
    assert heard(arp(1, MAC, A, B)) == [Claim(A, MAC), Question(B, A, MAC)]
    assert heard(arp(2, MAC, A, B)) == [Claim(A, MAC)], "an answer asks nothing"


def test_our_own_frames_are_read_as_what_they_say() -> None:
    assert heard(question(B, MAC, A)) == [Claim(A, MAC), Question(B, A, MAC)]
    assert heard(question(B6, MAC, A)) == [], "from the gateway's link-local address: no host's"
    assert heard(answer(A6, MAC, B6, OTHER)) == [Claim(A6, MAC)]
    assert heard(answer(A, MAC, B, OTHER)) == [Claim(A, MAC)]
    assert heard(announcement(A, MAC)) == [Claim(A, MAC)]
    assert heard(announcement(A6, MAC)) == [Claim(A6, MAC)]


def test_neighbour_discovery_counts_only_from_this_link_and_whole() -> None:
    frame = announcement(A6, MAC)
    assert heard(frame[:21] + b"\xfe" + frame[22:]) == [], "hop limit 254: it came from elsewhere"
    assert heard(frame[:-1] + bytes([frame[-1] ^ 1])) == [], "the checksum is wrong"
    for cut in range(len(frame)):
        assert heard(frame[:cut]) == []


def test_rarp_names_a_machine_without_its_addresses() -> None:
    body = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 3, MAC, bytes(4), MAC, bytes(4))
    assert heard(b"\xff" * 6 + MAC + b"\x80\x35" + body) == [MacClaim(MAC)]
    assert heard(b"\xff" * 6 + OTHER + b"\x80\x35" + body) == []


def test_a_dhcp_servers_acknowledgement_says_who_has_which_address() -> None:
    assert heard(dhcp()) == [Claim(A, MAC)]
    assert heard(dhcp(kind=2)) == [], "an offer"
    assert heard(dhcp(ports=(68, 67))) == [], "a client may say what it likes"
    assert heard(dhcp(fragment=0x2000)) == []
    assert heard(dhcp(mac=b"\x01" + MAC[1:])) == []
    whole = dhcp()
    for cut in range(len(whole) - 2):
        assert heard(whole[:cut]) == [] or cut > len(whole) - 8


@given(
    st.sampled_from([b"\x08\x06", b"\x80\x35", b"\x86\xdd", b"\x08\x00"]),
    st.binary(max_size=400),
)
def test_no_frame_stops_the_sniffer(ethertype: bytes, body: bytes) -> None:
    heard(b"\xff" * 6 + MAC + ethertype + body)


@pytest.mark.parametrize("at", range(14, 60))
def test_a_frame_with_one_wrong_byte_does_not_speak_for_another_mac(at: int) -> None:
    frame = bytearray(arp(1, MAC, A, B) + bytes(18))
    frame[at] ^= 0xFF
    assert all(each.mac == MAC for each in heard(bytes(frame)))
