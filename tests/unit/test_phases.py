"""The phases of a move, from what the node agent, the Map-Server and the controller say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lispfmc.lab.analysis import NS_PER_MS
from lispfmc.lab.phases import PHASES, Outcome, Phases

EID = "100.64.1.10/32"
ATTACHED = {"down_ns": 1000 * NS_PER_MS, "up_ns": 1002 * NS_PER_MS, "announced_ns": 1003 * NS_PER_MS}


def alice(service: str | None = "alice-app") -> Phases:
    return Phases("alice", frozenset({EID}), "access2", service)


def after(phases: Phases, *events: tuple[float, str, Mapping[str, Any]]) -> Phases:
    """Events at milliseconds after the user's link went down."""
    phases.attached(ATTACHED)
    for at_ms, name, fields in events:
        phases.happened(name, fields, int((1000 + at_ms) * NS_PER_MS))
    return phases


REGISTERED = (10, "registration.changed", {"eid": EID})
PUBLISHED = (15, "user.moved", {"user": "alice", "to": "access2"})
DECIDED = (16, "decision.made", {"service": "alice-app", "decision": "move", "mode": "act", "to": "dc2"})
MOVE = {"service": "alice-app", "move": "m1"}
FOLLOWED = (
    (17, "migration.requested", {**MOVE, "to": "dc2"}),
    (29, "steering.prepared", {**MOVE, "scheme": "lossless"}),
    (30, "migration.started", MOVE),
    (5010, "migration.stopped", {**MOVE, "monotonic_ns": 6000 * NS_PER_MS}),
    (5070, "migration.resumed", {**MOVE, "monotonic_ns": 6060 * NS_PER_MS}),
    (5000.4, "move.standing", {"move": "m1", "state": "frozen"}),
    (5060.3, "move.standing", {"move": "m1", "state": "here"}),
    (5065, "move.standing", {"move": "m1", "state": "gone"}),
    (5071, "steering.notified", MOVE),
    (5080, "steering.acknowledged", {**MOVE, "both": False}),
    (5090, "steering.acknowledged", {**MOVE, "both": True}),
    (5100, "placement.changed", MOVE),
)


def test_a_move_that_the_service_follows_has_every_phase_in_order() -> None:
    found = after(alice(), REGISTERED, PUBLISHED, DECIDED, *FOLLOWED)
    assert tuple(phase.name for phase in found.list()) == PHASES
    assert found.outcome is Outcome.committed
    assert found.over
    assert found.move == "m1"


def test_routers_that_nobody_prepared_have_no_phases() -> None:
    plain = [event for event in FOLLOWED if event[1] != "move.standing"]
    plain[1] = (29, "steering.prepared", {**MOVE, "scheme": "fig9"})
    names = [phase.name for phase in after(alice(), REGISTERED, PUBLISHED, DECIDED, *plain).list()]
    assert not {"prepared", "frozen", "activated", "converging"} & set(names)


def test_a_routers_word_that_overtakes_the_controllers_is_not_lost() -> None:
    early = [event for event in FOLLOWED if event[1] == "move.standing"]
    others = [event for event in FOLLOWED if event[1] != "move.standing"]
    foreign = (5000.1, "move.standing", {"move": "m0", "state": "frozen"})
    found = after(alice(), REGISTERED, PUBLISHED, DECIDED, foreign, *early, *others)
    at = {phase.name: phase.at_ms for phase in found.list()}
    assert (at["frozen"], at["activated"]) == (5000.4, 5060.3)


def test_stop_and_resume_are_the_hypervisors_own_times() -> None:
    at = {phase.name: phase.at_ms for phase in after(alice(), REGISTERED, PUBLISHED, DECIDED, *FOLLOWED).list()}
    assert (at["stop"], at["resume"]) == (5000.0, 5060.0)
    assert at["link_down"] == 0.0


def test_nothing_is_over_while_the_service_is_under_way() -> None:
    assert not after(alice(), REGISTERED, PUBLISHED, DECIDED, *FOLLOWED[:5]).over


def test_a_policy_that_stays_ends_it_with_its_reason() -> None:
    stays = (16, "decision.made", {"service": "alice-app", "decision": "stay", "mode": "act", "reason": "near enough"})
    found = after(alice(), REGISTERED, PUBLISHED, stays)
    assert (found.over, found.outcome, found.reason) == (True, Outcome.stays, "near enough")


def test_a_controller_that_only_observes_ends_it_too() -> None:
    observes = (16, "decision.made", {**DECIDED[2], "mode": "observe"})
    found = after(alice(), REGISTERED, PUBLISHED, observes)
    assert found.outcome is Outcome.stays
    assert "dc2" in found.reason


def test_a_failed_migration_ends_it_with_its_reason() -> None:
    failed = (300, "migration.failed", {**MOVE, "reason": "disk full"})
    found = after(alice(), REGISTERED, PUBLISHED, DECIDED, FOLLOWED[0], failed)
    assert (found.over, found.outcome, found.reason) == (True, Outcome.failed, "disk full")


def test_a_move_that_was_in_flight_is_waited_for_and_is_not_ours() -> None:
    earlier = {"service": "alice-app", "move": "m0"}
    later = (16, "decision.made", {"service": "alice-app", "decision": "later", "mode": "act", "reason": "in flight"})
    found = after(
        alice(),
        REGISTERED,
        PUBLISHED,
        later,
        (17, "migration.stopped", earlier),
        (18, "migration.resumed", earlier),
        (19, "placement.changed", earlier),
    )
    assert (found.over, found.outcome) == (False, Outcome.pending)
    assert found.list()[-1].name == "published"
    for at_ms, name, fields in (DECIDED, *FOLLOWED):
        found.happened(name, fields, int((1000 + at_ms + 10) * NS_PER_MS))
    assert found.outcome is Outcome.committed
    assert found.move == "m1"


def test_what_happened_before_the_link_went_down_is_not_ours() -> None:
    found = after(alice(), (-5, "registration.changed", {"eid": EID}), (-4, "user.moved", PUBLISHED[2]))
    assert [phase.name for phase in found.list()] == ["link_down", "link_up", "announced"]


def test_events_that_overtake_the_node_agents_answer_count_too() -> None:
    found = alice()
    for at_ms, name, fields in (PUBLISHED, DECIDED, FOLLOWED[0], REGISTERED):
        found.happened(name, fields, int((1000 + at_ms) * NS_PER_MS))
    found.attached(ATTACHED)
    assert [phase.name for phase in found.list()][-3:] == ["registered", "published", "decision"]
    assert found.move == "m1"


def test_other_users_and_other_services_are_not_ours() -> None:
    found = after(
        alice(),
        (5, "registration.changed", {"eid": "100.64.2.10/32"}),
        (6, "user.moved", {"user": "bob", "to": "access2"}),
        (7, "decision.made", {**DECIDED[2], "service": "bob-app"}),
    )
    assert len(found.list()) == 3


def test_the_old_site_losing_the_user_is_not_its_arrival() -> None:
    assert len(after(alice(), (5, "user.moved", {"user": "alice", "to": None})).list()) == 3


def test_a_user_without_a_service_is_done_when_the_controller_has_heard_of_it() -> None:
    assert after(alice(service=None), REGISTERED, PUBLISHED).over
