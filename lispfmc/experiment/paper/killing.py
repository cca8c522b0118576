"""The controller is killed in the middle of a move: what the users feel, and whether the service gets there."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from typing import Any

import msgspec

from lispfmc.experiment.design import Design
from lispfmc.experiment.moving import WARM_UP_S, Moves
from lispfmc.experiment.network import topology_of
from lispfmc.experiment.paper.networks import lab_on
from lispfmc.experiment.paper.work import Work
from lispfmc.lab.analysis import Window, longest_gap_ms, move_figures
from lispfmc.lab.following import site_of
from lispfmc.lab.installation import Installation
from lispfmc.lab.probes import Probes
from lispfmc.wire.errors import LocalError

PHASES = ("prepared", "copy.started", "stopped", "resumed")
"""What the controller has done or heard when it is killed."""
REACHED_S, AFTER_S, POLL_S = 10.0, 3.0, 0.002
ARRIVED = "dc2"


class Killed(msgspec.Struct, frozen=True):
    """One move whose controller died."""

    phase: str
    arrived: bool
    added_ms: float
    blackout_ms: float
    lost: int


def killed_at(work: Work, scheme: str, phase: str) -> Killed:
    """A lab of its own: its controller does not come back. Raises LocalError."""
    design = Design(schemes=(scheme,), fmcc_rtts_ms=(50.0,), copy_s=0.5, interval_us=1000)
    folder = work.folder / f"killed-{phase}"
    folder.mkdir(exist_ok=True)
    with lab_on(topology_of(design, scheme), folder, work.tell.say) as lab:
        return asyncio.run(_move(lab, phase, design))


async def _move(lab: Installation, phase: str, design: Design) -> Killed:
    service = next(node for node in lab.nodes if node.role == "service")
    folder = lab.folder / "measurement"
    probes = Probes(lab.users()[0], service, folder, interval_us=design.interval_us, round_trips=False, quiet=True)
    try:
        await probes.start()
        await asyncio.sleep(WARM_UP_S)
        begin = time.monotonic_ns()
        async with Moves(lab) as moves:
            await _until(moves, await moves.request(service.name, ARRIVED), phase)
            _kill(lab)
        await asyncio.sleep(AFTER_S)
        window = Window(begin, time.monotonic_ns())
        logs = await probes.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    blackout = longest_gap_ms(logs.gaps, logs.heartbeat_interval_ns, window)
    figures = move_figures(logs.flows, window, blackout, None)
    lost = sum(each.lost for each in figures.directions.values())
    return Killed(phase, await site_of(service) == ARRIVED, figures.added_ms, figures.blackout_ms, lost)


async def _until(moves: Moves, move: str, phase: str) -> None:
    until = time.monotonic() + REACHED_S
    while time.monotonic() < until:
        told: dict[str, Any] = await moves.told(move)
        if any(each["name"] == phase for each in told["phases"]):
            return
        await asyncio.sleep(POLL_S)
    raise LocalError(f"the move did not reach {phase!r} within {REACHED_S:g} s; see the controller's log")


def _kill(lab: Installation) -> None:
    pid = lab.the("fmcc").pid
    if pid is None:
        raise LocalError("the lab's controller has no process of its own here")
    os.kill(pid, signal.SIGKILL)
