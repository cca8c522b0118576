"""Values of the move messages (RFC 9304 sub-type of ours) and of the shim that numbers a move's packets.

A message is signed and checked by `lispfmc.wire.auth` as the mapping system's own are. It fits the 576 bytes that
every IPv4 path carries; what does not goes in numbered parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec

from lispfmc.wire.errors import LocalError
from lispfmc.wire.moveformat import MOVE_SUB_TYPE
from lispfmc.wire.ranges import fits

if TYPE_CHECKING:
    from lispfmc.wire.messages import EidRecord

MOST_BYTES = 576 - 28  # RFC 9301 §5 for IPv4, less IP and UDP headers; IPv6 carries more, and need not
OLD_PLACE = 255  # RFC 9301 §5.4: a locator with this priority must not be used
_FIXED_BYTES = 44 + 32  # with the longest authentication data
_ACKNOWLEDGEMENT = 0x80
_INSTANTS = 1 << 24  # microseconds: 16.8 s


class MovePhase(IntEnum):
    """What a message tells its receiver to enter."""

    PREPARE = 1
    PEERS = 2
    FREEZE = 3
    ACTIVATE = 4
    COMMIT = 5
    ABORT = 6


class Verdict(IntEnum):
    """What an acknowledgement says of its sender's standing in the move."""

    NONE = 0
    DONE = 1
    """It is as you say, and was perhaps already."""
    STALE = 2
    """A higher epoch is known here."""
    BUSY = 3
    """Another move of these EIDs is in hand."""
    ACTIVE = 4
    """The EIDs are delivered here under this epoch."""
    ABORTED = 5
    """This epoch was given up here, and never will be active."""
    UNPREPARED = 6
    """Nothing is known of this move."""


class MoveMessage(msgspec.Struct, frozen=True, gc=False):
    """One move message. `auth` is filled in by `lispfmc.wire.auth.sign`."""

    word: int
    nonce: int
    phase: int
    move: int
    epoch_word: int
    records: tuple[EidRecord, ...]
    part: int = 1
    parts: int = 1
    rules: int = 0
    hold_bytes: int = 0
    hold_ms: int = 0
    verdict: int = 0
    stopped: bytes = b"\0\0\0"
    key_id: int = 0
    algorithm_id: int = 0
    auth: bytes = b""

    @classmethod
    def of(
        cls,
        phase: MovePhase,
        *records: EidRecord,
        nonce: int,
        move: int,
        epoch: int,
        part: int = 1,
        parts: int = 1,
        bicast: bool = False,
        hold_bytes: int = 0,
        hold_ms: int = 0,
        stopped_ns: int = 0,
    ) -> MoveMessage:
        """A message that wants an acknowledgement. Raises LocalError for what does not fit, 576 bytes included."""
        if not 1 <= part <= parts:
            raise LocalError(f"part {part} of {parts}")
        if (size := _FIXED_BYTES + sum(map(record_bytes, records))) > MOST_BYTES:
            raise LocalError(f"a move message of {size} bytes exceeds {MOST_BYTES}: send it in parts")
        return cls(
            _word(acknowledgement=False),
            fits(nonce, 64, "nonce"),
            int(phase),
            fits(move, 64, "move id"),
            fits(epoch, 12, "epoch"),
            records,
            part,
            fits(parts, 8, "parts"),
            int(bicast),
            fits(hold_bytes, 32, "hold limit"),
            fits(hold_ms, 32, "hold time"),
            stopped=instant(stopped_ns) if stopped_ns else b"\0\0\0",
        )

    def acknowledgement(self, verdict: Verdict) -> MoveMessage:
        """The answer: the same, without records, and where its sender stands."""
        return MoveMessage(
            _word(acknowledgement=True),
            self.nonce,
            self.phase,
            self.move,
            self.epoch_word,
            (),
            self.part,
            self.parts,
            verdict=int(verdict),
        )

    @property
    def is_acknowledgement(self) -> bool:
        return bool(self.word >> 8 & _ACKNOWLEDGEMENT)

    @property
    def epoch(self) -> int:
        return self.epoch_word & 0xFFF

    @property
    def bicast(self) -> bool:
        return bool(self.rules & 1)


def instant(at_ns: int) -> bytes:
    """An instant of the monotonic clock as a message has it: its microseconds, less what does not fit; never 0."""
    return (at_ns // 1000 % _INSTANTS or 1).to_bytes(3, "big")


def since_s(stopped: bytes, now: float) -> float | None:
    """How long ago an instant of the same clock was, if that was in the last seconds; None when none is said."""
    at = int.from_bytes(stopped, "big")
    return (int(now * 1e6) - at) % _INSTANTS / 1e6 if at else None


def _word(*, acknowledgement: bool) -> int:
    return 15 << 28 | MOVE_SUB_TYPE << 16 | (_ACKNOWLEDGEMENT << 8 if acknowledgement else 0)


def record_bytes(record: EidRecord) -> int:
    """The size of a record on the wire; an address that is no plain IP counts as an Instance-ID LCAF with IPv6."""
    sizes = (len(one) if isinstance(one, bytes) else 28 for one in (each.address for each in record.locators))
    return 12 + (len(record.eid) if isinstance(record.eid, bytes) else 28) + sum(8 + size for size in sizes)


def in_parts(records: Sequence[EidRecord]) -> list[tuple[EidRecord, ...]]:
    """The records as parts of at most one message each; at least one part, perhaps an empty one."""
    return list(_parts(records)) or [()]


def _parts(records: Sequence[EidRecord]) -> Iterator[tuple[EidRecord, ...]]:
    part: list[EidRecord] = []
    size = _FIXED_BYTES
    for record in records:
        if part and size + record_bytes(record) > MOST_BYTES:
            yield tuple(part)
            part, size = [], _FIXED_BYTES
        part.append(record)
        size += record_bytes(record)
    if part:
        yield tuple(part)


class MoveShim(msgspec.Struct, frozen=True, gc=False):
    """The fields of a shim header (RFC 9305 §3): the packet's number within its move, or where an end marker stands."""

    move: int
    sequence: int
    epoch: int
    reserved: int = 0
