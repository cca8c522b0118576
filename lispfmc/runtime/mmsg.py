"""Many datagrams a system call: recvmmsg and sendmmsg, which Python's socket module does not have, through ctypes.

A `Batch` is the memory that both work on: for each slot a header, the peer's socket address and the datagram. It is
laid out once, so that a call costs little more than the kernel's part, and a datagram one slice. Linux only.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import socket
import sys
from struct import Struct

from lispfmc.runtime.sockets import DRAIN, LARGEST_DATAGRAM
from lispfmc.wire.address import Endpoint

MSG_DONTWAIT, MSG_WAITFORONE = 0x40, 0x10000  # the latter: wait for the first datagram, then take what is there
_NAME_BYTES = 32  # room for a sockaddr_in6 (28)
# Neighbouring slots start in different cache sets: 64 KiB apart they would push one another out.
_SLOT_BYTES = LARGEST_DATAGRAM + 1 + 64
_SOCKADDR_IN = Struct("!2sH4s8x")  # the family stands in the machine's byte order, the rest in the network's
_SOCKADDR_IN6 = Struct("!2sHI16sI")


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iovec", ctypes.c_void_p),
        ("iovecs", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Header(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("message", _Msghdr), ("length", ctypes.c_uint))


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.recvmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
    libc.sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
    return libc


class Batch:
    """Slots for as many datagrams as one call moves, all of one address family."""

    def __init__(self, family: int, slots: int = DRAIN) -> None:
        self._family = family.to_bytes(2, sys.byteorder)
        self._v4 = family == socket.AF_INET
        name_bytes = _SOCKADDR_IN.size if self._v4 else _SOCKADDR_IN6.size
        headers = slots * ctypes.sizeof(_Header)
        iovecs = headers + slots * ctypes.sizeof(_Iovec)
        names = iovecs + slots * _NAME_BYTES
        self._memory = mmap.mmap(-1, names + slots * _SLOT_BYTES)  # pages that were never touched take no memory
        self._base = base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        for slot in range(slots):
            name, data = iovecs + slot * _NAME_BYTES, names + slot * _SLOT_BYTES
            iovec = headers + slot * ctypes.sizeof(_Iovec)
            _Iovec.from_buffer(self._memory, iovec).base = base + data
            _Iovec.from_buffer(self._memory, iovec).length = LARGEST_DATAGRAM
            header = _Msghdr.from_buffer(self._memory, slot * ctypes.sizeof(_Header))
            header.name, header.name_length = base + name, name_bytes
            header.iovec, header.iovecs = base + iovec, 1
        whole = memoryview(self._memory)
        self._received = whole[:headers].cast("I")
        self._to_send = whole[headers:iovecs].cast("L")  # size_t
        words, where = ctypes.sizeof(_Header) // 4, _Header.length.offset // 4
        self._slots = [
            (
                slot * words + where,  # index of the received length
                slice(iovecs + slot * _NAME_BYTES, iovecs + slot * _NAME_BYTES + name_bytes),
                names + slot * _SLOT_BYTES,
            )
            for slot in range(slots)
        ]
        self._recvmmsg, self._sendmmsg = _libc().recvmmsg, _libc().sendmmsg

    def receive(self, descriptor: int, flags: int = MSG_DONTWAIT) -> list[tuple[bytes, bytes]]:
        """The datagrams that are there, each with its sender's socket address. Raises OSError."""
        number = self._recvmmsg(descriptor, self._base, len(self._slots), flags, None)
        if number < 0:
            raise _error()
        memory, lengths = self._memory, self._received
        return [(memory[at : at + lengths[length]], memory[name]) for length, name, at in self._slots[:number]]

    def put(self, slot: int, data: bytes, to: Endpoint) -> bool:
        """Fill a slot for sending; False when it is too long for any datagram or of the other family."""
        _, name, at = self._slots[slot]
        size = len(data)
        if size > LARGEST_DATAGRAM or (len(to.ip) == 4) != self._v4:
            return False
        self._memory[at : at + size] = data
        self._to_send[2 * slot + 1] = size
        if self._v4:
            _SOCKADDR_IN.pack_into(self._memory, name.start, self._family, to.port, to.ip)
        else:
            _SOCKADDR_IN6.pack_into(self._memory, name.start, self._family, to.port, 0, to.ip, 0)
        return True

    def send(self, descriptor: int, first: int, last: int) -> int:
        """Send the slots from `first` to before `last`; how many went. Raises OSError when the first one did not."""
        start = self._base + first * ctypes.sizeof(_Header)
        number: int = self._sendmmsg(descriptor, start, last - first, MSG_DONTWAIT)
        if number < 0:
            raise _error()
        return number


def endpoint(sockaddr: bytes) -> Endpoint:
    """What a socket address of `Batch.receive` says."""
    if len(sockaddr) == _SOCKADDR_IN.size:
        _, port, ip = _SOCKADDR_IN.unpack(sockaddr)
    else:
        _, port, _, ip, _ = _SOCKADDR_IN6.unpack(sockaddr)
    return Endpoint(ip, port)


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
