"""Watches the site's interfaces for hosts that show themselves; asks for some, and answers for those elsewhere.

One AF_PACKET socket an interface, filtered in the kernel to ARP, RARP, Neighbour Discovery and DHCP; what passes is
decoded strictly (`claims.py`).
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import struct
from collections.abc import Mapping

from lispfmc.wire.address import Ip, Prefix
from xtr.dataplane import Evidence
from xtr.dataplane.claims import (
    ADVERTISEMENT,
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    ETHERTYPE_RARP,
    ICMPV6,
    SOLICITATION,
    UDP,
    Claim,
    Heard,
    MacClaim,
    Question,
    heard,
)
from xtr.dataplane.frames import GATEWAY, announcement, answer, question
from xtr.dataplane.netlink import Netlink

DRAIN = 64

_ETH_P_ALL = 3
_SO_ATTACH_FILTER, _SOL_PACKET, _ADD_MEMBERSHIP, _ALL_MULTICAST = 26, 263, 1, 2
_OUTGOING = 4

# Classic BPF: (code, jump if true, jump if false, value); jumps count from the next line.
_FILTER = (
    (0x28, 0, 0, 12),  # ethertype
    (0x15, 15, 0, ETHERTYPE_ARP),
    (0x15, 14, 0, ETHERTYPE_RARP),
    (0x15, 0, 5, ETHERTYPE_IPV6),
    (0x30, 0, 0, 20),  # next header
    (0x15, 0, 12, ICMPV6),
    (0x30, 0, 0, 54),  # ICMPv6 type
    (0x15, 9, 0, SOLICITATION),
    (0x15, 8, 9, ADVERTISEMENT),
    (0x15, 0, 8, ETHERTYPE_IPV4),
    (0x30, 0, 0, 23),  # protocol
    (0x15, 0, 6, UDP),
    (0x28, 0, 0, 20),  # fragment offset
    (0x45, 4, 0, 0x1FFF),
    (0xB1, 0, 0, 14),  # length of the IPv4 header
    (0x48, 0, 0, 16),  # UDP destination port
    (0x15, 0, 1, 68),  # a DHCP client
    (0x06, 0, 0, 0xFFFF),  # accept
    (0x06, 0, 0, 0),  # drop
)


class _Port:
    """One interface of the site."""

    def __init__(self, name: str, iid: int, netlink: Netlink) -> None:
        self.name = name
        self.iid = iid
        index = socket.if_nametoindex(name)
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setblocking(False)  # noqa: FBT003
        _attach_filter(self.socket)
        # questions about hosts that are elsewhere go to groups that nobody here has joined
        self.socket.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, struct.pack("@iHH8x", index, _ALL_MULTICAST, 0))
        self.socket.bind((name, _ETH_P_ALL))
        self.mac: bytes = self.socket.getsockname()[4]
        self.addresses = frozenset(netlink.addresses(index))

    def send(self, frame: bytes) -> None:
        try:
            self.socket.send(frame)
        except OSError:
            return  # the link is down: nobody is there


class Sniffer:
    """Start it within the network namespace of the site; `evidence` is told of each claim and question."""

    def __init__(self, instances: Mapping[str, int]) -> None:
        """`instances`: the Instance-ID of each interface."""
        self._instances = dict(instances)
        self._ports: dict[str, _Port] = {}

    def start(self, evidence: Evidence) -> None:
        """Raises OSError when an interface is not there."""
        self._evidence = evidence
        self._loop = asyncio.get_running_loop()
        netlink = Netlink()
        try:
            for name, iid in self._instances.items():
                port = self._ports[name] = _Port(name, iid, netlink)
                self._loop.add_reader(port.socket.fileno(), self._readable, port)
        except OSError:
            self.close()
            raise
        finally:
            netlink.close()

    def close(self) -> None:
        for port in self._ports.values():
            self._loop.remove_reader(port.socket.fileno())
            port.socket.close()
        self._ports.clear()

    def probe(self, eid: Prefix) -> None:
        """Ask on every interface of its Instance-ID who has `eid`; whoever has it answers with a claim."""
        for port in self._of(eid):
            # RFC 5227 §1.1: where we have no address of our own, the question comes from none
            port.send(question(eid.ip, port.mac, GATEWAY if GATEWAY in port.addresses else bytes(4)))

    def stand_in(self, eid: Prefix, interface: str, asker: Ip, mac: bytes) -> None:
        """Answer for `eid`, which is elsewhere: packets for it come to us."""
        port = self._ports.get(interface)
        if port is not None:
            port.send(answer(eid.ip, port.mac, asker, mac))

    def take_over(self, eid: Prefix) -> None:
        """Tell everybody that packets for `eid`, which was here, come to us from now on."""
        for port in self._of(eid):
            port.send(announcement(eid.ip, port.mac))

    def _of(self, eid: Prefix) -> list[_Port]:
        return [port for port in self._ports.values() if port.iid == eid.iid]

    def _readable(self, port: _Port) -> None:
        for _ in range(DRAIN):
            try:
                frame, address = port.socket.recvfrom(2048)
            except OSError:  # nothing more, or the link is down
                return
            # of what we send ourselves, only a DHCP relay's answers say something about hosts
            if address[2] == _OUTGOING and (frame[12] << 8 | frame[13]) != ETHERTYPE_IPV4:
                continue
            for each in heard(frame):
                if each.mac != port.mac:
                    self._report(each, port)

    def _report(self, said: Heard, port: _Port) -> None:
        match said:
            case MacClaim(mac=mac):
                self._evidence.mac_announced(mac, port.name, port.iid)
            case Claim(ip=ip, mac=mac) if ip not in port.addresses:
                self._evidence.announced(Prefix.host(ip, port.iid), port.name, mac)
            case Question(target=target, ip=ip, mac=mac) if target not in port.addresses:
                self._evidence.sought(Prefix.host(target, port.iid), port.name, ip, mac)


def _attach_filter(sock: socket.socket) -> None:
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in _FILTER))
    head = struct.pack("@HP", len(_FILTER), ctypes.addressof(program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)
