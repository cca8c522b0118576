"""Authentication data of Map-Register, Map-Notify and Map-Notify-Ack (RFC 9301 §5.6).

`sign` gives a datagram with its tag, `verify` says whether a received one was made with the key. Read by the letter,
the RFC's tag stops at the last RLOC-record, which would let anyone move a message to another xTR's replay counter;
deployed systems cover everything. We send the latter unless the key says otherwise, and take both.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from enum import IntEnum
from functools import cached_property
from hashlib import sha1, sha256
from struct import Struct
from typing import Any, Literal, TypeAlias

import msgspec

from lispfmc.wire.encoding import encode
from lispfmc.wire.messages import SITE_ID_BYTES, XTR_ID_BYTES, Signed
from lispfmc.wire.moves import MoveMessage

AUTH_OFFSET = 16  # word (4), nonce (8), key id, algorithm id, length (2): the same in all three messages
_NONCE = slice(4, 12)
_HEAD = Struct(">I8sBBH").pack
_XTR_ID_PRESENT = 0x0200_0000  # the I-bit
_TRAILER_BYTES = XTR_ID_BYTES + SITE_ID_BYTES
_BLOCK_BYTES = 64  # of SHA-1 and SHA-256
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))

Mac: TypeAlias = Callable[[bytes], bytes]
"""Bytes to their untruncated tag, under a key that it knows."""

AuthCompat: TypeAlias = Literal["rfc", "whole-16", "full-length"]
"""How the peer wants to be spoken to. "rfc": the tag covers what RFC 9301 §5.6 says, to the last record. "whole-16":
it covers the whole message. Both are cut as the algorithm says (12 or 16 bytes); "full-length" is "whole-16" uncut."""


class Algorithm(IntEnum):
    """Algorithm IDs (RFC 9301 §12.5)."""

    NONE = 0
    HMAC_SHA_1_96 = 1
    HMAC_SHA_256_128 = 2
    HMAC_SHA_256_128_HKDF = 3


# The RFC's length, then the whole hash that deployed systems send: we take either.
_TAG_BYTES = {
    Algorithm.NONE: (0, 0),
    Algorithm.HMAC_SHA_1_96: (12, 20),
    Algorithm.HMAC_SHA_256_128: (16, 32),
    Algorithm.HMAC_SHA_256_128_HKDF: (16, 32),
}


class Key(msgspec.Struct, frozen=True, dict=True):
    """A secret shared by two parties, the id under which both know it, and how it is used.

    Algorithm NONE means that anybody may speak: it never comes about unless a key says so.
    """

    id: int
    secret: bytes
    algorithm: Algorithm = Algorithm.HMAC_SHA_256_128
    compat: AuthCompat = "whole-16"

    @cached_property
    def tagging(self) -> tuple[Mac, tuple[int, int]]:
        """What tags a datagram whose authentication data is zero, and the lengths that a tag may have.

        Kept with the key, since most of an HMAC's time goes into taking in the key.
        """
        match self.algorithm:
            case Algorithm.NONE:
                mac: Mac = _nothing
            case Algorithm.HMAC_SHA_1_96:
                mac = _hmac(sha1, self.secret)
            case Algorithm.HMAC_SHA_256_128:
                mac = _hmac(sha256, self.secret)
            case Algorithm.HMAC_SHA_256_128_HKDF:
                mac = _hkdf_then_hmac(self.secret)
        return mac, _TAG_BYTES[self.algorithm]

    def __repr__(self) -> str:
        # the secret stays out of logs and tracebacks
        return f"Key(id={self.id}, algorithm={self.algorithm.name}, compat={self.compat!r})"


def sign(message: Signed, key: Key) -> bytes:
    """The datagram of `message` with key id, algorithm and tag filled in. Raises LocalError when it has no encoding."""
    mac, lengths = key.tagging
    size = lengths[key.compat == "full-length"]
    filled = msgspec.structs.replace(message, key_id=key.id, algorithm_id=int(key.algorithm), auth=bytes(size))
    datagram = encode(filled)
    tag = mac(datagram[: _last_record_end(message, datagram)] if key.compat == "rfc" else datagram)
    return datagram[:AUTH_OFFSET] + tag[:size] + datagram[AUTH_OFFSET + size :]


def verify(message: Signed, datagram: bytes, key: Key) -> bool:
    """True when `datagram`, which decoded to `message`, carries a tag made with `key`, of either coverage and length.

    The key says the algorithm: a message that names another one is refused, so that nobody can choose a weaker one.
    """
    if message.key_id != key.id or message.algorithm_id != key.algorithm:
        return False
    tag = message.auth
    size = len(tag)
    mac, lengths = key.tagging
    if size not in lengths:
        return False
    blank = datagram[:AUTH_OFFSET] + bytes(size) + datagram[AUTH_OFFSET + size :]
    if hmac.compare_digest(mac(blank)[:size], tag):
        return True
    end = _last_record_end(message, blank)
    return end < len(blank) and hmac.compare_digest(mac(blank[:end])[:size], tag)


def authentic(datagram: bytes, key: Key) -> bool:
    """`verify` for a datagram that nobody has decoded: True only if its tag covers the whole of it."""
    size = datagram[14] << 8 | datagram[15]
    mac, lengths = key.tagging
    if datagram[12] != key.id or datagram[13] != key.algorithm or size not in lengths:
        return False
    end = AUTH_OFFSET + size
    tag = mac(datagram[:AUTH_OFFSET] + bytes(size) + datagram[end:])
    return hmac.compare_digest(tag[:size], datagram[AUTH_OFFSET:end])


def tagged(word: int, nonce: bytes, records: bytes, key: Key) -> bytes:
    """`sign` for a message whose records are bytes already, and which has neither xTR-ID nor Site-ID."""
    mac, lengths = key.tagging
    size = lengths[key.compat == "full-length"]
    head = _HEAD(word, nonce, key.id, key.algorithm, size)
    return head + mac(head + bytes(size) + records)[:size] + records


def _last_record_end(message: Signed, datagram: bytes) -> int:
    """Where RFC 9301 §5.6 stops: before xTR-ID and Site-ID.

    Only the I-bit, which the tag covers, says that they are there. A trailer without the bit counts as part of what is
    covered: otherwise anybody could append one.
    """
    if isinstance(message, MoveMessage):  # no RFC speaks of it: its tag covers it whole
        return len(datagram)
    return len(datagram) - (_TRAILER_BYTES if message.word & _XTR_ID_PRESENT else 0)


def _nothing(_data: bytes) -> bytes:
    return b""


def _hmac(new: Callable[[bytes], Any], secret: bytes) -> Mac:
    """HMAC with both pads taken in (RFC 2104 §4): copies of the hash states cost a third of a fresh HMAC."""
    secret = (new(secret).digest() if len(secret) > _BLOCK_BYTES else secret).ljust(_BLOCK_BYTES, b"\0")
    copy_inner, copy_outer = new(secret.translate(_INNER_PAD)).copy, new(secret.translate(_OUTER_PAD)).copy

    def mac(data: bytes) -> bytes:
        inner = copy_inner()
        inner.update(data)
        outer = copy_outer()
        outer.update(inner.digest())
        digest: bytes = outer.digest()
        return digest

    return mac


# RFC 9301 §5.6, §5.7: the salt, by message type; that of our own extension is our own.
_EXTRACT = {
    number: _hmac(sha256, f"{name} Authentication".encode())
    for number, name in ((3, "Map-Register"), (4, "Map-Notify"), (5, "Map-Notify-Ack"), (15, "Move"))
}


def _hkdf_then_hmac(secret: bytes) -> Mac:
    """RFC 9301 §5.6: the key of a message is the KDF of its nonce and the secret, salted with the message's name.

    The RFC leaves open what HKDF's `info` and length are (RFC 5869): empty, and the 32 bytes of an HMAC-SHA256 key.
    """

    def mac(data: bytes) -> bytes:
        pseudorandom = _EXTRACT[data[0] >> 4](data[_NONCE] + secret)
        message_key = hmac.digest(pseudorandom, b"\x01", "sha256")  # RFC 5869 §2.3: T(1) is all of 32 bytes
        return hmac.digest(message_key, data, "sha256")

    return mac
