"""`lispfmc simulate`: policies scored on walks and on GPS traces, offline and deterministic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from fmcc.policy.simulation import traces
from fmcc.policy.simulation.journeys import Cells, Journeys, Line
from fmcc.policy.simulation.scoring import BOUND, Scorer, score
from lispfmc.cli import plot
from lispfmc.cli.failure import DONE, USAGE, Failure
from lispfmc.cli.output import Format, print_json, print_table, say

GAPS_SHOWN = 5


class Mobility(msgspec.Struct, frozen=True):
    """What walks are made of, and how traces are read."""

    kind: str
    users: int
    handovers: int
    seed: int
    p: float
    stay: float
    hexagon_m: float
    session_gap_s: float
    refuse_gaps: bool


def simulate(
    policies: Sequence[str],
    mobility: Mobility,
    *,
    cost: float,
    quality: float,
    gamma: float,
    thr: int,
    output: Format,
    to: Path | None,
) -> int:
    scorer = Scorer(policies, cost=cost, quality=quality, gamma=gamma, thr=thr)
    journeys, told = _journeys(mobility)
    scores = score(journeys, scorer)
    if to is not None:
        plot.bars(to, {each.policy: each.cost_per_handover for each in scores}, "cost of a handover")
    if output is Format.json:
        print_json(
            {
                "mobility": mobility.kind,
                **told,
                "users": scorer.users,
                "handovers": scorer.handovers,
                "cost": cost,
                "quality": quality,
                "gamma": gamma,
                "thr": thr,
                "scores": [
                    {
                        "policy": each.policy,
                        "cost_per_handover": each.cost_per_handover,
                        "migrations_per_handover": each.migrations_per_handover,
                        "mean_distance": each.mean_distance,
                        "over_best": each.over_best,
                        "over_bound": each.over_bound,
                    }
                    for each in scores
                ],
            }
        )
        return DONE
    say(f"{scorer.users} users, {scorer.handovers} handovers scored; {BOUND} is a bound: it knows the future")
    columns = ["POLICY", "COST/HANDOVER", "MIGRATIONS/HANDOVER", "MEAN DISTANCE", "OVER BEST", "OVER BOUND"]
    print_table(
        columns,
        [
            [
                each.policy,
                f"{each.cost_per_handover:.4f}",
                _number(each.migrations_per_handover),
                _number(each.mean_distance),
                _share(each.over_best),
                _share(each.over_bound),
            ]
            for each in scores
        ],
    )
    return DONE


def _journeys(mobility: Mobility) -> tuple[list[Journeys], dict[str, Any]]:
    """Where the users go, and what is to be said of it."""
    synthetic = {"seed": mobility.seed}
    match mobility.kind.partition(":"):
        case ("walk1d", "", ""):
            walk = Line.walk(mobility.users, mobility.handovers, mobility.p, mobility.stay, mobility.seed)
            return [walk], synthetic | {"p": mobility.p, "stay": mobility.stay}
        case ("hex", "", ""):
            return [Cells.walk(mobility.users, mobility.handovers, mobility.seed)], synthetic
        case ("trace", ":", file) if file:
            return _traced(Path(file), mobility)
    raise Failure(USAGE, f"mobility {mobility.kind!r}", "known are walk1d, hex and trace:FILE", "choose one")


def _traced(path: Path, mobility: Mobility) -> tuple[list[Journeys], dict[str, Any]]:
    trace = traces.load(
        path, hexagon_m=mobility.hexagon_m, session_gap_s=mobility.session_gap_s, refuse_gaps=mobility.refuse_gaps
    )
    for gap in trace.gaps[:GAPS_SHOWN]:
        say(f"{path}:{gap.line}: {gap.seconds:.6g} s without a position: a new session begins")
    if len(trace.gaps) > GAPS_SHOWN:
        say(f"{path}: {len(trace.gaps) - GAPS_SHOWN} more gaps")
    if trace.still:
        say(f"{path}: {len(trace.still)} users make no handover and are left out")
    told = {
        "hexagon_m": mobility.hexagon_m,
        "session_gap_s": mobility.session_gap_s,
        "gaps": len(trace.gaps),
        "users_without_handover": len(trace.still),
    }
    return list(trace.journeys.values()), told


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2%}"
