"""The slow reading of a message, by construct itself, with notes: each field, where it stands and what it says.

For what people look at, and to say what is wrong with a message that was refused, and where. In: bytes; out: the
fields up to the end or the error, and the error. The work is linear in the length of the bytes, as everywhere.
"""

from __future__ import annotations

import copy
import io
from functools import lru_cache
from typing import Any

import construct as c

from lispfmc.wire import formats, moveformat
from lispfmc.wire.errors import PeerError
from lispfmc.wire.words import bare, is_word


class Reading:
    """One field as it was read. `size` and `value` are missing while it is read, and where reading it failed."""

    __slots__ = ("at", "depth", "name", "number", "size", "value")

    def __init__(self, name: str, depth: int, at: int, number: int | None = None) -> None:
        self.name = name
        self.depth = depth
        self.at = at
        self.number = number  # of an element among others, from 1
        self.size: int | None = None
        self.value: Any = None


class Notes:
    """The fields in the order of the wire, and those that are being read."""

    def __init__(self, depth: int = 0) -> None:
        self.readings: list[Reading] = []
        self.open: list[Reading] = []
        self.depth = depth

    def path(self) -> str:
        return " ".join(one.name for one in self.open if one.name).replace("_", " ") or "message"

    def last(self, name: str) -> Reading:
        return next(one for one in reversed(self.readings) if one.name == name)


class _Window(io.BytesIO):
    """Bytes of a datagram, with the place where they stand in it."""

    def __init__(self, data: bytes, base: int, notes: Notes) -> None:
        super().__init__(data)
        self.size = len(data)
        self.base = base
        self.notes = notes

    def at(self) -> int:
        return self.base + self.tell()

    def left(self) -> int:
        return self.size - self.tell()


class _Noted(c.Subconstruct):
    """A field with its name: what it reads is noted."""

    def __init__(self, subcon: Any, name: str, key: str | None = None, *, element: bool = False) -> None:
        super().__init__(subcon)
        self.name = name
        self.key = key  # the field that says which of several things this one is
        self.element = element

    def _parse(self, stream: _Window, context: Any, path: str) -> Any:
        notes = stream.notes
        number = context._index + 1 if self.element else None  # noqa: SLF001 - construct's own way to say it
        reading = Reading("" if self.element else self.name, notes.depth + len(notes.open), stream.at(), number)
        notes.readings.append(reading)
        notes.open.append(reading)
        try:
            reading.value = self.subcon._parsereport(stream, context, path)  # noqa: SLF001
        except c.ExplicitError:
            about = notes.last(self.key or self.name)
            raise PeerError(notes.path(), offset=about.at, why=f"value {about.value} is not one that we know") from None
        except c.CheckError:
            field, why = formats.CHECKED[self.name]
            about = notes.last(field)
            notes.open = [*(one for one in notes.open if one.depth < about.depth), about]
            raise PeerError(notes.path(), offset=about.at, why=why) from None
        except c.ConstError:
            value = int.from_bytes(stream.getvalue()[reading.at - stream.base : stream.tell()], "big")
            raise PeerError(notes.path(), offset=reading.at, why=f"value {value} is not allowed here") from None
        except c.StreamError as error:
            if "negative" in str(error):
                why = "a length is less than the fields that it counts"
            else:
                why = f"the bytes end too early: {stream.size - (reading.at - stream.base)} left"
            raise PeerError(notes.path(), offset=reading.at, why=why) from None
        reading.size = stream.at() - reading.at
        notes.open.pop()
        return reading.value


class _Within(c.Subconstruct):
    """Prefixed, with a window that knows its place."""

    def __init__(self, subcon: Any, declared: Any) -> None:
        super().__init__(subcon)
        self.length = _Noted(declared.lengthfield, "length")
        self.own = declared.lengthfield.sizeof() if declared.includelength else 0

    def _parse(self, stream: _Window, context: Any, path: str) -> Any:
        length = self.length._parsereport(stream, context, path) - self.own  # noqa: SLF001
        at = stream.at()
        window = _Window(c.stream_read(stream, length, path), at, stream.notes)
        return self.subcon._parsereport(window, context, path)  # noqa: SLF001


class _Every(c.Subconstruct):
    """GreedyRange, that does not swallow what is wrong."""

    def _parse(self, stream: _Window, context: Any, path: str) -> Any:
        values: list[Any] = []
        while stream.left():
            context._index = len(values)  # noqa: SLF001
            values.append(self.subcon._parsereport(stream, context, path))  # noqa: SLF001
        return values


class _Any(c.Subconstruct):
    """Optional, that does not swallow what is wrong."""

    def _parse(self, stream: _Window, context: Any, path: str) -> Any:
        return self.subcon._parsereport(stream, context, path) if stream.left() else None  # noqa: SLF001


class _Zero(c.Construct):
    """NullTerminated, in linear time."""

    def _parse(self, stream: _Window, context: Any, path: str) -> bytes:
        found, zero, rest = stream.read().partition(b"\0")
        if not zero:
            raise PeerError(stream.notes.path(), offset=stream.notes.open[-1].at, why="no zero byte ends it")
        stream.seek(stream.size - len(rest))
        return found


class _End(c.Construct):
    """Terminated, that says how much is left."""

    def _parse(self, stream: _Window, context: Any, path: str) -> None:
        if stream.left():
            field = f"end of {stream.notes.path()}"
            raise PeerError(field, offset=stream.at(), why=f"{stream.left()} bytes after the last field")


def _noted(declared: Any) -> Any:
    """A copy of a declaration that takes notes."""
    if isinstance(declared, c.Renamed):
        inside = bare(declared)
        keyed = bare(inside.subcon) if isinstance(inside, c.Prefixed) else inside
        key = repr(keyed.keyfunc).split("'")[1] if isinstance(keyed, c.Switch) else None
        return _Noted(_noted(declared.subcon), declared.name, key)
    if declared is c.Terminated:
        return _End()
    if is_word(declared) or declared is c.GreedyBytes:
        return declared
    if isinstance(declared, c.Prefixed):
        return _Within(_noted(declared.subcon), declared)
    if isinstance(declared, c.GreedyRange):
        return _Every(_Noted(_noted(declared.subcon), "", element=True))
    if isinstance(declared, c.Select):
        return _Any(_noted(declared.subcons[0]))
    if isinstance(declared, c.NullTerminated):
        return _Zero()
    changed = copy.copy(declared)
    if isinstance(declared, c.Struct):
        changed.subcons = [_noted(one) for one in declared.subcons]
    elif isinstance(declared, c.FocusedSeq):  # one field with Checks
        changed.subcons = [_noted(one) if isinstance(bare(one), c.Check) else one for one in declared.subcons]
    elif isinstance(declared, c.Switch):
        changed.cases = {key: _noted(one) for key, one in declared.cases.items()}
    elif isinstance(declared, c.IfThenElse):
        changed.thensubcon = _noted(declared.thensubcon)
    elif isinstance(declared, c.Array):
        changed.subcon = _Noted(_noted(declared.subcon), "", element=True)
    return changed


DECLARED = formats.MESSAGES | {15 << 12 | moveformat.MOVE_SUB_TYPE: moveformat.Move}
"""By type; of an extension that is known, by type and sub-type."""


@lru_cache(maxsize=len(DECLARED))
def _message(kind: int) -> Any:
    return _noted(DECLARED[kind])


def _kind(datagram: bytes) -> int:
    exact = int.from_bytes(datagram[:2], "big")
    return exact if exact in DECLARED else datagram[0] >> 4


def read(datagram: bytes, base: int = 0, depth: int = 0) -> tuple[list[Reading], PeerError | None]:
    """The fields of one message that starts at byte `base` of a datagram, and what is wrong with it."""
    notes = Notes(depth)
    if not datagram:
        return [], PeerError("first word", offset=base, why="4 bytes wanted, 0 left")
    kind = _kind(datagram)
    if kind not in DECLARED:
        return [], PeerError("type", offset=base, why=f"message type {kind} is not one that we know")
    try:
        _message(kind).parse_stream(_Window(datagram, base, notes))
    except PeerError as error:
        return notes.readings, error
    return notes.readings, None


def refusal(datagram: bytes, base: int = 0) -> PeerError:
    """What is wrong with a message that the compiled codec refused."""
    _, error = read(datagram, base)
    if error is None:  # the property tests hold the two readings against one another, so that this does not come about
        error = PeerError("message", offset=base, why="refused, though its declaration allows it: a bug of ours")
    return error
