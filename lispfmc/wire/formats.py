"""The wire formats, each declared once in construct: read this beside RFC 9301, RFC 9437 and RFC 8060.

Only fixed integers, bit words, `Switch`, `Array`, `If`, `Rebuild`, `Check` and `this` expressions are used, so that a
compiler can walk the declarations. Conventions that the codec relies on: counts and lengths are derived (`Rebuild`);
an address `x` follows its `x_afi`; `at` is the offset of a record (for errors, not on the wire); a bit word that
stays one integer in the values has the name that the value gives it (`word`, `flags`, `version_word`).
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
    Rebuild,
    Struct,
    Switch,
    Tell,
    len_,
    this,
)

AFI_NONE, AFI_IPV4, AFI_IPV6, AFI_LCAF = 0, 1, 2, 16387
LCAF_INSTANCE_ID = 2
UDP = 17

# --- Addresses -------------------------------------------------------------------------------------------------------

# RFC 8060 §4.1: AFI (2), address. Nothing but a plain address stands inside an Instance-ID here.
InstanceBody = Struct(
    "length" / Rebuild(Int16ub, len_(this.ip) + 6),  # Instance-ID (4), AFI (2), address
    "iid" / Int32ub,
    "ip_afi" / Int16ub,
    "ip" / Switch(this.ip_afi, {AFI_NONE: Bytes(0), AFI_IPV4: Bytes(4), AFI_IPV6: Bytes(16)}, default=Error),
    "length_agrees" / Check(this.length == len_(this.ip) + 6),
)

# RFC 9306 §3: an LCAF that we do not interpret is carried whole; its Length says where it ends.
OpaqueBody = Struct("length" / Rebuild(Int16ub, len_(this.body)), "body" / Bytes(this.length))

# RFC 8060 §3: Rsvd1, Flags, Type, Rsvd2, Length, then a body by type. In type 2, Rsvd2 is the IID mask-len.
Lcaf = Struct(
    "reserved" / Int16ub,
    "lcaf_type" / Int8ub,
    "reserved2" / Int8ub,
    "content" / Switch(this.lcaf_type, {LCAF_INSTANCE_ID: InstanceBody}, default=OpaqueBody),
)

# RFC 9301 §5.1: an unknown AFI has an unknown length, so that the whole message is refused.
ADDRESSES = {AFI_NONE: Bytes(0), AFI_IPV4: Bytes(4), AFI_IPV6: Bytes(16), AFI_LCAF: Lcaf}

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
    "at" / Tell,
    "ttl_minutes" / Int32ub,
    "locator_count" / Rebuild(Int8ub, len_(this.locators)),
    "mask_length" / Int8ub,
    "flags" / BitStruct("action" / BitsInteger(3), "authoritative" / Bit, "reserved" / BitsInteger(12)),
    "version_word" / BitStruct("reserved" / BitsInteger(4), "map_version" / BitsInteger(12)),
    "eid_afi" / Int16ub,
    "eid" / Switch(this.eid_afi, ADDRESSES, default=Error),
    "locators" / Array(this.locator_count, Locator),
)

# RFC 9301 §5.2; the N-bit is RFC 9437 §4.
RequestRecord = Struct(
    "at" / Tell,
    "flags" / BitStruct("notification_requested" / Bit, "reserved" / BitsInteger(7)),
    "mask_length" / Int8ub,
    "eid_afi" / Int16ub,
    "eid" / Switch(this.eid_afi, ADDRESSES, default=Error),
)

ItrRloc = Struct("address_afi" / Int16ub, "address" / Switch(this.address_afi, ADDRESSES, default=Error))

# RFC 9301 §5.6: who registers, at the very end of the message.
XtrTrailer = Struct("xtr_id" / Bytes(16), "site_id" / Bytes(8))

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
        "itr_rloc_count" / BitsInteger(5),  # IRC: one less than there are
    ),
    "record_count" / Rebuild(Int8ub, len_(this.records)),
    "nonce" / Int64ub,
    "source_eid_afi" / Int16ub,
    "source_eid" / Switch(this.source_eid_afi, ADDRESSES, default=Error),
    "itr_rlocs" / Array(this.word.itr_rloc_count + 1, ItrRloc),
    "records" / Array(this.record_count, RequestRecord),
    "reply_record" / If(this.word.map_data_present, EidRecord),
    "trailer" / If(this.word.xtr_id_present, XtrTrailer),
)

# RFC 9303 §6.4: what LISP-SEC appends to a Map-Reply. Each length counts itself.
MapReplySecurity = Struct(
    "ad_type" / Int8ub,
    "reserved" / Bytes(3),
    "eid_ad_length" / Int16ub,
    "eid_ad" / Bytes(this.eid_ad_length - 2),
    "packet_ad_length" / Int16ub,
    "packet_ad" / Bytes(this.packet_ad_length - 2),
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
    "auth_length" / Rebuild(Int16ub, len_(this.auth)),
    "auth" / Bytes(this.auth_length),
    "records" / Array(this.record_count, EidRecord),
    "trailer" / If(this.word.xtr_id_present, XtrTrailer),
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
    "auth_length" / Rebuild(Int16ub, len_(this.auth)),
    "auth" / Bytes(this.auth_length),
    "records" / Array(this.record_count, EidRecord),
    "trailer_at" / Tell,
    "trailer" / GreedyBytes,
)

# RFC 9301 §5.7: "the same format", with another type.
MapNotifyAck = Struct(
    "word" / BitStruct("type" / Const(5, BitsInteger(4)), "xtr_id_present" / Bit, "reserved" / BitsInteger(19)),
    "record_count" / Rebuild(Int8ub, len_(this.records)),
    "nonce" / Int64ub,
    "key_id" / Int8ub,
    "algorithm_id" / Int8ub,
    "auth_length" / Rebuild(Int16ub, len_(this.auth)),
    "auth" / Bytes(this.auth_length),
    "records" / Array(this.record_count, EidRecord),
    "trailer_at" / Tell,
    "trailer" / GreedyBytes,
)

# --- Encapsulated Control Message ------------------------------------------------------------------------------------

# RFC 9303 §6.1: the one-time key, then the EID authentication data, whose length counts itself.
EcmSecurity = Struct(
    "ad_type" / Int8ub,
    "reserved" / Int8ub,
    "requested_hmac_id" / Int16ub,
    "otk_length" / Int16ub,
    "key_id" / Int8ub,
    "otk_wrapping_id" / Int8ub,
    "one_time_key" / Bytes(this.otk_length),
    "eid_ad_length" / Int16ub,
    "eid_ad" / Bytes(this.eid_ad_length - 2),
)

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
    "ip_at" / Tell,
    "first" / BitStruct("version" / BitsInteger(4), "low" / BitsInteger(4)),  # low: IHL, or part of the traffic class
    "ip" / Switch(this.first.version, {4: InnerIpv4, 6: InnerIpv6}, default=Error),
    "udp_at" / Tell,
    "source_port" / Int16ub,
    "destination_port" / Int16ub,
    "udp_length" / Int16ub,
    "udp_checksum" / Int16ub,
    "payload_at" / Tell,
    "payload" / GreedyBytes,
)

MESSAGES = {1: MapRequest, 2: MapReply, 3: MapRegister, 4: MapNotify, 5: MapNotifyAck, 8: Ecm}

# --- Data plane ------------------------------------------------------------------------------------------------------

# RFC 9300 §5.3. P is the next-protocol bit of LISP-GPE (RFC 9305 §3), reserved otherwise.
DataHeader = Struct(
    "flags"
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
