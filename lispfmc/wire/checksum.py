"""The Internet checksum (RFC 1071) and its incremental update (RFC 1624)."""

from __future__ import annotations

from lispfmc.wire.address import Ip

UDP_PROTOCOL = 17


def ones_sum(data: bytes) -> int:
    """The folded ones'-complement sum of 16-bit words; an odd last byte counts as padded with zero."""
    if len(data) & 1:
        data += b"\0"
    # RFC 1071 §2: 2^16 = 1 modulo 2^16 - 1, so that the whole packet taken as one number has the same residue
    # as the sum of its words. Only "all zero" sums to zero; other multiples of 65535 are "minus zero".
    number = int.from_bytes(data, "big")
    return number % 0xFFFF or (0xFFFF if number else 0)


def internet_checksum(data: bytes) -> int:
    """The value for a checksum field that is zero (or absent) in `data`."""
    return ~ones_sum(data) & 0xFFFF


def udp_checksum(source: Ip, destination: Ip, segment: bytes) -> int:
    """The checksum of a UDP header with its payload, checksum field zero, under the pseudo-header of its family."""
    pseudo = source + destination + len(segment).to_bytes(4, "big") + UDP_PROTOCOL.to_bytes(4, "big")
    return internet_checksum(pseudo + segment) or 0xFFFF  # RFC 768: a computed zero is sent as all ones


def adjusted(checksum: int, old: int, new: int) -> int:
    """`checksum` after one 16-bit word that it covers changed from `old` to `new` (RFC 1624 §3, equation 3)."""
    total = (~checksum & 0xFFFF) + (~old & 0xFFFF) + new
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
