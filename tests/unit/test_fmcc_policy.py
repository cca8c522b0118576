"""Policies are pure: a view in, a decision with its reason out."""

from __future__ import annotations

import pytest

from fmcc.policy import Candidate, Go, Policy, Stay, View
from fmcc.policy.nearest import Nearest
from fmcc.policy.never import Never
from fmcc.policy.registry import POLICIES


def view(*candidates: Candidate, datacenter: str = "dc1") -> View:
    return View(service="app", user="alice", site="access2", datacenter=datacenter, candidates=candidates)


def test_nearest_goes_where_the_round_trip_is_shortest() -> None:
    decision = Nearest().decide(view(Candidate("dc1", 250), Candidate("dc2", 3), Candidate("dc3", 20)))
    assert decision == Go("dc2", "3 ms from access2 instead of 250 ms")


def test_nearest_stays_where_it_is_nearest() -> None:
    assert isinstance(Nearest().decide(view(Candidate("dc1", 3), Candidate("dc2", 12))), Stay)


def test_a_tie_stays() -> None:
    assert isinstance(Nearest().decide(view(Candidate("dc1", 12), Candidate("dc2", 12))), Stay)


def test_a_full_data_centre_is_passed_over_for_the_next_nearest() -> None:
    candidates = (Candidate("dc1", 250), Candidate("dc2", 3, free=0), Candidate("dc3", 20, free=1))
    decision = Nearest().decide(view(*candidates))
    assert isinstance(decision, Go)
    assert decision.datacenter == "dc3"


def test_when_everything_nearer_is_full_the_service_stays_and_says_why() -> None:
    decision = Nearest().decide(view(Candidate("dc1", 250), Candidate("dc2", 3, free=0)))
    assert decision == Stay("nearer to access2 but full: dc2")


def test_its_own_data_centre_being_full_does_not_drive_it_out() -> None:
    assert isinstance(Nearest().decide(view(Candidate("dc1", 3, free=0), Candidate("dc2", 12))), Stay)


def test_unknown_distances_decide_nothing() -> None:
    assert isinstance(Nearest().decide(view(Candidate("dc1", None), Candidate("dc2", None))), Stay)


def test_a_known_distance_beats_an_unknown_one() -> None:
    decision = Nearest().decide(view(Candidate("dc1", None), Candidate("dc2", 3)))
    assert decision == Go("dc2", "3 ms from access2 instead of an unknown distance")


def test_never_never_moves() -> None:
    assert isinstance(Never().decide(view(Candidate("dc1", 250), Candidate("dc2", 3))), Stay)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_policy_answers_to_the_name_it_is_chosen_by(name: str) -> None:
    policy: Policy = POLICIES[name]()
    assert policy.name == name
