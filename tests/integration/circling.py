"""What goes over the lab's core: whether a packet went round until its hops were used up, and who said so."""

from __future__ import annotations

import socket
import threading
from typing import Self

from lispfmc.lab import entrance

FRESH_TTL = 64
WORN = 8  # hops that no packet of ours needs, the detour of a move included
_ALL = 0x0003
_BUFFER = 1 << 24
_SO_RCVBUFFORCE = 33


class Circling:
    """Watches from entry to exit, in a thread of its own: a socket opened in the core's namespace stays there."""

    def __init__(self, namespace: str) -> None:
        self.data = 0
        self.worn: list[int] = []
        """The hops that were left of encapsulated packets that had gone too far."""
        self.exceeded = 0
        """ICMP Time Exceeded."""
        self._namespace = namespace
        self._done = threading.Event()
        self._watching = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._watching.wait(5.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        entrance.enter(self._namespace)
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL)) as core:
            core.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
            core.settimeout(0.1)
            self._watching.set()
            while not self._done.is_set():
                try:
                    self._saw(core.recv(128))
                except TimeoutError:
                    continue

    def _saw(self, packet: bytes) -> None:
        version = packet[0] >> 4 if packet else 0
        if version == 4:
            at, protocol, ttl = (packet[0] & 15) * 4, packet[9], packet[8]
        elif version == 6:
            at, protocol, ttl = 40, packet[6], packet[7]
        else:
            return
        if protocol == socket.IPPROTO_UDP and packet[at + 2 : at + 4] == (4341).to_bytes(2, "big"):
            self.data += 1
            if ttl <= FRESH_TTL - WORN:
                self.worn.append(ttl)
        elif (protocol, packet[at : at + 1]) in ((socket.IPPROTO_ICMP, b"\x0b"), (socket.IPPROTO_ICMPV6, b"\x03")):
            self.exceeded += 1
