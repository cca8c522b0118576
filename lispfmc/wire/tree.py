"""Messages for people: a tree of fields, each with the byte where it stands, up to the end or to what is wrong.

In: the bytes of a message, well-formed or not; out: lines of text. Names are those of `formats`. Bits that are zero
are left out, and so are the fields that are missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from construct import Container

from lispfmc.wire.address import ip_text
from lispfmc.wire.codec import ECM
from lispfmc.wire.errors import PeerError
from lispfmc.wire.reading import Reading, read

AFIS = {0: "none", 1: "IPv4", 2: "IPv6", 17: "name", 16387: "LCAF", 16389: "MAC"}
AT = 5
"""Columns of the offset."""


def tree(datagram: bytes, error: PeerError | None = None) -> list[str]:
    """The lines of a message; of one that was refused for `error`, up to that."""
    end = len(datagram) if error is None else error.offset
    lines = list(_lines([one for one in _readings(datagram, 0, 0) if one.at <= end]))
    if error is not None:
        lines.append(f"{error.offset:>{AT}}  malformed: {error.field} at byte {error.offset}: {error.why}")
    return lines


def _readings(datagram: bytes, base: int, depth: int) -> list[Reading]:
    """With the fields of the message inside an ECM in the place of its payload."""
    readings, error = read(datagram, base, depth)
    if error is None and readings and datagram[0] >> 4 == ECM and depth == 0:
        payload = readings[-1]
        payload.size = None
        readings += _readings(payload.value, payload.at, depth + 1)
    return readings


def _lines(readings: Sequence[Reading]) -> Iterator[str]:
    """One line a field, without Checks, and without what is not there or reserved and zero."""
    beside: list[dict[str, Reading]] = []  # for each level, the fields before this one in the same Struct
    for one in readings:
        del beside[one.depth + 1 :]
        while len(beside) <= one.depth:
            beside.append({})
        if one.number is not None:
            beside[one.depth].clear()
        if _shown(one):
            what = f"[{one.number}]" if one.number is not None else f"{one.name}{_text(one, beside[one.depth])}"
            yield f"{one.at:>{AT}}  {'  ' * one.depth}{what}"
        beside[one.depth][one.name] = one


def _shown(one: Reading) -> bool:
    if one.name.startswith("reserved"):
        return any(one.value if isinstance(one.value, bytes) else [one.value])
    return one.size is None or one.number is not None or one.size > 0


def _text(one: Reading, beside: dict[str, Reading]) -> str:
    value = one.value
    if one.size is None:
        return ""
    if isinstance(value, Container):
        return _bits({name: bits for name, bits in value.items() if name[0] != "_" and name != "type"})
    if isinstance(value, bytes):
        return f": {_bytes(one, value, beside)}"
    if isinstance(value, int):
        afi = f" ({AFIS[value]})" if one.name.endswith("afi") and value in AFIS else ""
        return f": {value:#018x}" if one.name == "nonce" else f": {value}{afi}"
    return ""


def _bits(value: dict[str, Any]) -> str:
    """The bits of a word that are set; nothing for a Struct, whose fields have lines of their own."""
    if not all(isinstance(bits, int) for bits in value.values()):
        return ""
    shown = [name if bits == 1 else f"{name}={bits}" for name, bits in value.items() if bits]
    return f": {', '.join(shown)}" if shown else ": 0"


def _bytes(one: Reading, value: bytes, beside: dict[str, Reading]) -> str:
    """Bytes are an IP address where an AFI stands before them, or in an IP header."""
    if len(value) not in (4, 16) or not (f"{one.name}_afi" in beside or one.name in ("source", "destination")):
        return value.hex()
    mask = f"/{beside['mask_length'].value}" if one.name == "eid" and "mask_length" in beside else ""
    return ip_text(value) + mask
