"""A question that is taken from the bytes is the one that decoding finds: whatever is changed about the datagram."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from lispfmc.wire import decode, encode
from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.checksum import internet_checksum
from lispfmc.wire.errors import PeerError
from lispfmc.wire.messages import Ecm, MapRequest, RequestRecord
from lispfmc.wire.questions import Question, question
from tests.properties.chance import Chance

ROUNDS = 20_000


def asked(chance: Chance, source_eid: bytes | None) -> bytes:
    eid, itr = chance.randbytes(4), chance.randbytes(4)
    request = MapRequest.of(
        RequestRecord.of(Prefix.host(eid)), nonce=chance.bits(64), itr_rlocs=[itr], source_eid=source_eid
    )
    port = chance.choice((4342, chance.randint(1, 65535), 1, 65535))
    while port == 4341:
        port += 1
    return encode(Ecm.of(request, source=chance.randbytes(4), destination=eid, source_port=port))


def decoded(datagram: bytes) -> Question | None:
    """What `decode` says of it, if it is a question of that kind."""
    try:
        ecm = decode(datagram)
    except PeerError:
        return None
    request = ecm.message if isinstance(ecm, Ecm) else None
    if not isinstance(ecm, Ecm) or not isinstance(request, MapRequest) or ecm.security or ecm.header:
        return None
    [record], [rloc] = request.records, request.itr_rlocs
    assert isinstance(record.eid, bytes)
    assert isinstance(rloc, bytes)
    assert (record.flags, record.mask_length, len(record.eid)) == (0, 32, 4)
    return record.eid, rloc, request.nonce.to_bytes(8, "big"), ecm.source_port


@pytest.mark.parametrize("source_eid", [None, ip_of("100.64.1.1")])
def test_every_plain_question_is_known_and_means_what_decoding_finds(source_eid: bytes | None) -> None:
    chance = Chance(1)
    for _ in range(2000):
        datagram = asked(chance, source_eid)
        assert question(datagram) == decoded(datagram) is not None


def broken(chance: Chance) -> Iterator[bytes]:
    """Right ones in which something is changed, some with their checksums made right again."""
    for number in itertools.count():
        datagram = bytearray(asked(chance, chance.choice((None, b"\x0a\0\0\1"))))
        for _ in range(chance.randint(1, 2)):
            at = chance.randrange(len(datagram))
            datagram[at] = chance.choice((datagram[at] ^ 1 << chance.randrange(8), chance.bits(8)))
        if number % 2:
            mend(datagram)
        yield bytes(datagram[: len(datagram) - (number % 97 == 0)])


def mend(datagram: bytearray) -> None:
    datagram[14:16] = datagram[30:32] = b"\0\0"
    datagram[14:16] = internet_checksum(bytes(datagram[4:24])).to_bytes(2, "big")
    pseudo = bytes(datagram[16:24]) + b"\0\x11" + bytes(datagram[28:30])
    datagram[30:32] = (internet_checksum(pseudo + bytes(datagram[24:])) or 0xFFFF).to_bytes(2, "big")


def test_what_is_taken_from_a_changed_datagram_is_what_decoding_takes_from_it() -> None:
    chance, known = Chance(2), 0
    for datagram in itertools.islice(broken(chance), ROUNDS):
        found = question(datagram)
        if found is not None:
            known += 1
            assert found == decoded(datagram), datagram.hex()
    assert known > 1000, "mended ones among them"


def test_edges_of_the_checksums_are_left_to_decoding() -> None:
    datagram = bytearray(asked(Chance(3), None))
    for at, value in ((30, b"\0\0"), (14, b"\xff\xff")):
        changed = bytes(datagram[:at] + value + datagram[at + 2 :])
        assert question(changed) is None
    assert question(b"") is None


@pytest.mark.parametrize("port", [0, 4341])
def test_a_port_that_no_answer_may_go_to_is_left_to_decoding(port: int) -> None:
    datagram = bytearray(asked(Chance(3), None))
    datagram[24:26] = port.to_bytes(2, "big")
    mend(datagram)
    assert question(bytes(datagram)) is None
