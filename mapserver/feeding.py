"""What goes between the worker that writes and those that answer: frames on a unix socket.

To an answering worker: who registers, EIDs as they are, EIDs as they change. Back from it: every datagram that it does
not answer itself, and what it has counted. A worker that falls behind is told everything anew.
"""

from __future__ import annotations

import struct
from asyncio import StreamReader
from enum import IntEnum

import msgspec

from lispfmc.core.registry import Registrant, Registration
from lispfmc.wire.address import Endpoint, Prefix

LONGEST = 1 << 20  # bytes of a frame
REGISTRANTS = 65_536  # that a follower is kept told of; holders of keys can make more of them up
_HEAD = struct.Struct(">IB")
_NUMBER = struct.Struct(">I")
_SOURCE = struct.Struct(">BH")


class Frame(IntEnum):
    RESET = 1  # everything follows, up to COMPLETE
    COMPLETE = 2
    REGISTRANT = 3  # a number, and who it stands for from now on
    REGISTERED = 4  # the numbers of the registrants that share it, and a record
    GONE = 5  # an EID
    DATAGRAM = 6  # its source, and the datagram
    COUNTS = 7


class Who(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A registrant; keys are named, not told."""

    number: int
    site: str
    xtr: bytes
    key_id: int
    ip: bytes
    port: int
    word: int


class Counts(msgspec.Struct, frozen=True, array_like=True):
    """What an answering worker has counted since it last said so."""

    answers: dict[str, int]
    rejects: dict[str, int]
    dropped: int


def frame(kind: Frame, body: bytes = b"") -> bytes:
    return _HEAD.pack(len(body), kind) + body


async def read(reader: StreamReader) -> tuple[Frame, bytes]:
    """The next frame. Raises IncompleteReadError at the end."""
    size, kind = _HEAD.unpack(await reader.readexactly(_HEAD.size))
    if size > LONGEST:
        raise ConnectionError("not a frame of ours")
    return Frame(kind), await reader.readexactly(size)


def datagram(data: bytes, source: Endpoint) -> bytes:
    return frame(Frame.DATAGRAM, _SOURCE.pack(len(source.ip), source.port) + source.ip + data)


def datagram_of(body: bytes) -> tuple[bytes, Endpoint]:
    size, port = _SOURCE.unpack_from(body)
    end = _SOURCE.size + size
    return body[end:], Endpoint(body[_SOURCE.size : end], port)


def gone(eid: Prefix) -> bytes:
    return frame(Frame.GONE, msgspec.msgpack.encode((eid.iid, eid.ip, eid.length)))


def gone_of(body: bytes) -> Prefix:
    return Prefix(*msgspec.msgpack.decode(body, type=tuple[int, bytes, int]))


class Telling:
    """Registrations as frames, for one follower: a registrant is told before its first registration, by a number."""

    def __init__(self) -> None:
        self._numbers: dict[Registrant, int] = {}

    def registered(self, registration: Registration) -> bytes:
        if len(self._numbers) > REGISTRANTS:
            self._numbers.clear()  # numbers stand for others from now on; what was told before stays
        parts = registration.each
        frames = [self._introduced(part.registrant) for part in parts]
        numbers = b"".join(_NUMBER.pack(self._numbers[part.registrant]) for part in parts)
        return b"".join(frames) + frame(Frame.REGISTERED, bytes((len(parts) - 1,)) + numbers + registration.record)

    def _introduced(self, who: Registrant) -> bytes:
        if who in self._numbers:
            return b""
        number = self._numbers[who] = len(self._numbers)
        source = who.source
        told = Who(number, who.owner.site, who.owner.xtr, who.key.id, source.ip, source.port, who.word)
        return frame(Frame.REGISTRANT, msgspec.msgpack.encode(told))


def registered_of(body: bytes) -> tuple[tuple[int, ...], bytes]:
    """The registrants' numbers, the one that told last behind the others, and the record."""
    end = 1 + (body[0] + 1) * _NUMBER.size
    return tuple(number for (number,) in _NUMBER.iter_unpack(body[1:end])), body[end:]
