"""UDP endpoints, one per local address, every kind bounded: what we cannot take the kernel drops, and we count it.

`open_dgram` (asyncio-dgram) suits sockets where one packet at a time is fine; `open_drained` takes up to 64 packets a
wake-up; `open_batched` takes as many by one system call and answers by another, for sockets with load. Sending is
synchronous and never waits. Each works on asyncio and on uvloop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable
from typing import Any, Protocol, cast

import structlog
from asyncio_dgram.aio import DatagramServer, TransportClosed
from asyncio_dgram.aio import Protocol as DatagramProtocol

from lispfmc.runtime.batched import BatchedSocket
from lispfmc.runtime.sockets import DRAIN, LARGEST_DATAGRAM, Receive, Sources, bound, local_endpoint, sent
from lispfmc.wire.address import Endpoint, ip_of

QUEUE = 1024  # datagrams waiting in an asyncio-dgram endpoint; beyond that a flood is dropped
# asyncio reads 256 KiB per datagram as shipped, which makes the allocator grow and trim the heap for each one. No
# datagram is longer than this, and from here down to 9 KiB the cost was measured to be the same.
READ_SIZE = LARGEST_DATAGRAM

_log = structlog.get_logger("udp")


class UdpSocket(Protocol):
    """What every kind of endpoint offers."""

    local: Endpoint

    @property
    def drops(self) -> int: ...

    def send(self, data: bytes, to: Endpoint) -> None: ...

    def close(self) -> None: ...


def _endpoint(address: tuple[str, int]) -> Endpoint:
    return Endpoint(ip_of(address[0]), address[1])  # IPv6 addresses of the socket module have two more items


class DrainedSocket:
    """A socket read by `add_reader`, up to 64 datagrams a wake-up."""

    def __init__(self, sock: socket.socket, receive: Receive, loop: asyncio.AbstractEventLoop) -> None:
        self.local = local_endpoint(sock)
        self.drops = 0
        self._sock = sock
        self._receive = receive
        self._loop = loop
        self._sources: Sources[tuple[str, int]] = Sources(_endpoint)
        self._buffer = bytearray(LARGEST_DATAGRAM)
        self._view = memoryview(self._buffer)
        loop.add_reader(sock.fileno(), self._readable)

    def send(self, data: bytes, to: Endpoint) -> None:
        if not sent(self._sock, data, to):
            self.drops += 1

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _readable(self) -> None:
        receive_into, view, receive, sources = self._sock.recvfrom_into, self._view, self._receive, self._sources
        for _ in range(DRAIN):
            try:
                size, address = receive_into(self._buffer)
            except BlockingIOError:
                return
            except OSError as error:  # an ICMP error of an earlier send, reported here
                _log.debug("udp.error", local=str(self.local), why=error.strerror)
                continue
            receive(bytes(view[:size]), sources[address])
            if self._sock.fileno() < 0:
                return  # `receive` closed us


class _BoundedQueue(asyncio.Queue[Any]):
    """asyncio-dgram puts every datagram into an unbounded queue; this one refuses when full and counts."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self.dropped = 0

    def put_nowait(self, item: Any) -> None:
        if self.qsize() >= self._limit and item != (None, None):  # (None, None) says that the transport is closed
            self.dropped += 1
            return
        super().put_nowait(item)


class DgramSocket:
    """An asyncio-dgram endpoint with a bounded queue and a task that hands each datagram on."""

    def __init__(self, sock: socket.socket, server: DatagramServer, queue: _BoundedQueue, receive: Receive) -> None:
        self.local = local_endpoint(sock)
        self._sock = sock
        self._server = server
        self._queue = queue
        self._receive = receive
        self._sources: Sources[tuple[str, int]] = Sources(_endpoint)
        self._unsent = 0
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"udp {self.local}")

    @property
    def drops(self) -> int:
        return self._queue.dropped + self._unsent

    def send(self, data: bytes, to: Endpoint) -> None:
        # straight to the socket: the transport's send would wait for a drain that some interpreters never report
        if self._sock.fileno() < 0 or not sent(self._sock, data, to):
            self._unsent += 1

    def close(self) -> None:
        self._task.cancel()
        self._server.close()

    async def _run(self) -> None:
        while True:
            try:
                data, address = await self._server.recv()
            except TransportClosed:
                return
            except OSError as error:
                _log.debug("udp.error", local=str(self.local), why=error.strerror)
                continue
            self._receive(data, self._sources[cast("tuple[str, int]", address)])


async def open_dgram(local: Endpoint, receive: Receive, *, queue: int = QUEUE) -> DgramSocket:
    """Listen at `local` (port 0: any) by asyncio-dgram. Raises LocalError when the address cannot be had."""
    sock = bound(local)
    received, errors, drained = _BoundedQueue(queue), _BoundedQueue(16), asyncio.Event()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: DatagramProtocol(received, errors, drained), sock=sock
    )
    if hasattr(transport, "max_size"):
        transport.max_size = READ_SIZE
    server = DatagramServer(cast("Any", transport), received, errors, drained)
    return DgramSocket(sock, server, received, receive)


async def open_drained(local: Endpoint, receive: Receive) -> DrainedSocket:
    """Listen at `local` (port 0: any), drained. Raises LocalError when the address cannot be had."""
    return DrainedSocket(bound(local), receive, asyncio.get_running_loop())


async def open_batched(local: Endpoint, receive: Receive) -> BatchedSocket:
    """Listen at `local` (port 0: any), batched. Raises LocalError when the address cannot be had."""
    return BatchedSocket(bound(local), receive, asyncio.get_running_loop())


class Sockets:
    """A daemon's endpoints, one per local address; sends leave by the first one of the destination's family."""

    def __init__(self, sockets: Iterable[UdpSocket]) -> None:
        self.all = tuple(sockets)
        self._by_size: dict[int, UdpSocket] = {}
        for each in self.all:
            self._by_size.setdefault(len(each.local.ip), each)
        self.unroutable = 0

    def send(self, data: bytes, to: Endpoint) -> None:
        chosen = self._by_size.get(len(to.ip))
        if chosen is None:
            self.unroutable += 1
            _log.debug("udp.unsent", to=str(to), why="no local address of that family")
        else:
            chosen.send(data, to)

    @property
    def drops(self) -> int:
        return sum(each.drops for each in self.all) + self.unroutable

    def close(self) -> None:
        for each in self.all:
            with contextlib.suppress(OSError):
                each.close()
