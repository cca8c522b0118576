"""The LISP data header and what the outer IP header tells the inner one (RFC 9300 §5.3, RFC 6040, RFC 9305).

For the data plane's hot path: `header` gives 8 bytes to be computed once per Instance-ID, `parse` reads a packet's,
`decapsulated_ecn` is a table, `flow_hash` picks the UDP source port and the locator. Packets that are too short or
reserved in a way that changes their meaning raise PeerError; reserved bits that a receiver must ignore are ignored.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from zlib import crc32

from lispfmc.wire.checksum import adjusted
from lispfmc.wire.codec import build_data_header, parse_data_header, read_shim_header
from lispfmc.wire.dataheader import INSTANCE_ID_PRESENT, KEY_ID, NEXT_PROTOCOL_PRESENT, DataHeader, ShimHeader
from lispfmc.wire.errors import LocalError, PeerError

DATA_PORT = 4341
HEADER_BYTES = 8
FIRST_SOURCE_PORT = 0xC000  # RFC 6335 §6: the dynamic ports, a quarter of them all

NEXT_IPV4, NEXT_IPV6, NEXT_ETHERNET, NEXT_NSH = 1, 2, 3, 4
FIRST_SHIM = 0x80  # RFC 9305 §3: 0x80 to 0xFD, and 0xFE and 0xFF for experiments
MAX_SHIMS = 16  # a packet of nothing but shim headers costs us no more than this many
IP_BY_NIBBLE = 0
"""The next protocol of a plain LISP header: the first four bits of the payload say which IP it is (RFC 9300 §5)."""

_PLAIN = DataHeader(0, 0)
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


@lru_cache(maxsize=4096)
def versioned_header(iid: int, source: int, destination: int) -> bytes:
    """The 8 bytes with both ends' map-versions (RFC 9302 §5). That of the destination may not be 0 (§7.1)."""
    return build_data_header(DataHeader.of(iid=iid or None, versions=(source, destination)))


def parse(packet: bytes) -> DataHeader:
    """The data header at the start of a UDP payload of port 4341; the inner packet follows at HEADER_BYTES."""
    if packet[:HEADER_BYTES] == _PLAIN_BYTES:  # nearly every packet
        return _PLAIN
    try:
        header = parse_data_header(packet)
    except struct.error:
        raise PeerError("data header", offset=0, why=f"{HEADER_BYTES} bytes wanted, {len(packet)} there") from None
    if header.word >> 24 & KEY_ID:
        raise PeerError("KK", offset=0, why="the payload is encrypted (RFC 8061), and no key was agreed")
    return header


def shims(packet: bytes, next_protocol: int) -> tuple[list[ShimHeader], int, int]:
    """The shim headers after the data header, the protocol after them, and where its payload starts (RFC 9305 §3)."""
    found: list[ShimHeader] = []
    at = HEADER_BYTES
    while next_protocol >= FIRST_SHIM:
        if len(found) == MAX_SHIMS:
            raise PeerError("shim header", offset=at, why=f"more than {MAX_SHIMS} shim headers")
        try:
            one, end = read_shim_header(packet, at)
        except struct.error:
            end = len(packet) + 1
        if end > len(packet):
            raise PeerError("shim header", offset=at, why=f"it ends beyond the packet of {len(packet)} bytes")
        found.append(one)
        at, next_protocol = end, one.next_protocol
    return found, next_protocol, at


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
    """The inner IP packet with TTL, DSCP and ECN as the outer header left them, or None when ECN says drop.

    RFC 9300 §5.3: the inner TTL becomes the lesser of the two, the inner DSCP the outer one: the tunnel is one domain
    with its ends (RFC 2983's uniform model). The usual packet, which needs no change, is returned as it came.
    """
    if packet[0] >> 4 == 4:
        inner_tos, inner_ttl = packet[1], packet[8]
    else:
        inner_tos, inner_ttl = (packet[0] << 4 | packet[1] >> 4) & 0xFF, packet[7]
    ecn = _DECAPSULATED[(inner_tos & ECN_MASK) << 2 | outer_tos & ECN_MASK]
    if ecn is None:
        return None
    ttl = inner_ttl if inner_ttl <= outer_ttl else outer_ttl
    tos = outer_tos & ~ECN_MASK | ecn
    if ttl == inner_ttl and tos == inner_tos:
        return packet
    return rewritten(packet, ttl=ttl, tos=tos)


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
    return ip_packet(packet, HEADER_BYTES, data_header.next_protocol)


def ip_packet(packet: bytes, at: int, protocol: int) -> bytes:
    """The IP packet that starts at byte `at` and was announced as `protocol`."""
    payload = packet[at:]
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
        raise PeerError("inner packet", offset=at, why=why)
    if not whole:
        raise PeerError("inner packet length", offset=at, why=f"{declared} declared, {size} bytes there")
    if protocol and protocol != (NEXT_IPV4 if version == 4 else NEXT_IPV6):
        why = f"{protocol} was announced, IP version {version} is there"
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
