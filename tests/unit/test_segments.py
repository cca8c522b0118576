"""Runs of TCP segments: what may be joined, and that what is joined is what was sent."""

from __future__ import annotations

import struct

import pytest

from lispfmc.wire.address import ip_of
from lispfmc.wire.checksum import internet_checksum
from xtr.dataplane.segments import joinable, joined, run_length

SOURCE, TARGET = ip_of("100.64.1.10"), ip_of("100.64.101.10")
SOURCE6, TARGET6 = ip_of("fd00:0:0:1::10"), ip_of("fd00:0:0:101::10")
OPTIONS = bytes.fromhex("0101080a0000000100000002")


def tcp(
    sequence: int, payload: bytes, *, flags: int = 0x10, window: int = 500, port: int = 4000, v6: bool = False
) -> bytes:
    head = struct.pack("!HHIIBBHHH", port, 80, sequence & 0xFFFFFFFF, 7, 0x80, flags, window, 0, 0) + OPTIONS
    segment = head + payload
    if v6:
        return struct.pack("!IHBB", 6 << 28 | 0x12345, len(segment), 6, 64) + SOURCE6 + TARGET6 + segment
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), sequence & 0xFFFF, 0x4000, 64, 6, 0) + SOURCE + TARGET
    return ip[:10] + internet_checksum(ip).to_bytes(2, "big") + ip[12:] + segment


def run(*packets: bytes) -> int:
    return run_length(packets, 0, joinable(packets[0]))


@pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
def test_segments_that_follow_one_another_become_one_packet(v6: bool) -> None:
    parts = [bytes([n]) * 100 for n in range(5)]
    packets = [tcp(0xFFFFFF00 + 100 * n, part, v6=v6) for n, part in enumerate(parts)]
    assert run(*packets) == 5, "sequence numbers wrap around"
    vnet, head, *payloads = joined(packets, joinable(packets[0]), 9, 0xBA)
    assert b"".join(payloads) == b"".join(parts)
    at = 40 if v6 else 20
    assert struct.unpack("=BBHHHH", vnet) == (1, 4 if v6 else 1, at + 32, 100, at, 16)
    whole = head + b"".join(payloads)
    if v6:
        assert whole[4:6] == (len(whole) - 40).to_bytes(2, "big")
        assert (whole[0], whole[1] >> 4, whole[7]) == (0x6B, 0xA, 9)
        assert whole[1] & 0x0F == packets[0][1] & 0x0F, "the flow label stays"
    else:
        assert whole[2:4] == len(whole).to_bytes(2, "big")
        assert (whole[1], whole[8]) == (0xBA, 9)
        assert internet_checksum(whole[:20]) == 0


def test_the_pseudo_headers_sum_is_what_the_kernel_goes_on_from() -> None:
    packets = [tcp(100 * n, bytes(100)) for n in range(3)]
    _, head, *payloads = joined(packets, 52, 64, 0)
    segment = head[20:] + b"".join(payloads)
    total = int.from_bytes(segment, "big") % 0xFFFF  # what the kernel computes, the sum of ours included
    pseudo = SOURCE + TARGET + b"\0\6" + len(segment).to_bytes(2, "big")
    plain = segment[:16] + b"\0\0" + segment[18:]
    assert total % 0xFFFF == int.from_bytes(pseudo + plain, "big") % 0xFFFF


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (tcp(101, bytes(100)), "a gap"),
        (tcp(100, bytes(101)), "longer than the first"),
        (tcp(100, bytes(100), window=501), "another window"),
        (tcp(100, bytes(100), port=4001), "another flow"),
        (tcp(100, bytes(100), flags=0x11), "FIN"),
        (tcp(100, b""), "a pure acknowledgement"),
        (tcp(100, bytes(100))[:40] + bytes(12) + bytes(100), "other options"),
    ],
)
def test_what_does_not_belong_together_stays_apart(second: bytes, why: str) -> None:
    assert run(tcp(0, bytes(100)), second) == 1, why


def test_a_short_segment_or_a_push_is_the_last_of_its_run() -> None:
    assert run(tcp(0, bytes(100)), tcp(100, bytes(50)), tcp(150, bytes(50))) == 2
    pushed = [tcp(0, bytes(100)), tcp(100, bytes(100), flags=0x18), tcp(200, bytes(100))]
    assert run(*pushed) == 2
    _, head, *_ = joined(pushed[:2], 52, 64, 0)
    assert head[33] == 0x18


def test_a_run_stays_below_what_an_ip_packet_can_hold() -> None:
    packets = [tcp(1400 * n, bytes(1400)) for n in range(64)]
    length = run(*packets)
    assert 40 < length < 46
    assert sum(map(len, joined(packets[:length], 52, 64, 0)[1:])) < 65_536


@pytest.mark.parametrize("cut", range(60))
def test_nothing_short_is_joinable(cut: int) -> None:
    for packet in (tcp(0, bytes(8)), tcp(0, bytes(8), v6=True)):
        if cut:
            joinable(packet[:cut])
    udp = bytearray(tcp(0, bytes(100)))
    udp[9] = 17
    assert joinable(bytes(udp)) == 0
    fragment = bytearray(tcp(0, bytes(100)))
    fragment[6] = 0x20
    assert joinable(bytes(fragment)) == 0
