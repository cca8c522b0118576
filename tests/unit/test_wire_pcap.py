"""LISP datagrams come out of every link type; a broken file says where it breaks."""

from __future__ import annotations

import io
import struct

import pytest

from lispfmc.wire import LocalError
from lispfmc.wire.address import Endpoint, ip_of
from lispfmc.wire.pcap import Packet, packets

PAYLOAD = b"payload"
V4, V6 = (ip_of("198.18.0.1"), ip_of("198.18.0.2")), (ip_of("2001:2::1"), ip_of("2001:2::2"))
UDP = struct.pack(">HHHH", 50000, 4341, 8 + len(PAYLOAD), 0) + PAYLOAD
IPV4 = bytes([0x45, 0, 0, 20 + len(UDP), 0, 0, 0x40, 0, 64, 17, 0, 0]) + b"".join(V4) + UDP
IPV6 = bytes([0x60, 0, 0, 0, 0, len(UDP), 17, 64]) + b"".join(V6) + UDP


def pcap(link: int, *frames: bytes, order: str = "<", magic: int = 0xA1B2C3D4) -> bytes:
    whole = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, link)
    for frame in frames:
        whole += struct.pack(order + "IIII", 10, 500, len(frame), len(frame)) + frame
    return whole


def read(data: bytes) -> list[Packet]:
    return list(packets(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("link", "head4", "head6"),
    [
        (1, bytes(12) + b"\x08\x00", bytes(12) + b"\x86\xdd"),
        (1, bytes(12) + b"\x81\x00\x00\x05\x08\x00", bytes(12) + b"\x88\xa8\0\x01\x81\x00\0\x02\x86\xdd"),
        (101, b"", b""),
        (113, bytes(14) + b"\x08\x00", bytes(14) + b"\x86\xdd"),
        (276, b"\x08\x00" + bytes(18), b"\x86\xdd" + bytes(18)),
    ],
    ids=["ethernet", "vlan", "raw", "cooked", "cooked-2"],
)
def test_datagrams_of_both_families_come_out_of_every_link_type(link: int, head4: bytes, head6: bytes) -> None:
    first, second = read(pcap(link, head4 + IPV4, head6 + IPV6 + b"ethernet padding"))
    assert first == Packet(1, 10.0005, Endpoint(V4[0], 50000), Endpoint(V4[1], 4341), PAYLOAD)
    assert second == Packet(2, 10.0005, Endpoint(V6[0], 50000), Endpoint(V6[1], 4341), PAYLOAD)


def test_both_byte_orders_and_nanoseconds_are_read() -> None:
    assert read(pcap(101, IPV4, order=">"))[0].time == pytest.approx(10.0005)
    assert read(pcap(101, IPV4, magic=0xA1B23C4D))[0].time == pytest.approx(10.0000005)


def test_other_packets_are_passed_over_and_counted() -> None:
    tcp = IPV4[:9] + b"\x06" + IPV4[10:]
    fragment = IPV4[:6] + b"\x20\x00" + IPV4[8:]
    dns = IPV4.replace(struct.pack(">HH", 50000, 4341), struct.pack(">HH", 50000, 53))
    found = read(pcap(101, b"", b"\x45", tcp, fragment, dns, IPV4[:24], IPV4))
    assert [one.number for one in found] == [7]


@pytest.mark.parametrize(
    ("data", "at"),
    [
        (b"", 0),
        (b"not a capture at all, not at all", 0),
        (b"\x0a\x0d\x0d\x0a" + bytes(30), 0),
        (pcap(147, IPV4), 20),
        (pcap(101, IPV4)[:30], 24),
        (pcap(101, IPV4)[:-1], 40),
        (pcap(101, IPV4, IPV4)[:-1], 56 + len(IPV4)),
        (pcap(101) + struct.pack("<IIII", 0, 0, 1 << 30, 0), 32),
    ],
)
def test_a_broken_file_says_where_it_breaks(data: bytes, at: int) -> None:
    with pytest.raises(LocalError, match=rf"^byte {at}: "):
        read(data)
