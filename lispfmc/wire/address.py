"""Addresses and prefixes as values.

An `Ip` is the packed form: 4 bytes of IPv4 or 16 of IPv6; its length is its family. An `Address` is whatever a LISP
address field can hold: nothing (AFI 0), an `Ip`, or a LISP Canonical Address (RFC 8060). A `Prefix` is an EID-Prefix
within its Instance-ID: the key of every table.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TypeAlias

import msgspec

from lispfmc.wire.errors import LocalError
from lispfmc.wire.lcaf import (
    AfiList,
    DistinguishedName,
    JsonAddress,
    KeyValue,
    LocatorPath,
    MacAddress,
    NatTraversal,
    ReplicationList,
    SourceDestination,
    VendorAddress,
)

Ip: TypeAlias = bytes
"""Packed IPv4 (4 bytes) or IPv6 (16 bytes) address."""


class InstanceAddress(msgspec.Struct, frozen=True, gc=False):
    """LCAF type 2: an address inside an Instance-ID (RFC 8060 §4.1)."""

    iid: int
    ip: Ip | None
    iid_mask_length: int = 0
    reserved: int = 0  # Rsvd1 and Flags octets, kept so that encode(decode(b)) == b


class OpaqueLcaf(msgspec.Struct, frozen=True, gc=False):
    """An LCAF whose type we do not interpret; the receiver ignores it in a locator (RFC 9306 §3)."""

    lcaf_type: int
    body: bytes
    reserved: int = 0  # Rsvd1 and Flags octets
    reserved2: int = 0


Address: TypeAlias = (
    Ip
    | InstanceAddress
    | DistinguishedName
    | MacAddress
    | AfiList
    | NatTraversal
    | LocatorPath
    | SourceDestination
    | ReplicationList
    | JsonAddress
    | KeyValue
    | VendorAddress
    | OpaqueLcaf
    | None
)
"""What an AFI-tagged address field holds; None is AFI 0."""


class Prefix(msgspec.Struct, frozen=True, gc=False, order=True):
    """An EID-Prefix within an Instance-ID. Bits beyond `length` are zero (`Prefix.of` sees to it)."""

    iid: int
    ip: Ip
    length: int

    @classmethod
    def of(cls, ip: Ip, length: int, iid: int = 0) -> Prefix:
        """The prefix that covers `ip`, host bits cleared. Raises LocalError for a length beyond the family's."""
        bits = len(ip) * 8
        if length == bits:
            return cls(iid, ip, length)
        if not 0 <= length <= bits:
            raise LocalError(f"prefix length {length} is outside 0..{bits}")
        return cls(iid, masked(ip, length), length)

    @classmethod
    def host(cls, ip: Ip, iid: int = 0) -> Prefix:
        """The /32 or /128 of one address."""
        return cls(iid, ip, len(ip) * 8)

    @classmethod
    def parse(cls, text: str, iid: int = 0) -> Prefix:
        """Read "10.1.0.0/24", "fd00::5" or "[7]10.1.0.0/24". Raises LocalError when it is no prefix."""
        rest = text.strip()
        if rest.startswith("["):
            inside, _, rest = rest[1:].partition("]")
            if not inside.isdigit() or int(inside) > 0xFFFFFFFF:
                raise LocalError(f"{text!r}: the Instance-ID in brackets is not a number below 2^32")
            iid = int(inside)
        try:
            network = ipaddress.ip_network(rest, strict=True)
        except ValueError as error:
            raise LocalError(f"{text!r} is not an IP prefix: {error}") from error
        return cls(iid, network.network_address.packed, network.prefixlen)

    @property
    def is_host(self) -> bool:
        return self.length == len(self.ip) * 8

    def covers(self, other: Prefix) -> bool:
        """True when `other` lies within this prefix (a prefix covers itself)."""
        return (
            self.iid == other.iid
            and len(self.ip) == len(other.ip)
            and self.length <= other.length
            and masked(other.ip, self.length) == self.ip
        )

    def contains(self, ip: Ip) -> bool:
        """True when the address lies within this prefix; the Instance-ID is the caller's business."""
        return len(self.ip) == len(ip) and masked(ip, self.length) == self.ip

    def __str__(self) -> str:
        text = f"{ip_text(self.ip)}/{self.length}"
        return f"[{self.iid}]{text}" if self.iid else text


class Endpoint(msgspec.Struct, frozen=True, gc=False, order=True):
    """One side of a UDP exchange: an address and a port."""

    ip: Ip
    port: int

    def __str__(self) -> str:
        text = ip_text(self.ip)
        return f"[{text}]:{self.port}" if len(self.ip) == 16 else f"{text}:{self.port}"


@lru_cache(maxsize=4096)
def ip_text(ip: Ip) -> str:
    """The usual text form. Raises LocalError when `ip` is neither 4 nor 16 bytes long."""
    if len(ip) == 4:
        return str(ipaddress.IPv4Address(ip))
    if len(ip) == 16:
        return str(ipaddress.IPv6Address(ip))
    raise LocalError(f"an IP address has 4 or 16 bytes, not {len(ip)}")


@lru_cache(maxsize=4096)
def ip_of(text: str) -> Ip:
    """Parse the text form. Raises LocalError when it is no IP address."""
    try:
        return ipaddress.ip_address(text).packed
    except ValueError as error:
        raise LocalError(f"{text!r} is not an IP address") from error


_MASKS = {bits: tuple(((1 << length) - 1) << (bits - length) for length in range(bits + 1)) for bits in (32, 128)}


def masked(ip: Ip, length: int) -> Ip:
    """`ip` with the bits beyond `length` cleared."""
    size = len(ip)
    return (int.from_bytes(ip, "big") & _MASKS[size * 8][length]).to_bytes(size, "big")
