"""Records by themselves: what is read of one without decoding it is what decoding it says."""

from __future__ import annotations

import pytest

from lispfmc.wire.address import Prefix
from lispfmc.wire.messages import EidRecord
from lispfmc.wire.records import eid_at, eid_of, packed

EIDS = ("10.0.0.1/32", "10.0.0.0/8", "fd00::1/128", "fd00::/64", "[7]10.0.0.1/32", "[7]fd00::1/128", "[4294967295]::/0")


@pytest.mark.parametrize("text", EIDS)
def test_the_eid_of_a_record_is_seen_wherever_it_begins(text: str) -> None:
    eid = Prefix.parse(text)
    record = packed(EidRecord.of(eid, ttl_minutes=1440))
    assert eid_at(b"before" + record + b"after", 6) == eid_of(record) == eid


@pytest.mark.parametrize("text", EIDS)
def test_no_eid_is_seen_in_part_of_a_record(text: str) -> None:
    record = packed(EidRecord.of(Prefix.parse(text), ttl_minutes=1440))
    assert [eid_at(record[:end], 0) for end in range(len(record))] == [None] * len(record)


def test_an_eid_that_is_no_address_is_left_to_who_decodes_it() -> None:
    assert eid_at(bytes(4) + b"\0\x20" + bytes(4) + b"\0\x11" + bytes(20), 0) is None
