"""The maps of `lisp.bpf.c` as values: keys, entries and their bytes. Pure; the layouts here and there change together.

Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d. A trie's key is bits, so IP version and Instance-ID, which come first in
it, are in network byte order.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple

from lispfmc.wire.address import Ip, Prefix
from xtr.effects import Drop, Forward, Forwarding, Hop

HOPS = 8
"""Locators of one mapping that the kernel plane can hold; a mapping with more is left to the slow path."""
SLOTS = 32
COPIES = 4
COPY_PORT = bytes(2)
"""The UDP port that copies of what was delivered come by: they stand among packets that were not."""

COUNTERS = (
    "encapsulated",
    "decapsulated",
    "reencapsulated",
    "punted",
    "dropped.negative",
    "dropped.inner-version",
    "dropped.inner-length",
    "dropped.instance",
    "dropped.foreign-destination",
    "dropped.congestion",
    "dropped.kernel",
)
"""By their index in the map `counters`."""

_MAPPED = bytes(10) + b"\xff\xff"
_KEY = struct.Struct("=I4s4s16s")
_MAPPING = struct.Struct(f"=QBBB5x{SLOTS}s{16 * HOPS}s")
_LOCAL = struct.Struct("=5QIBx6s6s6x")
_CONFIGURATION = struct.Struct("=I4s16sB7x")
_TALK = struct.Struct("=4s4x16s16s")
_TALKED = struct.Struct("=QQ")
_NANOSECONDS = 1e-9
_ALL_BITS = struct.pack("=I", 64 + 128)


class Action(IntEnum):
    """What the map-cache says of a destination. STACK: the kernel's routing, and by it the slow path, has it."""

    STACK = 0
    ENCAPSULATE = 1
    REPLICATE = 2
    DROP = 3


class Delivery(IntEnum):
    """What happens to packets for an EID of this site: the switch that a move turns, step by step."""

    PUNT = 0
    """The slow path holds them."""
    DELIVER = 1
    DELIVER_AND_MIRROR = 2
    """Delivered, and a copy goes to the slow path."""
    FORWARD = 3
    """Sent on to where the mapping says that the EID is now."""


class Local(NamedTuple):
    """An entry of `local_eids`."""

    delivery: Delivery
    interface: int = 0
    mac: bytes = bytes(6)
    gateway_mac: bytes = bytes(6)
    heard: float = 0.0
    sent_packets: int = 0
    sent_bytes: int = 0
    received_packets: int = 0
    received_bytes: int = 0


class Talk(NamedTuple):
    """A local EID and an xTR that it talks to."""

    eid: Prefix
    rloc: Ip


def mapped(ip: Ip) -> bytes:
    """The 16 bytes of an address."""
    return ip if len(ip) == 16 else _MAPPED + ip


def unmapped(data: bytes) -> Ip:
    return data[12:] if data[:12] == _MAPPED else data


def instance(iid: int) -> bytes:
    return iid.to_bytes(4, "big")


def number(value: int) -> bytes:
    """An interface number and the like, as the kernel has them."""
    return struct.pack("=I", value)


def key(prefix: Prefix) -> bytes:
    """The trie's key of a prefix."""
    version, before = (4, 96) if len(prefix.ip) == 4 else (6, 0)
    return _KEY.pack(64 + before + prefix.length, instance(version), instance(prefix.iid), mapped(prefix.ip))


def host_key(prefix: Prefix) -> bytes:
    """The hash table's key of a host: the trie's without the length."""
    return key(prefix)[4:]


def host_of(data: bytes) -> Prefix:
    """The host of a hash table's key."""
    return prefix_of(_ALL_BITS + data)


def prefix_of(data: bytes) -> Prefix:
    """The prefix of a trie's key."""
    bits, version, iid_bytes, address = _KEY.unpack(data)
    iid = int.from_bytes(iid_bytes, "big")
    return Prefix(iid, address[12:], bits - 160) if version[3] == 4 else Prefix(iid, address, bits - 64)


@lru_cache(maxsize=4096)  # most mappings share their locators with many others
def mapping(forwarding: Forwarding, families: frozenset[int], own: frozenset[Ip]) -> bytes:
    """The entry for a forwarding decision. `families`: address sizes that we have an RLOC of; `own`: those RLOCs."""
    if isinstance(forwarding, Drop):
        return _entry(Action.STACK if forwarding.native else Action.DROP)
    if not isinstance(forwarding, Forward) or any(hop.rloc in own for hop in forwarding.hops):
        return _entry(Action.STACK)  # to the plain routing table, or here: the kernel's routes decide
    usable = [hop for hop in forwarding.hops if len(hop.rloc) in families]
    if any(hop.weight for hop in usable):
        usable = [hop for hop in usable if hop.weight]
    if not usable or len(usable) > HOPS:
        return _entry(Action.STACK)
    if not forwarding.replicate:
        return _entry(Action.ENCAPSULATE, usable)
    one_family = len({len(hop.rloc) for hop in usable}) == 1
    return _entry(Action.REPLICATE, usable) if one_family and len(usable) <= COPIES else _entry(Action.STACK)


def _entry(action: Action, hops: Sequence[Hop] = ()) -> bytes:
    addresses = b"".join(mapped(hop.rloc) for hop in hops)
    return _MAPPING.pack(0, action, len(hops), 0, slots([hop.weight for hop in hops]), addresses)


def slots(weights: Sequence[int]) -> bytes:
    """Which locator each slot of the flow hash stands for: as many as its weight says, one at least."""
    if not weights:
        return bytes(SLOTS)
    total = sum(weights)
    # RFC 9301 §5.4: with all weights 0 the sender spreads as it likes
    shares = [max(1, round(SLOTS * weight / total)) if total else 1 for weight in weights]
    spread = [index for index, share in enumerate(shares) for _ in range(share)]
    return bytes(spread[slot * len(spread) // SLOTS] for slot in range(SLOTS))


def used(data: bytes) -> float | None:
    """When a packet last went by this entry of the map-cache (time.monotonic); None: it has not yet."""
    nanoseconds: int = _MAPPING.unpack(data)[0]
    return nanoseconds * _NANOSECONDS or None


def local(entry: Local) -> bytes:
    counts = (entry.sent_packets, entry.sent_bytes, entry.received_packets, entry.received_bytes)
    heard = round(entry.heard / _NANOSECONDS)
    return _LOCAL.pack(heard, *counts, entry.interface, entry.delivery, entry.mac, entry.gateway_mac)


def local_of(data: bytes) -> Local:
    heard, *counts, interface, delivery, mac, gateway_mac = _LOCAL.unpack(data)
    return Local(Delivery(delivery), interface, mac, gateway_mac, heard * _NANOSECONDS, *counts)


def configuration(*, tun: int, rlocs: Sequence[Ip], petr: bool) -> bytes:
    """`tun`: the number of the device that takes what waits for a decision. The first RLOC of each family sends."""
    first = {len(rloc): rloc for rloc in reversed(rlocs)}
    return _CONFIGURATION.pack(tun, first.get(4, bytes(4)), first.get(16, bytes(16)), petr)


def talk_of(data: bytes) -> Talk:
    iid, eid, rloc = _TALK.unpack(data)
    return Talk(Prefix.host(unmapped(eid), int.from_bytes(iid, "big")), unmapped(rloc))


def talk_prefix(eid: Prefix) -> bytes:
    """What the keys of a local EID's talks begin with."""
    return instance(eid.iid) + bytes(4) + mapped(eid.ip)


def seen(data: bytes) -> float:
    """When the two last talked (time.monotonic)."""
    nanoseconds: int = _TALKED.unpack(data)[0]
    return nanoseconds * _NANOSECONDS


STACK = _entry(Action.STACK)
