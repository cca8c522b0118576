"""What an Ethernet frame of the site's link says about the hosts on it. Pure, and strict: links carry forgeries, too.

Claims: ARP, gratuitous ARP and Neighbour Discovery, by the host itself only; a DHCP server's acknowledgement, about its
client; RARP, which names a MAC address and no EID. Questions: who looks for whose MAC address.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, TypeAlias

from lispfmc.wire.address import Ip
from lispfmc.wire.checksum import ones_sum

ETHERTYPE_IPV4, ETHERTYPE_ARP, ETHERTYPE_RARP, ETHERTYPE_IPV6 = 0x0800, 0x0806, 0x8035, 0x86DD
SOLICITATION, ADVERTISEMENT = 135, 136
ICMPV6, UDP = 58, 17
SOURCE_LINK_ADDRESS, TARGET_LINK_ADDRESS = 1, 2
ARP = struct.Struct("!HHBBH6s4s6s4s")

_REVERSE_REQUEST = 3
_DHCP_CLIENT, _DHCP_SERVER = 68, 67
_DHCP_MAGIC = b"\x63\x82\x53\x63"
_MESSAGE_TYPE, _ACKNOWLEDGED, _PAD, _END = 53, 5, 0, 255


class Claim(NamedTuple):
    """A host says that `ip` is at `mac`."""

    ip: Ip
    mac: bytes


class MacClaim(NamedTuple):
    """`mac` is on this link, with addresses that it does not say (RARP, which hypervisors send after a move)."""

    mac: bytes


class Question(NamedTuple):
    """The host `ip` at `mac` wants to know the MAC address of `target`."""

    target: Ip
    ip: Ip
    mac: bytes


Heard: TypeAlias = Claim | MacClaim | Question


def heard(frame: bytes) -> list[Heard]:
    """Everything that an Ethernet frame says: a question also claims where the asker is."""
    if len(frame) < 14:
        return []
    source, ethertype, body = frame[6:12], frame[12] << 8 | frame[13], frame[14:]
    if source[0] & 1 or not any(source):
        return []  # a group address or none: no host sends from there
    if ethertype == ETHERTYPE_IPV4:
        return _dhcp(body)
    if ethertype == ETHERTYPE_ARP:
        said = _arp(body)
    elif ethertype == ETHERTYPE_IPV6:
        said = _discovery(body)
    elif ethertype == ETHERTYPE_RARP:
        return _rarp(body, source)
    else:
        return []
    # a claim about another's MAC is a proxy's or a forger's
    return [each for each in said if each.mac == source and host_address(each.ip)]


def host_address(ip: Ip) -> bool:
    """An address that a host can have beyond this link."""
    if len(ip) == 4:
        return 0 < ip[0] < 224 and ip[0] != 127 and ip[:2] != b"\xa9\xfe"
    return any(ip) and ip[0] != 0xFF and not (ip[0] == 0xFE and ip[1] & 0xC0 == 0x80)


def _arp(body: bytes) -> list[Claim | Question]:
    if len(body) < ARP.size:
        return []
    hardware, protocol, mac_size, ip_size, operation, mac, ip, _, target = ARP.unpack_from(body)
    if (hardware, protocol, mac_size, ip_size) != (1, ETHERTYPE_IPV4, 6, 4) or operation not in (1, 2):
        return []
    # RFC 5227 §1.1: from no address it is a probe for a duplicate, and with its own it is an announcement
    asks = operation == 1 and target != ip
    return [Claim(ip, mac), Question(target, ip, mac)] if asks else [Claim(ip, mac)]


def _rarp(body: bytes, source: bytes) -> list[Heard]:
    if len(body) < ARP.size:
        return []
    hardware, protocol, mac_size, ip_size, operation, mac, _, about, _ = ARP.unpack_from(body)
    whole = (hardware, protocol, mac_size, ip_size, operation) == (1, ETHERTYPE_IPV4, 6, 4, _REVERSE_REQUEST)
    return [MacClaim(mac)] if whole and mac == about == source else []


def _discovery(packet: bytes) -> list[Claim | Question]:
    """RFC 4861 §7.1: hop limit 255, a good checksum, whole options; else it did not come from this link."""
    if len(packet) < 64 or packet[0] >> 4 != 6 or packet[6] != ICMPV6 or packet[7] != 255:
        return []
    length = packet[4] << 8 | packet[5]
    body = packet[40 : 40 + length]
    if len(body) < length or length < 24 or body[1]:
        return []
    if ones_sum(packet[8:40] + length.to_bytes(4, "big") + ICMPV6.to_bytes(4, "big") + body) != 0xFFFF:
        return []
    options = _options(body[24:])
    if options is None:
        return []
    if body[0] == SOLICITATION:
        ip, mac = packet[8:24], options.get(SOURCE_LINK_ADDRESS)
    elif body[0] == ADVERTISEMENT:
        ip, mac = body[8:24], options.get(TARGET_LINK_ADDRESS)
    else:
        return []
    if mac is None or len(mac) != 6:
        return []
    asks = body[0] == SOLICITATION and body[8:24] != ip
    return [Claim(ip, mac), Question(body[8:24], ip, mac)] if asks else [Claim(ip, mac)]


def _options(data: bytes) -> dict[int, bytes] | None:
    """Option bodies by type, or None when one is cut short."""
    found: dict[int, bytes] = {}
    while data:
        size = data[1] * 8 if len(data) > 1 else 0
        if size == 0 or size > len(data):
            return None
        found.setdefault(data[0], data[2:size])
        data = data[size:]
    return found


def _dhcp(packet: bytes) -> list[Heard]:
    """RFC 2131 §3.1: a server's DHCPACK says which client has which address from now on."""
    at = (packet[0] & 15) * 4 if packet and packet[0] >> 4 == 4 else 0
    if at < 20 or len(packet) < at + 8 or packet[9] != UDP or (packet[6] & 0x3F or packet[7]):
        return []
    ports = (packet[at] << 8 | packet[at + 1], packet[at + 2] << 8 | packet[at + 3])
    message = packet[at + 8 : at + (packet[at + 4] << 8 | packet[at + 5])]
    if ports != (_DHCP_SERVER, _DHCP_CLIENT) or len(message) < 241 or message[236:240] != _DHCP_MAGIC:
        return []
    operation, hardware, mac_size = message[:3]
    if (operation, hardware, mac_size) != (2, 1, 6) or _dhcp_type(message[240:]) != _ACKNOWLEDGED:
        return []
    ip, mac = message[16:20], message[28:34]
    return [Claim(ip, mac)] if host_address(ip) and not mac[0] & 1 and any(mac) else []


def _dhcp_type(options: bytes) -> int | None:
    at = 0
    while at < len(options) and options[at] != _END:
        if options[at] == _PAD:
            at += 1
            continue
        if at + 1 >= len(options) or at + 2 + options[at + 1] > len(options):
            return None
        if options[at] == _MESSAGE_TYPE and options[at + 1] == 1:
            return options[at + 2]
        at += 2 + options[at + 1]
    return None
