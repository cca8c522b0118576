"""Part `policy`: the decision at work. Users on random walks and on a trace; the papers' policies and ours; what their
round-trip times come to in the lab's network, and how often services move.

Every cell has a data centre beside it, as in the topology `metro`: its access network is as far from it as access1 from
dc1, and each cell farther adds what access1 is farther from dc2.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from fmcc.policy.simulation import traces
from fmcc.policy.simulation.journeys import Cells, Journeys, Line
from fmcc.policy.simulation.scoring import BEST, BOUND, Score, Scorer, score
from lispfmc.experiment.paper.printed import printed
from lispfmc.experiment.paper.result import Chart, Compared, Figure, Result, Table
from lispfmc.experiment.paper.work import Work
from lispfmc.lab.topology import load_topology

TOPOLOGY = "metro"
COST = 5.0
"""Of a migration, in units of a handover that is served one cell away."""
OUTWARD, SAME = 0.6, 0.0
POLICIES: Mapping[str, str] = {
    "always": "moves at each change of domain (the papers' testbeds)",
    "threshold:2": "moves at ring k = 2 (B section 4)",
    "threshold:7": "moves at ring k = 7, the papers' 'no Follow-Me Cloud'",
    "mdp": "Markov decision, p counted for each user (B section 5)",
    "learned": "ours: each user's threshold by replay of its past",
    "never": "never moves",
    BEST: "a bound: each user's best threshold in hindsight",
}
OURS = "learned"
PAPERS = ("always", "threshold:2", "mdp")


class Crowd(msgspec.Struct, frozen=True):
    """One kind of mobility."""

    name: str
    title: str
    journeys: Sequence[Journeys]
    note: str


class Network(msgspec.Struct, frozen=True):
    """Round-trip times of a user to data centres 0, 1, 2, ... cells away."""

    beside_ms: float
    step_ms: float

    def rtt_ms(self, distance: float) -> float:
        """Linear, so that the mean distance gives the mean."""
        return self.beside_ms + self.step_ms * distance


def make(work: Work) -> Result:
    network, crowds = _network(), _crowds(work)
    work.tell.steps(len(crowds))
    figures, rows = [], []
    for crowd in crowds:
        scorer = Scorer([name for name in POLICIES if name not in {"always", "never", BEST}], cost=COST)
        scores = score(crowd.journeys, scorer)
        figures.append(_figure(crowd, scores, network, scorer))
        rows += [_row(crowd.name, each, network) for each in scores]
        work.tell.step(crowd.name)
    return Result(
        part="policy",
        title="The decision at work",
        made_by=(
            "A simulation of users and decisions; no packet is sent. Round-trip times are those of the lab's topology "
            f"{TOPOLOGY}: {network.beside_ms:g} ms to the data centre of one's cell, {network.step_ms:g} ms more for "
            f"each cell. A migration costs as much as {COST:g} handovers that are served one cell away. The first half "
            "of each user's handovers teaches, the second half counts.",
        ),
        figures=figures,
        tables=[
            Table(
                "policy",
                (
                    "mobility",
                    "policy",
                    "rtt_ms",
                    "mean_distance",
                    "migrations_per_handover",
                    "cost_per_handover",
                    "over_best",
                ),
                rows,
            )
        ],
    )


def _network() -> Network:
    topology = load_topology(TOPOLOGY)
    beside = topology.pair("access1", "dc1").rtt_ms
    return Network(beside, topology.pair("access1", "dc2").rtt_ms - beside)


def _crowds(work: Work) -> list[Crowd]:
    users, handovers = (50, 400) if work.quick else (200, 2000)
    seed = work.settings.seed
    walks = f"{users} users, {handovers} handovers each, seed {seed}"
    line = Line.walk(users, handovers, OUTWARD, SAME, seed)
    return [
        Crowd("walk-line", f"Random walk on a line, outward with {OUTWARD:g}", [line], walks),
        Crowd("walk-hexagons", "Random walk on hexagons", [Cells.walk(users, handovers, seed)], walks),
        _traced(work, users),
    ]


def _traced(work: Work, users: int) -> Crowd:
    given = work.settings.trace
    path = Path(given) if given else _made_trace(work.folder / "made-trace.csv", users, work.settings.seed)
    trace = traces.load(path)
    journeys = list(trace.journeys.values())
    what = (
        f"recorded, {path.name}" if given else "made: random waypoints, 8 to 20 m/s, a position a minute; not recorded"
    )
    note = f"{len(journeys)} users; {what}; hexagons of {traces.HEXAGON_M:g} m, cells are skipped"
    return Crowd("trace", "Positions of a trace", journeys, note)


def _made_trace(path: Path, users: int, seed: int) -> Path:
    """Users who drive from one drawn place of a town to the next, as positions in degrees."""
    chance, metres = np.random.default_rng(seed), np.pi * traces.EARTH_M / 180
    with path.open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(("user", "lat", "lon", "time"))
        for user in range(users):
            at, goal, speed = chance.uniform(0, 8000, 2), chance.uniform(0, 8000, 2), 14.0
            for minute in range(600):
                way = goal - at
                left = float(np.hypot(*way))
                if left < speed * 60:
                    at, goal, speed = goal, chance.uniform(0, 8000, 2), float(chance.uniform(8, 20))
                else:
                    at = at + way / left * speed * 60
                table.writerow((user, f"{at[0] / metres:.6f}", f"{at[1] / metres:.6f}", minute * 60))
    return path


def _row(mobility: str, each: Score, network: Network) -> tuple[str | float | None, ...]:
    rtt = None if each.mean_distance is None else network.rtt_ms(each.mean_distance)
    moves = each.migrations_per_handover
    return (mobility, each.policy, rtt, each.mean_distance, moves, each.cost_per_handover, each.over_best)


def _figure(crowd: Crowd, scores: Sequence[Score], network: Network, scorer: Scorer) -> Figure:
    by_name = {each.policy: each for each in scores}
    rtts = {
        name: network.rtt_ms(each.mean_distance)
        for name, each in by_name.items()
        if name in POLICIES and each.mean_distance is not None
    }
    compared = [
        Compared(
            f"{name}: {POLICIES[name]}",
            "no figure of this kind",
            f"{rtt:.2f} ms, {by_name[name].migrations_per_handover or 0:.3f} migrations a handover, "
            f"cost {by_name[name].cost_per_handover:.3f}",
            "the papers evaluate the model, not users who move",
        )
        for name, rtt in rtts.items()
    ]
    chart = Chart(y_label="mean round-trip time (ms)", bars=rtts, note="simulated")
    source = f"ours; the papers' policies: {printed('decision').source}. {crowd.note}"
    return Figure(f"policy-{crowd.name}", crowd.title, source, chart, compared, _sentences(by_name, rtts, scorer))


def _sentences(by_name: Mapping[str, Score], rtts: Mapping[str, float], scorer: Scorer) -> list[str]:
    ours, best = by_name[OURS], by_name[BEST]
    theirs = min((by_name[name] for name in PAPERS), key=lambda each: each.cost_per_handover)
    less = 1 - ours.cost_per_handover / theirs.cost_per_handover
    comparison = f"{abs(less):.1%} {'less' if less >= 0 else 'more'} than"
    over = ours.cost_per_handover / best.cost_per_handover - 1
    bound = by_name[BOUND].cost_per_handover
    return [
        f"{scorer.users} users, {scorer.handovers} handovers counted.",
        f"{OURS} costs {comparison} the cheapest of the papers' policies, {theirs.policy}, and {over:+.1%} against "
        f"each user's best threshold in hindsight; no decisions could have cost less than {bound:.3f} a handover.",
        f"Moving always keeps users {rtts['always']:.2f} ms from their services, with a migration at each handover; "
        f"never moving leaves them {rtts['never']:.2f} ms away; {OURS} {rtts[OURS]:.2f} ms.",
    ]
