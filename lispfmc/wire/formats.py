"""The wire formats, each declared once in construct: read this beside RFC 9301, RFC 9437, RFC 8111 and RFC 9303.

`compiler` turns these declarations into the code that runs, and refuses at import a construct that it does not know.
Conventions that it relies on: counts and lengths are derived (`Rebuild`, `Prefixed`); an address `x` follows its
`x_afi`; a bit word is one integer in the values, under its name here, with derived bits zero; what does not end in
`Terminated` or `GreedyBytes` is followed by something; a `Check` says what must hold, and where (`CHECKED`).
"""

from __future__ import annotations

from construct import (
    Array,
    Bit,
    BitsInteger,
    BitStruct,
    Bytes,
    Check,
    Const,
    Error,
    GreedyBytes,
    If,
    Int8ub,
    Int16ub,
    Int32ub,
    Int64ub,
    Optional,
    Prefixed,
    Rebuild,
    Struct,
    Switch,
    Terminated,
    len_,
    this,
)

from lispfmc.wire.address_formats import ADDRESSES, EIDS

UDP = 17

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
