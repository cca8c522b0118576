"""The IP and UDP headers inside an Encapsulated Control Message (RFC 9301 §5.8).

In: what `formats.Ecm` parsed; out: PeerError for what no IP stack would have sent. Addresses, ports, lengths and
checksums are always derived from the value; the rest of a received header (TOS, identification, TTL, options, flow
label, "no UDP checksum") is taken from `Ecm.header`, so that encoding is lossless.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from lispfmc.wire import formats
from lispfmc.wire.checksum import internet_checksum, udp_checksum
from lispfmc.wire.errors import LocalError, PeerError
from lispfmc.wire.messages import Ecm
from lispfmc.wire.security import EcmSecurity

CONTROL_PORT = 4342
DATA_PORT = 4341
UDP_HEADER_BYTES = 8
FRAGMENT = 0x3FFF  # More-Fragments and the offset
DONT_FRAGMENT = 0x4000
_TTL = 64
_LAST_64 = (1 << 64) - 1
_IHL_5, _VERSION_6 = 0x45, 0x60  # the first bytes of our headers
_PLAIN_SUM = 0x4500 + DONT_FRAGMENT + (_TTL << 8 | formats.UDP)  # of our IPv4 header, less length and addresses


class InnerIpv4(NamedTuple):
    """The IPv4 header after its first byte."""

    tos: int
    total_length: int
    identification: int
    fragment: int
    ttl: int
    checksum: int
    source: bytes
    destination: bytes
    options: bytes


class InnerIpv6(NamedTuple):
    """The IPv6 header after its first byte."""

    class_and_flow: bytes
    payload_length: int
    hop_limit: int
    source: bytes
    destination: bytes


class Encapsulated(NamedTuple):
    """An ECM as it is declared: its headers, and the message that they carry as bytes."""

    word: int
    security: EcmSecurity | None
    first: int
    ip: InnerIpv4 | InnerIpv6
    source_port: int
    destination_port: int
    udp_length: int
    udp_checksum: int
    payload: bytes


Checked = tuple[int, bytes, bytes, int, int, EcmSecurity | None, bytes, bytes]
"""Word, addresses, ports, security, what `Ecm.header` has to keep, payload."""


def checked(
    datagram: bytes,
    word: int,
    security: EcmSecurity | None,
    first: int,
    ip: Any,  # the fields of InnerIpv4 or InnerIpv6: `first` says which
    source_port: int,
    destination_port: int,
    length: int,
    checksum: int,
    payload: bytes,
) -> Checked:
    """What the parser of an ECM makes of its fields, in place of an Encapsulated: those that `Ecm` needs.

    Raises PeerError for lengths, checksums, fragments and ports that cannot be right. What nearly every ECM is, right
    and over IPv4 with a header like ours, is known in few steps; of such a header nothing has to be kept.
    """
    if first == _IHL_5:
        tos, total_length, identification, fragment, ttl, header_checksum, source, destination, _ = ip
        if (
            length == len(payload) + UDP_HEADER_BYTES
            and total_length == length + 20
            and fragment == DONT_FRAGMENT
            and ttl == _TTL
            and not (tos or identification)
            and destination_port == CONTROL_PORT
            and source_port != DATA_PORT
            and checksum
            and header_checksum != 0xFFFF  # which has the residue of zero, and is not what a sender computes
        ):
            # RFC 1071 §2: a number of any length has the residue of the sum of its 16-bit words, as 2^16 is 1 there. A
            # header with its right checksum has none. Under UDP's are the addresses, which end the IP header, and
            # length and protocol once more.
            packet = int.from_bytes(datagram[-total_length:], "big")
            header = packet >> length * 8
            if length & 1:
                packet <<= 8
            covered = packet + (header & _LAST_64) + length + formats.UDP
            if header % 0xFFFF == 0 and covered % 0xFFFF == 0:
                return word, source, destination, source_port, destination_port, security, b"", payload
    inner_ip = InnerIpv4(*ip) if first >> 4 == 4 else InnerIpv6(*ip)
    parsed = Encapsulated(word, security, first, inner_ip, source_port, destination_port, length, checksum, payload)
    at, payload_at = _check(parsed, datagram)
    kept = b"" if _plain(parsed) else datagram[at:payload_at]
    return word, inner_ip.source, inner_ip.destination, source_port, destination_port, security, kept, payload


def _plain(parsed: Encapsulated) -> bool:
    """True when the headers are those that we would build: then nothing of them needs keeping."""
    ip = parsed.ip
    if isinstance(ip, InnerIpv4):
        return (
            ip.fragment == DONT_FRAGMENT
            and ip.ttl == _TTL
            and not (ip.tos or ip.identification)
            and parsed.first == _IHL_5
            and parsed.udp_checksum != 0
        )
    return parsed.first == _VERSION_6 and ip.class_and_flow == b"\0\0\0" and ip.hop_limit == _TTL


def _check(parsed: Encapsulated, datagram: bytes) -> tuple[int, int]:
    """Refuse what cannot be right; where the IP header and the payload start."""
    size = len(datagram)
    payload_at = size - len(parsed.payload)
    udp_at = payload_at - UDP_HEADER_BYTES
    ip = parsed.ip
    if isinstance(ip, InnerIpv4):
        at = udp_at - 20 - len(ip.options)
        _check_ipv4(ip, datagram, at, udp_at)
    else:
        at = udp_at - 40
        if ip.payload_length != size - udp_at:
            why = f"{ip.payload_length} bytes declared, {size - udp_at} there"
            raise PeerError("inner IPv6 payload length", offset=at + 4, why=why)
    if parsed.udp_length != size - udp_at:
        why = f"{parsed.udp_length} bytes declared, {size - udp_at} there"
        raise PeerError("inner UDP length", offset=udp_at + 4, why=why)
    if not _allowed(parsed.source_port, parsed.destination_port):
        why = f"{parsed.source_port} to {parsed.destination_port}, and one must be {CONTROL_PORT}, none {DATA_PORT}"
        raise PeerError("inner UDP ports", offset=udp_at, why=why)
    _check_udp_checksum(parsed, datagram, udp_at)
    return at, payload_at


def _allowed(source: int, destination: int) -> bool:
    if source == DATA_PORT or destination == DATA_PORT:
        return False
    return destination == CONTROL_PORT or source == CONTROL_PORT


def _check_ipv4(ip: InnerIpv4, datagram: bytes, at: int, udp_at: int) -> None:
    if ip.total_length != len(datagram) - at:
        why = f"{ip.total_length} bytes declared, {len(datagram) - at} there"
        raise PeerError("inner IPv4 total length", offset=at + 2, why=why)
    if ip.fragment & FRAGMENT:
        raise PeerError("inner IPv4 fragment", offset=at + 6, why="a control message does not come in fragments")
    wanted = internet_checksum(datagram[at : at + 10] + datagram[at + 12 : udp_at])
    if ip.checksum != wanted:
        why = f"{ip.checksum:#06x}, computed {wanted:#06x}"
        raise PeerError("inner IPv4 header checksum", offset=at + 10, why=why)


def _check_udp_checksum(parsed: Encapsulated, datagram: bytes, udp_at: int) -> None:
    ip = parsed.ip
    if not parsed.udp_checksum and isinstance(ip, InnerIpv4):
        return  # RFC 768: not computed. lispers.net sends it so, though RFC 9301 §5 wants one; the outer one covers it.
    segment = datagram[udp_at : udp_at + 6] + b"\0\0" + parsed.payload
    wanted = udp_checksum(ip.source, ip.destination, segment)
    if parsed.udp_checksum != wanted:
        why = f"{parsed.udp_checksum:#06x}, computed {wanted:#06x}"
        raise PeerError("inner UDP checksum", offset=udp_at + 6, why=why)


def headers(message: Ecm, payload: bytes) -> tuple[Any, ...]:
    """What `formats.Ecm` is built from, the fields of Encapsulated. Raises LocalError for what cannot be sent."""
    source, destination = message.source, message.destination
    size = len(source)
    if size != len(destination) or (size != 4 and size != 16):
        raise LocalError("the inner header of an ECM has two addresses of one family")
    source_port, destination_port = message.source_port, message.destination_port
    if source_port == DATA_PORT or (destination_port != CONTROL_PORT and not _allowed(source_port, destination_port)):
        raise LocalError(f"inner ports are {source_port}, {destination_port}; one must be 4342, none 4341")
    length = UDP_HEADER_BYTES + len(payload)
    if length > 0xFFFF - 60:
        raise LocalError(f"a control message of {len(payload)} bytes does not fit an inner IP packet")
    addresses = int.from_bytes(source + destination, "big")  # for its residue, see `checked`
    ip: tuple[Any, ...]
    if size == 4 and message.header == b"":
        first, total, checked = _IHL_5, length + 20, True
        checksum = -(_PLAIN_SUM + addresses + total) % 0xFFFF
        ip = 0, total, 0, DONT_FRAGMENT, _TTL, checksum, source, destination, b""
    else:
        first, ip, checked = _ip(message, length)
    checksum = 0
    if checked:
        covered = int.from_bytes(payload, "big")
        if length & 1:
            covered <<= 8
        covered += addresses + source_port + destination_port + 2 * length + formats.UDP
        checksum = -covered % 0xFFFF or 0xFFFF
    return message.word, message.security, first, ip, source_port, destination_port, length, checksum, payload


def _ip(message: Ecm, length: int) -> tuple[int, InnerIpv4 | InnerIpv6, bool]:
    """The IP header with its first byte, and whether UDP has a checksum: as it was received, or our own of IPv6."""
    header = message.header[:-UDP_HEADER_BYTES]
    if message.header and not header:
        raise LocalError("Ecm.header is too short for an IP and a UDP header")
    if len(message.source) == 4:
        return header[0], _like(header, message, length), message.header[-2:] != b"\0\0"
    if header and (len(header) != 40 or header[0] >> 4 != 6):
        raise LocalError("Ecm.header is no IPv6 header followed by a UDP header")
    first, kept, hops = (header[0], header[1:4], header[7]) if header else (_VERSION_6, b"\0\0\0", _TTL)
    return first, InnerIpv6(kept, length, hops, message.source, message.destination), True


def _like(header: bytes, message: Ecm, length: int) -> InnerIpv4:
    """An IPv4 header with the odd parts of a received one."""
    size = len(header)
    if size < 20 or size & 3 or header[0] != 0x40 | size >> 2:
        raise LocalError("Ecm.header is no IPv4 header followed by a UDP header")
    total, options = size + length, header[20:]
    fragment = (header[6] << 8 | header[7]) & ~FRAGMENT  # what came whole goes out whole
    before = header[:2] + total.to_bytes(2, "big") + header[4:6] + fragment.to_bytes(2, "big") + header[8:10]
    checksum = internet_checksum(before + message.source + message.destination + options)
    identification = header[4] << 8 | header[5]
    fields = header[1], total, identification, fragment, header[8], checksum, message.source, message.destination
    return InnerIpv4(*fields, options)
