"""The links of a lab node: one request to the kernel switches the site, one burst of frames announces the host.

A move has to cost what the network costs, not what starting `ip` costs (1-3 ms a call on a busy machine), so the
rtnetlink messages of every site are built once, ahead of time, and sent together (netlink runs them in order). Gateway
addresses and MAC are the same at every site: nothing changes for a node that moves. Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import select
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path

GATEWAY_MAC = bytes.fromhex("02005e000001")
GATEWAY4 = ipaddress.ip_address("169.254.1.1").packed
GATEWAY6 = ipaddress.ip_address("fe80::1").packed

# linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h, linux/neighbour.h
_REQUEST_ACK = 0x1 | 0x4
_CREATE_REPLACE = 0x400 | 0x100
_NEWLINK, _GETLINK, _NEWADDR, _NEWROUTE, _NEWNEIGH, _ERROR = 16, 18, 20, 24, 28, 2
_IFLA_LINK, _IFLA_LINK_NETNSID, _IFLA_TARGET_NETNSID = 5, 37, 46
_IFLA_AF_SPEC, _IFLA_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE = 26, 8, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_F_NODAD = 1, 2, 0x02
_NDA_DST, _NDA_LLADDR, _NUD_PERMANENT = 1, 2, 0x80
_RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTNH_F_ONLINK = 4, 5, 7, 4
_TABLE_MAIN, _PROTOCOL_STATIC, _UNICAST = 254, 4, 1

_SIOCGIFFLAGS, _SIOCGIFHWADDR = 0x8913, 0x8927
_IFF_RUNNING = 0x40
_CARRIER_SECONDS = 0.05  # a cable that is not plugged in at the other end must not hold the node up for longer

_ANSWER_SECONDS = 0.0005  # after which the question is repeated
_SILENT_SECONDS = 0.003  # a site whose gateway has never answered
_ETHERTYPE_ARP = 0x0806

_BROADCAST = b"\xff" * 6
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_ALL_NODES = ipaddress.ip_address("ff02::1").packed


class Rtnetlink:
    """A netlink socket that sends prepared messages and raises OSError for the first that the kernel refused."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))

    def ask(self, messages: list[bytes]) -> list[bytes]:
        """Have the kernel run `messages` in order; returns when all are done, with what it told besides."""
        self._socket.send(b"".join(messages))
        told = []
        refused = 0
        waiting = len(messages)
        while waiting:
            answer = self._socket.recv(65536)
            offset = 0
            while offset < len(answer):
                length, kind = struct.unpack_from("=IH", answer, offset)
                if kind == _ERROR:
                    (code,) = struct.unpack_from("=i", answer, offset + 16)
                    refused = refused or -code
                    waiting -= 1
                else:
                    told.append(answer[offset : offset + length])
                offset += (length + 3) & ~3
        if refused:
            raise OSError(refused, os.strerror(refused))
        return told

    def close(self) -> None:
        self._socket.close()


@dataclass
class SiteLink:
    """What switching to and from one site takes: prepared netlink messages and announcement frames."""

    interface: str
    down: list[bytes]
    up: list[bytes]
    announcements: list[bytes]
    reverse_arp: bytes
    question: bytes
    answers: socket.socket
    answered: bool = False
    """The gateway of this site answers questions."""


def switch_on(rtnetlink: Rtnetlink, link: SiteLink) -> None:
    """Bring `link` up; returns when it carries frames, both ways.

    The kernel tells the other end (a bridge port) about the carrier a moment later, from a work queue, and drops what
    is sent before (measured: three of four first announcements) or comes the other way. On a busy machine that moment
    can be half a second. To ask for the state of both ends has it done at once (Linux 6.7; see `_carrier`). For older
    kernels the gateway is asked for its MAC address until it answers; where none does, as without routers, we wait for
    our own state alone, which comes from the same queue just before.
    """
    rtnetlink.ask(link.up)
    give_up = time.monotonic() + _CARRIER_SECONDS
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        question = struct.pack("16s16x", link.interface.encode())
        while time.monotonic() < give_up:
            (flags,) = struct.unpack_from("=H", fcntl.ioctl(asking, _SIOCGIFFLAGS, question), 16)
            if flags & _IFF_RUNNING:
                break
            time.sleep(0.00005)
    if not link.answered:
        give_up = min(give_up, time.monotonic() + _SILENT_SECONDS)
    while not _gateway_answers(link) and time.monotonic() < give_up:
        pass


def _gateway_answers(link: SiteLink) -> bool:
    """Ask once."""
    while select.select([link.answers], [], [], 0)[0]:
        _received(link.answers)  # what was heard while nobody listened
    with contextlib.suppress(OSError):
        link.answers.send(link.question)
    until = time.monotonic() + _ANSWER_SECONDS
    while (left := until - time.monotonic()) > 0 and select.select([link.answers], [], [], left)[0]:
        frame = _received(link.answers)
        if frame[20:22] == b"\0\2" and frame[28:32] == GATEWAY4:
            link.answered = True
            return True
    return False


def _received(answers: socket.socket) -> bytes:
    try:
        return answers.recv(64)
    except OSError:  # the link was down meanwhile
        return b""


def prepare_node(rtnetlink: Rtnetlink, eids: list[str]) -> None:
    """Loopback up with the node's EIDs: they stay when links go down, so connections survive a move."""
    index = socket.if_nametoindex("lo")
    messages = [_link_state(index, up=True)]
    messages += [_address(index, _packed(eid)) for eid in eids if _has_ipv6("lo") or ":" not in eid]
    rtnetlink.ask(messages)


def site_link(rtnetlink: Rtnetlink, interface: str, eids: list[str]) -> SiteLink:
    """Prepare the switch to `interface` and take it down. Raises OSError when there is no such interface."""
    index = socket.if_nametoindex(interface)
    mac = _mac_of(interface)
    packed = [_packed(eid) for eid in eids]
    v4 = [eid for eid in packed if len(eid) == 4]
    v6 = [eid for eid in packed if len(eid) == 16] if _has_ipv6(interface) else []
    up = [_link_state(index, up=True)]
    if v4:
        up += [_neighbour(index, GATEWAY4), _default_route(index, GATEWAY4, v4[0])]
    if v6:
        # Neighbour Solicitations are answered only for addresses of the interface itself, not for those of lo.
        up += [_address(index, eid) for eid in v6]
        up += [_neighbour(index, GATEWAY6), _default_route(index, GATEWAY6, v6[0])]
    down = [_link_state(index, up=False)]
    rtnetlink.ask(down)
    up += _carrier(rtnetlink, index)
    if v6:
        rtnetlink.ask([_no_link_local(index)])  # an automatic address would be tentative (DAD) after every move
    announcements = [_gratuitous_arp(mac, eid) for eid in v4] + [_unsolicited_advertisement(mac, eid) for eid in v6]
    answers = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # kept: closing one takes the kernel milliseconds
    answers.bind((interface, _ETHERTYPE_ARP))
    return SiteLink(interface, down, up, announcements, _reverse_arp(mac), _question(mac), answers)


def _mac_of(interface: str) -> bytes:
    # An ioctl, because /sys shows the namespace in which it was mounted, not ours.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        answer = fcntl.ioctl(asking, _SIOCGIFHWADDR, struct.pack("16s16x", interface.encode()))
    return answer[18:24]


def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def _has_ipv6(interface: str) -> bool:
    switch = Path(f"/proc/sys/net/ipv6/conf/{interface}/disable_ipv6")
    return switch.exists() and switch.read_text().strip() == "0"


# --- rtnetlink messages ---------------------------------------------------------------------------------------------


def _message(kind: int, flags: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, _REQUEST_ACK | flags, 0, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def _family(address: bytes) -> int:
    return socket.AF_INET if len(address) == 4 else socket.AF_INET6


def _carrier(rtnetlink: Rtnetlink, index: int) -> list[bytes]:
    """Questions for the state of both ends of a cable: before it answers, the kernel does what is queued for them."""
    ours = _message(_GETLINK, 0, struct.pack("=BxHiII", 0, 0, index, 0, 0))
    (said,) = rtnetlink.ask([ours])
    other, namespace = (_number(said, kind) for kind in (_IFLA_LINK, _IFLA_LINK_NETNSID))
    if other is None or namespace is None:
        return [ours]
    place = _attribute(_IFLA_TARGET_NETNSID, struct.pack("=i", namespace))
    theirs = _message(_GETLINK, 0, struct.pack("=BxHiII", 0, 0, other, 0, 0) + place)
    try:
        rtnetlink.ask([theirs])
    except OSError:  # no right to ask there, as in some containers
        return [ours]
    return [ours, theirs]


def _number(link: bytes, wanted: int) -> int | None:
    """An attribute of a description of a link (RTM_NEWLINK)."""
    at = 32
    while at + 4 <= len(link):
        length, kind = struct.unpack_from("=HH", link, at)
        if kind & 0x3FFF == wanted:
            return int(struct.unpack_from("=i", link, at + 4)[0])
        at += max((length + 3) & ~3, 4)
    return None


def _link_state(index: int, *, up: bool) -> bytes:
    return _message(_NEWLINK, 0, struct.pack("=BxHiII", 0, 0, index, int(up), 1))


def _no_link_local(index: int) -> bytes:
    mode = _attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes([_ADDR_GEN_NONE]))
    nested = _attribute(_IFLA_AF_SPEC, _attribute(socket.AF_INET6, mode))
    return _message(_NEWLINK, 0, struct.pack("=BxHiII", 0, 0, index, 0, 0) + nested)


def _address(index: int, address: bytes) -> bytes:
    header = struct.pack("=BBBBI", _family(address), len(address) * 8, _IFA_F_NODAD, 0, index)
    body = header + _attribute(_IFA_LOCAL, address) + _attribute(_IFA_ADDRESS, address)
    return _message(_NEWADDR, _CREATE_REPLACE, body)


def _neighbour(index: int, address: bytes) -> bytes:
    header = struct.pack("=BxxxiHBB", _family(address), index, _NUD_PERMANENT, 0, 0)
    return _message(
        _NEWNEIGH, _CREATE_REPLACE, header + _attribute(_NDA_DST, address) + _attribute(_NDA_LLADDR, GATEWAY_MAC)
    )


def _default_route(index: int, gateway: bytes, source: bytes) -> bytes:
    header = struct.pack(
        "=BBBBBBBBI", _family(gateway), 0, 0, 0, _TABLE_MAIN, _PROTOCOL_STATIC, 0, _UNICAST, _RTNH_F_ONLINK
    )
    attributes = _attribute(_RTA_GATEWAY, gateway) + _attribute(_RTA_PREFSRC, source)
    return _message(_NEWROUTE, _CREATE_REPLACE, header + attributes + _attribute(_RTA_OIF, struct.pack("=i", index)))


# --- announcements --------------------------------------------------------------------------------------------------


def _gratuitous_arp(mac: bytes, address: bytes) -> bytes:
    # RFC 5227 §3: an ARP Announcement is a request whose sender and target addresses are both the announced one.
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + address + bytes(6) + address
    return _BROADCAST + mac + b"\x08\x06" + body


def _question(mac: bytes) -> bytes:
    # RFC 5227 §1.1: an ARP Probe comes from no address, so it says nothing about where ours are
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + bytes(4) + bytes(6) + GATEWAY4
    return _BROADCAST + mac + b"\x08\x06" + body


def _reverse_arp(mac: bytes) -> bytes:
    # What hypervisors send for a VM that resumed (RFC 903 request for the own address): it says the MAC, not the IP.
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 3) + mac + bytes(4) + mac + bytes(4)
    return _BROADCAST + mac + b"\x80\x35" + body


def _unsolicited_advertisement(mac: bytes, address: bytes) -> bytes:
    # RFC 4861 §7.2.6: all-nodes multicast, Solicited flag clear, Override set; hop limit 255 (§7.1.2).
    advertisement = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + address + b"\x02\x01" + mac
    pseudo = address + _ALL_NODES + struct.pack("!II", len(advertisement), 58)
    total = sum(struct.unpack(f"!{(len(pseudo) + len(advertisement)) // 2}H", pseudo + advertisement))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    advertisement = advertisement[:2] + struct.pack("!H", checksum) + advertisement[4:]
    header = struct.pack("!IHBB", 0x60000000, len(advertisement), 58, 255) + address + _ALL_NODES
    return _ALL_NODES_MAC + mac + b"\x86\xdd" + header + advertisement
