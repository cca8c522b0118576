"""Plain UDP sockets as every kind of endpoint needs them: bound, marked as control traffic, deeply buffered."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TypeAlias, TypeVar

import structlog

from lispfmc.wire.address import Endpoint, ip_of, ip_text
from lispfmc.wire.errors import LocalError

Receive: TypeAlias = Callable[[bytes, Endpoint], None]
K = TypeVar("K")

CONTROL_TOS = 0xC0  # DSCP CS6, network control (RFC 4594 §3.1)
DRAIN = 64  # datagrams a wake-up, so that one busy socket does not starve the rest of the loop
KERNEL_BUFFER = 4 << 20  # bytes asked for; the kernel gives at most net.core.rmem_max
LARGEST_DATAGRAM = 65535
SOURCES_REMEMBERED = 4096  # senders whose address need not be built again; anybody can be one, by a spoofed address

_log = structlog.get_logger("udp")


def bound(local: Endpoint) -> socket.socket:
    """A non-blocking socket at `local` (port 0: any). Raises LocalError when the address cannot be had."""
    family = socket.AF_INET6 if len(local.ip) == 16 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)  # noqa: FBT003
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, CONTROL_TOS)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, CONTROL_TOS)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
        sock.bind((ip_text(local.ip), local.port))
    except OSError as error:
        sock.close()
        raise LocalError(
            f"UDP {local}: cannot listen, {error.strerror}; is the address on this machine and the port free?"
        ) from error
    return sock


def local_endpoint(sock: socket.socket) -> Endpoint:
    """Where the socket listens."""
    name = sock.getsockname()
    return Endpoint(ip_of(name[0]), name[1])


def sent(sock: socket.socket, data: bytes, to: Endpoint) -> bool:
    """Hand one datagram to the kernel; False when it does not take it, which is never waited for."""
    try:
        sock.sendto(data, (ip_text(to.ip), to.port))
    except BlockingIOError:
        return False
    except OSError as error:  # no route, a firewall, too long: the protocol's retransmissions deal with it
        _log.debug("udp.unsent", to=str(to), why=error.strerror)
        return False
    return True


class Sources(dict[K, Endpoint]):
    """Senders' addresses as the kernel gives them to endpoints: `sources[address]` builds each of them once."""

    def __init__(self, build: Callable[[K], Endpoint], limit: int = SOURCES_REMEMBERED) -> None:
        super().__init__()
        self._build = build
        self._limit = limit

    def __missing__(self, address: K) -> Endpoint:
        if len(self) >= self._limit:
            self.clear()
        endpoint = self[address] = self._build(address)
        return endpoint
