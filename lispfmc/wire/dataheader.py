"""The values of the data plane's headers: LISP (RFC 9300 §5.3), LISP-GPE and its shim headers (RFC 9305 §3)."""

from __future__ import annotations

import msgspec

from lispfmc.wire.errors import LocalError
from lispfmc.wire.ranges import fits

NONCE_PRESENT = 0x80  # N
LOCATOR_STATUS_PRESENT = 0x40  # L
ECHO_NONCE_REQUEST = 0x20  # E
MAP_VERSION_PRESENT = 0x10  # V
INSTANCE_ID_PRESENT = 0x08  # I
NEXT_PROTOCOL_PRESENT = 0x04  # P, RFC 9305 §3
KEY_ID = 0x03  # KK, RFC 8061
SHIM_UNIT = 4


class DataHeader(msgspec.Struct, frozen=True, gc=False):
    """The 8 bytes before an encapsulated packet. What is absent reads as 0, as a receiver has to treat it."""

    word: int
    instance_and_status: int

    @classmethod
    def of(
        cls,
        *,
        iid: int | None = None,
        nonce: int | None = None,
        echo_nonce_request: bool = False,
        versions: tuple[int, int] | None = None,
        locator_status: int | None = None,
        next_protocol: int | None = None,
        key_id: int = 0,
    ) -> DataHeader:
        """A header of these parts; `versions` are the source's and the destination's Map-Version."""
        flags, low = fits(key_id, 2, "KK"), 0
        if sum(one is not None for one in (nonce, versions, next_protocol)) > 1:
            raise LocalError("a data header has a nonce, Map-Versions or a next protocol, not two of them")
        if echo_nonce_request and nonce is None:
            raise LocalError("the echo-nonce bit goes with a nonce (RFC 9300 §5.3)")
        if nonce is not None:
            flags, low = flags | NONCE_PRESENT | echo_nonce_request << 5, fits(nonce, 24, "nonce")
        if versions is not None:
            source, destination = (fits(one, 12, "Map-Version") for one in versions)
            flags, low = flags | MAP_VERSION_PRESENT, source << 12 | destination
        if next_protocol is not None:
            flags, low = flags | NEXT_PROTOCOL_PRESENT, fits(next_protocol, 8, "next protocol")
        last = fits(locator_status or 0, 32 if iid is None else 8, "locator-status-bits")
        flags |= LOCATOR_STATUS_PRESENT if locator_status is not None else 0
        if iid is not None:
            flags, last = flags | INSTANCE_ID_PRESENT, fits(iid, 24, "Instance-ID") << 8 | last
        return cls(flags << 24 | low, last)

    @property
    def flags(self) -> int:
        return self.word >> 24

    @property
    def key_id(self) -> int:
        return self.word >> 24 & KEY_ID

    @property
    def nonce(self) -> int:
        """RFC 9300 §5.3: N and V together are read as a nonce; RFC 9305 §3: with P there is neither."""
        return self.word & 0xFFFFFF if self.word >> 24 & (NONCE_PRESENT | NEXT_PROTOCOL_PRESENT) == NONCE_PRESENT else 0

    @property
    def source_version(self) -> int:
        return self._versions >> 12

    @property
    def destination_version(self) -> int:
        return self._versions & 0xFFF

    @property
    def _versions(self) -> int:
        kinds = self.word >> 24 & (NONCE_PRESENT | MAP_VERSION_PRESENT | NEXT_PROTOCOL_PRESENT)
        return self.word & 0xFFFFFF if kinds == MAP_VERSION_PRESENT else 0

    @property
    def next_protocol(self) -> int:
        """0 without the P-bit: the payload is IP, and says which."""
        return self.word & 0xFF if self.word >> 24 & NEXT_PROTOCOL_PRESENT else 0

    @property
    def iid(self) -> int:
        return self.instance_and_status >> 8 if self.word >> 24 & INSTANCE_ID_PRESENT else 0

    @property
    def locator_status(self) -> int:
        if not self.word >> 24 & LOCATOR_STATUS_PRESENT:
            return 0
        return self.instance_and_status & (0xFF if self.word >> 24 & INSTANCE_ID_PRESENT else 0xFFFFFFFF)


class ShimHeader(msgspec.Struct, frozen=True, gc=False):
    """A header between the data header and the payload, next protocol 0x80 to 0xFD (RFC 9305 §3)."""

    type: int
    next_protocol: int
    fields: bytes = b""  # a multiple of 4 bytes
    reserved: int = 0

    @classmethod
    def of(cls, type: int, next_protocol: int, fields: bytes = b"") -> ShimHeader:
        if len(fields) % SHIM_UNIT:
            raise LocalError(f"the fields of a shim header are a multiple of {SHIM_UNIT} bytes, not {len(fields)}")
        fits(len(fields) // SHIM_UNIT, 8, "shim header length")
        return cls(fits(type, 8, "shim type"), fits(next_protocol, 8, "next protocol"), fields)
