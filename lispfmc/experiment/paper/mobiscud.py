"""Part `mobiscud`: MobiScud's round-trip times, on our network with its delays, steered by LISP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from lispfmc.experiment.moving import Moves
from lispfmc.experiment.paper.echoes import Echoes, typical_ms
from lispfmc.experiment.paper.networks import lab_on, network, the_service, the_user
from lispfmc.experiment.paper.printed import printed
from lispfmc.experiment.paper.result import Chart, Compared, Figure, Line, Result, Table
from lispfmc.experiment.paper.work import Work
from lispfmc.experiment.report import EMULATED
from lispfmc.lab.installation import Installation
from lispfmc.runtime.node_client import call
from lispfmc.wire.errors import LocalError

INTERNET, MTSO, UNMOVED, MOVED = "internet", "mtso", "unmoved", "moved"
SETTLE_S = 1.0
NEAR = 0.15
"""A share within which two round-trip times are taken for the same."""


class Step(msgspec.Struct, frozen=True):
    """Where user and machine are when round trips are measured; `series` empty: only a step on the way."""

    series: str
    user: str
    machine: str


STEPS = (
    Step(MOVED, "enb1", "cloud1"),
    Step(MOVED, "enb2", "cloud1"),
    Step(MOVED, "enb2", "cloud2"),
    Step(MOVED, "enb3", "cloud2"),
    Step(MOVED, "enb3", "cloud3"),
    Step(UNMOVED, "enb1", "cloud1"),
    Step(UNMOVED, "enb2", "cloud1"),
    Step(UNMOVED, "enb3", "cloud1"),
    Step(MTSO, "enb1", "mtso"),
    Step(INTERNET, "enb1", "internet"),
)


class Level(msgspec.Struct, frozen=True):
    """One step's round-trip times, in milliseconds: by the delays, in the paper, and measured here."""

    step: Step
    delays: float
    paper: float
    measured: float
    blackout: float | None


def make(work: Work) -> Result:
    work.tell.steps(len(STEPS))
    emulation = {"copy_s": 0.5 if work.quick else 7.0, "pause_ms": 60.0}
    values = network("mobiscud", policy="never", emulation=emulation)
    _, eid = the_service(values)
    rtts = {frozenset(pair["between"]): float(pair["rtt_ms"]) for pair in values["wan"]["pairs"]}
    with lab_on(values, work.folder, work.tell.say) as lab:
        found = asyncio.run(_walk(work, lab, eid, 2.0 if work.quick else 5.0))
    levels = [
        Level(step, rtts[frozenset((step.user, step.machine))], paper, measured, blackout)
        for step, paper, (measured, blackout) in zip(STEPS, _papers(), found, strict=True)
    ]
    return Result(
        part="mobiscud",
        title="MobiScud's round-trip times (C Fig. 6)",
        made_by=(
            EMULATED,
            "MobiScud steers by SDN: rules in the switches beside the base stations. Here LISP steers: tunnel routers, "
            "a Map-Server and the controller; the user has an EID and no GTP tunnel. The delays are MobiScud's, "
            "those of the radio are in the pairs of the topology mobiscud.",
        ),
        figures=[_figure(levels)],
        tables=[_table(levels)],
    )


async def _walk(work: Work, lab: Installation, eid: str, seconds: float) -> list[tuple[float, float | None]]:
    found, user = [], the_user(lab)
    at_user, at_machine = STEPS[0].user, STEPS[0].machine
    async with Moves(lab) as moves:
        for number, step in enumerate(STEPS):
            blackout = None
            if step.user != at_user:
                await call(user.socket, {"do": "attach", "site": step.user})
            if step.machine != at_machine:
                blackout = await _move(moves, step.machine)
            at_user, at_machine = step.user, step.machine
            await asyncio.sleep(SETTLE_S)
            found.append((await _round_trip(lab, eid, work.folder / f"step-{number}", seconds), blackout))
            work.tell.step(f"{step.user}, {step.machine}")
    return found


async def _move(moves: Moves, machine: str) -> float | None:
    """The controller's word on how long it stood still."""
    move = await moves.request("pvm", machine)
    said, told = await moves.over(move), await moves.told(move)
    if said == "migration.failed":
        raise LocalError(f"the machine did not move to {machine}: {told['reason']}")
    blackout: float | None = told["blackout_events_ms"]
    return blackout


async def _round_trip(lab: Installation, eid: str, folder: Path, seconds: float) -> float:
    begin = time.monotonic_ns()
    async with Echoes(the_user(lab), eid, folder, pings=False) as echoes:
        await asyncio.sleep(seconds)
    typical = typical_ms(echoes.fine, begin, time.monotonic_ns())
    if typical is None:
        raise LocalError("the machine did not answer; see the logs of the lab's routers")
    return typical


def _papers() -> list[float]:
    """In the order of the steps."""
    stated = printed("mobiscud")
    return [*stated["moved_ms"], *stated["unmoved_ms"], stated["mtso_ms"], stated["internet_ms"]]


def _figure(levels: Sequence[Level]) -> Figure:
    stated = printed("mobiscud")
    x = list(range(1, len(levels) + 1))
    lines = [
        Line("MobiScud reports", x, [each.paper for each in levels], "paper"),
        Line("measured here", x, [each.measured for each in levels]),
        Line("by the stated delays alone", x, [each.delays for each in levels], "computed"),
    ]
    axis = "1-5 machine moved, 6-8 not moved, 9 at the MTSO, 10 in the Internet"
    chart = Chart(axis, "round-trip time (ms), median", lines, note='emulated "VM", steered by LISP')
    compared = [*map(_row, levels), _pause(levels)]
    return Figure("mobiscud", "Round-trip time by place", stated.source, chart, compared, _sentences(levels))


def _row(level: Level) -> Compared:
    beyond, ours = level.paper - level.delays, level.measured - level.delays
    why = f"the stated delays come to {level.delays:g} ms; beyond them {beyond:.2f} ms there, {ours:.2f} ms here"
    if beyond > NEAR * level.paper:
        why += ": the paper's network had more on this way than it states"
    what = f"{level.step.series}: user at {level.step.user}, machine at {level.step.machine}"
    return Compared(what, f"{level.paper:g} ms", f"{level.measured:.2f} ms", why)


def _pause(levels: Sequence[Level]) -> Compared:
    stated = printed("mobiscud")
    blackouts = [each.blackout for each in levels if each.blackout is not None and each.step.series == MOVED]
    told = ", ".join(f"{each:.0f} ms" for each in blackouts) or "not told"
    paper = " and ".join(f"{each:g} s" for each in stated["downtime_s"])
    return Compared("downtime of the machine", paper, told, "Xen, not tuned, there; a configured pause here")


def _sentences(levels: Sequence[Level]) -> list[str]:
    moved = [each.measured for each in levels if each.step.series == MOVED]
    unmoved = [each.measured for each in levels if each.step.series == UNMOVED]
    near = [each for each in levels if abs(each.measured - each.paper) <= NEAR * each.paper]
    far = [f"{each.step.series} ({each.measured - each.paper:+.1f} ms)" for each in levels if each not in near]
    back = all(abs(each - moved[0]) <= NEAR * moved[0] for each in (moved[2], moved[4]))
    again = "as near as at first" if back else "not as near as at first"
    apart = f"; others: {', '.join(far)}" if far else ""
    return [
        f"Not moved, the machine is {', '.join(f'{each:.1f}' for each in unmoved)} ms away over two handovers; "
        f"moved after each, {moved[2]:.1f} and {moved[4]:.1f} ms, {again} ({moved[0]:.1f} ms).",
        f"{len(near)} of {len(levels)} round-trip times are within {NEAR:.0%} of MobiScud's{apart}.",
    ]


def _table(levels: Sequence[Level]) -> Table:
    rows = [
        (
            each.step.series,
            each.step.user,
            each.step.machine,
            each.paper,
            each.measured,
            each.delays,
            each.blackout,
        )
        for each in levels
    ]
    columns = ("series", "user", "machine", "paper_ms", "measured_ms", "delays_ms", "blackout_ms")
    return Table("mobiscud", columns, rows)
