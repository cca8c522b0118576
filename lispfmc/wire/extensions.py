"""Values of the messages beside the mapping system's own: Map-Referral (6), Info (7), Shared Extension (15)."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import msgspec

from lispfmc.wire.ranges import fits, fits_mask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lispfmc.wire.address import Address
    from lispfmc.wire.lcaf import NatTraversal
    from lispfmc.wire.messages import Locator


class ReferralAction(IntEnum):
    """ACT of a Map-Referral (RFC 8111 §6.1)."""

    NODE_REFERRAL = 0
    MS_REFERRAL = 1
    MS_ACK = 2
    MS_NOT_REGISTERED = 3
    DELEGATION_HOLE = 4
    NOT_AUTHORITATIVE = 5


class ReferralSignature(msgspec.Struct, frozen=True, gc=False):
    """A DDT node's signature over one record (RFC 8111 §6.4.1)."""

    original_ttl_minutes: int
    expiration: int  # seconds since 1970, as is inception
    inception: int
    key_tag: int
    algorithm: int
    signature: bytes
    reserved: bytes = b"\0\0\0"


class ReferralRecord(msgspec.Struct, frozen=True, gc=False):
    """One record of a Map-Referral: the locators are those of the DDT nodes to ask next (RFC 8111 §6.4)."""

    ttl_minutes: int
    mask_length: int
    flags: int  # ACT (3 bits), A, I, 11 reserved
    version_word: int  # SigCnt (derived, zero here), Map-Version (12 bits)
    eid: Address
    locators: tuple[Locator, ...] = ()
    signatures: tuple[ReferralSignature, ...] = ()

    @classmethod
    def of(
        cls,
        eid: Address,
        mask_length: int,
        locators: Sequence[Locator] = (),
        *,
        action: int,
        ttl_minutes: int,
        authoritative: bool = False,
        incomplete: bool = False,
        signatures: Sequence[ReferralSignature] = (),
    ) -> ReferralRecord:
        fits_mask(mask_length, eid)
        fits(ttl_minutes, 32, "record TTL")
        fits(len(locators), 8, "referral count")
        fits(len(signatures), 4, "signature count")
        flags = fits(action, 3, "action") << 13 | authoritative << 12 | incomplete << 11
        return cls(ttl_minutes, mask_length, flags, 0, eid, tuple(locators), tuple(signatures))

    @property
    def action(self) -> int:
        return self.flags >> 13

    @property
    def incomplete(self) -> bool:
        return bool(self.flags & 0x0800)


class MapReferral(msgspec.Struct, frozen=True, gc=False):
    """Map-Referral (RFC 8111 §6.4)."""

    word: int
    nonce: int
    records: tuple[ReferralRecord, ...]

    @classmethod
    def of(cls, *records: ReferralRecord, nonce: int) -> MapReferral:
        fits(len(records), 8, "record count")
        return cls(0x6000_0000, fits(nonce, 64, "nonce"), records)


class Info(msgspec.Struct, frozen=True, gc=False):
    """Info-Request and Info-Reply (draft-ermagan-lisp-nat-traversal): what a NAT does to our packets."""

    word: int
    nonce: int
    ttl_minutes: int
    mask_length: int
    eid: Address
    nat: Address  # None in a request, NatTraversal in a reply
    key_id: int = 0
    auth: bytes = b""
    reserved: int = 0

    @classmethod
    def request(cls, *, nonce: int, eid: Address = None, mask_length: int = 0, ttl_minutes: int = 0) -> Info:
        fits_mask(mask_length, eid)
        fits(ttl_minutes, 32, "TTL")
        return cls(0x7000_0000, fits(nonce, 64, "nonce"), ttl_minutes, mask_length, eid, None)

    @classmethod
    def answering(cls, request: Info, nat: NatTraversal, *, ttl_minutes: int) -> Info:
        """The reply to `request`, with what was seen of its sender."""
        fits(ttl_minutes, 32, "TTL")
        return cls(0x7800_0000, request.nonce, ttl_minutes, request.mask_length, request.eid, nat)

    @property
    def reply(self) -> bool:
        return bool(self.word & 0x0800_0000)


class SharedExtension(msgspec.Struct, frozen=True, gc=False):
    """The one message type that extensions share (RFC 9304 §3)."""

    word: int  # type, sub-type (12 bits), 16 bits of the extension's own
    body: bytes

    @classmethod
    def of(cls, sub_type: int, body: bytes, *, specific: int = 0) -> SharedExtension:
        word = 0xF000_0000 | fits(sub_type, 12, "sub-type") << 16 | fits(specific, 16, "extension-specific")
        return cls(word, body)

    @property
    def sub_type(self) -> int:
        return self.word >> 16 & 0xFFF

    @property
    def specific(self) -> int:
        return self.word & 0xFFFF
