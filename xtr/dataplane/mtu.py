"""Packets that are too big for the tunnel (RFC 9300 §7.1, stateless): split where IPv4 allows it, else refused by ICMP.

Pure. `limit` is the largest inner packet that fits the path to its locator together with the outer headers.
"""

from __future__ import annotations

import struct

from lispfmc.wire.address import Ip, ip_of
from lispfmc.wire.checksum import internet_checksum, ones_sum

LEAST_IPV6 = 1280  # RFC 8200 §5: no Packet Too Big may ask for less

# An ICMP error needs a source that the kernel takes from a TUN device: none of its own addresses is one.
SOURCE = ip_of("192.0.0.8")  # RFC 7600 §4.8: the IPv4 dummy address, for just this purpose
SOURCE_V6 = ip_of("100:0:0:1::8")  # RFC 9780: the dummy IPv6 prefix

_ICMP, _ICMPV6 = 1, 58
_ICMP_ERRORS = frozenset({3, 4, 5, 11, 12})
_DONT_FRAGMENT, _MORE_FRAGMENTS, _OFFSET = 0x4000, 0x2000, 0x1FFF
_QUOTED = 576 - 28  # RFC 1812 §4.3.2.3
_QUOTED_V6 = LEAST_IPV6 - 48  # RFC 4443 §2.4


def may_split(packet: bytes) -> bool:
    """IPv4, and its sender does not mind."""
    return packet[0] >> 4 == 4 and not (packet[6] << 8 | packet[7]) & _DONT_FRAGMENT


def split(packet: bytes, limit: int) -> list[bytes]:
    """An IPv4 packet as fragments of about equal size, none longer than `limit`; [] when that cannot be done."""
    head_size = (packet[0] & 15) * 4
    payload = packet[head_size:]
    room = (limit - head_size) & ~7
    if room <= 0:
        return []
    count = -(-len(payload) // room)
    step = min(-(-len(payload) // count) + 7 & ~7, room)
    word = packet[6] << 8 | packet[7]
    first_offset, more_after = word & _OFFSET, word & _MORE_FRAGMENTS
    later_head = packet[:20] + _copied_options(packet[20:head_size])
    pieces = []
    for at in range(0, len(payload), step):
        last = at + step >= len(payload)
        head = packet[:head_size] if at == 0 else later_head
        flags = (more_after if last else _MORE_FRAGMENTS) | (first_offset + at // 8) & _OFFSET
        pieces.append(_with_header(head, flags, payload[at : at + step]))
    return pieces


def refusal(packet: bytes, limit: int) -> bytes | None:
    """The ICMP error for the sender of `packet`; None when none may be sent (RFC 1122 §3.2.2, RFC 4443 §2.4)."""
    if packet[0] >> 4 == 4:
        head_size = (packet[0] & 15) * 4
        is_error = packet[9] == _ICMP and packet[head_size : head_size + 1] and packet[head_size] in _ICMP_ERRORS
        if is_error or (packet[6] << 8 | packet[7]) & _OFFSET:
            return None
        body = struct.pack("!BBHHH", 3, 4, 0, 0, limit) + packet[:_QUOTED]
        body = body[:2] + internet_checksum(body).to_bytes(2, "big") + body[4:]
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, _ICMP, 0) + SOURCE + packet[12:16]
        return head[:10] + internet_checksum(head).to_bytes(2, "big") + head[12:] + body
    if packet[6] == _ICMPV6 and packet[40:41] and packet[40] < 128:
        return None
    body = struct.pack("!BBHI", 2, 0, 0, max(limit, LEAST_IPV6)) + packet[:_QUOTED_V6]
    return _ipv6_icmp(body, SOURCE_V6, packet[8:24])


def _ipv6_icmp(body: bytes, source: Ip, destination: Ip) -> bytes:
    pseudo = source + destination + len(body).to_bytes(4, "big") + _ICMPV6.to_bytes(4, "big")
    checksum = ~ones_sum(pseudo + body) & 0xFFFF
    head = struct.pack("!IHBB", 6 << 28, len(body), _ICMPV6, 64) + source + destination
    return head + body[:2] + checksum.to_bytes(2, "big") + body[4:]


def _copied_options(options: bytes) -> bytes:
    """RFC 791 §3.1: only options with the copied flag go into later fragments."""
    kept = b""
    while options:
        kind = options[0]
        size = 1 if kind in (0, 1) else options[1] if len(options) > 1 else 0
        if size == 0 or size > len(options) or kind == 0:
            break
        if kind & 0x80:
            kept += options[:size]
        options = options[size:]
    return kept + bytes(-len(kept) % 4)


def _with_header(head: bytes, fragment: int, payload: bytes) -> bytes:
    changed = bytearray(head)
    changed[0] = 0x40 | len(head) >> 2
    changed[2:4] = (len(head) + len(payload)).to_bytes(2, "big")
    changed[6:8] = fragment.to_bytes(2, "big")
    changed[10:12] = b"\0\0"
    changed[10:12] = internet_checksum(bytes(changed)).to_bytes(2, "big")
    return bytes(changed) + payload
