"""The outer side of the tunnel: UDP sockets of one local RLOC, with TTL and TOS of each packet's outer header.

Received on port 4341. Sent from a pool of sockets picked by the inner flow's hash, so that a flow keeps one source
port and flows spread over the paths of the core (RFC 9300 §5.3).
"""

from __future__ import annotations

import socket
import sys
from typing import TypeAlias

from lispfmc.wire.address import Ip, ip_text
from lispfmc.wire.encap import DATA_PORT

SENDERS = 8  # a power of two: picked by a mask
KERNEL_BUFFER = 8 << 20
ANCILLARY_BYTES = 64

Ancillary: TypeAlias = list[tuple[int, int, bytes]]

# names that Python's socket module lacks
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE, _SO_NO_CHECK = 32, 33, 11
_SOL_UDP, _UDP_NO_CHECK6_TX, _UDP_NO_CHECK6_RX = 17, 101, 102
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_DO = 10, 23, 2
_IP_RECVTTL, _IP_RECVTOS = 12, 13


class Outer:
    """The sockets of one local RLOC. Raises OSError when the address is not here or the port is taken."""

    def __init__(self, rloc: Ip) -> None:
        self.rloc = rloc
        self._v6 = len(rloc) == 16
        self._opened: list[socket.socket] = []
        self._ancillary: dict[int, Ancillary] = {}
        self._ttl_type = socket.IPV6_HOPLIMIT if self._v6 else socket.IP_TTL
        self._tos_type = socket.IPV6_TCLASS if self._v6 else socket.IP_TOS
        try:
            self.receiver = self._open(DATA_PORT)
            self._receive_ttl_and_tos()
            self.senders = tuple(self._open(0) for _ in range(SENDERS))
            for sender in self.senders:
                self._send_plain(sender)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        for each in self._opened:
            each.close()

    def address(self, rloc: Ip) -> tuple[str, int]:
        """Where packets for the xTR at `rloc` go."""
        return ip_text(rloc), DATA_PORT

    def ancillary(self, ttl: int, tos: int) -> Ancillary:
        """What `sendmsg` needs for an outer header with this TTL (1 to 255) and TOS. Made once for each pair."""
        key = ttl << 8 | tos
        made = self._ancillary.get(key)
        if made is None:
            level = socket.IPPROTO_IPV6 if self._v6 else socket.IPPROTO_IP
            made = self._ancillary[key] = [
                (level, self._ttl_type, ttl.to_bytes(4, sys.byteorder)),
                (level, self._tos_type, tos.to_bytes(4, sys.byteorder)),
            ]
        return made

    def ttl_and_tos(self, ancillary: Ancillary) -> tuple[int, int]:
        """The outer header's TTL and TOS as `recvmsg` gave them."""
        ttl, tos = 255, 0
        for _, kind, data in ancillary:
            if kind == self._ttl_type:
                ttl = int.from_bytes(data, sys.byteorder)
            elif kind == self._tos_type:
                tos = int.from_bytes(data, sys.byteorder)
        return ttl, tos

    def _open(self, port: int) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if self._v6 else socket.AF_INET, socket.SOCK_DGRAM)
        self._opened.append(sock)
        sock.setblocking(False)  # noqa: FBT003
        for forced, usual in ((_SO_RCVBUFFORCE, socket.SO_RCVBUF), (_SO_SNDBUFFORCE, socket.SO_SNDBUF)):
            try:
                sock.setsockopt(socket.SOL_SOCKET, forced, KERNEL_BUFFER)
            except PermissionError:  # beyond net.core.rmem_max only with CAP_NET_ADMIN in the first user namespace
                sock.setsockopt(socket.SOL_SOCKET, usual, KERNEL_BUFFER)
        if self._v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((ip_text(self.rloc), port))
        return sock

    def _receive_ttl_and_tos(self) -> None:
        if self._v6:
            self.receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
            self.receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
            self.receiver.setsockopt(_SOL_UDP, _UDP_NO_CHECK6_RX, 1)  # RFC 9300 §5.3: a zero checksum is accepted
        else:
            self.receiver.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
            self.receiver.setsockopt(socket.IPPROTO_IP, _IP_RECVTOS, 1)

    def _send_plain(self, sender: socket.socket) -> None:
        """RFC 9300 §5.3: UDP checksum zero; §7.1: Don't Fragment is set in the outer header."""
        if self._v6:
            sender.setsockopt(_SOL_UDP, _UDP_NO_CHECK6_TX, 1)
            sender.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DONTFRAG, 1)
        else:
            sender.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 1)
            sender.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)
