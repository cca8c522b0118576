"""Moves of a real virtual machine at a few points of `fig16`: its pause is QEMU's, its downtime seen by echoes.

A guest has an echo and no probes of ours, so both directions are in one figure. D is the longest time without an
answer, B the hypervisors' word: from QEMU's stop at the source to its resume at the target.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from lispfmc.experiment.design import Design, Point
from lispfmc.experiment.files import written
from lispfmc.experiment.moving import Moves
from lispfmc.experiment.network import rtts_at, rtts_ms, streams_at, topology_of
from lispfmc.experiment.paper.echoes import Echoes, silence_ms, unanswered
from lispfmc.experiment.paper.migration import RESUMED_S, resumed
from lispfmc.experiment.paper.networks import TINY, lab_on, the_service, the_user
from lispfmc.experiment.paper.work import Work
from lispfmc.lab.impairment import impair
from lispfmc.lab.installation import Installation
from lispfmc.wire.errors import LocalError

AROUND_S = 0.5
"""Of probing before the machine stops and after it runs again."""
NS_PER_S, STOPPING_NS = 1_000_000_000, 50_000_000


class RealMove(msgspec.Struct, frozen=True):
    """One move. Milliseconds; `gap_ms` is D, `added_ms` D - B."""

    case: str
    scheme: str
    far_ms: float
    added_ms: float
    blackout_ms: float
    gap_ms: float
    still_ms: float
    """The longest time without an answer before the machine stopped: what its processor does to any figure."""
    unanswered: int


def real_moves(
    work: Work, schemes: Sequence[str], cases: Sequence[tuple[float, float]], fars: Sequence[float], times: int
) -> list[RealMove]:
    """Every point `times` times, in an order drawn by lot; a lab of its own for each scheme. Raises LocalError."""
    found: list[RealMove] = []
    lot = random.Random(work.settings.seed)  # noqa: S311 - a repeatable order, no secret
    for scheme in schemes:
        points = [Point(scheme, max(case), 0.0, case, hypervisors_ms=far) for case in cases for far in fars] * times
        lot.shuffle(points)
        found += _of(work, scheme, points)
    return found


def _of(work: Work, scheme: str, points: Sequence[Point]) -> list[RealMove]:
    """Kept when the scheme's are whole: what an interrupted run has of them is not worth a lab's boot."""
    kept = work.folder / f"real-{scheme}.json"
    if kept.exists():
        for _ in points:
            work.tell.step()
        return msgspec.json.decode(kept.read_bytes(), type=list[RealMove])
    values = topology_of(Design(schemes=(scheme,), fmcc_rtts_ms=(10.0,)), scheme) | {"virtual": TINY}
    folder = work.folder / f"real-{scheme}"
    folder.mkdir(exist_ok=True)
    with lab_on(values, folder, work.tell.say, "qemu") as lab:
        found = asyncio.run(_all(work, lab, values, folder, points))
    written(kept, msgspec.json.encode(found))
    return found


async def _all(
    work: Work, lab: Installation, values: dict[str, object], folder: Path, points: Sequence[Point]
) -> list[RealMove]:
    base, (service, eid) = rtts_ms(values), the_service(values)
    here, there, found = "dc1", "dc2", []
    async with Moves(lab) as moves:
        for point in points:
            await impair(lab, rtts_at(base, point, here), streams_ms=streams_at(point))
            found.append(await _move(lab, moves, service, eid, there, point, folder))
            here, there = there, here
            work.tell.step(f"{point.scheme}, real machine")
    return found


async def _move(
    lab: Installation, moves: Moves, service: str, eid: str, there: str, point: Point, folder: Path
) -> RealMove:
    begin = time.monotonic_ns()
    async with Echoes(the_user(lab), eid, folder, pings=False) as echoes:
        await asyncio.sleep(AROUND_S)
        move = await moves.request(service, there)
        said = await moves.over(move)
        told = await resumed(moves, move, RESUMED_S)
        await asyncio.sleep(2 * AROUND_S)
    stopped, runs = told["stopped_monotonic_ns"], told["resumed_monotonic_ns"]
    if said == "migration.failed" or stopped is None or runs is None:
        raise LocalError(f"the move of {service} to {there} failed: {told['reason'] or said}")
    around = int(AROUND_S * NS_PER_S)
    gap = silence_ms(echoes.fine, stopped - around, runs + around)
    if gap is None:
        raise LocalError(f"{service} did not answer around its move to {there}; see the lab's logs")
    still = silence_ms(echoes.fine, begin, stopped - STOPPING_NS)
    blackout = round((runs - stopped) / 1e6, 3)
    lost = unanswered(echoes.fine, stopped - around, runs + around)
    assert point.datacenters_ms is not None
    case = "{:g}-{:g}".format(*point.datacenters_ms)
    return RealMove(
        case, point.scheme, point.hypervisors_ms or 0.0, round(gap - blackout, 3), blackout, gap, still or 0.0, lost
    )
