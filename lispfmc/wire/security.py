"""LISP-SEC authentication data, parsed (RFC 9303 §6.1 and §6.2): what an ECM and a Map-Reply carry with the S-bit.

Values only: who signs what with which key is decided elsewhere. HMACs and keys are bytes as they stand on the wire.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lispfmc.wire.ranges import fits, fits_bytes

if TYPE_CHECKING:
    from lispfmc.wire.address import Address

OTK_PREAMBLE_BYTES = 8
OTK_BYTES = 16


class SecuredPrefix(msgspec.Struct, frozen=True, gc=False):
    """One EID-Prefix that the Map-Server vouches for."""

    reserved: int
    mask_length: int
    eid: Address


class EidProof(msgspec.Struct, frozen=True, gc=False):
    """What a Map-Server adds to the EID-AD: the prefixes, and its HMAC over the EID-AD."""

    flags: int  # E (ETR-Cant-Sign), 7 reserved
    hmac_id: int
    records: tuple[SecuredPrefix, ...]
    hmac: bytes

    @classmethod
    def of(cls, *records: SecuredPrefix, hmac_id: int, hmac: bytes, etr_cant_sign: bool = False) -> EidProof:
        fits(len(records), 8, "record count")
        fits(len(hmac), 8, "HMAC length")
        return cls(etr_cant_sign << 7, fits(hmac_id, 16, "EID HMAC ID"), records, hmac)

    @property
    def etr_cant_sign(self) -> bool:
        return bool(self.flags & 0x80)


class EidAuthentication(msgspec.Struct, frozen=True, gc=False):
    """EID-AD: an ITR sends the KDF ID alone, `proof` is there from the Map-Server on."""

    kdf_id: int
    proof: EidProof | None = None


class PacketAuthentication(msgspec.Struct, frozen=True, gc=False):
    """PKT-AD: the ETR's HMAC over the whole Map-Reply."""

    hmac_id: int
    hmac: bytes


class EcmSecurity(msgspec.Struct, frozen=True, gc=False):
    """Authentication data of an ECM (RFC 9303 §6.1)."""

    requested_hmac_id: int
    key_id: int
    otk_wrapping_id: int
    one_time_key: bytes  # the preamble (8 bytes), then the key as wrapped (16)
    eid_authentication: EidAuthentication
    reserved: int = 0

    @classmethod
    def of(
        cls,
        one_time_key: bytes,
        eid_authentication: EidAuthentication,
        *,
        requested_hmac_id: int,
        key_id: int,
        otk_wrapping_id: int,
    ) -> EcmSecurity:
        fits(requested_hmac_id, 16, "requested HMAC ID")
        fits(key_id, 8, "key ID")
        fits(otk_wrapping_id, 8, "OTK wrapping ID")
        fits_bytes(one_time_key, OTK_PREAMBLE_BYTES + OTK_BYTES, "one-time key with its preamble")
        return cls(requested_hmac_id, key_id, otk_wrapping_id, one_time_key, eid_authentication)


class MapReplySecurity(msgspec.Struct, frozen=True, gc=False):
    """Authentication data of a Map-Reply (RFC 9303 §6.2)."""

    eid_authentication: EidAuthentication
    packet_authentication: PacketAuthentication
    reserved: bytes = b"\0\0\0"
