"""The wire formats, each declared once in construct: read this beside RFC 9301, RFC 9437, RFC 8060 and RFC 9303.

`compiler` turns these declarations into the code that runs, and refuses at import a construct that it does not know.
Conventions that it relies on: counts and lengths are derived (`Rebuild`, `Prefixed`); an address `x` follows its
`x_afi`; a bit word is one integer in the values, under its name here, with derived bits zero; what does not end in
`Terminated` or `GreedyBytes` is followed by something; a `Check` says what must hold, and where (`CHECKED`).
"""

from __future__ import annotations

from typing import Any

from construct import (
    Array,
    Bit,
    BitsInteger,
    BitStruct,
    Bytes,
    Check,
    Const,
    Error,
    FocusedSeq,
    GreedyBytes,
    GreedyRange,
    If,
    Int8ub,
    Int16ub,
    Int32ub,
    Int64ub,
    NullTerminated,
    Optional,
    Prefixed,
    Rebuild,
    Struct,
    Switch,
    Terminated,
    len_,
    this,
)

AFI_NONE, AFI_IPV4, AFI_IPV6, AFI_NAME, AFI_LCAF, AFI_MAC = 0, 1, 2, 17, 16387, 16389
LCAF_AFI_LIST, LCAF_INSTANCE_ID, LCAF_NAT, LCAF_PATH, LCAF_SOURCE_DEST = 1, 2, 7, 10, 12
LCAF_REPLICATION, LCAF_JSON, LCAF_KEY_VALUE, LCAF_VENDOR = 13, 14, 15, 255
UDP = 17

# --- Addresses -------------------------------------------------------------------------------------------------------

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

# --- Records ---------------------------------------------------------------------------------------------------------

# RFC 9301 §5.4, the part of an EID-record that repeats for each RLOC.
Locator = Struct(
    "priority" / Int8ub,
    "weight" / Int8ub,
    "multicast_priority" / Int8ub,
    "multicast_weight" / Int8ub,
    "flags" / BitStruct("reserved" / BitsInteger(13), "local" / Bit, "probed" / Bit, "reachable" / Bit),
    "address_afi" / Int16ub,
    "address" / Switch(this.address_afi, ADDRESSES, default=Error),
)

# RFC 9301 §5.4, the same in Map-Reply, Map-Register and Map-Notify.
EidRecord = Struct(
    "ttl_minutes" / Int32ub,
    "locator_count" / Rebuild(Int8ub, len_(this.locators)),
    "mask_length" / Int8ub,
    "flags" / BitStruct("action" / BitsInteger(3), "authoritative" / Bit, "reserved" / BitsInteger(12)),
    "version_word" / BitStruct("reserved" / BitsInteger(4), "map_version" / BitsInteger(12)),
    "eid_afi" / Int16ub,
    "eid" / Switch(this.eid_afi, EIDS, default=Error),
    "locators" / Array(this.locator_count, Locator),
)

# RFC 9301 §5.2; the N-bit is RFC 9437 §4.
RequestRecord = Struct(
    "flags" / BitStruct("notification_requested" / Bit, "reserved" / BitsInteger(7)),
    "mask_length" / Int8ub,
    "eid_afi" / Int16ub,
    "eid" / Switch(this.eid_afi, EIDS, default=Error),
)

ItrRloc = Struct("address_afi" / Int16ub, "address" / Switch(this.address_afi, ADDRESSES, default=Error))

# RFC 9301 §5.6: who registers, at the very end of the message.
XtrTrailer = Struct("xtr_id" / Bytes(16), "site_id" / Bytes(8))

# --- LISP-SEC --------------------------------------------------------------------------------------------------------

# RFC 9303 §6.1, one EID-Prefix that the Map-Server vouches for.
SecuredPrefix = Struct(
    "reserved" / Int8ub,
    "mask_length" / Int8ub,
    "eid_afi" / Int16ub,
    "eid" / Switch(this.eid_afi, EIDS, default=Error),
)

# RFC 9303 §6.1: what a Map-Server adds to the EID-AD. The E-bit is drawn in the ECM only; in a Map-Reply it is 0.
EidProof = Struct(
    "record_count" / Rebuild(Int8ub, len_(this.records)),
    "flags" / BitStruct("etr_cant_sign" / Bit, "reserved" / BitsInteger(7)),
    "hmac_id" / Int16ub,
    "records" / Array(this.record_count, SecuredPrefix),
    "hmac" / GreedyBytes,
)
EidAuthentication = Struct("kdf_id" / Int16ub, "proof" / Optional(EidProof), Terminated)  # an ITR sends the KDF ID only
PacketAuthentication = Struct("hmac_id" / Int16ub, "hmac" / GreedyBytes)

# RFC 9303 §6.1: the one-time key with its preamble, then the EID-AD, whose length counts itself.
EcmSecurity = Struct(
    "ad_type" / Const(1, Int8ub),
    "reserved" / Int8ub,
    "requested_hmac_id" / Int16ub,
    "otk_length" / Rebuild(Int16ub, len_(this.one_time_key)),
    "key_id" / Int8ub,
    "otk_wrapping_id" / Int8ub,
    "one_time_key" / Bytes(this.otk_length),
    "eid_authentication" / Prefixed(Int16ub, EidAuthentication, includelength=True),
)

# RFC 9303 §6.2: what an ETR appends to a Map-Reply.
MapReplySecurity = Struct(
    "ad_type" / Const(1, Int8ub),
    "reserved" / Bytes(3),
    "eid_authentication" / Prefixed(Int16ub, EidAuthentication, includelength=True),
    "packet_authentication" / Prefixed(Int16ub, PacketAuthentication, includelength=True),
)

# --- Messages --------------------------------------------------------------------------------------------------------

# RFC 9301 §5.2; the I-bit is RFC 9437 §4.
MapRequest = Struct(
    "word"
    / BitStruct(
        "type" / Const(1, BitsInteger(4)),
        "authoritative" / Bit,  # A
        "map_data_present" / Bit,  # M
        "probe" / Bit,  # P
        "smr" / Bit,  # S
        "pitr" / Bit,  # p
        "smr_invoked" / Bit,  # s
        "reserved_r" / Bit,  # R
        "xtr_id_present" / Bit,  # I
        "reserved" / BitsInteger(5),
        "local_xtr" / Bit,  # L
        "no_reply" / Bit,  # D
        "itr_rloc_count" / Rebuild(BitsInteger(5), len_(this._.itr_rlocs) - 1),  # IRC: one less than there are
    ),
    "record_count" / Rebuild(Int8ub, len_(this.records)),
    "nonce" / Int64ub,
    "source_eid_afi" / Int16ub,
    "source_eid" / Switch(this.source_eid_afi, ADDRESSES, default=Error),
    "itr_rlocs" / Array(this.word.itr_rloc_count + 1, ItrRloc),
    "records" / Array(this.record_count, RequestRecord),
    "reply_record" / If(this.word.map_data_present, EidRecord),
    "trailer" / If(this.word.xtr_id_present, XtrTrailer),
    Terminated,
)

# RFC 9301 §5.4.
MapReply = Struct(
    "word"
    / BitStruct(
        "type" / Const(2, BitsInteger(4)),
        "probe" / Bit,  # P
        "echo_nonce_capable" / Bit,  # E
        "security_present" / Bit,  # S
        "reserved" / BitsInteger(17),
    ),
    "record_count" / Rebuild(Int8ub, len_(this.records)),
    "nonce" / Int64ub,
    "records" / Array(this.record_count, EidRecord),
    "security" / If(this.word.security_present, MapReplySecurity),
    Terminated,
)

# RFC 9301 §5.6. E, T, a and M are drawn there; the NAT draft's use of bit 7 is not ours.
MapRegister = Struct(
    "word"
    / BitStruct(
        "type" / Const(3, BitsInteger(4)),
        "proxy_reply" / Bit,  # P
        "security_capable" / Bit,  # S
        "xtr_id_present" / Bit,  # I
        "reserved" / BitsInteger(12),
        "eid_notify" / Bit,  # E
        "use_ttl" / Bit,  # T
        "merge" / Bit,  # a
        "reserved_r" / Bit,  # R
        "want_notify" / Bit,  # M
    ),
    "record_count" / Rebuild(Int8ub, len_(this.records)),
    "nonce" / Int64ub,
    "key_id" / Int8ub,
    "algorithm_id" / Int8ub,
    "auth" / Prefixed(Int16ub, GreedyBytes),
    "records" / Array(this.record_count, EidRecord),
    "trailer" / If(this.word.xtr_id_present, XtrTrailer),
    Terminated,
)

# RFC 9301 §5.7. Its first word is reserved after the type; Wireshark and tcpdump know the first bit of it as "xTR-ID
# present", while lispers.net appends the Map-Register's xTR-ID and Site-ID without any bit. So the trailer is what
# is left: nothing or an XtrTrailer.
MapNotify = Struct(
    "word" / BitStruct("type" / Const(4, BitsInteger(4)), "xtr_id_present" / Bit, "reserved" / BitsInteger(19)),
    "record_count" / Rebuild(Int8ub, len_(this.records)),
    "nonce" / Int64ub,
    "key_id" / Int8ub,
    "algorithm_id" / Int8ub,
    "auth" / Prefixed(Int16ub, GreedyBytes),
    "records" / Array(this.record_count, EidRecord),
    "trailer" / Optional(XtrTrailer),
    "trailer_is_there" / Check((this.trailer != None) | (this.word.xtr_id_present == 0)),  # noqa: E711
    Terminated,
)

# RFC 9301 §5.7: "the same format", with another type.
MapNotifyAck = Struct(
    "word" / BitStruct("type" / Const(5, BitsInteger(4)), "xtr_id_present" / Bit, "reserved" / BitsInteger(19)),
    "record_count" / Rebuild(Int8ub, len_(this.records)),
    "nonce" / Int64ub,
    "key_id" / Int8ub,
    "algorithm_id" / Int8ub,
    "auth" / Prefixed(Int16ub, GreedyBytes),
    "records" / Array(this.record_count, EidRecord),
    "trailer" / Optional(XtrTrailer),
    "trailer_is_there" / Check((this.trailer != None) | (this.word.xtr_id_present == 0)),  # noqa: E711
    Terminated,
)

# --- Encapsulated Control Message ------------------------------------------------------------------------------------

# RFC 791 §3.1 after its first byte.
InnerIpv4 = Struct(
    "tos" / Int8ub,
    "total_length" / Int16ub,
    "identification" / Int16ub,
    "fragment" / BitStruct("reserved" / Bit, "dont_fragment" / Bit, "more_fragments" / Bit, "offset" / BitsInteger(13)),
    "ttl" / Int8ub,
    "protocol" / Const(UDP, Int8ub),
    "checksum" / Int16ub,
    "source" / Bytes(4),
    "destination" / Bytes(4),
    "options" / Bytes(this._.first.low * 4 - 20),
)

# RFC 8200 §3 after its first byte; extension headers have no business here.
InnerIpv6 = Struct(
    "class_and_flow" / Bytes(3),
    "payload_length" / Int16ub,
    "next_header" / Const(UDP, Int8ub),
    "hop_limit" / Int8ub,
    "source" / Bytes(16),
    "destination" / Bytes(16),
)

# RFC 9301 §5.8; E and M are in the registry of §12.6. The payload is another of these messages, never an ECM.
Ecm = Struct(
    "word"
    / BitStruct(
        "type" / Const(8, BitsInteger(4)),
        "security_present" / Bit,  # S
        "ddt" / Bit,  # D
        "to_etr" / Bit,  # E
        "to_map_server" / Bit,  # M
        "reserved" / BitsInteger(24),
    ),
    "security" / If(this.word.security_present, EcmSecurity),
    "first" / BitStruct("version" / BitsInteger(4), "low" / BitsInteger(4)),  # low: IHL, or part of the traffic class
    "ip" / Switch(this.first.version, {4: InnerIpv4, 6: InnerIpv6}, default=Error),
    "source_port" / Int16ub,
    "destination_port" / Int16ub,
    "udp_length" / Int16ub,
    "udp_checksum" / Int16ub,
    "payload" / GreedyBytes,
)

# --- Messages beside the mapping system's own -------------------------------------------------------------------------

# RFC 8111 §6.4.1.
ReferralSignature = Struct(
    "original_ttl_minutes" / Int32ub,
    "expiration" / Int32ub,  # seconds since 1970
    "inception" / Int32ub,
    "key_tag" / Int16ub,
    "signature_length" / Rebuild(Int16ub, len_(this.signature)),
    "algorithm" / Int8ub,
    "reserved" / Bytes(3),
    "signature" / Bytes(this.signature_length),
)

# RFC 8111 §6.4: an EID-record whose locators are those of a DDT node.
ReferralRecord = Struct(
    "ttl_minutes" / Int32ub,
    "referral_count" / Rebuild(Int8ub, len_(this.locators)),
    "mask_length" / Int8ub,
    "flags"
    / BitStruct("action" / BitsInteger(3), "authoritative" / Bit, "incomplete" / Bit, "reserved" / BitsInteger(11)),
    "version_word"
    / BitStruct("signature_count" / Rebuild(BitsInteger(4), len_(this._.signatures)), "map_version" / BitsInteger(12)),
    "eid_afi" / Int16ub,
    "eid" / Switch(this.eid_afi, EIDS, default=Error),
    "locators" / Array(this.referral_count, Locator),
    "signatures" / Array(this.version_word.signature_count, ReferralSignature),
)

# RFC 8111 §6.4.
MapReferral = Struct(
    "word" / BitStruct("type" / Const(6, BitsInteger(4)), "reserved" / BitsInteger(20)),
    "record_count" / Rebuild(Int8ub, len_(this.records)),
    "nonce" / Int64ub,
    "records" / Array(this.record_count, ReferralRecord),
    Terminated,
)

# draft-ermagan-lisp-nat-traversal: AFI 0 in the request, a NAT LCAF in the reply.
Info = Struct(
    "word" / BitStruct("type" / Const(7, BitsInteger(4)), "reply" / Bit, "reserved" / BitsInteger(27)),
    "nonce" / Int64ub,
    "key_id" / Int16ub,
    "auth" / Prefixed(Int16ub, GreedyBytes),
    "ttl_minutes" / Int32ub,
    "reserved" / Int8ub,
    "mask_length" / Int8ub,
    "eid_afi" / Int16ub,
    "eid" / Switch(this.eid_afi, EIDS, default=Error),
    "nat_afi" / Int16ub,
    "nat" / Switch(this.nat_afi, ADDRESSES, default=Error),
    Terminated,
)

# RFC 9304 §3.
SharedExtension = Struct(
    "word" / BitStruct("type" / Const(15, BitsInteger(4)), "sub_type" / BitsInteger(12), "specific" / BitsInteger(16)),
    "body" / GreedyBytes,
)

MESSAGES = {
    1: MapRequest,
    2: MapReply,
    3: MapRegister,
    4: MapNotify,
    5: MapNotifyAck,
    6: MapReferral,
    7: Info,
    8: Ecm,
    15: SharedExtension,
}

# What a Check is about: its name, the field that it finds wrong, and why.
CHECKED = {
    "mask_length_fits": ("mask_length", "it is more than the bits of the address"),
    "trailer_is_there": ("trailer", "the bit for xTR-ID and Site-ID is set, and they are not there"),
}

# --- Data plane ------------------------------------------------------------------------------------------------------

# RFC 9300 §5.3. P is the next-protocol bit of LISP-GPE (RFC 9305 §3), reserved otherwise.
DataHeader = Struct(
    "word"
    / BitStruct(
        "nonce_present" / Bit,  # N
        "locator_status_present" / Bit,  # L
        "echo_nonce_request" / Bit,  # E
        "map_version_present" / Bit,  # V
        "instance_id_present" / Bit,  # I
        "next_protocol_present" / Bit,  # P
        "key_id" / BitsInteger(2),  # KK, RFC 8061
        "nonce_or_versions" / BitsInteger(24),  # nonce; source and destination Map-Version; or next protocol
    ),
    "instance_and_status" / Int32ub,  # Instance-ID (24) and status bits (8) with I, else 32 status bits
)

# RFC 9305 §3: the length is in units of 4 bytes, less the first 4.
ShimHeader = Struct(
    "type" / Int8ub,
    "length" / Rebuild(Int8ub, len_(this.fields) // 4),
    "reserved" / Int8ub,
    "next_protocol" / Int8ub,
    "fields" / Bytes(this.length * 4),
)
