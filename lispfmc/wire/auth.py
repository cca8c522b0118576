"""Authentication data of Map-Register, Map-Notify and Map-Notify-Ack (RFC 9301 §5.6)."""

from __future__ import annotations

from enum import IntEnum

import msgspec


class Algorithm(IntEnum):
    """Algorithm IDs (RFC 9301 §12.5)."""

    NONE = 0
    HMAC_SHA_1_96 = 1
    HMAC_SHA_256_128 = 2


class Key(msgspec.Struct, frozen=True, gc=False):
    """A secret shared by two parties, and the id under which both know it."""

    id: int
    secret: bytes
    algorithm: Algorithm = Algorithm.HMAC_SHA_256_128
