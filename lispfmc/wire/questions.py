"""What nearly all ask a Map-Resolver, taken from the datagram's bytes: where one IPv4 host is (RFC 9301 §5.2, §5.8).

An ECM with a Map-Request for a /32 outside of any Instance-ID, without a bit that means anything to a Map-Server, to
one IPv4 ITR-RLOC, under headers like ours, all lengths and checksums right. For everything else there is `decode`,
which would say the same of it (tests/properties/test_undecoded_questions.py).
"""

from __future__ import annotations

import re
from typing import NamedTuple, TypeAlias

from lispfmc.wire.formats import UDP
from lispfmc.wire.inner import CONTROL_PORT, DATA_PORT

Question: TypeAlias = tuple[bytes, bytes, bytes, int]
"""The EID, the ITR-RLOC, the nonce as it stands there, and the port that the answer goes to."""

_HEADER_SUM, _UDP_SUM, _NONCE = slice(14, 16), slice(30, 32), slice(36, 44)
_LAST_64 = (1 << 64) - 1
_WORD_RESIDUE = 0x8000  # what the ECM's first word adds to the sum of everything behind it
_ONES = 0xFFFF


class _Shape(NamedTuple):
    """Of the datagrams of one length: which bits are always the same, and what they are."""

    mask: int
    fixed: int
    udp_bits: int
    pseudo: int  # length and protocol in UDP's pseudo-header


def _shape(source_eid: str) -> _Shape:
    fields = f"10000001 {'?' * 16} {source_eid} 0001 {'?' * 8} 00200001 {'?' * 8}"  # Map-Request
    udp_length = 8 + len(fields.replace(" ", "")) // 2
    fields = f"???? {CONTROL_PORT:04x} {udp_length:04x} ???? {fields}"
    fields = f"80000000 4500 {20 + udp_length:04x} 0000 4000 40{UDP:02x} ???? {'?' * 16} {fields}".replace(" ", "")
    mask = re.sub("[^?]", "f", fields).replace("?", "0")
    return _Shape(int(mask, 16), int(fields.replace("?", "0"), 16), udp_length * 8, udp_length + UDP)


_SHAPES = {24 + shape.udp_bits // 8: shape for shape in (_shape("0000"), _shape("0001 ????????"))}
"""By length: without a source EID, and with one of IPv4."""


def question(datagram: bytes) -> Question | None:
    """What the datagram asks; None when it is not of that kind, or wrong."""
    shape = _SHAPES.get(len(datagram))
    if shape is None:
        return None
    number = int.from_bytes(datagram, "big")
    mask, fixed, udp_bits, pseudo = shape
    if number & mask != fixed:
        return None
    # RFC 1071 §2: a number has the residue of the sum of its 16-bit words, as 2^16 is 1 there; see `inner.checked`
    header = number >> udp_bits
    if (
        header % _ONES != _WORD_RESIDUE
        or (number + (header & _LAST_64) + pseudo) % _ONES != _WORD_RESIDUE
        or datagram[_UDP_SUM] == b"\0\0"
        or datagram[_HEADER_SUM] == b"\xff\xff"
    ):
        return None
    port = datagram[24] << 8 | datagram[25]
    if not port or port == DATA_PORT:
        return None
    return datagram[-4:], datagram[-12:-8], datagram[_NONCE], port
