"""One service's move as a table: every event in every state, and what the table promises."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest

from fmcc.coordinator import TABLE, MoveEffect, Steer, step
from fmcc.effects import StartMigration
from fmcc.moves import (
    IN_FLIGHT,
    UNDER_WAY,
    Activated,
    Admitted,
    Confirmed,
    Deferred,
    Failed,
    Found,
    MoveEvent,
    Observed,
    Placement,
    Prepared,
    Progress,
    Requested,
    Resumed,
    SiteAcknowledged,
    State,
    Stopped,
    TimedOut,
    Versioned,
    Warmed,
)
from fmcc.world import Limits, Service
from lispfmc.core.effects import Emit
from lispfmc.core.versions import next_version
from lispfmc.wire.address import Prefix

SERVICE = Service("app", "alice", (Prefix.parse("100.64.101.10/32"),), "dc1", ("dc1", "dc2"))
LIMITS = Limits()
STORY: tuple[MoveEvent, ...] = (
    Requested("m2", "dc2"),
    Prepared("emulated", emulated=True),
    Warmed(),
    Stopped(1),
    Resumed(2),
)
EVENTS: tuple[MoveEvent, ...] = (
    *STORY,
    Deferred("m2", "dc2"),
    Admitted(),
    Progress(5.0),
    Activated(),
    Versioned(9),
    Failed("no reason"),
    SiteAcknowledged("dc1"),
    SiteAcknowledged("dc2"),
    Confirmed(),
    Observed("dc2", 9),
    Found("m3", "dc2"),
    TimedOut(),
)
TO: dict[State, tuple[MoveEvent, ...]] = {
    State.SETTLED: (),
    State.QUEUED: (Deferred("m2", "dc2"),),
    State.PREPARING: STORY[:1],
    State.WARMING: STORY[:2],
    State.COPYING: STORY[:3],
    State.STOPPED: STORY[:4],
    State.NOTIFIED: STORY,
    State.COMMITTED: (*STORY, Confirmed()),
    State.UNCONFIRMED: (*STORY, TimedOut()),
    State.FAILED: (*STORY[:3], Failed("no reason")),
}


def placement_in(state: State) -> Placement:
    placement = Placement(SERVICE, "dc1")
    for at, event in enumerate(TO[state]):
        placement, _ = step(placement, event, float(at), LIMITS)
    assert placement.state is state
    return placement


def steered(effects: list[MoveEffect]) -> list[str]:
    return [effect.verb for effect in effects if isinstance(effect, Steer)]


def test_the_stories_above_reach_every_state() -> None:
    assert set(TO) == set(State)
    assert {type(event) for event in EVENTS} == set(get_args(MoveEvent))


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, EVENTS)))
def test_what_the_table_does_not_list_changes_nothing(state: State, event: MoveEvent) -> None:
    before = placement_in(state)
    after, effects = step(before, event, 100.0, LIMITS)
    if (state, type(event)) not in TABLE:
        assert after is before
        assert effects == []
    elif not isinstance(event, Found) or before.datacenter != event.datacenter:
        assert after.state is TABLE[state, type(event)][0]


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, EVENTS)))
def test_the_service_changes_its_place_only_by_facts_and_by_the_map_servers_word(
    state: State, event: MoveEvent
) -> None:
    before = placement_in(state)
    after, _ = step(before, event, 100.0, LIMITS)
    if not isinstance(event, Resumed | Activated | Confirmed | Observed | Found):
        assert after.datacenter == before.datacenter
        assert after.version == before.version or isinstance(event, Versioned)


@pytest.mark.parametrize("state", sorted(UNDER_WAY))
def test_every_state_of_a_move_under_way_has_a_deadline_and_ends_by_it(state: State) -> None:
    before = placement_in(state)
    assert before.move is not None
    assert before.move.deadline is not None
    after, _ = step(before, TimedOut(), before.move.deadline, LIMITS)
    assert not after.in_flight
    assert after.move is not None
    assert after.move.deadline is None


@pytest.mark.parametrize(("state", "event"), list(itertools.product(sorted(IN_FLIGHT), EVENTS)))
def test_the_same_event_again_steers_nothing_twice(state: State, event: MoveEvent) -> None:
    once, _ = step(placement_in(state), event, 100.0, LIMITS)
    _, effects = step(once, event, 100.0, LIMITS)
    if not isinstance(event, Requested):
        assert steered(effects) == []


@pytest.mark.parametrize("state", [State.PREPARING, State.WARMING, State.COPYING, State.STOPPED])
def test_before_resumed_a_failure_aborts_and_the_service_stays(state: State) -> None:
    after, effects = step(placement_in(state), Failed("broken"), 9.0, LIMITS)
    assert after.state is State.FAILED
    assert after.datacenter == "dc1"
    assert steered(effects) == ["abort"]
    assert after.move is not None
    assert after.move.reason == "broken"
    (failed,) = [effect for effect in effects if isinstance(effect, Emit)]
    assert (failed.name, failed.fields["state"]) == ("migration.failed", str(state))


def test_after_resumed_nothing_fails_any_more() -> None:
    after, effects = step(placement_in(State.NOTIFIED), Failed("too late"), 9.0, LIMITS)
    assert after.state is State.NOTIFIED
    assert effects == []


def test_resumed_heard_before_stopped_is_no_less_true() -> None:
    resumed, effects = step(placement_in(State.COPYING), Resumed(20), 9.0, LIMITS)
    assert steered(effects) == ["activate"]
    after, effects = step(resumed, Stopped(10), 9.1, LIMITS)
    assert after.state is State.NOTIFIED
    assert steered(effects) == []
    assert after.move is not None
    assert (after.move.stopped_ns, after.move.resumed_ns) == (10, 20)


@pytest.mark.parametrize("state", [State.SETTLED, State.COMMITTED, State.UNCONFIRMED])
def test_a_service_found_elsewhere_at_rest_takes_the_network_along_by_a_move_of_its_own(state: State) -> None:
    before = placement_in(state)
    other = "dc1" if before.datacenter == "dc2" else "dc2"
    after, effects = step(before, Found("m3", other), 100.0, LIMITS)
    assert after.state is State.NOTIFIED
    assert steered(effects) == ["activate"]
    assert after.move is not None
    assert (after.move.id, after.move.source, after.move.target) == ("m3", before.datacenter, other)
    assert (after.datacenter, after.version) == (other, next_version(before.version))


def test_found_where_a_move_was_given_up_is_the_end_of_that_move() -> None:
    after, effects = step(placement_in(State.FAILED), Found("m3", "dc2"), 100.0, LIMITS)
    assert (after.state, after.datacenter, steered(effects)) == (State.NOTIFIED, "dc2", ["activate"])
    assert after.move is not None
    assert after.move.id == "m2"


def test_a_version_that_was_given_up_is_never_used_again() -> None:
    failed = placement_in(State.FAILED)
    again, _ = step(failed, Requested("m4", "dc2"), 100.0, LIMITS)
    assert failed.move is not None
    assert again.move is not None
    assert again.move.version == next_version(failed.move.version)


def test_hypervisors_are_asked_first_then_the_network_and_then_the_copy_begins() -> None:
    placement, asked = step(Placement(SERVICE, "dc1"), Requested("m1", "dc2"), 1.0, LIMITS)
    assert steered(asked) == []
    placement, prepared = step(placement, Prepared("emulated", emulated=True), 2.0, LIMITS)
    assert steered(prepared) == ["prepare"]
    assert not any(isinstance(effect, StartMigration) for effect in prepared)
    _, warmed = step(placement, Warmed(), 3.0, LIMITS)
    assert any(isinstance(effect, StartMigration) for effect in warmed)


def test_a_target_that_is_published_runs_there_whatever_was_heard_of_resumed() -> None:
    after, effects = step(placement_in(State.STOPPED), Confirmed(), 9.0, LIMITS)
    assert (after.state, after.datacenter, steered(effects)) == (State.COMMITTED, "dc2", ["commit"])
    late, _ = step(after, Resumed(20), 9.1, LIMITS)
    assert late.move is not None
    assert (late.state, late.move.resumed_ns) == (State.COMMITTED, 20)


@pytest.mark.parametrize("state", [State.PREPARING, State.WARMING, State.COPYING, State.STOPPED])
def test_found_at_the_target_before_resumed_is_heard_is_as_good(state: State) -> None:
    before = placement_in(state)
    for datacenter in ("dc1", "dc3"):
        assert step(before, Found("m3", datacenter), 100.0, LIMITS) == (before, [])
    after, effects = step(before, Found("m3", "dc2"), 100.0, LIMITS)
    assert steered(effects) == ["activate"]
    assert after.state is State.NOTIFIED
    assert after.move is not None
    assert after.move.id == "m2"


def test_both_acknowledgements_make_the_phase_once() -> None:
    placement = placement_in(State.NOTIFIED)
    for site in ("dc2", "dc2", "dc1", "dc1"):
        placement, _ = step(placement, SiteAcknowledged(site), 9.0, LIMITS)
    assert placement.move is not None
    assert [phase.name for phase in placement.move.phases].count("acknowledged") == 1


def test_versions_grow_by_one_and_never_become_zero() -> None:
    assert next_version(0) == 1
    assert next_version(4094) == 4095
    assert next_version(4095) == 1


def test_a_move_takes_the_version_after_the_one_that_was_published() -> None:
    observed, _ = step(Placement(SERVICE, "dc1"), Observed("dc1", 7), 1.0, LIMITS)
    requested, _ = step(observed, Requested("m1", "dc2"), 2.0, LIMITS)
    assert requested.move is not None
    assert requested.move.version == 8
