"""Packets that are too big: split into fragments that add up, or refused by a well-formed ICMP error."""

from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lispfmc.wire.address import ip_of
from lispfmc.wire.checksum import internet_checksum, ones_sum
from xtr.dataplane import mtu

A, B = ip_of("100.64.1.10"), ip_of("100.64.101.10")


def ipv4(payload: bytes, *, flags: int = 0, options: bytes = b"", protocol: int = 17) -> bytes:
    size = 20 + len(options)
    head = struct.pack("!BBHHHBBH", 0x40 | size >> 2, 0xB8, size + len(payload), 77, flags, 60, protocol, 0)
    head += A + B + options
    return head[:10] + internet_checksum(head).to_bytes(2, "big") + head[12:] + payload


def parts(piece: bytes) -> tuple[int, bool, bytes]:
    """Offset in bytes, whether more follow, payload; after checking that it is a good packet."""
    size = (piece[0] & 15) * 4
    assert internet_checksum(piece[:size]) == 0
    assert piece[2] << 8 | piece[3] == len(piece)
    word = piece[6] << 8 | piece[7]
    return (word & 0x1FFF) * 8, bool(word & 0x2000), piece[size:]


@given(st.integers(1, 4000), st.integers(68, 1500))
def test_fragments_add_up_and_fit(size: int, limit: int) -> None:
    payload = os.urandom(size)
    pieces = mtu.split(ipv4(payload), limit)
    assert all(len(piece) <= limit for piece in pieces)
    told = [parts(piece) for piece in pieces]
    assert b"".join(data for _, _, data in told) == payload
    assert [more for _, more, _ in told] == [True] * (len(told) - 1) + [False]
    at = 0
    for offset, _, data in told:
        assert offset == at
        at += len(data)


def test_two_pieces_are_about_equal() -> None:
    """RFC 9300 §7.1: so that a router further on need not split one of them again."""
    sizes = [len(piece) for piece in mtu.split(ipv4(bytes(1480)), 1464)]
    assert len(sizes) == 2
    assert abs(sizes[0] - sizes[1]) <= 8


def test_a_fragment_is_split_into_fragments_of_the_whole() -> None:
    pieces = mtu.split(ipv4(bytes(1480), flags=0x2000 | 185), 1464)
    assert [(offset, more) for offset, more, _ in map(parts, pieces)] == [(1480, True), (1480 + 744, True)]


def test_only_options_that_say_so_are_copied() -> None:
    options = bytes([0x83, 7, 4, 1, 2, 3, 4]) + bytes([7, 3, 0]) + bytes(2)  # source route, record route
    first, second = mtu.split(ipv4(bytes(1400), options=options), 800)
    assert first[20:32] == options
    assert second[20 : (second[0] & 15) * 4] == options[:7] + b"\0"


def test_a_packet_that_must_not_be_split_is_not() -> None:
    assert mtu.may_split(ipv4(b""))
    assert not mtu.may_split(ipv4(b"", flags=0x4000))
    assert not mtu.may_split(b"\x60" + bytes(39))


def test_the_icmp_error_names_the_size_and_quotes_the_packet() -> None:
    packet = ipv4(os.urandom(1480), flags=0x4000)
    message = mtu.refusal(packet, 1464)
    assert message is not None
    assert (message[9], message[16:20]) == (1, A)
    assert internet_checksum(message[:20]) == 0
    assert internet_checksum(message[20:]) == 0
    assert struct.unpack("!BBHHH", message[20:28])[::4] == (3, 1464)
    assert packet.startswith(message[28:])
    assert len(message) == 576


@pytest.mark.parametrize(("limit", "said"), [(1444, 1444), (1000, 1280)])
def test_packet_too_big_never_asks_for_less_than_ipv6_guarantees(limit: int, said: int) -> None:
    packet = struct.pack("!IHBB", 6 << 28, 1460, 17, 64) + ip_of("fd00::1") + ip_of("fd00::2") + bytes(1460)
    message = mtu.refusal(packet, limit)
    assert message is not None
    body = message[40:]
    assert struct.unpack("!BBHI", body[:8])[::3] == (2, said)
    assert ones_sum(message[8:40] + len(body).to_bytes(4, "big") + b"\0\0\0\x3a" + body) == 0xFFFF
    assert len(message) == 1280


def test_no_error_is_sent_about_an_error_or_a_later_fragment() -> None:
    unreachable = ipv4(bytes([3, 1]) + bytes(1500), flags=0x4000, protocol=1)
    assert mtu.refusal(unreachable, 1000) is None
    assert mtu.refusal(ipv4(bytes([8, 0]) + bytes(1500), flags=0x4000, protocol=1), 1000) is not None
    assert mtu.refusal(ipv4(bytes(1500), flags=0x4000 | 100), 1000) is None
    too_big = struct.pack("!IHBB", 6 << 28, 1460, 58, 64) + bytes(32) + bytes([2]) + bytes(1459)
    assert mtu.refusal(too_big, 1280) is None
