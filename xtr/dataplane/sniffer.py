"""Watches the site's interfaces for hosts that show themselves, and asks for those that should be there.

One AF_PACKET socket an interface, filtered in the kernel to ARP and Neighbour Discovery; what passes is decoded
strictly, and only a claim by the host itself (its own address with its own MAC) becomes evidence.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

from lispfmc.wire.address import Ip, Prefix, ip_of
from lispfmc.wire.checksum import ones_sum
from xtr.dataplane import Evidence
from xtr.dataplane.netlink import Netlink

ETHERTYPE_ARP, ETHERTYPE_IPV6 = 0x0806, 0x86DD
SOLICITATION, ADVERTISEMENT = 135, 136
DRAIN = 64
GATEWAY = ip_of("169.254.1.1")
GATEWAY_V6 = ip_of("fe80::1")
BROADCAST = b"\xff" * 6

_ETH_P_ALL, _ICMPV6 = 3, 58
_SO_ATTACH_FILTER, _SOL_PACKET, _PACKET_IGNORE_OUTGOING = 26, 263, 23
_SOURCE_LINK_ADDRESS, _TARGET_LINK_ADDRESS = 1, 2
_ARP = struct.Struct("!HHBBH6s4s6s4s")

# Classic BPF: (code, jump if true, jump if false, value). Accepts ARP, and ICMPv6 135 and 136 right behind IPv6.
_FILTER = (
    (0x28, 0, 0, 12),  # ethertype
    (0x15, 6, 0, ETHERTYPE_ARP),
    (0x15, 0, 6, ETHERTYPE_IPV6),
    (0x30, 0, 0, 20),  # next header
    (0x15, 0, 4, _ICMPV6),
    (0x30, 0, 0, 54),  # ICMPv6 type
    (0x15, 1, 0, SOLICITATION),
    (0x15, 0, 1, ADVERTISEMENT),
    (0x06, 0, 0, 0xFFFF),  # accept
    (0x06, 0, 0, 0),  # drop
)


class Claim(NamedTuple):
    """A host says that `ip` is at `mac`."""

    ip: Ip
    mac: bytes


def claim(frame: bytes) -> Claim | None:
    """What an Ethernet frame claims about its own sender, or None."""
    if len(frame) < 14:
        return None
    source, ethertype = frame[6:12], frame[12] << 8 | frame[13]
    if source[0] & 1 or not any(source):
        return None  # a group address or none: no host sends from there
    if ethertype == ETHERTYPE_ARP:
        found = _arp(frame[14:])
    elif ethertype == ETHERTYPE_IPV6:
        found = _discovery(frame[14:])
    else:
        return None
    # a claim about another's MAC is a proxy's or a forger's
    return found if found is not None and found.mac == source and _host(found.ip) else None


def _arp(body: bytes) -> Claim | None:
    if len(body) < _ARP.size:
        return None
    hardware, protocol, mac_size, ip_size, operation, mac, ip, _, _ = _ARP.unpack_from(body)
    if (hardware, protocol, mac_size, ip_size) != (1, 0x0800, 6, 4) or operation not in (1, 2):
        return None
    return Claim(ip, mac)


def _discovery(packet: bytes) -> Claim | None:
    """RFC 4861 §7.1: hop limit 255, a good checksum, whole options; else it did not come from this link."""
    if len(packet) < 64 or packet[0] >> 4 != 6 or packet[6] != _ICMPV6 or packet[7] != 255:
        return None
    length = packet[4] << 8 | packet[5]
    body = packet[40 : 40 + length]
    if len(body) < length or length < 24 or body[1]:
        return None
    pseudo = packet[8:40] + length.to_bytes(4, "big") + _ICMPV6.to_bytes(4, "big")
    if ones_sum(pseudo + body) != 0xFFFF:
        return None
    options = _options(body[24:])
    if options is None:
        return None
    if body[0] == SOLICITATION:
        ip, mac = packet[8:24], options.get(_SOURCE_LINK_ADDRESS)
    elif body[0] == ADVERTISEMENT:
        ip, mac = body[8:24], options.get(_TARGET_LINK_ADDRESS)
    else:
        return None
    return Claim(ip, mac) if mac is not None and len(mac) == 6 else None


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


def _host(ip: Ip) -> bool:
    """An address that a host can have beyond this link."""
    if len(ip) == 4:
        return 0 < ip[0] < 224 and ip[0] != 127 and ip[:2] != b"\xa9\xfe"
    return any(ip) and ip[0] != 0xFF and not (ip[0] == 0xFE and ip[1] & 0xC0 == 0x80)


class _Port:
    """One interface of the site."""

    def __init__(self, name: str, netlink: Netlink) -> None:
        self.name = name
        index = socket.if_nametoindex(name)
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setblocking(False)  # noqa: FBT003
        _attach_filter(self.socket)
        self.socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        self.socket.bind((name, _ETH_P_ALL))
        self.mac: bytes = self.socket.getsockname()[4]
        self.addresses = frozenset(netlink.addresses(index))


class Sniffer:
    """Start it within the network namespace of the site; `evidence.announced` is told of each claim."""

    def __init__(self, interfaces: Iterable[str]) -> None:
        self._names = tuple(interfaces)
        self._ports: list[_Port] = []

    def start(self, evidence: Evidence, iid: int) -> None:
        """Raises OSError when an interface is not there."""
        self._evidence = evidence
        self._iid = iid
        self._loop = asyncio.get_running_loop()
        netlink = Netlink()
        try:
            for name in self._names:
                port = _Port(name, netlink)
                self._ports.append(port)
                self._loop.add_reader(port.socket.fileno(), self._readable, port)
        except OSError:
            self.close()
            raise
        finally:
            netlink.close()

    def close(self) -> None:
        for port in self._ports:
            self._loop.remove_reader(port.socket.fileno())
            port.socket.close()
        self._ports.clear()

    def probe(self, eid: Prefix) -> None:
        """Ask on every interface who has `eid`; whoever has it answers with a claim."""
        for port in self._ports:
            request = arp_request(eid.ip, port) if len(eid.ip) == 4 else solicitation(eid.ip, port.mac)
            try:
                port.socket.send(request)
            except OSError:
                continue  # the link is down: nobody is there

    def _readable(self, port: _Port) -> None:
        for _ in range(DRAIN):
            try:
                frame = port.socket.recv(2048)
            except OSError:  # nothing more, or the link is down
                return
            found = claim(frame)
            if found is not None and found.mac != port.mac and found.ip not in port.addresses:
                self._evidence.announced(Prefix.host(found.ip, self._iid), port.name, found.mac)


def arp_request(ip: Ip, port: _Port) -> bytes:
    """Who has `ip`? From the gateway's address where the interface has it, else from none (RFC 5227 §1.1)."""
    sender = GATEWAY if GATEWAY in port.addresses else bytes(4)
    return BROADCAST + port.mac + b"\x08\x06" + _ARP.pack(1, 0x0800, 6, 4, 1, port.mac, sender, bytes(6), ip)


def solicitation(ip: Ip, mac: bytes) -> bytes:
    """A Neighbour Solicitation for `ip` from the gateway (RFC 4861 §4.3)."""
    group = ip_of("ff02::1:ff00:0")[:13] + ip[13:]
    body = bytes([SOLICITATION, 0, 0, 0, 0, 0, 0, 0]) + ip + bytes([_SOURCE_LINK_ADDRESS, 1]) + mac
    pseudo = GATEWAY_V6 + group + len(body).to_bytes(4, "big") + _ICMPV6.to_bytes(4, "big")
    checksum = ~ones_sum(pseudo + body) & 0xFFFF
    body = body[:2] + checksum.to_bytes(2, "big") + body[4:]
    head = struct.pack("!IHBB", 6 << 28, len(body), _ICMPV6, 255) + GATEWAY_V6 + group
    return b"\x33\x33" + group[12:] + mac + b"\x86\xdd" + head + body


def _attach_filter(sock: socket.socket) -> None:
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in _FILTER))
    head = struct.pack("@HP", len(_FILTER), ctypes.addressof(program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)
