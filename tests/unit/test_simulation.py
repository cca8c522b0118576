"""Journeys, traces and scores: every number against a plain calculation of the same thing."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from fmcc.policy.models.checks import BadParameter
from fmcc.policy.models.hexagons import distance
from fmcc.policy.replay import Replay
from fmcc.policy.simulation import traces
from fmcc.policy.simulation.faults import TraceError
from fmcc.policy.simulation.journeys import Cells, Journeys, Line
from fmcc.policy.simulation.scoring import BEST, BOUND, Scorer, score
from fmcc.policy.simulation.traces import hexagons, load

EVERY = np.arange(1.0, 9.0)


def with_sessions(users: int, handovers: int, seed: int) -> Cells:
    """A walk over hexagons with a session that begins in the middle, and handovers that skip cells."""
    walk = Cells.walk(users, handovers, seed)
    begins = walk.begins.copy()
    begins[handovers // 2] = True
    return Cells(walk.cells * 2, begins)


def paid_on_a_line(moves: list[int], decisions: list[bool], cost: float) -> float:
    at, paid = 0, 0.0
    for move, migrates in zip(moves, decisions, strict=True):
        at = 1 if at == 0 else at + move
        paid += cost if migrates else at
        at = 0 if migrates else at
    return paid


def paid_on_hexagons(journey: Cells, user: int, decisions: list[bool], cost: float) -> float:
    place, paid, left = (0, 0), 0.0, iter(decisions)
    for cell, begins in zip(journey.cells[user].tolist(), journey.begins.tolist(), strict=True):
        here = (cell[0], cell[1])
        if begins:
            place = here
        elif next(left):
            place, paid = here, paid + cost
        else:
            paid += distance(here, place)
    return paid


@pytest.mark.parametrize("seed", range(6))
def test_the_clairvoyant_bound_is_the_best_of_all_decisions_on_a_line(seed: int) -> None:
    line = Line.walk(3, 9, 0.5, 0.2, seed)
    bound = line.clairvoyant(2.5, 1.0)
    for user in range(3):
        moves = line.moves[user].tolist()
        every = (paid_on_a_line(moves, list(each), 2.5) for each in itertools.product((False, True), repeat=9))
        assert bound[user] == pytest.approx(min(every))


@pytest.mark.parametrize("seed", range(6))
def test_the_clairvoyant_bound_is_the_best_of_all_decisions_on_hexagons(seed: int) -> None:
    journey = with_sessions(2, 10, seed)
    bound = journey.clairvoyant(2.5, 1.0)
    for user in range(2):
        choices = itertools.product((False, True), repeat=journey.handovers)
        every = (paid_on_hexagons(journey, user, list(each), 2.5) for each in choices)
        assert bound[user] == pytest.approx(min(every))


@pytest.mark.parametrize("p", [0.0, 0.3, 0.9, 1.0])
def test_a_long_walk_stays_within_what_the_bound_looks_at(p: float) -> None:
    """Never migrating cannot be cheaper than the bound, however far it leads."""
    line = Line.walk(20, 200, p, 0.0, 5)
    never = line.pay(np.full((20, 1), np.inf), 1e9, 1.0).cost[:, 0]
    np.testing.assert_allclose(line.clairvoyant(1e9, 1.0), never)


def test_a_threshold_pays_what_the_running_policys_replay_says() -> None:
    """The vectors of the simulator and the loop of the controller are the same arithmetic."""
    journey = Cells.walk(1, 120, 4)
    visited = sorted({(q, r) for q, r in journey.cells[0].tolist()})
    replay = Replay.beginning("(0, 0)", len(EVERY))
    for q, r in journey.cells[0, 1:].tolist():
        # the cell under the user comes first: where losses are equal the first is the best
        order = sorted(visited, key=lambda cell: distance(cell, (q, r)))
        replay.handover([(str(cell), float(distance(cell, (q, r)))) for cell in order], 2.5)
    bill = journey.pay(EVERY[None], 2.5, 1.0)
    np.testing.assert_allclose(bill.cost[0], list(replay.costs))


def test_a_bill_counts_handovers_by_what_they_did() -> None:
    line = Line(np.array([[1, 1, 0, -1, -1, -1, 1]], np.int8))  # distances 1 2 2 1 0 1 2
    bill = line.pay(np.array([[np.inf, 2.0]]), 5.0, 1.0)
    assert (bill.outward[0, 0], bill.inward[0, 0], bill.same[0, 0]) == (2, 2, 1)
    # with a threshold of 2 the service is there after the second: 1 M 1 0 1 0 1
    assert bill.cost[0].tolist() == [1 + 2 + 2 + 1 + 0 + 1 + 2, 1 + 5 + 1 + 0 + 1 + 0 + 1]
    assert bill.migrations[0].tolist() == [0, 1]
    assert bill.distance[0].tolist() == [9.0, 4.0]


def test_halves_part_the_handovers_and_the_second_begins_beside_the_user() -> None:
    first, second = Cells.walk(2, 11, 1).halves()
    assert (first.handovers, second.handovers) == (5, 6)
    assert second.begins[0]
    assert (first.cells[:, -1] == second.cells[:, 0]).all()
    line, rest = Line.walk(2, 11, 0.5, 0.0, 1).halves()
    assert (line.handovers, rest.handovers) == (5, 6)


@pytest.mark.parametrize("make", [lambda seed: Line.walk(5, 50, 0.4, 0.1, seed), lambda seed: Cells.walk(5, 50, seed)])
def test_the_same_seed_gives_the_same_scores_and_another_one_others(make: object) -> None:
    def scores(seed: int) -> object:
        return score([make(seed)], Scorer(["mdp", "learned", "threshold:2"]))  # type: ignore[operator]

    assert scores(1) == scores(1)
    assert scores(1) != scores(2)


def test_a_walk_has_the_probabilities_that_were_asked_for() -> None:
    moves = Line.walk(100, 1000, 0.6, 0.1, 1).moves
    shares = [(moves == step).mean() for step in (1, 0, -1)]
    assert shares == pytest.approx([0.6, 0.1, 0.3], abs=0.01)
    steps = np.diff(Cells.walk(100, 600, 1).cells, axis=1).reshape(-1, 2)
    _, counts = np.unique(steps, axis=0, return_counts=True)
    assert counts / counts.sum() == pytest.approx(np.full(6, 1 / 6), abs=0.01)


@pytest.mark.parametrize(
    "journeys", [Line.walk(40, 400, 0.7, 0.0, 3), Line.walk(40, 400, 0.2, 0.3, 3), Cells.walk(40, 400, 3)]
)
def test_scores_stand_in_the_order_that_they_must(journeys: Journeys) -> None:
    scores = {each.policy: each for each in score([journeys], Scorer(["mdp", "learned", "threshold:4"]))}
    cost = {name: each.cost_per_handover for name, each in scores.items()}
    assert cost[BOUND] <= cost[BEST]
    for name in ("never", "always", "mdp", "learned", "threshold:4"):
        assert cost[BEST] <= cost[name] + 1e-12
    assert scores["always"].migrations_per_handover == 1.0
    assert scores["never"].migrations_per_handover == 0.0
    assert scores["learned"].over_best == pytest.approx(cost["learned"] / cost[BEST] - 1)
    assert cost["learned"] < 1.03 * cost[BEST]


def commuter(days: int) -> Cells:
    """Six cells away and straight back, each time over four handovers: a user that skips cells."""
    there = [(0, 0), (3, 0), (6, 0), (3, 0)] * days
    cells = np.array([there], np.int64)
    begins = np.zeros(len(there), bool)
    begins[0] = True
    return Cells(cells, begins)


def test_learning_beats_the_model_where_users_are_no_random_walkers() -> None:
    scores = {each.policy: each.cost_per_handover for each in score([commuter(60)], Scorer(["mdp", "learned"]))}
    assert scores["learned"] == pytest.approx(scores[BEST])
    assert scores["mdp"] > 1.05 * scores["learned"]


def test_users_of_different_journeys_add_up() -> None:
    one, other = Cells.walk(1, 100, 1), Cells.walk(1, 300, 2)
    together = Scorer(["always"])
    score([one, other], together)
    assert (together.users, together.handovers) == (2, 50 + 150)
    (cost,) = {each.cost_per_handover for each in together.scores() if each.policy == "always"}
    assert cost == 5.0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: Line.walk(1, 10, 0.7, 0.4, 1), "sum to 1.1"),
        (lambda: Line.walk(1, 10, -0.1, 0.4, 1), "between 0 and 1"),
        (lambda: Line.walk(10**6, 10**6, 0.5, 0.0, 1), "simulate fewer"),
        (lambda: Cells.walk(0, 10, 1), "number of users"),
        (lambda: Scorer(["fastest"]), "no policy 'fastest'"),
        (lambda: Scorer(["always"], cost=-1), "cost is -1"),
        (lambda: Scorer([]).scores(), "no handover to score"),
    ],
)
def test_what_has_no_meaning_is_refused(call: object, says: str) -> None:
    with pytest.raises(BadParameter, match=says):
        call()  # type: ignore[operator]


# --- traces -----------------------------------------------------------------------------------------------------------

STEP = 500 / 111_195.08  # degrees of latitude, and at the equator of longitude, in 500 m


def written(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text)
    return path


def test_hexagons_are_as_far_apart_as_was_asked_for_and_positions_lie_in_the_nearest() -> None:
    choose = random.Random(2)
    metres = np.array([[choose.uniform(-5000, 5000), choose.uniform(-5000, 5000)] for _ in range(2000)])
    metres[0] = 0.0
    degrees = metres / 111_195.08
    cells = hexagons(degrees[:, 0], degrees[:, 1], 500.0)
    assert cells[0].tolist() == [0, 0]
    centres = np.stack([(cells[:, 1] * 500 * 3**0.5 / 2), (cells[:, 0] + cells[:, 1] / 2) * 500], axis=-1)
    away = np.hypot(*(metres - centres).T)
    assert away.max() < 500 / 3**0.5 * 1.001, "no position is farther from its centre than a corner is"
    assert away.max() > 500 / 2, "and some are in corners"


def test_a_trace_is_the_handovers_between_its_cells(tmp_path: Path) -> None:
    lines = [f"0,{STEP * step},{60 * number}" for number, step in enumerate((0, 0.2, 1, 2, 5, 5.1))]
    trace = load(written(tmp_path, "lat,lon,time\n" + "\n".join(lines) + "\n"))
    (journey,) = trace.journeys.values()
    assert journey.cells[0].tolist() == [[0, 0], [1, 0], [2, 0], [5, 0]]
    assert journey.handovers == 3
    assert trace.gaps == []


def test_a_long_silence_begins_a_session_and_is_told(tmp_path: Path) -> None:
    text = f"lat,lon,time\n0,0,0\n0,{STEP},60\n\n# lunch\n0,{STEP * 9},5000\n0,{STEP * 8},5060\n"
    trace = load(written(tmp_path, text))
    (journey,) = trace.journeys.values()
    assert journey.begins.tolist() == [True, False, True, False]
    assert [(gap.line, gap.seconds) for gap in trace.gaps] == [(6, 4940.0)]
    with pytest.raises(TraceError, match=r"trace\.csv:6: 4940 s without a position"):
        load(written(tmp_path, text), refuse_gaps=True)


def test_a_session_that_begins_where_the_last_one_ended_begins_all_the_same(tmp_path: Path) -> None:
    trace = load(written(tmp_path, f"0,0,0\n0,{STEP},60\n0,{STEP},5000\n0,{STEP * 2},5060\n"))
    (journey,) = trace.journeys.values()
    assert journey.begins.tolist() == [True, False, True, False]
    assert journey.pay(np.array([[np.inf]]), 5.0, 1.0).cost.tolist() == [[2.0]]


def test_several_users_headers_in_other_words_and_iso_times(tmp_path: Path) -> None:
    text = (
        "id,timestamp,latitude,longitude\n"
        "ann,2008-05-17T10:00:00,37.75,-122.4\nben,2008-05-17T10:00:00Z,37.75,-122.4\n"
        "ann,2008-05-17T10:01:00,37.76,-122.4\nben,2008-05-17T10:01:00+00:00,37.75,-122.4\n"
    )
    trace = load(written(tmp_path, text))
    assert set(trace.journeys) == {"ann"}
    assert trace.still == ["ben"]


def test_across_the_date_line_it_is_not_far(tmp_path: Path) -> None:
    trace = load(written(tmp_path, f"0,{180 - STEP / 2},0\n0,{-180 + STEP / 2},60\n"))
    (journey,) = trace.journeys.values()
    assert journey.cells[0].tolist() == [[0, 0], [1, 0]]


GOOD = "lat,lon,time\n0,0,0\n"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (GOOD + "0,1,-5\n", 3, "time goes back by 5 s from line 2"),
        (GOOD + "0,0,0\n", 3, "the same position at the time of line 2"),
        (GOOD + "0,1,0\n", 3, "another position at the time of line 2"),
        (GOOD + "0,1\n", 3, "2 fields instead of 3"),
        (GOOD + "0,,5\n", 3, "lon is empty"),
        (GOOD + "0,east,5\n", 3, "lon is 'east', no number"),
        (GOOD + "nan,1,5\n", 3, "lat is 'nan', no number"),
        (GOOD + "91,1,5\n", 3, "beyond 90 degrees"),
        (GOOD + "0,181,5\n", 3, "beyond 180 degrees"),
        (GOOD + "0,1,noon\n", 3, "time is 'noon'"),
        (GOOD + "0,1,inf\n", 3, "time is 'inf'"),
        ("lat,lon\n", 1, "no column time"),
        ("lat,lon,time,latitude\n", 1, "two columns lat"),
        ("user,lat,lon,time\na,0,0,1\nb,0,0,1\na,0,0,0\n", 4, "time of a goes back"),
        ("", None, "no position in it"),
        (GOOD, None, "nobody leaves a hexagon"),
    ],
)
def test_a_bad_trace_is_refused_with_its_line(tmp_path: Path, text: str, line: int | None, says: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(TraceError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}:{line}: " if line else f"{path}: ")
    assert says in str(error.value)


def test_a_file_that_is_no_text_or_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.bin"
    path.write_bytes(b"\xff\xfe\x00\x81")
    for bad in (path, tmp_path / "nothing"):
        with pytest.raises(TraceError, match="give a file of lat,lon,time"):
            load(bad)


def test_a_trace_is_scored_like_a_walk(tmp_path: Path) -> None:
    lines = [f"0,{STEP * (number % 8)},{60 * number}" for number in range(193)]  # both halves alike
    trace = load(written(tmp_path, "\n".join(lines)))
    scores = {each.policy: each for each in score(list(trace.journeys.values()), Scorer(["learned"]))}
    assert scores["learned"].cost_per_handover == pytest.approx(scores[BEST].cost_per_handover)
    assert traces.HEXAGON_M == 500.0
