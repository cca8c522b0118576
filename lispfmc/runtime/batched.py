"""The UDP endpoint for sockets under load: up to 64 datagrams a wake-up come in by one system call, and what is sent
in answer leaves by another. Behind the same interface as the other kinds (`lispfmc.runtime.udp`).
"""

from __future__ import annotations

import asyncio
import socket

import structlog

from lispfmc.runtime.mmsg import Batch, endpoint
from lispfmc.runtime.sockets import DRAIN, Receive, Sources, local_endpoint, sent
from lispfmc.wire.address import Endpoint

_log = structlog.get_logger("udp")


class BatchedSocket:
    """A socket read by `add_reader`, recvmmsg and sendmmsg."""

    def __init__(self, sock: socket.socket, receive: Receive, loop: asyncio.AbstractEventLoop) -> None:
        self.local = local_endpoint(sock)
        self.drops = 0
        self._sock = sock
        self._receive = receive
        self._loop = loop
        self._incoming, self._outgoing = Batch(sock.family), Batch(sock.family)
        self._waiting = 0  # slots of `_outgoing` that are filled
        self._answering = False
        self._sources: Sources[bytes] = Sources(endpoint)
        loop.add_reader(sock.fileno(), self._readable)

    def send(self, data: bytes, to: Endpoint) -> None:
        """At once, but what is sent while datagrams are being received leaves together, when all of them were."""
        if not self._answering:
            if not sent(self._sock, data, to):
                self.drops += 1
            return
        if self._waiting == DRAIN:
            self._flush()
        if self._outgoing.put(self._waiting, data, to):
            self._waiting += 1
        else:
            self.drops += 1

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._flush()
            self._answering = False
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _readable(self) -> None:
        try:
            datagrams = self._incoming.receive(self._sock.fileno())
        except BlockingIOError:
            return
        except OSError as error:  # an ICMP error of an earlier send, reported here
            _log.debug("udp.error", local=str(self.local), why=error.strerror)
            return
        self._answering = True
        receive, sources = self._receive, self._sources
        try:
            for data, address in datagrams:
                try:
                    receive(data, sources[address])
                except Exception as error:  # one datagram does not take the rest of its batch with it
                    self._loop.call_exception_handler({"message": f"receiving at {self.local}", "exception": error})
                if not self._answering:
                    return  # `receive` closed us
        finally:
            self._answering = False
            self._flush()

    def _flush(self) -> None:
        first, last = 0, self._waiting
        self._waiting = 0
        while first < last:
            try:
                first += self._outgoing.send(self._sock.fileno(), first, last)
            except BlockingIOError:
                self.drops += last - first
                return
            except OSError as error:  # the first of them has no route or is too long; the others may do
                _log.debug("udp.unsent", local=str(self.local), why=error.strerror)
                self.drops += 1
                first += 1
