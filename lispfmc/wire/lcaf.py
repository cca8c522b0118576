"""What an address field can hold beside an IP address: names, MAC addresses and LISP Canonical Addresses (RFC 8060).

Every LCAF carries `reserved` (Rsvd1 and Flags) and `reserved2` (Rsvd2) as they came, so that encoding is lossless;
Instance-ID addresses and LCAFs that we do not interpret are in `address`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lispfmc.wire.errors import LocalError
from lispfmc.wire.ranges import fits, fits_address, fits_bytes, fits_mask

if TYPE_CHECKING:
    from lispfmc.wire.address import Address


class DistinguishedName(msgspec.Struct, frozen=True, gc=False):
    """AFI 17: a name, without the zero byte that ends it on the wire (RFC 8060 §4.10.3)."""

    name: bytes

    @classmethod
    def of(cls, text: str) -> DistinguishedName:
        if not text.isascii() or "\0" in text:
            raise LocalError(f"{text!r} is no ASCII name without zero bytes")
        return cls(text.encode())


class MacAddress(msgspec.Struct, frozen=True, gc=False):
    """AFI 16389: a 48-bit MAC address."""

    octets: bytes

    @classmethod
    def of(cls, octets: bytes) -> MacAddress:
        return cls(fits_bytes(octets, 6, "MAC address"))


class AfiList(msgspec.Struct, frozen=True, gc=False):
    """LCAF type 1: addresses of any families, in no order that means anything (RFC 8060 §4.10)."""

    addresses: tuple[Address, ...]
    reserved: int = 0
    reserved2: int = 0

    @classmethod
    def of(cls, *addresses: Address) -> AfiList:
        for one in addresses:
            fits_address(one)
        return cls(addresses)


class NatTraversal(msgspec.Struct, frozen=True, gc=False):
    """LCAF type 7: how a NAT changed a packet, and the RTRs that help through it (RFC 8060 §4.4)."""

    ms_port: int
    etr_port: int
    global_etr_rloc: Address
    ms_rloc: Address
    private_etr_rloc: Address
    rtr_rlocs: tuple[Address, ...] = ()
    reserved: int = 0
    reserved2: int = 0

    @classmethod
    def of(
        cls,
        *rtr_rlocs: Address,
        etr_port: int,
        global_etr_rloc: Address,
        ms_rloc: Address,
        private_etr_rloc: Address = None,
        ms_port: int = 4342,
    ) -> NatTraversal:
        fits(ms_port, 16, "MS UDP port")
        fits(etr_port, 16, "ETR UDP port")
        for one in (global_etr_rloc, ms_rloc, private_etr_rloc, *rtr_rlocs):
            fits_address(one)
        return cls(ms_port, etr_port, global_etr_rloc, ms_rloc, private_etr_rloc, rtr_rlocs)


class Hop(msgspec.Struct, frozen=True, gc=False):
    """One re-encapsulating hop of a path (RFC 8060 §4.6)."""

    flags: int  # 13 reserved, L, P, S
    address: Address

    @classmethod
    def of(cls, address: Address, *, lookup: bool = False, probe: bool = False, strict: bool = False) -> Hop:
        fits_address(address)
        return cls(lookup << 2 | probe << 1 | strict, address)

    @property
    def lookup(self) -> bool:
        return bool(self.flags & 4)

    @property
    def probe(self) -> bool:
        return bool(self.flags & 2)

    @property
    def strict(self) -> bool:
        return bool(self.flags & 1)


class LocatorPath(msgspec.Struct, frozen=True, gc=False):
    """LCAF type 10: an Explicit Locator Path (RFC 8060 §4.6)."""

    hops: tuple[Hop, ...]
    reserved: int = 0
    reserved2: int = 0

    @classmethod
    def of(cls, *hops: Hop) -> LocatorPath:
        return cls(hops)


class SourceDestination(msgspec.Struct, frozen=True, gc=False):
    """LCAF type 12: a source prefix and a destination prefix as one look-up key (RFC 8060 §4.8)."""

    source_mask_length: int
    destination_mask_length: int
    source: Address
    destination: Address
    reserved3: int = 0
    reserved: int = 0
    reserved2: int = 0

    @classmethod
    def of(
        cls, source: Address, destination: Address, *, source_mask_length: int, destination_mask_length: int
    ) -> SourceDestination:
        for address, mask_length in ((source, source_mask_length), (destination, destination_mask_length)):
            fits_address(address)
            fits_mask(mask_length, address)
        return cls(source_mask_length, destination_mask_length, source, destination)


class ReplicationEntry(msgspec.Struct, frozen=True, gc=False):
    """One RTR or ETR to replicate to (RFC 8060 §4.9)."""

    level_word: int  # 24 reserved, level (8 bits)
    address: Address

    @classmethod
    def of(cls, address: Address, *, level: int) -> ReplicationEntry:
        fits_address(address)
        return cls(fits(level, 8, "level"), address)

    @property
    def level(self) -> int:
        return self.level_word & 0xFF


class ReplicationList(msgspec.Struct, frozen=True, gc=False):
    """LCAF type 13: locators that each get a copy, by their level in the distribution tree (RFC 8060 §4.9)."""

    entries: tuple[ReplicationEntry, ...]
    reserved: int = 0
    reserved2: int = 0

    @classmethod
    def of(cls, *entries: ReplicationEntry) -> ReplicationList:
        return cls(entries)


class JsonAddress(msgspec.Struct, frozen=True, gc=False):
    """LCAF type 14: JSON beside an address (RFC 8060 §5.4)."""

    json: bytes
    address: Address
    reserved: int = 0
    reserved2: int = 0  # the low bit says that the JSON is binary

    @classmethod
    def of(cls, json: bytes, address: Address = None, *, binary: bool = False) -> JsonAddress:
        fits(len(json), 16, "JSON length")
        fits_address(address)
        return cls(json, address, 0, int(binary))

    @property
    def binary(self) -> bool:
        return bool(self.reserved2 & 1)


class KeyValue(msgspec.Struct, frozen=True, gc=False):
    """LCAF type 15: an address as a key, another as its value (RFC 8060 §5.5)."""

    key: Address
    value: Address
    reserved: int = 0
    reserved2: int = 0

    @classmethod
    def of(cls, key: Address, value: Address) -> KeyValue:
        fits_address(key)
        fits_address(value)
        return cls(key, value)


class VendorAddress(msgspec.Struct, frozen=True, gc=False):
    """LCAF type 255: a vendor's own format, of an OUI that we know (RFC 9306 §4)."""

    vendor: int  # 8 reserved, OUI (24 bits)
    body: bytes
    reserved: int = 0
    reserved2: int = 0

    @classmethod
    def of(cls, oui: int, body: bytes) -> VendorAddress:
        fits(4 + len(body), 16, "vendor LCAF length")
        return cls(fits(oui, 24, "OUI"), body)

    @property
    def oui(self) -> int:
        return self.vendor & 0xFFFFFF
