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
    readings = _readings(datagram, 0, 0)
    end = len(datagram) if error is None else error.offset
    lines = [line for one in _shown(readings) if one.at <= end for line in _lines(one, readings)]
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


def _shown(readings: Sequence[Reading]) -> Iterator[Reading]:
    """Without Checks, and without what is not there or reserved and zero."""
    for one in readings:
        if one.name.startswith("reserved") and not any(one.value if isinstance(one.value, bytes) else [one.value]):
            continue
        if one.size is None or one.number is not None or one.size or (one.value is not None and one.value == []):
            yield one


def _lines(one: Reading, readings: Sequence[Reading]) -> Iterator[str]:
    head = f"{one.at:>{AT}}  {'  ' * one.depth}"
    if one.number is not None:
        yield f"{head}[{one.number}]"
        return
    if one.size is None:
        yield f"{head}{one.name}"
        return
    yield f"{head}{one.name}{_text(one, readings)}"


def _text(one: Reading, readings: Sequence[Reading]) -> str:
    value = one.value
    if isinstance(value, Container):
        return _bits({name: bits for name, bits in value.items() if name[0] != "_" and name != "type"})
    if isinstance(value, bytes):
        return f": {_bytes(one, value, readings)}"
    if isinstance(value, int):
        afi = f" ({AFIS[value]})" if one.name.endswith("afi") and value in AFIS else ""
        return f": {value:#018x}" if one.name == "nonce" else f": {value}{afi}"
    return ""


def _bits(value: dict[str, Any]) -> str:
    """The bits of a word that are set; nothing for a Struct, whose fields have lines of their own."""
    if not all(isinstance(bits, int) for bits in value.values()):
        return ""
    shown = [name if bits == 1 and name != "type" else f"{name}={bits}" for name, bits in value.items() if bits]
    return f": {', '.join(shown)}" if shown else ": 0"


def _bytes(one: Reading, value: bytes, readings: Sequence[Reading]) -> str:
    """Bytes are an address when an AFI of that length stands before them."""
    before = [other for other in readings[: readings.index(one)] if other.depth <= one.depth and other.size]
    address = any(other.name == f"{one.name}_afi" and other.at + 2 == one.at for other in before)
    if (address or one.name in ("source", "destination")) and len(value) in (4, 16):
        mask = next((other.value for other in reversed(before) if other.name == "mask_length"), None)
        return ip_text(value) + (f"/{mask}" if one.name == "eid" and mask is not None else "")
    return value.hex()
