"""Move messages: they come back as they were sent, carry their signature, and never exceed 576 bytes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lispfmc.wire import LocalError, PeerError, decode, encode
from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.auth import Algorithm, Key, sign, verify
from lispfmc.wire.codec import build_move_shim, parse_move_shim
from lispfmc.wire.describe import describe
from lispfmc.wire.extensions import SharedExtension
from lispfmc.wire.messages import EidRecord, Locator
from lispfmc.wire.moveformat import MOVE_SUB_TYPE
from lispfmc.wire.moves import MOST_BYTES, OLD_PLACE, MoveMessage, MovePhase, MoveShim, Verdict, in_parts
from lispfmc.wire.tree import tree

KEY = Key(7, b"site-to-site")
RECORD = EidRecord.of(
    Prefix.parse("100.64.101.10/32"),
    [Locator.of(ip_of("198.18.0.22")), Locator.of(ip_of("198.18.0.21"), priority=OLD_PLACE)],
    ttl_minutes=1440,
    map_version=5,
)
PREPARE = MoveMessage.of(
    MovePhase.PREPARE, RECORD, nonce=0x18C00000001, move=0xABCD, epoch=5, bicast=True, hold_bytes=4 << 20, hold_ms=3000
)


def received(datagram: bytes) -> MoveMessage:
    message = decode(datagram)
    assert isinstance(message, MoveMessage)
    return message


def test_a_move_message_comes_back_as_it_was_sent() -> None:
    assert received(encode(PREPARE)) == PREPARE
    assert (PREPARE.epoch, PREPARE.bicast, PREPARE.is_acknowledgement) == (5, True, False)


def test_its_layout_is_a_map_notifys_up_to_the_authentication_data() -> None:
    datagram = encode(PREPARE)
    assert datagram[:4].hex() == "ffc00001"  # type 15, sub-type, one record
    assert datagram[4:12] == PREPARE.nonce.to_bytes(8, "big")
    assert datagram[12:16] == bytes(4)  # key id, algorithm, no authentication data
    # version, phase, part, parts, move id, epoch, rules, limits, verdict
    assert datagram[16:44].hex() == "01010101000000000000abcd000500010040000000000bb800000000"


@pytest.mark.parametrize("algorithm", [one for one in Algorithm if one])
def test_a_signed_message_verifies_by_its_key_alone(algorithm: Algorithm) -> None:
    key = Key(7, b"site-to-site", algorithm)
    datagram = sign(PREPARE, key)
    assert verify(received(datagram), datagram, key)
    assert not verify(received(datagram), datagram, Key(7, b"another", algorithm))


@given(st.data())
def test_no_byte_of_a_signed_message_can_be_changed(data: st.DataObject) -> None:
    datagram = bytearray(sign(PREPARE, KEY))
    at = data.draw(st.integers(0, len(datagram) - 1))
    datagram[at] ^= data.draw(st.integers(1, 255))
    try:
        message = decode(bytes(datagram))
    except PeerError:
        return
    assert not isinstance(message, MoveMessage) or not verify(message, bytes(datagram), KEY)


def test_an_acknowledgement_has_the_nonce_and_says_where_its_sender_stands() -> None:
    answer = received(sign(received(encode(PREPARE)).acknowledgement(Verdict.ACTIVE), KEY))
    assert (answer.is_acknowledgement, answer.nonce, answer.verdict) == (True, PREPARE.nonce, Verdict.ACTIVE)
    assert (answer.phase, answer.move, answer.epoch, answer.records) == (MovePhase.PREPARE, 0xABCD, 5, ())


def test_long_lists_go_in_parts_that_each_fit_576_bytes() -> None:
    peers = [
        EidRecord.of(Prefix.parse(f"100.64.{n}.0/24"), [Locator.of(ip_of(f"198.18.1.{n}"))], ttl_minutes=60)
        for n in range(64)
    ]
    parts = in_parts(peers)
    assert [one for part in parts for one in part] == peers
    for number, part in enumerate(parts, 1):
        message = MoveMessage.of(MovePhase.PEERS, *part, nonce=number, move=1, epoch=5, part=number, parts=len(parts))
        assert len(sign(message, Key(7, b"k", compat="full-length"))) <= MOST_BYTES
    with pytest.raises(LocalError, match="in parts"):
        MoveMessage.of(MovePhase.PEERS, *peers, nonce=1, move=1, epoch=5)


def test_another_version_of_the_protocol_is_refused_with_its_place() -> None:
    datagram = bytearray(encode(PREPARE))
    datagram[16] = 2
    with pytest.raises(PeerError, match="version at byte 16"):
        decode(bytes(datagram))


@given(st.binary(max_size=200))
def test_any_bytes_of_the_sub_type_decode_losslessly_or_are_refused(tail: bytes) -> None:
    datagram = (15 << 28 | MOVE_SUB_TYPE << 16).to_bytes(4, "big")[:2] + tail
    with contextlib.suppress(PeerError):
        assert encode(decode(datagram)) == datagram


def test_other_extensions_stay_what_they_were() -> None:
    other = SharedExtension.of(1024, b"abc", specific=3)
    assert decode(encode(other)) == other


def test_people_read_it_by_its_names() -> None:
    described = describe(PREPARE)
    assert (described["message"], described["epoch"], described["bicast"]) == ("Move", 5, True)
    assert described["records"][0]["eid"] == "100.64.101.10/32"
    assert any(line.endswith("epoch=5") for line in tree(encode(PREPARE)))


def test_the_shim_of_a_packet_comes_back() -> None:
    shim = MoveShim(0xABCD, 77, 5)
    assert parse_move_shim(build_move_shim(shim)) == shim
    assert len(build_move_shim(shim)) % 4 == 0
