"""The rule of the registry, decision by decision; properties/test_stores.py has it in any order, on every store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lispfmc.core.claims import claims, claims_in
from lispfmc.core.merging import merge
from lispfmc.core.registry import Accepted, Kind, Register
from lispfmc.core.versions import newer
from lispfmc.store import Gap
from lispfmc.store.memory import MemoryStore
from lispfmc.wire.address import InstanceAddress
from lispfmc.wire.messages import EidRecord, Locator
from lispfmc.wire.records import packed
from tests.properties.registers import EIDS, OWNERS, query, register


def apply(store: MemoryStore, message: Register) -> Accepted:
    outcome = merge(message, store.view(query(message)), 0.0)
    assert isinstance(outcome, Accepted)
    store.apply([outcome], 0.0)
    return outcome


def test_an_unchanged_refresh_renews_the_lease_without_touching_a_registration() -> None:
    store = MemoryStore()
    apply(store, register(OWNERS[0], EIDS, 1))
    before = list(store.registrations())
    outcome = apply(store, register(OWNERS[0], EIDS, 2))
    assert outcome.changes == ()
    assert all(new is old for new, old in zip(store.registrations(), before, strict=True))


def test_deciding_changes_nothing() -> None:
    store = MemoryStore()
    apply(store, register(OWNERS[0], EIDS, 1))
    before = (list(store.registrations()), store.next_deadline(), store.last_nonce(OWNERS[2], 1))
    message = register(OWNERS[2], EIDS, 7)
    for _ in range(2):
        outcome = merge(message, store.view(query(message)), 5.0)
        assert isinstance(outcome, Accepted)
        assert [change.kind for change in outcome.changes] == [Kind.CHANGED] * 3
    after = (list(store.registrations()), store.next_deadline(), store.last_nonce(OWNERS[2], 1))
    assert all(new is old for new, old in zip(after[0], before[0], strict=True))
    assert after[1:] == before[1:]


def test_followers_read_changes_in_order_and_no_refreshes() -> None:
    store = MemoryStore()
    apply(store, register(OWNERS[0], EIDS[:2], 1))
    apply(store, register(OWNERS[0], EIDS[:1], 2))
    apply(store, register(OWNERS[2], EIDS[:1], 3))
    numbered = list(store.events(None))
    held = [each.after.owner if each.after is not None else None for each in numbered]
    assert [each.eid for each in numbered] == [*EIDS[:2], EIDS[0]]
    assert held == [OWNERS[0], OWNERS[0], OWNERS[2]]
    assert list(store.events(numbered[1].id)) == numbered[2:]
    assert list(store.events(numbered[2].id)) == []


def test_a_follower_that_is_too_far_behind_is_told_so() -> None:
    store = MemoryStore()
    apply(store, register(OWNERS[0], EIDS[:1], 1))
    with pytest.raises(Gap):
        store.events(99)


@pytest.mark.parametrize(
    ("version", "than", "after"),
    [(2, 1, True), (1, 2, False), (1, 1, False), (1, 0, True), (0, 1, False), (1, 4095, True), (2049, 1, True)],
)
def test_versions_are_compared_as_serial_numbers(version: int, than: int, *, after: bool) -> None:
    assert newer(version, than) is after


RECORDS = st.builds(
    EidRecord,
    ttl_minutes=st.sampled_from([0, 1, 1440, 0xFFFFFFFF]),
    mask_length=st.sampled_from([24, 32]),
    flags=st.sampled_from([0, 0x1000, 0x2000, 0x6000, 0xE000, 0x1FFF]),
    version_word=st.sampled_from([0, 7, 0xFFF, 0x1001]),
    eid=st.sampled_from([bytes([10, 1, 0, 0]), bytes([10, 1, 0, 9]), InstanceAddress(7, bytes([10, 1, 0, 9]))]),
    locators=st.lists(
        st.builds(
            Locator,
            st.sampled_from([bytes([198, 18, 0, 1]), bytes([198, 18, 0, 2]), b"\x20" + bytes(15)]),
            st.integers(0, 255),
            st.integers(0, 255),
            st.just(255),
            st.just(0),
            st.integers(0, 7),
        ),
        max_size=3,
    ).map(tuple),
)


@given(st.lists(RECORDS, min_size=1, max_size=4))
def test_claims_are_the_same_from_bytes(of: list[EidRecord]) -> None:
    body = b"".join(packed(record) for record in of)
    assert claims_in(body + b"trailer", of) == claims(of)
