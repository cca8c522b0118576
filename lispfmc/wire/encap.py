"""The LISP data header and what the outer IP header tells the inner one (RFC 9300 §5.3, RFC 6040, RFC 9305).

For the data plane's hot path: `header` gives 8 bytes to be computed once per Instance-ID, `parse` reads a packet's,
`decapsulated_ecn` is a table, `flow_hash` picks the UDP source port and the locator. Packets that are too short or
reserved in a way that changes their meaning raise PeerError; reserved bits that a receiver must ignore are ignored.
"""

from __future__ import annotations

from typing import NamedTuple
from zlib import crc32

from lispfmc.wire.checksum import adjusted
from lispfmc.wire.errors import LocalError, PeerError

DATA_PORT = 4341
HEADER_BYTES = 8
FIRST_SOURCE_PORT = 0xC000  # RFC 6335 §6: the dynamic ports, a quarter of them all

NONCE_PRESENT = 0x80  # N
LOCATOR_STATUS_PRESENT = 0x40  # L
ECHO_NONCE_REQUEST = 0x20  # E
MAP_VERSION_PRESENT = 0x10  # V
INSTANCE_ID_PRESENT = 0x08  # I
NEXT_PROTOCOL_PRESENT = 0x04  # P, RFC 9305 §3
KEY_ID = 0x03  # KK, RFC 8061

NEXT_IPV4, NEXT_IPV6, NEXT_ETHERNET, NEXT_NSH = 1, 2, 3, 4
IP_BY_NIBBLE = 0
"""The next protocol of a plain LISP header: the first four bits of the payload say which IP it is (RFC 9300 §5)."""


class DataHeader(NamedTuple):
    """What the 8 bytes say. Absent things are 0, as a receiver treats them."""

    flags: int
    nonce: int
    source_version: int
    destination_version: int
    next_protocol: int
    iid: int
    locator_status: int


_PLAIN = DataHeader(0, 0, 0, 0, IP_BY_NIBBLE, 0, 0)
_PLAIN_BYTES = bytes(HEADER_BYTES)


def header(iid: int = 0, next_protocol: int = IP_BY_NIBBLE) -> bytes:
    """The 8 bytes for packets of an Instance-ID; with a next protocol, those of LISP-GPE.

    Instance-ID 0 is written as no Instance-ID at all, which is what peers without tenants expect.
    """
    if not 0 <= iid < 1 << 24:
        raise LocalError(f"the data header carries Instance-IDs of 24 bits, not {iid}")
    if not 0 <= next_protocol <= 0xFF:
        raise LocalError(f"next protocol {next_protocol} does not fit 8 bits")
    flags = (INSTANCE_ID_PRESENT if iid else 0) | (NEXT_PROTOCOL_PRESENT if next_protocol else 0)
    return bytes([flags, 0, 0, next_protocol]) + (iid << 8).to_bytes(4, "big")


def parse(packet: bytes) -> DataHeader:
    """The data header at the start of a UDP payload of port 4341; the inner packet follows at HEADER_BYTES."""
    if packet[:HEADER_BYTES] == _PLAIN_BYTES:  # nearly every packet
        return _PLAIN
    if len(packet) < HEADER_BYTES:
        raise PeerError("data header", offset=0, why=f"{HEADER_BYTES} bytes wanted, {len(packet)} there")
    flags = packet[0]
    if flags & KEY_ID:
        raise PeerError("KK", offset=0, why="the payload is encrypted (RFC 8061), and no key was agreed")
    middle = int.from_bytes(packet[1:4], "big")
    nonce = source = destination = next_protocol = 0
    if flags & NEXT_PROTOCOL_PRESENT:
        if flags & (NONCE_PRESENT | ECHO_NONCE_REQUEST | MAP_VERSION_PRESENT) or middle >> 8:
            why = "with P, the bits N, E, V and 8 to 23 are zero (RFC 9305 §3)"
            raise PeerError("next protocol", offset=0, why=why)
        next_protocol = middle
    elif flags & NONCE_PRESENT:  # RFC 9300 §5.3: N and V together are read as a nonce
        nonce = middle
    elif flags & MAP_VERSION_PRESENT:
        source, destination = middle >> 12, middle & 0xFFF
    last = int.from_bytes(packet[4:8], "big")
    iid, status = (last >> 8, last & 0xFF) if flags & INSTANCE_ID_PRESENT else (0, last)
    if not flags & LOCATOR_STATUS_PRESENT:
        status = 0
    return DataHeader(flags, nonce, source, destination, next_protocol, iid, status)


# --- ECN (RFC 6040) and DSCP -----------------------------------------------------------------------------------------

NOT_ECT, ECT_1, ECT_0, CE = 0, 1, 2, 3
ECN_MASK = 0x03

# RFC 6040 §4.2, Figure 4: the inner packet's ECN after decapsulation, by 4 * inner + outer; None = drop.
_DECAPSULATED: tuple[int | None, ...] = (
    *(NOT_ECT, NOT_ECT, NOT_ECT, None),  # inner Not-ECT: an outer CE would be lost on a sender that cannot hear it
    *(ECT_1, ECT_1, ECT_1, CE),
    *(ECT_0, ECT_1, ECT_0, CE),
    *(CE, CE, CE, CE),
)


def encapsulated_tos(inner_tos: int) -> int:
    """The outer TOS or traffic class: DSCP copied (RFC 9300 §5.3), ECN copied (RFC 6040 §4.1, normal mode)."""
    return inner_tos


def decapsulated_ecn(inner_tos: int, outer_tos: int) -> int | None:
    """The ECN that the inner packet leaves with, or None when it must be dropped (RFC 6040 §4.2)."""
    return _DECAPSULATED[(inner_tos & ECN_MASK) << 2 | outer_tos & ECN_MASK]


def decapsulated(packet: bytes, outer_ttl: int, outer_tos: int) -> bytes | None:
    """The inner IP packet with TTL and ECN as the outer header left them, or None when ECN says drop.

    RFC 9300 §5.3: the inner TTL becomes the lesser of the two. The usual packet, which needs no change, is returned
    as it came.
    """
    if packet[0] >> 4 == 4:
        inner_tos, inner_ttl = packet[1], packet[8]
    else:
        inner_tos, inner_ttl = (packet[0] << 4 | packet[1] >> 4) & 0xFF, packet[7]
    ecn = _DECAPSULATED[(inner_tos & ECN_MASK) << 2 | outer_tos & ECN_MASK]
    if ecn is None:
        return None
    ttl = inner_ttl if inner_ttl <= outer_ttl else outer_ttl
    if ttl == inner_ttl and ecn == inner_tos & ECN_MASK:
        return packet
    return rewritten(packet, ttl=ttl, tos=inner_tos & ~ECN_MASK | ecn)


def rewritten(packet: bytes, *, ttl: int, tos: int) -> bytes:
    """The IP packet with another TTL (hop limit) and TOS (traffic class); IPv4's checksum is adjusted (RFC 1624)."""
    changed = bytearray(packet)
    if packet[0] >> 4 == 4:
        checksum = int.from_bytes(packet[10:12], "big")
        checksum = adjusted(checksum, packet[0] << 8 | packet[1], packet[0] << 8 | tos)
        checksum = adjusted(checksum, packet[8] << 8 | packet[9], ttl << 8 | packet[9])
        changed[1], changed[8] = tos, ttl
        changed[10:12] = checksum.to_bytes(2, "big")
    else:
        changed[0] = packet[0] & 0xF0 | tos >> 4
        changed[1] = packet[1] & 0x0F | (tos & 0x0F) << 4
        changed[7] = ttl
    return bytes(changed)


# --- The inner packet ------------------------------------------------------------------------------------------------

_WITH_PORTS = frozenset({6, 17, 33, 132, 136})  # TCP, UDP, DCCP, SCTP, UDP-Lite: ports in their first four bytes
_FRAGMENT = 0x3FFF  # More-Fragments and offset


def inner(packet: bytes, data_header: DataHeader) -> bytes:
    """The IP packet behind the data header. Raises PeerError when it is none, or not wholly there.

    What follows the IP packet's own length is padding, and is cut off.
    """
    payload = packet[HEADER_BYTES:]
    size = len(payload)
    version = payload[0] >> 4 if size else 0
    if version == 4 and size >= 20:
        declared = payload[2] << 8 | payload[3]
        whole = 20 <= (payload[0] & 15) * 4 <= declared <= size
    elif version == 6 and size >= 40:
        declared = (payload[4] << 8 | payload[5]) + 40
        whole = declared <= size
    else:
        why = f"version {version} with {size} bytes is no IP packet"
        raise PeerError("inner packet", offset=HEADER_BYTES, why=why)
    if not whole:
        raise PeerError("inner packet length", offset=HEADER_BYTES, why=f"{declared} declared, {size} bytes there")
    if data_header.next_protocol and data_header.next_protocol != (NEXT_IPV4 if version == 4 else NEXT_IPV6):
        why = f"{data_header.next_protocol} was announced, IP version {version} is there"
        raise PeerError("next protocol", offset=3, why=why)
    return payload if declared == size else payload[:declared]


def flow_hash(packet: bytes) -> int:
    """32 bits that are the same for every packet of a flow: of the 5-tuple, or of addresses and protocol alone.

    Fragments carry no ports but the first, so that all of a flow's fragments are hashed without them.
    """
    if packet[0] >> 4 == 4:
        protocol = packet[9]
        ports = protocol in _WITH_PORTS and packet[0] == 0x45 and not (packet[6] << 8 | packet[7]) & _FRAGMENT
        return crc32(packet[12:24] if ports else packet[12:20], protocol)
    protocol = packet[6]
    return crc32(packet[8:44] if protocol in _WITH_PORTS else packet[8:40], protocol)


def source_port(flow: int) -> int:
    """The outer UDP source port of a flow: constant for it, spread over the dynamic ports (RFC 9300 §5.3)."""
    return FIRST_SOURCE_PORT | flow & 0x3FFF
