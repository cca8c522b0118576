"""The IP and UDP headers inside an Encapsulated Control Message (RFC 9301 §5.8).

In: what `formats.Ecm` parsed; out: PeerError for what no IP stack would have sent. Addresses, ports, lengths and
checksums are always derived from the value; the rest of a received header (TOS, identification, TTL, options, flow
label, "no UDP checksum") is taken from `Ecm.header`, so that encoding is lossless.
"""

from __future__ import annotations

from typing import Any

from lispfmc.wire import formats
from lispfmc.wire.checksum import internet_checksum, udp_checksum
from lispfmc.wire.errors import LocalError, PeerError
from lispfmc.wire.messages import Ecm

CONTROL_PORT = 4342
DATA_PORT = 4341
UDP_HEADER_BYTES = 8
_TTL = 64
_PLAIN_IPV4 = bytes(
    [0x45, 0, 0, 0, 0, 0, 0x40, 0, _TTL, formats.UDP, *bytes(10)]
)  # Don't-Fragment, as control is small
_PLAIN_IPV6 = bytes([0x60, 0, 0, 0, 0, 0, formats.UDP, _TTL, *bytes(32)])


def check(parsed: Any, datagram: bytes) -> None:
    """Refuse lengths, checksums, fragments and ports that cannot be right."""
    at: int = parsed.ip_at
    udp_at: int = parsed.udp_at
    if parsed.first.version == 4:
        _check_ipv4(parsed.ip, datagram, at, udp_at)
    elif parsed.ip.payload_length != len(datagram) - udp_at:
        why = f"{parsed.ip.payload_length} bytes declared, {len(datagram) - udp_at} there"
        raise PeerError("inner IPv6 payload length", offset=at + 4, why=why)
    if parsed.udp_length != len(datagram) - udp_at:
        why = f"{parsed.udp_length} bytes declared, {len(datagram) - udp_at} there"
        raise PeerError("inner UDP length", offset=udp_at + 4, why=why)
    ports = (parsed.source_port, parsed.destination_port)
    if DATA_PORT in ports or CONTROL_PORT not in ports:
        why = f"{ports[0]} to {ports[1]}, and one must be {CONTROL_PORT}, none {DATA_PORT}"
        raise PeerError("inner UDP ports", offset=udp_at, why=why)
    _check_udp_checksum(parsed, datagram, udp_at)


def _check_ipv4(ip: Any, datagram: bytes, at: int, udp_at: int) -> None:
    if ip.total_length != len(datagram) - at:
        why = f"{ip.total_length} bytes declared, {len(datagram) - at} there"
        raise PeerError("inner IPv4 total length", offset=at + 2, why=why)
    if ip.fragment.more_fragments or ip.fragment.offset:
        raise PeerError("inner IPv4 fragment", offset=at + 6, why="a control message does not come in fragments")
    wanted = internet_checksum(datagram[at : at + 10] + datagram[at + 12 : udp_at])
    if ip.checksum != wanted:
        why = f"{ip.checksum:#06x}, computed {wanted:#06x}"
        raise PeerError("inner IPv4 header checksum", offset=at + 10, why=why)


def _check_udp_checksum(parsed: Any, datagram: bytes, udp_at: int) -> None:
    if not parsed.udp_checksum and parsed.first.version == 4:
        return  # RFC 768: not computed. lispers.net sends it so, though RFC 9301 §5 wants one; the outer one covers it.
    segment = datagram[udp_at : udp_at + 6] + b"\0\0" + datagram[udp_at + UDP_HEADER_BYTES :]
    wanted = udp_checksum(parsed.ip.source, parsed.ip.destination, segment)
    if parsed.udp_checksum != wanted:
        why = f"{parsed.udp_checksum:#06x}, computed {wanted:#06x}"
        raise PeerError("inner UDP checksum", offset=udp_at + 6, why=why)


def received(datagram: bytes, ip_at: int, payload_at: int) -> bytes:
    """What `Ecm.header` has to keep: nothing when the headers are those that we would build ourselves."""
    header = datagram[ip_at:payload_at]
    if header[0] >> 4 == 6:
        plain = header[:4] == _PLAIN_IPV6[:4] and header[6:8] == _PLAIN_IPV6[6:8]
    else:
        kept = (0, 2), (4, 10)  # all but length, checksum and addresses
        plain = len(header) == len(_PLAIN_IPV4) + UDP_HEADER_BYTES and header[-2:] != b"\0\0"
        plain = plain and all(header[a:b] == _PLAIN_IPV4[a:b] for a, b in kept)
    return b"" if plain else header


def fields(message: Ecm, payload: bytes) -> dict[str, Any]:
    """The inner header's part of what `formats.Ecm` is built from. Raises LocalError for what cannot be sent."""
    if len(message.source) != len(message.destination) or len(message.source) not in (4, 16):
        raise LocalError("the inner header of an ECM has two addresses of one family")
    ports = (message.source_port, message.destination_port)
    if DATA_PORT in ports or CONTROL_PORT not in ports:
        raise LocalError(f"inner ports are {ports[0]} and {ports[1]}; one must be {CONTROL_PORT}, none {DATA_PORT}")
    udp_length = UDP_HEADER_BYTES + len(payload)
    if udp_length > 0xFFFF - 60:
        raise LocalError(f"a control message of {len(payload)} bytes does not fit an inner IP packet")
    segment = b"".join(number.to_bytes(2, "big") for number in (*ports, udp_length, 0)) + payload
    kept = message.header[:-UDP_HEADER_BYTES]
    ipv4 = len(message.source) == 4
    first, ip = _ipv4(message, kept, udp_length) if ipv4 else _ipv6(message, kept, udp_length)
    no_checksum = ipv4 and message.header[-2:] == b"\0\0"
    return {
        "first": {"version": first >> 4, "low": first & 15},
        "ip": ip,
        "source_port": message.source_port,
        "destination_port": message.destination_port,
        "udp_length": udp_length,
        "udp_checksum": 0 if no_checksum else udp_checksum(message.source, message.destination, segment),
        "payload": payload,
    }


def _ipv4(message: Ecm, kept: bytes, udp_length: int) -> tuple[int, dict[str, Any]]:
    header = bytearray(kept or _PLAIN_IPV4)
    if len(header) < len(_PLAIN_IPV4) or header[0] != 0x40 | len(header) >> 2:
        raise LocalError("Ecm.header is no IPv4 header followed by a UDP header")
    total_length = len(header) + udp_length
    header[2:4] = total_length.to_bytes(2, "big")
    header[10:20] = b"\0\0" + message.source + message.destination
    fragment = int.from_bytes(header[6:8], "big")
    return header[0], {
        "tos": header[1],
        "total_length": total_length,
        "identification": int.from_bytes(header[4:6], "big"),
        "fragment": {"reserved": fragment >> 15, "dont_fragment": fragment >> 14 & 1, "more_fragments": 0, "offset": 0},
        "ttl": header[8],
        "checksum": internet_checksum(bytes(header)),
        "source": message.source,
        "destination": message.destination,
        "options": bytes(header[20:]),
    }


def _ipv6(message: Ecm, kept: bytes, udp_length: int) -> tuple[int, dict[str, Any]]:
    header = kept or _PLAIN_IPV6
    if len(header) != len(_PLAIN_IPV6) or header[0] >> 4 != 6:
        raise LocalError("Ecm.header is no IPv6 header followed by a UDP header")
    return header[0], {
        "class_and_flow": header[1:4],
        "payload_length": udp_length,
        "hop_limit": header[7],
        "source": message.source,
        "destination": message.destination,
    }
