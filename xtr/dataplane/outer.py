"""The outer side of the tunnel: UDP sockets of one local RLOC, with TTL and TOS of each packet's outer header.

Received on port 4341, whole runs of datagrams at once where the kernel has them together (UDP_GRO). Sent from a pool of
source ports picked by the inner flow's hash, so that a flow keeps one port and flows spread over the paths of the core
(RFC 9300 §5.3); runs of packets of one size leave by one call (UDP_SEGMENT).
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from typing import NamedTuple, TypeAlias

from lispfmc.wire.address import Ip, ip_text
from lispfmc.wire.encap import DATA_PORT, HEADER_BYTES

SENDERS = 8  # a power of two: picked by a mask
KERNEL_BUFFER = 8 << 20
ANCILLARY_BYTES = 96
UNKNOWN_MTU = 1500
MTU_SECONDS = 60.0  # RFC 8201 §4: a larger path MTU may be tried again after some minutes; asking the kernel is cheap
MTUS_KNOWN = 4096  # RLOCs whose path MTU is remembered; mappings bound them, this bounds forged ones

Ancillary: TypeAlias = list[tuple[int, int, bytes]]

# names that Python's socket module lacks
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE, _SO_NO_CHECK, _SO_MEMINFO = 32, 33, 11, 55
_MEMINFO_BYTES = 9 * 4  # the last of its numbers is that of the packets that were dropped
_SOL_UDP, _UDP_NO_CHECK6_TX, _UDP_NO_CHECK6_RX, _UDP_SEGMENT, _UDP_GRO = 17, 101, 102, 103, 104
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_DO = 10, 23, 2
_IP_RECVTTL, _IP_RECVTOS, _IP_MTU, _IPV6_MTU = 12, 13, 14, 24


class Sender(NamedTuple):
    """One source port. The kernel segments only what it also checksums, so runs leave by a socket of their own."""

    plain: socket.socket
    runs: socket.socket


class Told(NamedTuple):
    """What the kernel says of a datagram beside its bytes. `segment` is the size of each, when several came at once."""

    ttl: int
    tos: int
    segment: int


class Outer:
    """The sockets of one local RLOC. Raises OSError when the address is not here or the port is taken."""

    def __init__(self, rloc: Ip, *, runs: bool = True) -> None:
        """`runs`: take and give several packets in one call."""
        self.rloc = rloc
        self._v6 = len(rloc) == 16
        self.overhead = (40 if self._v6 else 20) + 8 + HEADER_BYTES
        self._opened: list[socket.socket] = []
        self._ancillary: dict[int, Ancillary] = {}
        self._mtus: dict[Ip, tuple[int, float]] = {}
        self._level = socket.IPPROTO_IPV6 if self._v6 else socket.IPPROTO_IP
        self._ttl_type = socket.IPV6_HOPLIMIT if self._v6 else socket.IP_TTL
        self._tos_type = socket.IPV6_TCLASS if self._v6 else socket.IP_TOS
        try:
            self.receiver = self._open(DATA_PORT)
            self._receive_ttl_and_tos()
            if runs:
                with contextlib.suppress(OSError):  # before Linux 5.0 one datagram comes at a time
                    self.receiver.setsockopt(_SOL_UDP, _UDP_GRO, 1)
            self.senders = tuple(self._sender() for _ in range(SENDERS))
            self._asking = self._open(0)
            self._never_fragment(self._asking)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        for each in self._opened:
            each.close()

    def full(self) -> int:
        """Packets that the receiver's buffer had no room for."""
        try:
            return int.from_bytes(
                self.receiver.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO_BYTES)[-4:], sys.byteorder
            )
        except OSError:  # before Linux 4.12, or closed
            return 0

    def address(self, rloc: Ip) -> tuple[str, int]:
        """Where packets for the xTR at `rloc` go."""
        return ip_text(rloc), DATA_PORT

    def limit(self, rloc: Ip, now: float) -> int:
        """The largest inner packet that fits the path to `rloc`."""
        known = self._mtus.get(rloc)
        if known is None or now - known[1] > MTU_SECONDS:
            if len(self._mtus) >= MTUS_KNOWN:
                self._mtus.clear()
            known = self._mtus[rloc] = (self._path_mtu(rloc), now)
        return known[0] - self.overhead

    def forget_mtu(self, rloc: Ip) -> None:
        """The kernel refused a packet for its size: it has learned of a smaller path MTU."""
        self._mtus.pop(rloc, None)

    def ancillary(self, ttl: int, tos: int) -> Ancillary:
        """What `sendmsg` needs for an outer header with this TTL (1 to 255) and TOS. Made once for each pair."""
        key = ttl << 8 | tos
        made = self._ancillary.get(key)
        if made is None:
            made = self._ancillary[key] = [
                (self._level, self._ttl_type, ttl.to_bytes(4, sys.byteorder)),
                (self._level, self._tos_type, tos.to_bytes(4, sys.byteorder)),
            ]
        return made

    def told(self, ancillary: Ancillary) -> Told:
        """What `recvmsg` gave beside the datagram."""
        ttl, tos, segment = 255, 0, 0
        for level, kind, data in ancillary:
            if level == _SOL_UDP:
                segment = int.from_bytes(data[:2], sys.byteorder) if kind == _UDP_GRO else segment
            elif kind == self._ttl_type:
                ttl = int.from_bytes(data, sys.byteorder)
            elif kind == self._tos_type:
                tos = int.from_bytes(data, sys.byteorder)
        return Told(ttl, tos, segment)

    def _sender(self) -> Sender:
        plain = self._open(0, shared=True)
        runs = self._open(plain.getsockname()[1], shared=True)
        for each in (plain, runs):
            self._never_fragment(each)
        # RFC 9300 §5.3: the UDP checksum is zero; a run's is not, which a receiver takes as well
        if self._v6:
            plain.setsockopt(_SOL_UDP, _UDP_NO_CHECK6_TX, 1)
        else:
            plain.setsockopt(socket.SOL_SOCKET, _SO_NO_CHECK, 1)
        return Sender(plain, runs)

    def _open(self, port: int, *, shared: bool = False) -> socket.socket:
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
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
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

    def _never_fragment(self, sock: socket.socket) -> None:
        """RFC 9300 §7.1: Don't Fragment is set in the outer header."""
        if self._v6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DONTFRAG, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)

    def _path_mtu(self, rloc: Ip) -> int:
        """As the kernel knows it: the interface's, or what an ICMP message said."""
        try:
            self._asking.connect(self.address(rloc))
            return self._asking.getsockopt(self._level, _IPV6_MTU if self._v6 else _IP_MTU)
        except OSError:  # no route: the packet itself will be told
            return UNKNOWN_MTU


def run_ancillary(ancillary: Ancillary, size: int) -> Ancillary:
    """The same for a run of datagrams of `size` bytes each, the last one perhaps shorter."""
    return [*ancillary, (_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", size))]
