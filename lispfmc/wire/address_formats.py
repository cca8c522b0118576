"""What an AFI-tagged address field can hold, declared in construct: plain addresses, names and LCAFs (RFC 8060).

Two tables come out of it for `formats`: `ADDRESSES` for locators, `EIDS` for EIDs, which have a mask length beside
them. The conventions are those of `formats`.
"""

from __future__ import annotations

from typing import Any

from construct import (
    Bit,
    BitsInteger,
    BitStruct,
    Bytes,
    Check,
    Error,
    FocusedSeq,
    GreedyBytes,
    GreedyRange,
    Int8ub,
    Int16ub,
    Int32ub,
    NullTerminated,
    Prefixed,
    Struct,
    Switch,
    Terminated,
    this,
)

AFI_NONE, AFI_IPV4, AFI_IPV6, AFI_NAME, AFI_LCAF, AFI_MAC = 0, 1, 2, 17, 16387, 16389
LCAF_AFI_LIST, LCAF_INSTANCE_ID, LCAF_NAT, LCAF_PATH, LCAF_SOURCE_DEST = 1, 2, 7, 10, 12
LCAF_REPLICATION, LCAF_JSON, LCAF_KEY_VALUE, LCAF_VENDOR = 13, 14, 15, 255

IPS = {AFI_NONE: Bytes(0), AFI_IPV4: Bytes(4), AFI_IPV6: Bytes(16)}


def masked_ips(mask_length: Any) -> dict[int, Any]:
    """The same for an EID whose mask length, found at `mask_length`, may not exceed its family's (RFC 9301 §5.4)."""

    def of(size: int) -> Any:
        return FocusedSeq("ip", "mask_length_fits" / Check(mask_length <= size * 8), "ip" / Bytes(size))

    return {AFI_NONE: Bytes(0), AFI_IPV4: of(4), AFI_IPV6: of(16)}


# RFC 8060 §4.10.3: an ASCII name; deployed code ends it with a zero byte.
Name = Struct("name" / NullTerminated(GreedyBytes))
Mac = Struct("octets" / Bytes(6))
NAMES = {AFI_NAME: Name, AFI_MAC: Mac}

# RFC 9306 §4: an LCAF with an OUI that we do not understand costs the whole message. The OUI here is the IANA's own,
# part of which RFC 9542 §2.1.1 sets aside for documentation: no vendor's format is known to us yet.
OUI_IANA = 0x00005E
VENDORS = {OUI_IANA: GreedyBytes}


def instance(ips: dict[int, Any]) -> Any:
    """RFC 8060 §4.1. Nothing but a plain address stands inside an Instance-ID here; Rsvd2 is the IID mask-len."""
    return Struct("iid" / Int32ub, "ip_afi" / Int16ub, "ip" / Switch(this.ip_afi, ips, default=Error), Terminated)


def bodies(inner: dict[int, Any]) -> dict[int, Any]:
    """What follows the Length of each LCAF type, with what may stand in its address fields."""
    address = Struct("address_afi" / Int16ub, "address" / Switch(this.address_afi, inner, default=Error))
    return {
        LCAF_INSTANCE_ID: instance(IPS),
        # RFC 8060 §4.10
        LCAF_AFI_LIST: Struct("addresses" / GreedyRange(address), Terminated),
        # RFC 8060 §4.4
        LCAF_NAT: Struct(
            "ms_port" / Int16ub,
            "etr_port" / Int16ub,
            "global_etr_rloc_afi" / Int16ub,
            "global_etr_rloc" / Switch(this.global_etr_rloc_afi, inner, default=Error),
            "ms_rloc_afi" / Int16ub,
            "ms_rloc" / Switch(this.ms_rloc_afi, inner, default=Error),
            "private_etr_rloc_afi" / Int16ub,
            "private_etr_rloc" / Switch(this.private_etr_rloc_afi, inner, default=Error),
            "rtr_rlocs" / GreedyRange(address),
            Terminated,
        ),
        # RFC 8060 §4.6
        LCAF_PATH: Struct("hops" / GreedyRange(hop(inner)), Terminated),
        # RFC 8060 §4.8
        LCAF_SOURCE_DEST: Struct(
            "reserved3" / Int16ub,
            "source_mask_length" / Int8ub,
            "destination_mask_length" / Int8ub,
            "source_afi" / Int16ub,
            "source" / Switch(this.source_afi, inner, default=Error),
            "destination_afi" / Int16ub,
            "destination" / Switch(this.destination_afi, inner, default=Error),
            Terminated,
        ),
        # RFC 8060 §4.9
        LCAF_REPLICATION: Struct("entries" / GreedyRange(replication_entry(inner)), Terminated),
        # RFC 8060 §5.4; the low bit of Rsvd2 says that the JSON is binary.
        LCAF_JSON: Struct(
            "json" / Prefixed(Int16ub, GreedyBytes),
            "address_afi" / Int16ub,
            "address" / Switch(this.address_afi, inner, default=Error),
            Terminated,
        ),
        # RFC 8060 §5.5
        LCAF_KEY_VALUE: Struct(
            "key_afi" / Int16ub,
            "key" / Switch(this.key_afi, inner, default=Error),
            "value_afi" / Int16ub,
            "value" / Switch(this.value_afi, inner, default=Error),
            Terminated,
        ),
        # RFC 9306 §4
        LCAF_VENDOR: Struct(
            "vendor" / BitStruct("reserved" / BitsInteger(8), "oui" / BitsInteger(24)),
            "body" / Switch(this.vendor.oui, VENDORS, default=Error),
        ),
    }


def hop(inner: dict[int, Any]) -> Any:
    """One re-encapsulating hop of an Explicit Locator Path (RFC 8060 §4.6)."""
    return Struct(
        "flags" / BitStruct("reserved" / BitsInteger(13), "lookup" / Bit, "probe" / Bit, "strict" / Bit),
        "address_afi" / Int16ub,
        "address" / Switch(this.address_afi, inner, default=Error),
    )


def replication_entry(inner: dict[int, Any]) -> Any:
    """One RTR or ETR of a Replication List (RFC 8060 §4.9)."""
    return Struct(
        "level_word" / BitStruct("reserved" / BitsInteger(24), "level" / BitsInteger(8)),
        "address_afi" / Int16ub,
        "address" / Switch(this.address_afi, inner, default=Error),
    )


def lcaf(types: dict[int, Any], default: Any) -> Any:
    """RFC 8060 §3: Rsvd1 and Flags, Type, Rsvd2, then a body by type with its Length before it."""
    return Struct(
        "reserved" / Int16ub,
        "lcaf_type" / Int8ub,
        "reserved2" / Int8ub,
        "content" / Prefixed(Int16ub, Switch(this.lcaf_type, types, default=default)),
    )


# LCAFs stand in LCAFs (RFC 8060 §4.10.4), two deep: no sender has a use for more, and depth costs a receiver its stack.
INNER_BODIES = bodies(IPS | NAMES)
INNER_LCAF = lcaf(INNER_BODIES, GreedyBytes)
BODIES = bodies(IPS | NAMES | {AFI_LCAF: INNER_LCAF})

# RFC 9306 §3: a locator of an unknown type is carried whole, to be ignored; RFC 9301 §5.1: an unknown AFI has an
# unknown length, so that the whole message is refused.
LCAF = lcaf(BODIES, GreedyBytes)
ADDRESSES = IPS | NAMES | {AFI_LCAF: LCAF}

# RFC 9306 §3: an EID of an unknown type costs the message. The paths to the mask length start at the Check.
EID_INSTANCE = instance(masked_ips(this._._._.mask_length))
EID_LCAF = lcaf(BODIES | {LCAF_INSTANCE_ID: EID_INSTANCE}, Error)
EIDS = masked_ips(this._.mask_length) | NAMES | {AFI_LCAF: EID_LCAF}
