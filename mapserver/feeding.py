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
_HEAD = struct.Struct(">IB")
_NUMBER = struct.Struct(">I")
_SOURCE = struct.Struct(">BH")


class Frame(IntEnum):
    RESET = 1  # everything follows, up to COMPLETE
    COMPLETE = 2
    REGISTRANT = 3  # a number, and who it stands for from now on
    REGISTERED = 4  # a registrant's number, and a record
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
    """Registrations as frames, for one follower: a registrant is told once, before its first registration."""

    def __init__(self) -> None:
        self._numbers: dict[Registrant, int] = {}

    def registered(self, registration: Registration) -> bytes:
        who = registration.registrant
        number = self._numbers.get(who)
        told = b""
        if number is None:
            number = self._numbers[who] = len(self._numbers)
            source = who.source
            told = frame(
                Frame.REGISTRANT,
                msgspec.msgpack.encode(
                    Who(number, who.owner.site, who.owner.xtr, who.key.id, source.ip, source.port, who.word)
                ),
            )
        return told + frame(Frame.REGISTERED, _NUMBER.pack(number) + registration.record)


def registered_of(body: bytes) -> tuple[int, bytes]:
    return _NUMBER.unpack_from(body)[0], body[_NUMBER.size :]
