"""One rule, every store: the same commands on virtual time give equal outcomes and an equal state.

Beside the stores goes a plain model that knows no leases, tables or deadlines, only who holds an EID, by which version,
until when. The store that lasts is killed and started again at any point, with and without a snapshot, and takes what
it can by the short rule of hosts that are told alike, where the other goes by the whole rule alone.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lispfmc.core.claims import told_alike
from lispfmc.core.merging import merge, merge_alike
from lispfmc.core.registry import Accepted, Kind, Owner, Register, Replayed, ToldAlike
from lispfmc.core.subscriptions import Subscribed
from lispfmc.core.versions import newer
from lispfmc.store import Released, Store
from lispfmc.store.memory import MemoryStore
from lispfmc.store.sqlite import SqliteStore
from lispfmc.wire import records
from lispfmc.wire.address import Prefix
from lispfmc.wire.auth import AUTH_OFFSET, Key
from tests.properties.registers import EIDS, KEY, LIFE_S, OWNERS, query, register, rloc

UNIX = 1_700_000_000.0


class Part(NamedTuple):
    owner: Owner
    merges: bool
    version: int
    until: float


def keys(_site: str, _key_id: int) -> Key:
    return KEY


def shown(outcome: Accepted) -> dict[str, Any]:
    """What of an outcome does not depend on which store's values it refers to."""
    changes = [(each.kind, each.eid, [left.owner for left in each.displaced]) for each in outcome.changes]
    refusals = [(each.reason, each.eid, each.current.owner) for each in outcome.refusals]
    return {"changes": changes, "refusals": refusals, "released": outcome.released, "renewed": outcome.renewed}


def state(store: Store) -> dict[str, Any]:
    """Everything that decisions, answers and people see."""
    registrations = {
        each.eid: (each.record, each.since, [(part.owner, part.record, part.lease.expires_at) for part in each.each])
        for each in store.registrations()
    }
    departed = {eid: [each.owner for each in store.displaced(eid)] for eid in EIDS}
    nonces = [store.view(query(register(owner, EIDS, 1))).last_nonce(owner, 1) for owner in OWNERS]
    return {"registrations": registrations, "departed": departed, "nonces": nonces, "deadline": store.next_deadline()}


class StoresFollowTheRule(RuleBasedStateMachine):
    """Commands on virtual time; after each, every store shows what the model holds."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1024.0
        self.nonce = 0
        self.held: dict[Prefix, tuple[Part, ...]] = {}
        self.displaced: set[tuple[Prefix, Owner]] = set()
        self.subscribed: dict[Prefix, Subscribed] = {}

    @initialize()
    def begins(self) -> None:
        self.folder = Path(mkdtemp(prefix="store"))
        self.memory = MemoryStore()
        self.sqlite = self.opened()

    def teardown(self) -> None:
        self.sqlite.close()
        shutil.rmtree(self.folder)

    def opened(self) -> SqliteStore:
        return SqliteStore(self.folder, keys, now=self.now, wall_now=UNIX + self.now)

    @property
    def stores(self) -> tuple[Store, Store]:
        return self.memory, self.sqlite

    def take(self, message: Register, held: frozenset[Prefix] = frozenset()) -> Accepted:
        outcomes = []
        anew = self.short(message)
        for store in self.stores:
            outcome = merge(message, store.view(query(message)), self.now, held)
            assert isinstance(outcome, Accepted)
            if store is self.memory or anew is None:
                store.apply([outcome], self.now)
            else:
                store.apply([anew], self.now)
                assert (outcome.refusals, outcome.released) == ((), ())
                assert not any(each.displaced for each in outcome.changes)
                changes = [(each.kind, each.after and each.after.record) for each in outcome.changes]
                changed = [each.record for each in anew.changed]
                told = Kind.ADDED if anew.first else Kind.CHANGED
                assert [record for kind, record in changes if kind is told] == changed
                assert {kind for kind, _ in changes} <= {told, Kind.REFRESHED}
            store.commit()
            outcomes.append(outcome)
        # after a restart nothing tells an unchanged refresh from a new registration that changes nothing
        one, other = (shown(each) for each in outcomes)
        if not (outcomes[0].renewed and not outcomes[1].renewed):
            assert one == other
        return outcomes[0]

    def short(self, message: Register) -> ToldAlike | None:
        datagram = message.datagram
        start = AUTH_OFFSET + (datagram[14] << 8 | datagram[15])
        found = records.alike(datagram, start, len(datagram) - 24, datagram[3])
        around = told_alike(found.header, found.locators) if found is not None else None
        if found is None or around is None:
            return None
        view = self.sqlite.view(query(message))
        told = records.Alike(around[0], found.eids, around[1])
        return merge_alike(message, told, view, self.now)

    @rule(
        owner=st.sampled_from(OWNERS),
        eids=st.lists(st.sampled_from(EIDS), min_size=1, max_size=3, unique=True),
        version=st.integers(0, 3),
        merges=st.booleans(),
        damped=st.booleans(),
        weight=st.integers(1, 2),
    )
    def registers(
        self, owner: Owner, eids: list[Prefix], version: int, merges: bool, damped: bool, weight: int
    ) -> None:
        self.nonce += 1
        message = register(owner, eids, self.nonce, version, merges=merges, weight=weight)
        outcome = self.take(message, frozenset(EIDS[:1]) if damped else frozenset())
        refused = {refusal.eid: refusal.reason for refusal in outcome.refusals}
        before = dict(self.held)
        for eid in eids:
            assert refused.get(eid) == self.objection(before, eid, owner, version, merges, damped)
            if eid in refused:
                continue
            parts = before.get(eid, ())
            mine = next((part for part in parts if part.owner == owner), None)
            kept = mine.version if mine is not None and not version else version
            others = tuple(part for part in parts if part.owner != owner)
            joined = merges and all(part.merges and part.owner.site == owner.site for part in others)
            if not joined or not others:
                self.leave(eid, owner, before)
                others = ()
            self.displaced.discard((eid, owner))
            part = Part(owner, merges, kept, self.now + LIFE_S)
            if others and mine is not None:  # each of those that share an EID keeps its place
                self.held[eid] = tuple(part if each is mine else each for each in parts)
            else:
                self.held[eid] = (*others, part)

    def objection(
        self, held: dict[Prefix, tuple[Part, ...]], eid: Prefix, owner: Owner, version: int, merges: bool, damped: bool
    ) -> str | None:
        parts = held.get(eid, ())
        mine = next((part for part in parts if part.owner == owner), None)
        if not parts:
            return None
        if mine is not None:
            return "stale-version" if version and newer(mine.version, version) else None
        told = max((part.version for part in parts), default=0)
        if newer(told, version):
            return "stale-version"
        if merges and parts[-1].merges and parts[-1].owner.site == owner.site:
            return None
        if (eid, owner) in self.displaced and not newer(version, told):
            return "displaced"
        return "damped" if damped and eid == EIDS[0] and not newer(version, told) else None

    def leave(self, eid: Prefix, owner: Owner, before: dict[Prefix, tuple[Part, ...]]) -> None:
        covering = [before[each] for each in sorted(before, key=lambda each: -each.length) if each.covers(eid)]
        previous = before.get(eid) or next(iter(covering), ())
        if len(previous) == 1 and previous[0].owner == owner:
            return
        self.displaced |= {(eid, part.owner) for part in previous if part.owner != owner}

    @rule(owner=st.sampled_from(OWNERS), eid=st.sampled_from(EIDS))
    def withdraws(self, owner: Owner, eid: Prefix) -> None:
        self.nonce += 1
        self.take(register(owner, [eid], self.nonce, ttl_minutes=0))
        self.displaced.discard((eid, owner))
        self.end(eid, owner)

    @rule(owner=st.sampled_from(OWNERS), eid=st.sampled_from(EIDS))
    def acknowledges(self, owner: Owner, eid: Prefix) -> None:
        for store in self.stores:
            store.apply([Released(eid, owner)], self.now)
            store.commit()
        self.displaced.discard((eid, owner))

    @rule(owner=st.sampled_from(OWNERS), behind=st.integers(0, 5))
    def replays(self, owner: Owner, behind: int) -> None:
        for store in self.stores:
            last = store.view(query(register(owner, EIDS, 1))).last_nonce(owner, 1)
            if last is not None:
                message = register(owner, EIDS, max(last - behind, 0), version=9)
                assert isinstance(merge(message, store.view(query(message)), self.now), Replayed)

    @rule(eid=st.sampled_from(EIDS), until=st.sampled_from([None, 900.0]), ended=st.booleans())
    def subscribes(self, eid: Prefix, until: float | None, ended: bool) -> None:
        self.nonce += 1
        ends = None if until is None else self.now + until
        self.subscribed[eid] = Subscribed(eid, b"x" * 16, "fmcc", (rloc(OWNERS[0]),), self.nonce, ends, ended)
        self.sqlite.apply([self.subscribed[eid]], self.now)
        self.sqlite.commit()

    @rule(seconds=st.sampled_from([1.0, 60.0, 100.0, 200.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        gone = [{(each.eid, each.kind) for each in store.expired(self.now)} for store in self.stores]
        assert gone[0] == gone[1]
        self.sqlite.commit()
        for eid, parts in list(self.held.items()):
            for part in parts:
                if part.until <= self.now:
                    self.end(eid, part.owner)

    def end(self, eid: Prefix, owner: Owner) -> None:
        parts = self.held.get(eid, ())
        left = tuple(part for part in parts if part.owner != owner)
        if left:
            self.held[eid] = left
            self.displaced.discard((eid, left[-1].owner))
        elif parts:
            del self.held[eid]
            self.displaced = {(each, other) for each, other in self.displaced if each != eid}

    @rule(killed=st.booleans(), snapshot=st.booleans(), torn=st.binary(max_size=40))
    def restarts(self, killed: bool, snapshot: bool, torn: bytes) -> None:
        if snapshot:
            self.sqlite.snapshot(wait=True)
        if killed:  # nothing is closed, and the last write was cut off
            copy = Path(mkdtemp(prefix="store"))
            shutil.copytree(self.folder, copy, dirs_exist_ok=True)
            with max(copy.glob("journal.*")).open("ab") as journal:
                journal.write(torn)
            self.sqlite.close()
            shutil.rmtree(self.folder)
            self.folder = copy
        else:
            self.sqlite.close()
        self.sqlite = self.opened()

    @invariant()
    def every_store_is_in_the_same_state(self) -> None:
        one, other = (state(store) for store in self.stores)
        assert one == other
        kept = {each.eid: each for each in self.sqlite.subscriptions()}
        assert kept == self.subscribed

    @invariant()
    def the_state_is_what_the_model_holds(self) -> None:
        held = {
            each.eid: tuple((part.owner, part.version, part.lease.expires_at) for part in each.each)
            for each in self.memory.registrations()
        }
        assert held == {
            eid: tuple((part.owner, part.version, part.until) for part in parts) for eid, parts in self.held.items()
        }
        untils = [part.until for parts in self.held.values() for part in parts]
        assert self.memory.next_deadline() == min(untils, default=None)
        for eid in EIDS:
            owners = {each.owner for each in self.memory.displaced(eid)}
            assert owners == {owner for each, owner in self.displaced if each == eid}

    @invariant()
    def merged_locators_are_those_of_every_part(self) -> None:
        for each in self.memory.registrations():
            told = {locator.address for locator in each.mapping.locators}
            assert told == {rloc(part.owner) for part in each.each}

    @invariant()
    def a_lease_counts_what_lives_by_it(self) -> None:
        for store in self.stores:
            parts = [part for each in store.registrations() for part in each.each]
            for lease in {part.lease.number: part.lease for part in parts}.values():
                mine = [part for part in parts if part.lease is lease]
                assert lease.live == len(mine)
                assert all(any(part is member for member in lease.members) for part in mine)


StoresFollowTheRule.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestStoresFollowTheRule = StoresFollowTheRule.TestCase
