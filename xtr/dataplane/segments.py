"""Runs of TCP segments, put together into one packet that the kernel takes in one write (virtio-net GSO).

Only segments that came in one checked datagram (UDP_GRO) are joined: the kernel computes their TCP checksums anew, and
the outer checksum is what said that the old ones were right. Rules as in the kernel's own receive offload: one flow,
one after the other, nothing but ACK and PSH, the same acknowledgement, window and options.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from lispfmc.wire.checksum import internet_checksum

MOST_BYTES = 63_000  # an IP packet is at most 65 535 bytes long

_TCP = 6
_ACK, _ACK_PSH = 0x10, 0x18
_NEEDS_CHECKSUM, _TCP_V4, _TCP_V6 = 1, 1, 4
_CHECKSUM_OFFSET = 16  # of the checksum in the TCP header
_VNET = struct.Struct("=BBHHHH")


def joinable(packet: bytes) -> int:
    """Where the TCP payload of a packet begins that others may follow or that may follow others; 0: leave it alone."""
    if len(packet) < 40:
        return 0
    if packet[0] == 0x45:
        at, whole = 20, packet[9] == _TCP and not (packet[6] & 0x3F or packet[7])
    else:
        at, whole = 40, packet[0] >> 4 == 6 and packet[6] == _TCP
    if not whole or len(packet) < at + 20 or packet[at + 13] not in (_ACK, _ACK_PSH):
        return 0
    payload_at = at + (packet[at + 12] >> 4) * 4
    return payload_at if at + 20 <= payload_at < len(packet) else 0


def run_length(packets: Sequence[bytes], start: int, payload_at: int) -> int:
    """How many packets from `start` on make one run; the first is joinable and has its payload at `payload_at`.

    The caller has seen to it that all of them have the same IP addresses, TTL and TOS.
    """
    first = packets[start]
    tcp = 20 if first[0] == 0x45 else 40
    addressing, size = first[tcp - (8 if tcp == 20 else 32) : tcp + 4], len(first)
    acknowledged, window = first[tcp + 8 : tcp + 13], first[tcp + 14 : tcp + 16]
    options = first[tcp + 20 : payload_at]
    step = size - payload_at
    sequence = int.from_bytes(first[tcp + 4 : tcp + 8], "big") + step
    total, count = size, 1
    if first[tcp + 13] == _ACK_PSH:
        return 1
    for index in range(start + 1, len(packets)):
        packet = packets[index]
        length = len(packet)
        if (
            length > size
            or total + length > MOST_BYTES
            or joinable(packet) != payload_at
            or packet[tcp - (8 if tcp == 20 else 32) : tcp + 4] != addressing
            or int.from_bytes(packet[tcp + 4 : tcp + 8], "big") != sequence & 0xFFFFFFFF
            or packet[tcp + 8 : tcp + 13] != acknowledged
            or packet[tcp + 14 : tcp + 16] != window
            or packet[tcp + 20 : payload_at] != options
        ):
            break
        count += 1
        total += length - payload_at
        sequence += length - payload_at
        if length < size or packet[tcp + 13] == _ACK_PSH:
            break
    return count


def joined(packets: Sequence[bytes], payload_at: int, ttl: int, tos: int) -> list[bytes]:
    """The pieces of one write: virtio-net header, the headers of the whole, and each packet's payload."""
    first = packets[0]
    head = bytearray(first[:payload_at])
    payloads = [packet[payload_at:] for packet in packets]
    size = sum(map(len, payloads))
    if first[0] == 0x45:
        tcp, kind = 20, _TCP_V4
        head[1], head[8] = tos, ttl
        head[2:4] = (payload_at + size).to_bytes(2, "big")
        head[10:12] = b"\0\0"
        head[10:12] = internet_checksum(bytes(head[:20])).to_bytes(2, "big")
        addresses = head[12:20]
    else:
        tcp, kind = 40, _TCP_V6
        head[0] = 0x60 | tos >> 4
        head[1] = head[1] & 0x0F | (tos & 0x0F) << 4
        head[4:6] = (payload_at - 40 + size).to_bytes(2, "big")
        head[7] = ttl
        addresses = head[8:40]
    head[tcp + 13] = packets[-1][tcp + 13]  # PSH, if the last one has it
    # the pseudo-header's sum, to which the kernel adds the rest
    pseudo = (int.from_bytes(addresses, "big") + _TCP + payload_at - tcp + size) % 0xFFFF
    head[tcp + _CHECKSUM_OFFSET : tcp + _CHECKSUM_OFFSET + 2] = pseudo.to_bytes(2, "big")
    vnet = _VNET.pack(_NEEDS_CHECKSUM, kind, payload_at, len(payloads[0]), tcp, _CHECKSUM_OFFSET)
    return [vnet, bytes(head), *payloads]
