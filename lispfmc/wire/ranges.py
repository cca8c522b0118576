"""What a builder refuses before anything is put on the wire: LocalError, with the field and its width."""

from __future__ import annotations

from lispfmc.wire.errors import LocalError


def fits(value: int, bits: int, field: str) -> int:
    """`value`, when it is an unsigned number of at most `bits` bits."""
    if not 0 <= value < 1 << bits:
        raise LocalError(f"{field} = {value} does not fit {bits} bits")
    return value


def fits_bytes(value: bytes, size: int, field: str) -> bytes:
    """`value`, when it has exactly `size` bytes."""
    if len(value) != size:
        raise LocalError(f"{field} has {size} bytes, not {len(value)}")
    return value


def fits_address(address: object) -> None:
    """An IP address in an address field has 4 or 16 bytes; no address is None."""
    if isinstance(address, bytes) and len(address) not in (4, 16):
        raise LocalError(f"an IP address has 4 or 16 bytes, not {len(address)}; no address is None")


def fits_mask(mask_length: int, address: object) -> None:
    """A mask length is at most the bits of its IP address."""
    fits(mask_length, 8, "mask length")
    if isinstance(address, bytes) and mask_length > len(address) * 8:
        raise LocalError(f"mask length {mask_length} is more than the address's {len(address) * 8} bits")
