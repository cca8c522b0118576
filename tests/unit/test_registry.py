"""The rule of the registry, decision by decision; properties/test_stores.py has it in any order, on every store."""

from __future__ import annotations

import pytest

from lispfmc.core.merging import merge
from lispfmc.core.registry import Accepted, Kind, Register
from lispfmc.core.versions import newer
from lispfmc.store import Gap
from lispfmc.store.memory import MemoryStore
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
    assert [each.change.kind for each in numbered] == [Kind.ADDED, Kind.ADDED, Kind.CHANGED]
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
