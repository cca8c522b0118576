"""The order of map-versions (RFC 9302 §6): 12 bits that wrap around, and 0 for none."""

from __future__ import annotations

_VALUES = 4096
_HALF = 2048


def newer(version: int, than: int) -> bool:
    """Whether map-version `version` comes after `than`; any version comes after none."""
    if version == 0 or than == 0:
        return version > than
    distance = (version - than) % _VALUES
    # RFC 9302 §6: of two versions that are half the circle apart, the greater number is the newer
    return 0 < distance < _HALF or (distance == _HALF and version > than)


def next_version(version: int) -> int:
    """The map-version after this one; 0 is left out, as it means "none" (RFC 9302 §6)."""
    return version % (_VALUES - 1) + 1
