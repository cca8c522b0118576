"""The wire format of move messages, declared once in construct like the others (see `formats`).

A Shared Extension (RFC 9304 §3) that is laid out like a Map-Notify (RFC 9301 §5.7) up to its authentication data, so
that one signature code covers both; then what a move is, then ordinary EID-records.
"""

from __future__ import annotations

from construct import (
    Array,
    Bit,
    BitsInteger,
    BitStruct,
    Bytes,
    Const,
    GreedyBytes,
    Int8ub,
    Int16ub,
    Int32ub,
    Int64ub,
    Prefixed,
    Rebuild,
    Struct,
    Terminated,
    len_,
    this,
)

from lispfmc.wire.formats import EidRecord

# RFC 9304 §5.2: 1024 to 4095 are given out first come, first served. This one is not registered: it is spoken between
# routers and controllers of one operator, who share keys.
MOVE_SUB_TYPE = 0xFC0
VERSION = 1

# One locator set holds both places: the new one, and the old one at priority 255, "must not be used" (RFC 9301 §5.4).
Move = Struct(
    "word"
    / BitStruct(
        "type" / Const(15, BitsInteger(4)),
        "sub_type" / Const(MOVE_SUB_TYPE, BitsInteger(12)),
        "acknowledgement" / Bit,
        "reserved" / BitsInteger(7),
    ),
    "record_count" / Rebuild(Int8ub, len_(this.records)),
    "nonce" / Int64ub,
    "key_id" / Int8ub,
    "algorithm_id" / Int8ub,
    "auth" / Prefixed(Int16ub, GreedyBytes),
    "version" / Const(VERSION, Int8ub),
    "phase" / Int8ub,
    "part" / Int8ub,  # from 1
    "parts" / Int8ub,
    "move" / Int64ub,
    "epoch_word" / BitStruct("reserved" / BitsInteger(4), "epoch" / BitsInteger(12)),  # the new Map-Version
    "rules" / BitStruct("reserved" / BitsInteger(15), "bicast" / Bit),
    "hold_bytes" / Int32ub,  # what the target may hold, and for how long
    "hold_ms" / Int32ub,
    "verdict" / Int8ub,  # in acknowledgements
    "stopped" / Bytes(3),  # of a FREEZE: when the machine stopped, microseconds of the host's clock; 0: not said
    "records" / Array(this.record_count, EidRecord),
    Terminated,
)

# What follows a GPE data header with this next protocol (RFC 9305 §3, shim headers for experiments): one packet of a
# move between its two sites, numbered so that a copy is known as one; or the end marker, with nothing behind it.
NEXT_MOVE_SHIM = 0xFE
SHIM_PACKET, SHIM_MARKER = 1, 2
MoveShim = Struct("move" / Int64ub, "sequence" / Int32ub, "epoch" / Int16ub, "reserved" / Int16ub, Terminated)
