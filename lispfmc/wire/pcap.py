"""LISP datagrams out of a classic pcap file, for people who look at captures.

In: a binary stream; out: one value a UDP datagram from or to port 4341 or 4342. Packets of other protocols, IP
fragments and IPv6 extension headers are passed over; a file that is no pcap, or ends inside a packet, raises
LocalError with the offset. Memory is bounded by one packet.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from lispfmc.wire.address import Endpoint
from lispfmc.wire.errors import LocalError

PORTS = frozenset({4341, 4342})
MAX_PACKET_BYTES = 262_144  # the largest snap length that capture tools use; a longer claim is a broken file

_MAGIC = {
    b"\xd4\xc3\xb2\xa1": ("<", 1e-6),
    b"\xa1\xb2\xc3\xd4": (">", 1e-6),
    b"\x4d\x3c\xb2\xa1": ("<", 1e-9),
    b"\xa1\xb2\x3c\x4d": (">", 1e-9),
}
_PCAPNG = b"\x0a\x0d\x0d\x0a"
_ETHERNET, _RAW, _SLL, _SLL2 = 1, (12, 14, 101, 228, 229), 113, 276
_IPV4, _IPV6, _VLANS = 0x0800, 0x86DD, (0x8100, 0x88A8)
_UDP = 17


class Packet(NamedTuple):
    """One datagram of a capture."""

    number: int  # of the frame in the file, from 1
    time: float  # seconds since 1970
    source: Endpoint
    destination: Endpoint
    payload: bytes


def packets(stream: BinaryIO) -> Iterator[Packet]:
    """The LISP datagrams of a capture, in its order."""
    head = stream.read(24)
    if head[:4] == _PCAPNG:
        raise LocalError("byte 0: this is a pcapng file; `editcap -F pcap IN OUT` makes a classic one of it")
    if len(head) < 24 or head[:4] not in _MAGIC:
        raise LocalError("byte 0: this is no pcap file")
    order, unit = _MAGIC[head[:4]]
    (link,) = struct.unpack(order + "I", head[20:24])
    link &= 0xFFFF  # the upper half says how long the frame check sequence is
    if link not in (_ETHERNET, *_RAW, _SLL, _SLL2):
        raise LocalError(f"byte 20: link type {link} is not one that we can read (Ethernet, raw IP, Linux cooked)")
    for number, time, frame in _frames(stream, order, unit):
        found = _datagram(_network_layer(frame, link))
        if found is not None:
            yield Packet(number, time, *found)


def _frames(stream: BinaryIO, order: str, unit: float) -> Iterator[tuple[int, float, bytes]]:
    at, number = 24, 0
    while head := stream.read(16):
        number += 1
        if len(head) < 16:
            raise LocalError(f"byte {at}: the file ends inside the header of packet {number}")
        seconds, fraction, size, _ = struct.unpack(order + "IIII", head)
        if size > MAX_PACKET_BYTES:
            raise LocalError(f"byte {at + 8}: packet {number} claims {size} bytes, more than {MAX_PACKET_BYTES}")
        frame = stream.read(size)
        if len(frame) < size:
            raise LocalError(f"byte {at + 16}: the file ends inside packet {number}")
        at += 16 + size
        yield number, seconds + fraction * unit, frame


def _network_layer(frame: bytes, link: int) -> bytes:
    """The IP packet in a frame; empty when it carries something else."""
    if link in _RAW:
        return frame
    at = {_ETHERNET: 12, _SLL: 14, _SLL2: 0}[link]
    kind = int.from_bytes(frame[at : at + 2], "big")
    while kind in _VLANS and link == _ETHERNET:
        at += 4
        kind = int.from_bytes(frame[at : at + 2], "big")
    if kind not in (_IPV4, _IPV6):
        return b""
    return frame[20:] if link == _SLL2 else frame[at + 2 :]


def _datagram(packet: bytes) -> tuple[Endpoint, Endpoint, bytes] | None:
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        fragment = int.from_bytes(packet[6:8], "big") & 0x3FFF
        if packet[9] != _UDP or fragment:
            return None
        source, destination, segment = packet[12:16], packet[16:20], packet[(packet[0] & 15) * 4 :]
    elif len(packet) >= 40 and packet[0] >> 4 == 6:
        if packet[6] != _UDP:
            return None
        source, destination, segment = packet[8:24], packet[24:40], packet[40:]
    else:
        return None
    if len(segment) < 8:
        return None
    source_port, destination_port, size, _ = struct.unpack(">HHHH", segment[:8])
    if source_port not in PORTS and destination_port not in PORTS:
        return None
    return Endpoint(source, source_port), Endpoint(destination, destination_port), segment[8 : max(size, 8)]
