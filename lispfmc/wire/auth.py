"""Authentication data of Map-Register, Map-Notify and Map-Notify-Ack (RFC 9301 §5.6).

`sign` gives a datagram with its tag, `verify` says whether a received one was made with the key. The tag covers the
whole message, xTR-ID and Site-ID included: read by the letter the RFC stops at the last RLOC-record, which would let
anyone move a message to another xTR's replay counter; deployed systems cover everything.
"""

from __future__ import annotations

import hashlib
import hmac
from enum import IntEnum
from functools import lru_cache

import msgspec

from lispfmc.wire.encoding import encode
from lispfmc.wire.errors import LocalError
from lispfmc.wire.messages import Signed

AUTH_OFFSET = 16  # word (4), nonce (8), key id, algorithm id, length (2): the same in all three messages
_BLOCK_BYTES = 64  # of SHA-1 and SHA-256
_MAX_KEYS = 1024  # keys come from configuration; the bound only keeps a test or a reload from growing the cache


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

    def __repr__(self) -> str:
        return f"Key(id={self.id}, algorithm={self.algorithm.name})"  # the secret stays out of logs and tracebacks


# The length that we send, then those that we take: the RFC's, and the whole hash that OOR and lispers.net send.
_TAG_BYTES = {Algorithm.HMAC_SHA_1_96: (12, 20), Algorithm.HMAC_SHA_256_128: (16, 32)}


def sign(message: Signed, key: Key) -> bytes:
    """The datagram of `message` with key id, algorithm and tag filled in. Raises LocalError for a key that cannot."""
    if key.algorithm not in _TAG_BYTES:
        raise LocalError(f"key {key.id} has algorithm {key.algorithm.name}, which authenticates nothing")
    size = _TAG_BYTES[key.algorithm][0]
    blank = bytes(size)
    unsigned = msgspec.structs.replace(message, key_id=key.id, algorithm_id=int(key.algorithm), auth=blank)
    datagram = encode(unsigned)
    tag = _tag(key, datagram)[:size]
    return datagram[:AUTH_OFFSET] + tag + datagram[AUTH_OFFSET + size :]


def verify(message: Signed, datagram: bytes, key: Key) -> bool:
    """True when `datagram`, which decoded to `message`, carries a tag made with `key` over the whole of it.

    The key says the algorithm: a message that names another one is refused, so that nobody can choose a weaker one.
    """
    if message.key_id != key.id or message.algorithm_id != key.algorithm:
        return False
    size = len(message.auth)
    if size not in _TAG_BYTES.get(key.algorithm, ()):
        return False
    blank = datagram[:AUTH_OFFSET] + bytes(size) + datagram[AUTH_OFFSET + size :]
    return hmac.compare_digest(_tag(key, blank)[:size], message.auth)


def _tag(key: Key, data: bytes) -> bytes:
    inner, outer = _pads(key.secret, key.algorithm)
    inner = inner.copy()
    inner.update(data)
    outer = outer.copy()
    outer.update(inner.digest())
    return outer.digest()


@lru_cache(maxsize=_MAX_KEYS)
def _pads(secret: bytes, algorithm: Algorithm) -> tuple[hashlib._Hash, hashlib._Hash]:
    """HMAC's two hash states after the key (RFC 2104 §4): a copy of them costs a third of a fresh HMAC."""
    new = hashlib.sha256 if algorithm == Algorithm.HMAC_SHA_256_128 else hashlib.sha1
    key = new(secret).digest() if len(secret) > _BLOCK_BYTES else secret
    key = key.ljust(_BLOCK_BYTES, b"\0")
    return new(bytes(byte ^ 0x36 for byte in key)), new(bytes(byte ^ 0x5C for byte in key))
