"""Any value that can be sent comes back equal; any bytes decode losslessly or raise PeerError."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from lispfmc.wire import LocalError, PeerError, decode, encap, encode
from lispfmc.wire.address import Address, InstanceAddress, OpaqueLcaf
from lispfmc.wire.address_formats import BODIES
from lispfmc.wire.auth import Algorithm, Key, sign, verify
from lispfmc.wire.describe import describe
from lispfmc.wire.messages import (
    Ecm,
    EidRecord,
    Locator,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapReply,
    MapRequest,
    Message,
    RequestRecord,
    Signed,
)

VECTORS = tomllib.loads((Path(__file__).parent.parent / "vectors" / "messages.toml").read_text())["vector"]
SEEDS = [bytes.fromhex(one["hex"]) for one in VECTORS]


def bits(size: int) -> st.SearchStrategy[int]:
    return st.integers(0, (1 << size) - 1)


ips = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
instances = st.builds(InstanceAddress, bits(32), st.none() | ips, bits(8), bits(16))
opaque = st.builds(
    OpaqueLcaf, bits(8).filter(lambda kind: kind not in BODIES), st.binary(max_size=40), bits(16), bits(8)
)
addresses: st.SearchStrategy[Address] = st.none() | ips | instances | opaque
locators = st.builds(Locator, addresses, bits(8), bits(8), bits(8), bits(8), bits(16))


@st.composite
def eids(draw: st.DrawFn) -> tuple[Address, int]:
    """An EID with a mask length that its family allows."""
    eid = draw(addresses.filter(lambda one: not isinstance(one, OpaqueLcaf)))  # RFC 9306 §3
    ip = eid.ip if isinstance(eid, InstanceAddress) else eid
    return eid, draw(st.integers(0, len(ip) * 8 if isinstance(ip, bytes) else 255))


@st.composite
def eid_records(draw: st.DrawFn) -> EidRecord:
    eid, mask_length = draw(eids())
    these = tuple(draw(st.lists(locators, max_size=3)))
    return EidRecord(draw(bits(32)), mask_length, draw(bits(16)), draw(bits(16)), eid, these)


@st.composite
def request_records(draw: st.DrawFn) -> RequestRecord:
    eid, mask_length = draw(eids())
    return RequestRecord(draw(bits(8)), mask_length, eid)


ids = st.tuples(st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8))
record_lists = st.lists(eid_records(), max_size=3).map(tuple)


@st.composite
def map_requests(draw: st.DrawFn) -> MapRequest:
    reply_record = draw(st.none() | eid_records())
    identity = draw(st.none() | ids)
    free = draw(bits(24)) << 8 & 0x0BEF_E000 | 0x1000_0000  # every bit but M, I, IRC and the count
    word = free | (reply_record is not None) << 26 | (identity is not None) << 20
    return MapRequest(
        word,
        draw(bits(64)),
        draw(addresses),
        tuple(draw(st.lists(addresses, min_size=1, max_size=4))),
        tuple(draw(st.lists(request_records(), max_size=3))),
        reply_record,
        *(identity or (None, None)),
    )


@st.composite
def map_replies(draw: st.DrawFn) -> MapReply:
    return MapReply(0x2000_0000 | draw(bits(24)) << 8 & 0x0DFF_FF00, draw(bits(64)), draw(record_lists))


@st.composite
def signed_messages(draw: st.DrawFn) -> Signed:
    kinds: list[type[MapRegister | MapNotify | MapNotifyAck]] = [MapRegister, MapNotify, MapNotifyAck]
    kind = draw(st.sampled_from(kinds))
    identity = draw(st.none() | ids)
    number, bit = {MapRegister: (3, 0x0200_0000), MapNotify: (4, 0x0800_0000), MapNotifyAck: (5, 0x0800_0000)}[kind]
    word = number << 28 | draw(bits(20)) << 8 & ~bit | (bit if identity else 0)
    auth = draw(st.binary(max_size=40))
    records = draw(record_lists)
    return kind(word, draw(bits(64)), records, draw(bits(8)), draw(bits(8)), auth, *(identity or (None, None)))


plain_messages: st.SearchStrategy[Message] = map_requests() | map_replies() | signed_messages()


@st.composite
def ecms(draw: st.DrawFn) -> Ecm:
    size = draw(st.sampled_from([4, 16]))
    address = st.binary(min_size=size, max_size=size)
    word = 0x8000_0000 | draw(bits(28)) & ~0x0800_0000
    port = draw(bits(16).filter(lambda port: port != 4341))
    return Ecm(word, draw(address), draw(address), port, 4342, draw(plain_messages))


messages = plain_messages | ecms()


@given(messages)
@settings(max_examples=300, deadline=None)
def test_every_value_comes_back_equal_and_can_be_described(message: Message) -> None:
    datagram = encode(message)
    assert decode(datagram) == message
    assert describe(message)["type"] == datagram[0] >> 4


@given(st.data(), messages.map(encode) | st.sampled_from(SEEDS))
@settings(max_examples=500, deadline=None)
def test_mutated_messages_decode_losslessly_or_are_refused(data: st.DataObject, datagram: bytes) -> None:
    changed = bytearray(datagram)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(bits(8))
    cut = data.draw(st.integers(0, 12))
    lossless_or_refused(bytes(changed[: len(changed) - cut]))


@given(st.sampled_from([1, 2, 3, 4, 5, 8]), st.binary(max_size=200))
@settings(max_examples=500, deadline=None)
def test_random_bytes_decode_losslessly_or_are_refused(kind: int, rest: bytes) -> None:
    lossless_or_refused(rest)
    lossless_or_refused(bytes([kind << 4]) + rest)


def lossless_or_refused(datagram: bytes) -> None:
    try:
        outcome: Message | PeerError = decode(datagram)
    except PeerError as refused:
        outcome = refused
    if isinstance(outcome, PeerError):
        assert 0 <= outcome.offset <= len(datagram)
        assert outcome.field
        assert outcome.why
    else:
        assert encode(outcome) == datagram


BAD_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "nonce": st.integers(-1, 1 << 64),
    "key_id": st.integers(-1, 256),
    "security": st.binary(max_size=40),
    "xtr_id": st.none() | st.binary(max_size=20),
    "source": st.binary(max_size=20),
    "header": st.binary(max_size=60),
    "source_port": st.integers(-1, 65536),
    "source_eid": st.binary(max_size=17),
    "itr_rlocs": st.lists(ips, max_size=40).map(tuple),
}


@given(messages, bits(32), st.sampled_from([0x0FFF_FFFF, 0x0FFF_E000, 0xFFFF_E000, 0x1_FFFF_E000]), st.data())
@settings(max_examples=300, deadline=None)
def test_a_value_that_does_not_fit_its_field_is_a_local_error(
    message: Message, number: int, mask: int, data: st.DataObject
) -> None:
    """Building from invalid objects raises LocalError, or gives bytes that decode to that very object."""
    word = number << 1 & mask | message.word & ~mask
    changes = data.draw(st.fixed_dictionaries({}, optional=dict(BAD_FIELDS)))
    changes = {name: value for name, value in changes.items() if name in message.__struct_fields__}
    changed = msgspec.structs.replace(message, **(changes or {"word": word}))
    try:
        datagram = encode(changed)
    except LocalError:
        return
    back = decode(datagram)
    if isinstance(back, Ecm) and isinstance(changed, Ecm):  # addresses, lengths and checksums of `header` are derived
        back, changed = (msgspec.structs.replace(one, header=b"") for one in (back, changed))
    assert back == changed


@given(signed_messages(), st.binary(min_size=1, max_size=100), st.sampled_from([Algorithm(1), Algorithm(2)]), st.data())
@settings(max_examples=200, deadline=None)
def test_signed_verifies_and_any_changed_bit_does_not(
    message: Signed, secret: bytes, algorithm: Algorithm, data: st.DataObject
) -> None:
    key = Key(7, secret, algorithm)
    datagram = sign(message, key)
    received = decode(datagram)
    assert isinstance(received, Signed)
    assert verify(received, datagram, key)
    bit = data.draw(st.integers(0, len(datagram) * 8 - 1))
    flipped = bytearray(datagram)
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        changed = decode(bytes(flipped))
    except PeerError:
        return
    assert not isinstance(changed, Signed) or not verify(changed, bytes(flipped), key)


@given(st.binary(max_size=80))
def test_any_data_packet_is_read_or_refused(packet: bytes) -> None:
    try:
        inner = encap.inner(packet, encap.parse(packet))
    except PeerError:
        return
    encap.flow_hash(inner)
    encap.decapsulated(inner, 64, 0)
