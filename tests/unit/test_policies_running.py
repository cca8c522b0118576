"""The policies that run: what moves a service, what does not, what they learn, and that each says why."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from fmcc.policy import Candidate, Go, Learner, Policy, Stay, View
from fmcc.policy.gauge import Curve, Gauge
from fmcc.policy.learned import ENOUGH, Learned
from fmcc.policy.mdp import BadState, Mdp, Pace
from fmcc.policy.models.checks import BadParameter
from fmcc.policy.models.walk import Walk, threshold
from fmcc.policy.registry import KNOWN, POLICIES, Parameters, make
from fmcc.policy.replay import Replay
from fmcc.policy.rules import ClassRules, Rules
from fmcc.policy.table import ThresholdTable


def view(*rtts_ms: float | None, at: int = 1, full: tuple[int, ...] = (), **changes: object) -> View:
    """Data centres dc1, dc2, ... at these distances of the user; the service is at dc`at`."""
    candidates = tuple(
        Candidate(f"dc{number}", rtt_ms, free=0 if number in full else None, transfer_s=80.0)
        for number, rtt_ms in enumerate(rtts_ms, 1)
    )
    fields = {"service": "app", "user": "alice", "site": "here", "datacenter": f"dc{at}", "candidates": candidates}
    return View(**(fields | changes))  # type: ignore[arg-type]


# --- thresholds -------------------------------------------------------------------------------------------------------


def test_always_follows_whatever_brings_another_place_nearer() -> None:
    decision = make("always").decide(view(11, 10))
    assert isinstance(decision, Go)
    assert (decision.datacenter, decision.rule) == ("dc2", "always")
    assert isinstance(make("always").decide(view(10, 10)), Stay)


def test_a_threshold_follows_from_its_distance_on() -> None:
    policy = make("threshold:3")  # 10 ms a step
    stays, goes = policy.decide(view(39.9, 10)), policy.decide(view(40, 10))
    assert isinstance(stays, Stay)
    assert stays.runner_up == "move to dc2, from a distance of 3 on"
    assert isinstance(goes, Go)
    assert "3 steps nearer" in goes.reason
    assert goes.runner_up == "stay at dc1, below a distance of 3"


def test_a_full_data_centre_is_passed_over_and_named() -> None:
    decision = make("threshold:1").decide(view(100, 5, 20, full=(2,)))
    assert isinstance(decision, Go)
    assert decision.datacenter == "dc3"
    assert "full: dc2" in decision.reason
    own = make("always").decide(view(5, 20, full=(1,)))
    assert own.reason.startswith("dc1 is the best"), "its own place is none that it could not have"
    nowhere = make("always").decide(view(100, 5, full=(2,)))
    assert isinstance(nowhere, Stay)
    assert "full: dc2" in nowhere.reason


@pytest.mark.parametrize("name", ["always", "threshold:2", "mdp", "learned"])
def test_without_distances_nothing_moves_and_an_unknown_one_is_left(name: str) -> None:
    assert isinstance(make(name).decide(view(None, None)), Stay)
    assert isinstance(make(name).decide(view(None, 10)), Go)
    assert isinstance(make(name).decide(view(10, None)), Stay)
    assert isinstance(make(name).decide(view()), Stay)


@pytest.mark.parametrize("name", [*sorted(POLICIES), "threshold:2.5"])
def test_every_policy_is_made_by_its_name_and_explains_itself(name: str) -> None:
    policy: Policy = Rules(ClassRules(make(name)))
    assert policy.name == name
    for decision in (policy.decide(view(200, 10)), policy.decide(view(10, 200))):
        assert decision.rule == name
        assert decision.reason
        assert decision.runner_up


@pytest.mark.parametrize("name", ["fastest", "threshold", "threshold:", "threshold:x", "threshold:-1", "threshold:inf"])
def test_an_unknown_policy_is_refused(name: str) -> None:
    with pytest.raises(BadParameter, match=r"choose one|write threshold:3"):
        make(name)
    assert "threshold:T" in KNOWN


# --- distance ---------------------------------------------------------------------------------------------------------


def test_a_latency_curve_is_straight_between_its_points_and_goes_on() -> None:
    curve = Curve([(0, 0), (50, 1), (100, 11)])
    assert [curve.loss(ms) for ms in (0, 25, 50, 75, 100, 150)] == [0, 0.5, 1, 6, 11, 21]


@pytest.mark.parametrize("points", [[], [(0, 0)], [(0, 0), (0, 1)], [(0, 1), (10, 0)], [(-1, 0), (10, 1)]])
def test_a_curve_that_makes_no_sense_is_refused(points: list[tuple[float, float]]) -> None:
    with pytest.raises(BadParameter, match=r"curve"):
        Curve(points)


def test_a_service_that_does_not_feel_the_distance_stays() -> None:
    """A film buffers: up to 200 ms it loses nothing."""
    deaf = make("threshold:1", Parameters(curve=[(0, 0), (200, 0), (300, 10)]))
    assert isinstance(deaf.decide(view(190, 1)), Stay)
    assert isinstance(deaf.decide(view(250, 1)), Go)


def test_a_loaded_data_centre_is_farther() -> None:
    gauge = Gauge(load_ms=20.0)
    busy, idle = Candidate("dc1", 5.0, load=0.8), Candidate("dc2", 30.0, load=0.0)
    reading = gauge.read(View("app", "alice", "here", "dc1", (busy, idle)))
    assert reading.best == idle
    assert reading.distance == pytest.approx((5 + 20 * 4 - 30) / 10)
    assert gauge.loss(Candidate("dc3", 0.0, load=1.0)) == pytest.approx(20 * 99 / 10)


# --- mdp --------------------------------------------------------------------------------------------------------------


def test_the_table_has_the_closed_forms_thresholds() -> None:
    table = ThresholdTable(gamma=0.9, thr=20)
    choose = random.Random(3)
    for _ in range(200):
        share, stay, step = choose.randrange(41) / 40, choose.randrange(10) / 10, choose.randrange(61)
        cost = float(np.geomspace(0.01, 1e4, 61)[step])
        p = share * (1 - stay)
        assert table.threshold(p, stay, cost) == threshold(Walk(p, stay, cost, gamma=0.9, thr=20))


def test_many_users_are_decided_at_once_as_each_would_be() -> None:
    table = ThresholdTable(thr=10)
    choose = random.Random(4)
    users = [(choose.random(), choose.uniform(0.01, 100), choose.randrange(11)) for _ in range(500)]
    rows = np.array([table.row(p * 0.8, 0.2, cost) for p, cost, _ in users])
    distances = np.array([distance for _, _, distance in users])
    one_by_one = [distance >= table.threshold(p * 0.8, 0.2, cost) for p, cost, distance in users]
    assert table.migrate(rows, distances).tolist() == one_by_one


def test_probabilities_that_do_not_sum_find_no_row() -> None:
    with pytest.raises(BadParameter, match="together they are at most 1"):
        ThresholdTable(thr=3).row(0.8, 0.3, 1.0)


def walks(policy: Learner, distances: list[float], service: str = "app") -> None:
    """Handovers to these distances, in steps from dc1; the service stays there."""
    for distance in distances:
        policy.observe(view(10 + 10 * distance, 10, service=service))


def test_each_user_has_the_threshold_of_its_own_walk() -> None:
    table = ThresholdTable(thr=30)
    policy = Mdp(table)
    walks(policy, [1, 2, 3, 4, 5, 6, 7, 8] * 30, "away")
    walks(policy, [1, 2, 1, 2, 3, 2, 1, 0] * 30, "back")
    candidates = (Candidate("dc1", 60.0), Candidate("dc2", 10.0, transfer_s=960.0))  # a cost of 60
    thresholds = {}
    for name in ("away", "back"):
        reason = policy.decide(view(service=name, candidates=candidates)).reason
        thresholds[name] = int(reason.partition("the threshold is ")[2].split()[0])
    # each time around, "away" goes outward 7 times and jumps back once; "back" outward 3 times and inward 4 times
    assert thresholds == {"away": table.threshold(7 / 8, 0, 60), "back": table.threshold(3 / 7, 0, 60)}
    assert thresholds["away"] != thresholds["back"]


def test_a_machine_that_takes_longer_to_copy_moves_later() -> None:
    policy = Mdp(ThresholdTable(thr=30))
    quick = policy.decide(view(candidates=(Candidate("dc1", 40), Candidate("dc2", 10, transfer_s=1.0))))
    slow = policy.decide(view(candidates=(Candidate("dc1", 40), Candidate("dc2", 10, transfer_s=3600.0))))
    assert isinstance(quick, Go)
    assert isinstance(slow, Stay)


def test_handovers_count_by_what_they_did_to_the_distance() -> None:
    pace = Pace()
    for distance in (1, 2, 2, 1, 0, 1):  # from 0 to 1 says nothing
        pace.count("dc1", distance)
    pace.count("dc2", 5)  # the service has moved: no step of the user's
    assert (pace.outward, pace.inward, pace.same) == (1, 2, 1)
    assert pace.walk == pytest.approx((2 / 6, 1 / 6))


# --- learned ----------------------------------------------------------------------------------------------------------


def test_the_replay_is_what_each_threshold_would_have_cost() -> None:
    """Against the plain simulation of each threshold alone."""
    choose = random.Random(5)
    places = ["dc1", "dc2", "dc3"]
    past = [[choose.uniform(0, 6) for _ in places] for _ in range(300)]
    replay = Replay.beginning("dc1", 8)
    for losses in past:
        replay.handover(list(zip(places, losses, strict=True)), 2.5)
    for wanted in range(1, 9):
        at, cost = 0, 0.0
        for losses in past:
            distance = losses[at] - min(losses)
            if distance >= wanted:
                at, distance = losses.index(min(losses)), 2.5
            cost += distance
        assert replay.costs[wanted - 1] == pytest.approx(cost)
    assert replay.best(1) == 1 + int(np.argmin(replay.costs))


def test_it_starts_from_the_model_and_ends_with_what_the_past_teaches() -> None:
    """A commuter goes far and comes straight back: moving the service never pays, whatever the model thinks."""
    policy = Learned(ThresholdTable(thr=10))
    there_and_back = [(10.0, 60.0), (60.0, 10.0)]
    first = policy.decide(view(60, 10))
    assert isinstance(first, Go)
    assert "the model's" in first.reason
    for number in range(2 * ENOUGH):
        policy.observe(view(*there_and_back[number % 2]))
    learned = policy.decide(view(60, 10))
    assert isinstance(learned, Stay)
    assert "handovers replayed" in learned.reason


def test_what_was_learned_survives_a_restart_as_plain_state() -> None:
    policy = Learned(ThresholdTable(thr=10))
    walks(policy, [1, 2, 3, 2, 5, 6, 0, 1] * 10)
    saved = json.loads(json.dumps(policy.state("app")))
    again = Learned(ThresholdTable(thr=10))
    again.restore("app", saved)
    assert again.state("app") == saved
    assert again.decide(view(45, 10)) == policy.decide(view(45, 10))
    assert again.state("other") is None


@pytest.mark.parametrize(
    "damage",
    [
        {"costs": [0.0]},
        {"places": [7] * 10},
        {"places": "seven"},
        {"costs": [float("nan")] * 10},
        {"handovers": -1},
        {"datacenters": []},
        {"walk": {"outward": "many"}},
        {"walk": {"outward": -5.0}},
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(damage: dict[str, object]) -> None:
    policy = Learned(ThresholdTable(thr=10))
    walks(policy, [1, 2, 3] * 10)
    saved = policy.state("app")
    assert saved is not None
    fresh = Learned(ThresholdTable(thr=10))
    with pytest.raises(BadState, match="learned anew"):
        fresh.restore("app", {**saved, **damage})
    assert fresh.state("app") is None


def test_a_data_centre_that_vanishes_is_left_by_every_threshold() -> None:
    replay = Replay.beginning("gone", 3)
    replay.handover([("dc1", 0.0), ("dc2", 1.0)], 2.0)
    assert list(replay.costs) == [2.0, 2.0, 2.0]


# --- rules by class ---------------------------------------------------------------------------------------------------


def rules(**changes: object) -> Rules:
    return Rules(ClassRules(make("never")), {"some": ClassRules(**({"policy": make("always")} | changes))})  # type: ignore[arg-type]


def test_an_emergency_always_follows() -> None:
    policy = rules(policy=make("never"), follow=make("always"))
    decision = policy.decide(view(100, 1, service_class="some", remaining_s=0.1, settled_s=0.0))
    assert isinstance(decision, Go)
    assert decision.rule == "always-follows"
    assert decision.runner_up.startswith("never: stay")
    assert isinstance(policy.decide(view(100, 1)), Stay), "other classes have the default"


@pytest.mark.parametrize(("finishing_s", "stays_at"), [(None, 79.0), (10.0, 9.0)])
def test_a_nearly_finished_service_stays(finishing_s: float | None, stays_at: float) -> None:
    """Without a time of its own, what would end before its copy (80 s) does."""
    policy = rules(finishing_s=finishing_s)
    stays = policy.decide(view(100, 1, service_class="some", remaining_s=stays_at))
    assert isinstance(stays, Stay)
    assert stays.rule == "nearly-finished"
    assert stays.runner_up.startswith("always: move to dc2")
    assert isinstance(policy.decide(view(100, 1, service_class="some", remaining_s=stays_at + 2)), Go)


def test_a_service_that_has_just_moved_stays_for_a_while() -> None:
    policy = rules(settle_s=30.0)
    assert policy.decide(view(100, 1, service_class="some", settled_s=29.0)).rule == "settling"
    assert isinstance(policy.decide(view(100, 1, service_class="some", settled_s=31.0)), Go)
    assert isinstance(policy.decide(view(100, 1, service_class="some")), Go)


def test_a_small_gain_is_none() -> None:
    policy = rules(hysteresis_ms=5.0)
    held = policy.decide(view(14.9, 10, service_class="some"))
    assert held.rule == "hysteresis"
    assert "4.9 ms nearer" in held.reason
    assert isinstance(policy.decide(view(15, 10, service_class="some")), Go)


def test_the_rules_let_each_class_learn_and_save() -> None:
    policy = Rules(ClassRules(make("nearest")), {"some": ClassRules(make("learned"))})
    policy.observe(view(20, 10, service_class="some"))
    policy.observe(view(20, 10, service="plain"))
    saved = policy.state("app")
    assert saved is not None
    assert policy.state("plain") is None
    again = Rules(ClassRules(make("nearest")), {"some": ClassRules(make("learned"))})
    again.restore("app", saved, "some")
    assert again.state("app") == saved
