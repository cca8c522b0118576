"""Bit words: the flag fields of `formats` as one integer in the values, as named bits beside the RFC."""

from __future__ import annotations

from typing import Any

from lispfmc.wire import formats
from lispfmc.wire.errors import LocalError

ITR_RLOC_COUNT = 0x1F00  # IRC within the first word of a Map-Request: derived, hence zero in the values


class BitWord:
    """One BitStruct of `formats`: the named bits of a word, most significant first."""

    def __init__(self, declared: Any) -> None:
        parts = declared.subcon.subcon.subcons  # Renamed -> Transformed -> Struct of bits
        sizes = [(part.name, part.sizeof()) for part in parts]
        self.size: int = sum(size for _, size in sizes)
        self.fields: list[tuple[str, int, int]] = []  # name, shift, mask
        shift = self.size
        for name, size in sizes:
            shift -= size
            self.fields.append((name, shift, (1 << size) - 1))

    def joined(self, bits: Any) -> int:
        """The word of the parsed bits."""
        word = 0
        for name, shift, _ in self.fields:
            word |= bits[name] << shift
        return word

    def split(self, word: int) -> dict[str, int]:
        """The named bits of a word. Raises LocalError when it has more bits than its field."""
        if not 0 <= word < 1 << self.size:
            raise LocalError(f"flags {word:#x} do not fit {self.size} bits")
        return {name: word >> shift & mask for name, shift, mask in self.fields}


FIRST_WORD = {kind: BitWord(declared.word) for kind, declared in formats.MESSAGES.items()}
LOCATOR_FLAGS = BitWord(formats.Locator.flags)
RECORD_FLAGS = BitWord(formats.EidRecord.flags)
RECORD_VERSION = BitWord(formats.EidRecord.version_word)
REQUEST_FLAGS = BitWord(formats.RequestRecord.flags)


def without_count(word: int) -> int:
    """The 24 bits of a first word before its record count. Raises LocalError when the count is not left zero."""
    if word & 0xFF:
        raise LocalError("the record count is derived; leave its bits zero")
    return word >> 8
