"""Carries a design out: a lab for each session, run after run, each kept as soon as it is made.

A run in which the service did not move is made again, on a fresh lab; how often it took is in its record. What an
interrupted experiment has already is not made again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import subprocess
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from lispfmc.experiment.crowding import CrowdRunner
from lispfmc.experiment.design import Design, Planned, Session
from lispfmc.experiment.moving import Moves, Runner, here_and_there
from lispfmc.experiment.network import DATACENTERS, rtts_at, rtts_ms, streams_at, topology_of
from lispfmc.experiment.records import Folder, Record
from lispfmc.lab import lifecycle
from lispfmc.lab.impairment import impair
from lispfmc.lab.installation import Installation
from lispfmc.lab.interruption import interruptible, uninterrupted
from lispfmc.lab.measurement import environment as machine
from lispfmc.lab.toml_text import toml_text
from lispfmc.wire.errors import LocalError

ATTEMPTS = 3


class Progress(Protocol):
    """Who is told how far it is."""

    def begin(self, there: int, total: int) -> None: ...

    def session(self, session: Session, blocks: int) -> None: ...

    def done(self, record: Record) -> None: ...

    def say(self, text: str) -> None: ...


def carry_out(design: Design, folder: Folder, progress: Progress) -> list[Record]:
    """Every record of the design, those of an earlier start included. Raises LocalError."""
    with folder.held(), interruptible():
        folder.claim(design, environment())
        there = {record.planned.number for record in folder.records()}
        sessions = design.sessions()
        blocks = 1 + max(session.block for session in sessions)
        progress.begin(len(there), sum(len(session.runs) for session in sessions))
        for session in sessions:
            missing = tuple(planned for planned in session.runs if planned.number not in there)
            if missing:
                progress.session(session, blocks)
                _session(design, msgspec.structs.replace(session, runs=missing), folder, progress)
        return folder.records()


def _session(design: Design, session: Session, folder: Folder, progress: Progress) -> None:
    values = topology_of(design, session.scheme, session.services, session.at_once)
    many = f"-{session.services}" if session.services > 1 else ""
    many += f"-{session.at_once}-at-once" if session.at_once else ""
    topology = folder.path / f"topology-{session.scheme}{many}.toml"
    folder.write(topology.name, toml_text(values).encode())
    left, attempts = deque(session.runs), Counter[int]()
    while left:
        try:
            with lab_of(topology, folder.path, progress.say) as lab:
                asyncio.run(_runs(design, session, lab, left, attempts, rtts_ms(values), folder, progress))
        except LabFailure as failure:  # whatever state it left behind: the next one begins on a fresh lab
            progress.say(f"run {failure.planned.number}, attempt {attempts[failure.planned.number]}: {failure}")
            if attempts[failure.planned.number] == ATTEMPTS:
                folder.keep(_failed(left.popleft(), session.block, str(failure)))


@contextmanager
def lab_of(
    topology: Path, folder: Path, say: Callable[[str], None], driver: str = "emulated"
) -> Iterator[Installation]:
    """A lab of the experiment's own name; what an interrupted one left behind is removed first. Its daemons' logs stay
    when something went wrong."""
    name = lab_name(folder)
    if lifecycle.traces(name):
        lifecycle.down(name)
    lab = lifecycle.up(str(topology.resolve()), name, driver=driver, by_forwarder=True)
    went_well = False
    try:
        yield lab
        went_well = True
    finally:
        with uninterrupted():
            lifecycle.down(name, purge=went_well)


def lab_name(folder: Path) -> str:
    """Experiments in different folders have different labs."""
    return f"exp{hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]}"


class LabFailure(LocalError):  # noqa: N818 - reads as what it is
    """A run that came to nothing."""

    def __init__(self, planned: Planned, error: LocalError) -> None:
        super().__init__(str(error))
        self.planned = planned


async def _runs(
    design: Design,
    session: Session,
    lab: Installation,
    left: deque[Planned],
    attempts: Counter[int],
    base: dict[frozenset[str], float],
    folder: Folder,
    progress: Progress,
) -> None:
    """All that is left, in order. Raises LabFailure."""
    async with Moves(lab) as moves:
        runner = (CrowdRunner if session.services > 1 else Runner)(lab, moves, design)
        while left:
            planned = left[0]
            attempts[planned.number] += 1
            # for every run anew, also where nothing changes: the losses of each have a seed of their own
            try:
                rtts = rtts_at(base, planned.point, await _source(lab, planned))
                streams, loss = streams_at(planned.point), planned.point.control_loss
                await impair(lab, rtts, streams_ms=streams, control_loss_percent=loss, seed=planned.seed)
                # what was under way when the delays changed; the probes' start and warm-up follow
                await asyncio.sleep(max(rtts.values()) / 1000)
                record = await runner.run(planned, session.block)
            except LocalError as error:
                raise LabFailure(planned, error) from error
            record = msgspec.structs.replace(record, attempt=attempts[planned.number])
            folder.keep(record)
            left.popleft()
            progress.done(record)


async def _source(lab: Installation, planned: Planned) -> str:
    """Where the service is, if the point's delays depend on it."""
    if planned.point.hypervisors_ms is None:
        return DATACENTERS[0]
    here, _ = await here_and_there(next(node for node in lab.nodes if node.role == "service"))
    return here


def _failed(planned: Planned, block: int, why: str) -> Record:
    load = round(os.getloadavg()[0], 2)
    return Record(planned, block, f"failed: {why}", round(time.time(), 3), load, ATTEMPTS)


def environment() -> dict[str, Any]:
    """What a reader needs to judge the figures."""
    return machine() | {
        "cpu": _cpu(),
        "commit": _commit(),
        "implementation": platform.python_implementation(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _cpu() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _commit() -> str | None:
    """The commit of the source tree that we run from, with "+" when it was changed; None when it is installed."""
    here = Path(__file__).parent
    answers = []
    for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]):
        try:
            done = subprocess.run(["git", "-C", str(here), *command], capture_output=True, text=True, check=False)  # noqa: S603, S607 - fixed words
        except OSError:
            return None
        if done.returncode:
            return None
        answers.append(done.stdout.strip())
    return answers[0] + ("+" if answers[1] else "")
