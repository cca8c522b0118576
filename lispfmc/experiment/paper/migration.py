"""Parts `fig17` and `table1`: how long a real virtual machine's migration takes, and the bandwidth that it uses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from lispfmc.experiment.moving import Moves
from lispfmc.experiment.paper.networks import BIG, REAL, SMALL, lab_on, network, the_service
from lispfmc.experiment.paper.printed import printed
from lispfmc.experiment.paper.result import Chart, Compared, Figure, Line, Result, Table
from lispfmc.experiment.paper.work import Work
from lispfmc.experiment.statistics import median
from lispfmc.lab.entrance import inside
from lispfmc.lab.impairment import impair
from lispfmc.lab.installation import Installation
from lispfmc.lab.namespaces import namespace_of
from lispfmc.wire.errors import LocalError

BETWEEN = frozenset(("dc1", "dc2"))
RTTS_MS, QUICK_RTTS_MS = (1.0, 10.0, 50.0, 100.0), (10.0,)
TIMES, TABLE_TIMES = 2, 2
SAMPLE_S = 1.0
RESUMED_S = 10.0
FLAT = 0.1
"""By what share durations may differ and still count as independent of the round-trip time."""


class Copy(msgspec.Struct, frozen=True):
    """One migration. `rates_mbit`: what left the source's data centre in each whole second of the copy."""

    rtt_ms: float
    origin: str
    duration_s: float
    blackout_ms: float | None
    rates_mbit: Sequence[float]


def durations(work: Work) -> Result:
    """Fig. 17."""
    rtts = QUICK_RTTS_MS if work.quick else RTTS_MS
    copies = _copies(work, rtts, 1 if work.quick else TIMES)
    return Result(
        part="fig17",
        title="Migration duration against the round-trip time between the data centres (A Fig. 7, B Fig. 17)",
        made_by=_made_by(work),
        figures=[_duration_figure(copies)],
        tables=[_table("fig17", copies)],
        cannot=("The quick run has one point: a curve needs the full run.",) if work.quick else (),
    )


def bandwidth(work: Work) -> Result:
    """Table 1."""
    rtt = float(printed("table1")["datacenters_rtt_ms"])
    copies = _copies(work, (rtt,), 1 if work.quick else TABLE_TIMES)
    return Result(
        part="table1",
        title="Bandwidth used by a migration (A Table 1)",
        made_by=_made_by(work),
        figures=[_bandwidth_figure(copies)],
        tables=[_table("table1", copies)],
    )


def _made_by(work: Work) -> tuple[str, ...]:
    machine = _machine(work)
    size = f"{machine['memory_mb']} MB, of which {machine['filled_mb']} MB are filled with what does not compress"
    return (REAL, f"The machine has {size}, besides its own kernel and programs. The papers' has 1 GB.")


def _machine(work: Work) -> dict[str, Any]:
    return SMALL if work.quick else BIG


def _copies(work: Work, rtts: Sequence[float], times: int) -> list[Copy]:
    work.tell.steps(len(rtts) * times)
    values = network("fig5", policy="never", virtual=_machine(work))
    service, _ = the_service(values)
    with lab_on(values, work.folder, work.tell.say, "qemu") as lab:
        return asyncio.run(_all(work, lab, service, [rtt for _ in range(times) for rtt in rtts]))


async def _all(work: Work, lab: Installation, service: str, rtts: Sequence[float]) -> list[Copy]:
    copies, here, there = [], "dc1", "dc2"
    async with Moves(lab) as moves:
        for rtt in rtts:
            await impair(lab, {BETWEEN: rtt})
            copies.append(await _copy(lab, moves, service, here, there, rtt))
            here, there = there, here
            work.tell.step(f"{rtt:g} ms")
    return copies


async def _copy(lab: Installation, moves: Moves, service: str, here: str, there: str, rtt: float) -> Copy:
    samples: list[float] = []
    watching = asyncio.create_task(_watch(namespace_of(lab.name, here), samples))
    try:
        move = await moves.request(service, there)
        said = await moves.over(move)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
    told = await resumed(moves, move, RESUMED_S)
    phases = {phase["name"]: phase["at_ms"] for phase in told["phases"]}
    if said == "migration.failed" or "stopped" not in phases or "copy.started" not in phases:
        raise LocalError(f"the migration to {there} failed: {told['reason'] or said}")
    end = told["resumed_monotonic_ns"] or told["stopped_monotonic_ns"]
    duration = (end - told["started_monotonic_ns"]) / 1e9 - phases["copy.started"] / 1000
    return Copy(rtt, here, round(duration, 3), told["blackout_events_ms"], _whole(samples))


async def resumed(moves: Moves, move: str, patience_s: float) -> dict[str, Any]:
    """What the controller keeps of it once the target has told when the guest answered, maybe after the commit."""
    told = await moves.told(move)
    for _ in range(int(patience_s / 0.1)):
        if told["resumed_monotonic_ns"] is not None:
            break
        await asyncio.sleep(0.1)
        told = await moves.told(move)
    return told


async def _watch(namespace: str, samples: list[float]) -> None:
    """What leaves a data centre, in Mbit/s, a value for each second."""
    before, loop = await asyncio.to_thread(_sent_bytes, namespace), asyncio.get_running_loop()
    at = loop.time()
    while True:
        await asyncio.sleep(SAMPLE_S)
        now, then = await asyncio.to_thread(_sent_bytes, namespace), loop.time()
        samples.append((now - before) * 8 / 1e6 / (then - at))
        before, at = now, then


def _sent_bytes(namespace: str) -> int:
    lines = inside(namespace, lambda: Path("/proc/thread-self/net/dev").read_text()).splitlines()
    (line,) = (each for each in lines if each.strip().startswith("wan0:"))
    return int(line.split(":")[1].split()[8])


def _whole(samples: Sequence[float]) -> list[float]:
    """The seconds that the copy filled: the first and the last are cut, as it does not begin and end on a second."""
    busy = [round(rate, 3) for rate in samples if rate > 1]
    return busy[1:-1] if len(busy) > 2 else busy


def _duration_figure(copies: Sequence[Copy]) -> Figure:
    stated = printed("fig17")
    rtts = sorted({each.rtt_ms for each in copies})
    typical = [median([each.duration_s for each in copies if each.rtt_ms == rtt]) for rtt in rtts]
    above = [value for rtt, value in zip(rtts, typical, strict=True) if rtt >= 10]
    spread = max(above) / min(above) - 1
    flat = "within" if spread <= FLAT else "not within"
    measured = f"{min(above):.1f} to {max(above):.1f} s at 10 ms and more ({spread:.0%} apart)"
    if len(above) == 1:
        measured, why = f"{above[0]:.1f} s at {rtts[-1]:g} ms", "one point shows no dependence; the full run has more"
    else:
        why = f"{flat} {FLAT:.0%}: QEMU sends at the rate that it is limited to"
    row = Compared("duration", f"{stated.statements} (no printed values)", measured, why)
    chart = Chart(
        "round-trip time dc1 - dc2 (ms)", "migration (s)", [_durations_line(copies, rtts, typical)], note="real VM"
    )
    pauses = [each.blackout_ms for each in copies if each.blackout_ms is not None]
    sentences = [f"{len(copies)} migrations, of {min(typical):.1f} to {max(typical):.1f} s."]
    if pauses:
        sentences.append(f"The machine paused for {median(pauses):.1f} ms (median).")
    return Figure("fig17", "Migration duration", stated.source, chart, (row,), sentences)


def _durations_line(copies: Sequence[Copy], rtts: Sequence[float], typical: Sequence[float]) -> Line:
    """The bars are the shortest and the longest, not an interval: they are few."""
    each = [[copy.duration_s for copy in copies if copy.rtt_ms == rtt] for rtt in rtts]
    label = f"median, shortest and longest, n = {len(each[0])} a point"
    return Line(label, rtts, typical, low=[min(one) for one in each], high=[max(one) for one in each])


def _bandwidth_figure(copies: Sequence[Copy]) -> Figure:
    stated = printed("table1")
    rates = [rate for each in copies for rate in each.rates_mbit]
    if not rates:
        raise LocalError("the copy took less than a second: no bandwidth to tell; use a larger machine")
    found = {"max_mbit": max(rates), "mean_mbit": sum(rates) / len(rates), "min_mbit": min(rates)}
    why = (
        "the papers' link carries at most 100 Mbit/s, headers included; here there is no such link: QEMU limits itself "
        "to 100 Mbit/s of data, on the average, and what is counted has headers and all else that leaves"
    )
    compared = [
        Compared(name.removesuffix("_mbit"), f"{stated[name]:g} Mbit/s", f"{value:.3f} Mbit/s", why)
        for name, value in found.items()
    ]
    lines = [
        Line(f"migration {at + 1}", list(range(1, len(each.rates_mbit) + 1)), each.rates_mbit)
        for at, each in enumerate(copies)
    ]
    chart = Chart("second of the copy", "Mbit/s", lines, note="real VM")
    ratio = found["mean_mbit"] / stated["mean_mbit"]
    sentence = f"On the average {ratio:.0%} of the bandwidth that the paper reports, over {len(rates)} whole seconds."
    return Figure("table1", "Bandwidth of the copy", stated.source, chart, compared, (sentence,))


def _table(name: str, copies: Sequence[Copy]) -> Table:
    rows = [
        (each.rtt_ms, each.origin, each.duration_s, each.blackout_ms, " ".join(f"{rate:g}" for rate in each.rates_mbit))
        for each in copies
    ]
    return Table(name, ("dc_dc_rtt_ms", "from", "duration_s", "blackout_ms", "mbit_per_s_by_second"), rows)
