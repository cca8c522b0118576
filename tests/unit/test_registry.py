"""The rule of the registry against a plain model: any order of registers, withdrawals, acknowledgements and expiry.

The model knows no leases, tables or deadlines, only who holds an EID, with which version, until when.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lispfmc.core.registry import Accepted, Kind, Owner, Register, Replayed, merge
from lispfmc.core.versions import newer
from lispfmc.store import Gap, Query, Released
from lispfmc.store.memory import MemoryStore
from lispfmc.wire.address import Endpoint, Prefix
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import EidRecord, Locator

LIFE_S = 180.0
EIDS = [Prefix.parse(text) for text in ("10.1.0.1/32", "10.1.0.2/32", "10.1.0.0/24")]
OWNERS = [Owner(f"site{number}", bytes([number]) * 16) for number in range(3)]


def rloc(owner: Owner) -> bytes:
    return bytes([198, 18, 0, owner.xtr[0]])


def register(owner: Owner, eids: list[Prefix], nonce: int, version: int = 0, ttl_minutes: int = 1440) -> Register:
    locators = [Locator.of(rloc(owner))] if ttl_minutes else []
    records = tuple(EidRecord.of(eid, locators, ttl_minutes=ttl_minutes, map_version=version) for eid in eids)
    return Register(owner, Key(1, b"secret"), nonce, Endpoint(rloc(owner), 4342), records, True, LIFE_S)


def query(message: Register) -> Query:
    return Query(tuple(EIDS), message.owner, message.key.id)


class Held(NamedTuple):
    owner: Owner
    version: int
    until: float


class StoreFollowsTheRule(RuleBasedStateMachine):
    """Commands on virtual time; after each, the store shows what the model holds."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.now = 0.0
        self.nonce = 0
        self.held: dict[Prefix, Held] = {}
        self.displaced: set[tuple[Prefix, Owner]] = set()

    def _take(self, message: Register) -> Accepted:
        outcome = merge(message, self.store.view(query(message)), self.now)
        assert isinstance(outcome, Accepted)
        self.store.apply([outcome], self.now)
        return outcome

    @rule(
        owner=st.sampled_from(OWNERS),
        eids=st.lists(st.sampled_from(EIDS), min_size=1, max_size=3, unique=True),
        version=st.integers(0, 3),
    )
    def registers(self, owner: Owner, eids: list[Prefix], version: int) -> None:
        self.nonce += 1
        outcome = self._take(register(owner, eids, self.nonce, version))
        refused = {refusal.eid for refusal in outcome.refusals}
        before = dict(self.held)
        for eid in eids:
            held = before.get(eid)
            foreign = held is not None and held.owner != owner
            old = held is not None and newer(held.version, version) and (foreign or version > 0)
            lost = (eid, owner) in self.displaced and not (held is not None and newer(version, held.version))
            assert (eid in refused) == (old or (foreign and lost))
            if eid in refused:
                continue
            kept = held.version if held is not None and not foreign and not version else version
            self._leave(eid, owner, before)
            self.held[eid] = Held(owner, kept, self.now + LIFE_S)

    def _leave(self, eid: Prefix, owner: Owner, before: dict[Prefix, Held]) -> None:
        covering = [before[each] for each in sorted(before, key=lambda each: -each.length) if each.covers(eid)]
        previous = before.get(eid) or next(iter(covering), None)
        if previous is not None and previous.owner != owner:
            self.displaced.add((eid, previous.owner))
        self.displaced.discard((eid, owner))

    @rule(owner=st.sampled_from(OWNERS), eid=st.sampled_from(EIDS))
    def withdraws(self, owner: Owner, eid: Prefix) -> None:
        self.nonce += 1
        self._take(register(owner, [eid], self.nonce, ttl_minutes=0))
        if (eid, owner) in self.displaced:
            self.displaced.discard((eid, owner))
        elif eid in self.held and self.held[eid].owner == owner:
            self._gone(eid)

    @rule(owner=st.sampled_from(OWNERS), eid=st.sampled_from(EIDS))
    def acknowledges(self, owner: Owner, eid: Prefix) -> None:
        self.store.apply([Released(eid, owner)], self.now)
        self.displaced.discard((eid, owner))

    @rule(owner=st.sampled_from(OWNERS), behind=st.integers(0, 5))
    def replays(self, owner: Owner, behind: int) -> None:
        last = self.store.last_nonce(owner, 1)
        if last is not None:
            message = register(owner, EIDS, max(last - behind, 0), version=9)
            assert isinstance(merge(message, self.store.view(query(message)), self.now), Replayed)

    @rule(seconds=st.sampled_from([1.0, 60.0, 100.0, 200.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        gone = {change.eid for change in self.store.expired(self.now)}
        assert gone == {eid for eid, held in self.held.items() if held.until <= self.now}
        for eid in gone:
            self._gone(eid)

    def _gone(self, eid: Prefix) -> None:
        del self.held[eid]
        self.displaced = {(each, owner) for each, owner in self.displaced if each != eid}

    @invariant()
    def the_store_shows_what_the_model_holds(self) -> None:
        shown = {each.eid: Held(each.owner, each.version, each.lease.expires_at) for each in self.store.registrations()}
        assert shown == self.held
        assert self.store.next_deadline() == min((held.until for held in self.held.values()), default=None)
        for eid in EIDS:
            owners = {each.owner for each in self.store.displaced(eid)}
            assert owners == {owner for each, owner in self.displaced if each == eid}

    @invariant()
    def a_lease_counts_what_lives_by_it(self) -> None:
        for lease in {each.lease.number: each.lease for each in self.store.registrations()}.values():
            assert lease.live == sum(each.lease is lease for each in self.store.registrations())


TestStoreFollowsTheRule = StoreFollowsTheRule.TestCase
TestStoreFollowsTheRule.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


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
    before = (list(store.registrations()), store.next_deadline(), store.last_nonce(OWNERS[1], 1))
    message = register(OWNERS[1], EIDS, 7)
    first, again = (merge(message, store.view(query(message)), 5.0) for _ in range(2))
    assert first == again
    assert (list(store.registrations()), store.next_deadline(), store.last_nonce(OWNERS[1], 1)) == before


def test_followers_read_changes_in_order_and_no_refreshes() -> None:
    store = MemoryStore()
    apply(store, register(OWNERS[0], EIDS[:2], 1))
    apply(store, register(OWNERS[0], EIDS[:1], 2))
    apply(store, register(OWNERS[1], EIDS[:1], 3))
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
