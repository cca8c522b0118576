"""Bit words: a BitStruct of `formats` as the one integer that the values hold, and its named bits.

A word of 24 bits shares its 32 with the record count that follows it; that count, and every bit that the declaration
derives, is zero in the values.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import construct as c

COUNT_BITS = 8


class Bits(NamedTuple):
    """Some bits of a word."""

    name: str
    shift: int
    width: int
    const: int | None  # their only value
    derived: Any  # the expression that gives them when building

    @property
    def mask(self) -> int:
        return (1 << self.width) - 1


def bare(declared: Any) -> Any:
    """The construct behind a name."""
    while isinstance(declared, c.Renamed):
        declared = declared.subcon
    return declared


def is_word(declared: Any) -> bool:
    inside = bare(declared)
    return isinstance(inside, c.Transformed | c.Restreamed) and isinstance(bare(inside.subcon), c.Struct)


class BitWord:
    """One BitStruct of `formats`: its named bits, most significant first."""

    def __init__(self, declared: Any) -> None:
        parts = bare(bare(declared).subcon).subcons
        size = sum(part.sizeof() for part in parts)
        shift = self.size = size + COUNT_BITS if size == 24 else size
        self.fields: list[Bits] = []
        for part in parts:
            inside, const, derived = bare(part), None, None
            if isinstance(inside, c.Const):
                inside, const = bare(inside.subcon), inside.value
            elif isinstance(inside, c.Rebuild):
                inside, derived = bare(inside.subcon), inside.func
            if not isinstance(inside, c.BitsInteger) or inside.signed or inside.swapped:
                raise NotImplementedError(f"{part.name} in a bit word is {type(inside).__name__}, not plain bits")
            width = inside.length
            shift -= width
            self.fields.append(Bits(part.name, shift, width, const, derived))

    @property
    def counted(self) -> bool:
        """True when the last bits are those of a record count."""
        return self.fields[-1].shift == COUNT_BITS

    @property
    def kept(self) -> int:
        """The bits that a value has: all but those derived."""
        derived: int = sum(one.mask << one.shift for one in self.fields if one.derived is not None)
        kept: int = (1 << self.size) - 1 & ~derived & ~(0xFF if self.counted else 0)
        return kept

    def count_after(self, subcons: list[Any], index: int) -> Any:
        """The declaration of the count that shares this word's bytes."""
        count = subcons[index + 1]
        if not isinstance(bare(count), c.Rebuild) or bare(bare(count).subcon) is not c.Int8ub:
            raise NotImplementedError(f"{count.name} after {subcons[index].name} is no derived count of 8 bits")
        return count


FORMATS = {8: "B", 16: "H", 32: "I"}
"""The struct format of a word by its size."""


def plain_size(case: Any) -> int:
    """The bytes of a Switch's case that is nothing but bytes of a fixed length, maybe after a Check; else 0."""
    case = bare(case)
    if isinstance(case, c.FocusedSeq):
        case = bare(case.subcons[-1])
    return case.length if isinstance(case, c.Bytes) and isinstance(case.length, int) else 0


def has_rare(switch: Any) -> bool:
    """True for an address that may be more than an IP address or nothing."""
    return any(not plain_size(case) and not isinstance(bare(case), c.Bytes) for case in switch.cases.values())


def masked_plain(case: Any) -> list[Any]:
    """The Checks of such a case."""
    case = bare(case)
    checks = [bare(one) for one in case.subcons[:-1]] if isinstance(case, c.FocusedSeq) else []
    if not all(isinstance(one, c.Check) for one in checks):
        raise NotImplementedError(f"{case} has more than Checks before its bytes")
    return checks


def address_tags(declared: Any) -> set[str]:
    """The fields of a Struct that only say which case of a Switch follows, or which body: its value says it too."""
    keys = set()
    for one in declared.subcons:
        inside = bare(one)
        if isinstance(inside, c.Prefixed):
            inside = bare(inside.subcon)
        if isinstance(inside, c.Switch):
            keys.add(repr(inside.keyfunc))
    return {one.name for one in declared.subcons if keys and f"this['{one.name}']" in keys}
