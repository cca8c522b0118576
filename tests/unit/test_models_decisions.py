"""When to migrate: closed form, policy iteration and value iteration agree; and the paper's two tables."""

from __future__ import annotations

import random

import numpy as np
import pytest

from fmcc.policy.models import fig14, plane, walk
from fmcc.policy.models.checks import BadParameter
from fmcc.policy.models.decisions import Problem, policy_iteration, value_iteration
from fmcc.policy.models.walk import Walk

INSTANCES = 1_000


def random_walk(choose: random.Random) -> Walk:
    p = choose.choice((choose.random(), choose.random() ** 6))  # small p is where naive formulas fail
    return Walk(
        p,
        stay=choose.choice((0.0, choose.random() * (1 - p))),
        cost=10 ** choose.uniform(-2, 2.5),
        gamma=choose.choice((0.5, 0.8, 0.9, 0.95, 0.97, 0.99)),
        thr=choose.randint(1, 40),
        quality=choose.choice((1.0, 10 ** choose.uniform(-1, 1))),
    )


def test_closed_form_policy_iteration_and_value_iteration_agree() -> None:
    choose = random.Random(7)
    seen = set()
    for _ in range(INSTANCES):
        instance = random_walk(choose)
        problem = walk.problem(instance)
        closed = walk.threshold(instance)
        by_policy, by_value = policy_iteration(problem), value_iteration(problem)
        assert closed == by_policy.threshold == by_value.threshold, instance
        assert by_policy.migrate[closed:].all(), "beyond the threshold everything migrates"
        np.testing.assert_allclose(by_policy.values, by_value.values, rtol=1e-8, atol=1e-8)
        seen.add(closed)
    assert len(seen) > 20


@pytest.mark.parametrize(
    "instance",
    [
        Walk(0.4, 0.1, cost=100, gamma=0.999, thr=300),
        Walk(0.01, 0.1, cost=1e5, gamma=0.9999, thr=300),
        Walk(1.0, cost=300, thr=300),
        Walk(0.0, cost=3, thr=20),
        Walk(0.0, 1.0, cost=3, thr=10),
        Walk(1e-12, cost=300, thr=30),
        Walk(0.5, cost=0.0, thr=3),
    ],
)
def test_they_agree_at_the_edges_too(instance: Walk) -> None:
    assert walk.threshold(instance) == policy_iteration(walk.problem(instance)).threshold


def test_the_thresholds_of_the_known_walk() -> None:
    found = walk.thresholds([p / 10 for p in range(1, 11)], 0.0, 5.0, gamma=0.95, thr=50)
    assert found.tolist() == [4, *[3] * 9]


def test_on_hexagons_both_iterations_agree_and_corners_migrate_first() -> None:
    split = 0
    for cost in np.geomspace(0.2, 40, 60):
        instance = plane.Plane(cost=float(cost), thr=9)
        problem = plane.problem(instance)
        by_policy = plane.named(instance, policy_iteration(problem))
        assert by_policy == plane.named(instance, value_iteration(problem))
        assert by_policy.threshold == by_policy.corner_threshold <= by_policy.edge_threshold
        split += by_policy.corner_threshold < by_policy.edge_threshold
    assert split, "there are costs at which only the corners of a ring migrate"


@pytest.mark.parametrize("table", ["a", "b"])
def test_reconstruction_f_has_every_cell_of_the_papers_tables(table: str) -> None:
    computed = fig14.table("F", table)
    assert computed.first_migration == list(fig14.PAPER[table])
    assert computed.differences == []
    assert sum(len(row) for row in computed.cells) == 100


def test_reconstruction_l_has_all_but_two_cells() -> None:
    assert fig14.table("L", "a").differences == []
    assert fig14.table("L", "b").differences == [(0.3, 8), (1.0, 5)]


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"p": 1.1}, "p is 1.1"),
        ({"p": float("nan")}, "p is nan"),
        ({"p": 0.7, "stay": 0.4}, "sum to 1.1"),
        ({"p": 0.5, "gamma": 1.0}, "gamma is 1.0"),
        ({"p": 0.5, "thr": 0}, "thr is 0"),
        ({"p": 0.5, "cost": -1.0}, "cost is -1.0"),
        ({"p": 0.5, "quality": 0.0}, "above 0"),
    ],
)
def test_a_walk_without_meaning_is_refused(parameters: dict[str, float], says: str) -> None:
    with pytest.raises(BadParameter, match=says):
        Walk(**parameters)  # type: ignore[arg-type]


def test_probabilities_that_do_not_sum_are_refused() -> None:
    good = walk.problem(Walk(0.5, thr=3))
    broken = good.staying.copy()
    broken[1, 2] = 0.6
    with pytest.raises(BadParameter, match=r"action C in state 1: its probabilities sum to 1\.1"):
        Problem(broken, good.moving, good.stay_reward, good.move_reward, good.may_stay, good.may_move, good.gamma)


def test_an_unknown_table_is_refused() -> None:
    with pytest.raises(BadParameter, match="reconstructions are F and L"):
        fig14.table("G", "a")
