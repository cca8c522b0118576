"""The frames that we put on the site's links: questions to hosts, and answers for those that are elsewhere. Pure.

RFC 826 (ARP), RFC 5227 (announcements), RFC 4861 (Neighbour Discovery; §7.2.8 for a proxy's answers).
"""

from __future__ import annotations

import struct

from lispfmc.wire.address import Ip, ip_of
from lispfmc.wire.checksum import ones_sum
from xtr.dataplane.claims import (
    ADVERTISEMENT,
    ARP,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ICMPV6,
    SOLICITATION,
    SOURCE_LINK_ADDRESS,
    TARGET_LINK_ADDRESS,
)

GATEWAY, GATEWAY_V6 = ip_of("169.254.1.1"), ip_of("fe80::1")
BROADCAST = b"\xff" * 6
ALL_NODES = ip_of("ff02::1")

_ROUTER, _SOLICITED, _OVERRIDE = 0x80, 0x40, 0x20


def question(ip: Ip, mac: bytes, sender: Ip) -> bytes:
    """Who has `ip`? `sender` is our IPv4 address there, or none; IPv6 is asked from the gateway's."""
    if len(ip) == 4:
        return _arp(BROADCAST, 1, mac, sender, bytes(6), ip)
    group = ip_of("ff02::1:ff00:0")[:13] + ip[13:]
    body = bytes([SOLICITATION, 0, 0, 0, 0, 0, 0, 0]) + ip + bytes([SOURCE_LINK_ADDRESS, 1]) + mac
    return _ipv6(mac, b"\x33\x33" + group[12:], group, body)


def answer(ip: Ip, mac: bytes, asker: Ip, asker_mac: bytes) -> bytes:
    """`ip` is at our `mac`, to the one who asked."""
    if len(ip) == 4:
        return _arp(asker_mac, 2, mac, ip, asker_mac, asker)
    # §7.2.8: a proxy does not override what the host itself may say
    return _ipv6(mac, asker_mac, asker, _advertisement(ip, mac, _ROUTER | _SOLICITED))


def announcement(ip: Ip, mac: bytes) -> bytes:
    """`ip` is at our `mac` from now on, to everybody on the link."""
    if len(ip) == 4:
        return _arp(BROADCAST, 1, mac, ip, bytes(6), ip)
    return _ipv6(mac, b"\x33\x33" + ALL_NODES[12:], ALL_NODES, _advertisement(ip, mac, _ROUTER | _OVERRIDE))


def _arp(to: bytes, operation: int, mac: bytes, ip: Ip, target_mac: bytes, target: Ip) -> bytes:
    head = to + mac + ETHERTYPE_ARP.to_bytes(2, "big")
    return head + ARP.pack(1, ETHERTYPE_IPV4, 6, 4, operation, mac, ip, target_mac, target)


def _advertisement(ip: Ip, mac: bytes, flags: int) -> bytes:
    return bytes([ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0]) + ip + bytes([TARGET_LINK_ADDRESS, 1]) + mac


def _ipv6(mac: bytes, to_mac: bytes, to: Ip, body: bytes) -> bytes:
    pseudo = GATEWAY_V6 + to + len(body).to_bytes(4, "big") + ICMPV6.to_bytes(4, "big")
    checksum = ~ones_sum(pseudo + body) & 0xFFFF
    body = body[:2] + checksum.to_bytes(2, "big") + body[4:]
    head = struct.pack("!IHBB", 6 << 28, len(body), ICMPV6, 255) + GATEWAY_V6 + to
    return to_mac + mac + ETHERTYPE_IPV6.to_bytes(2, "big") + head + body
