"""One round with many services: all are asked to move at the same instant, one stream of probes goes to each.

Their blackouts are those of the hypervisors' events: a heartbeat in each would be a load of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections import Counter
from typing import Any

from lispfmc.experiment.design import Design, Planned
from lispfmc.experiment.moving import BEFORE_S, WARM_UP_S, Moves, NoMove, here_and_there
from lispfmc.experiment.records import Record
from lispfmc.lab.analysis import NS_PER_MS, Flow, MoveFigures, Window, move_figures
from lispfmc.lab.installation import Installation
from lispfmc.lab.probes import ManyProbes
from lispfmc.runtime.client import ApiClient
from lispfmc.wire.errors import LocalError

AFTER_S = 0.5


class CrowdRunner:
    """Makes rounds on one lab."""

    def __init__(self, lab: Installation, moves: Moves, design: Design) -> None:
        self._moves, self._folder = moves, lab.folder / "measurement"
        self._services = [node for node in lab.nodes if node.role == "service"]
        self._routers = [daemon.api for daemon in lab.daemons if daemon.role == "xtr"]
        self._probes = ManyProbes(lab.users()[0], self._services, self._folder, design.service_interval_us)

    async def run(self, planned: Planned, block: int) -> Record:
        """The record of one round. Raises LocalError, NoMove when a service did not move."""
        began = time.time()
        here, there = await here_and_there(self._services[0])
        before = await self._dropped()
        try:
            await self._probes.start()
            await asyncio.sleep(WARM_UP_S)
            begin = time.monotonic_ns()
            await asyncio.sleep(BEFORE_S)
            told = await self._move_all(there)
            await asyncio.sleep(AFTER_S)
            window = Window(begin, time.monotonic_ns())
            flows = await self._probes.stop()
        except BaseException:
            with contextlib.suppress(LocalError):  # why it failed is what counts
                await asyncio.shield(self._probes.abandon())
            raise
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        services = {name: _figures(flow, told[name], window) for name, flow in flows.items()}
        return Record(
            planned,
            block,
            "committed",
            round(began, 3),
            round(os.getloadavg()[0], 2),
            origin=here,
            target=there,
            services=services,
            dropped=dict(await self._dropped() - before),
            cut_short=self._probes.cut_short,
            overflowed=self._probes.overflowed,
        )

    async def _dropped(self) -> Counter[str]:
        """By all routers together, so far, by reason."""
        found: Counter[str] = Counter()
        for api in self._routers:
            async with ApiClient(api) as router:
                counters = await router.get("/v1/counters")
            found.update({name: count for name, count in counters.items() if name.startswith("dropped.")})
        return found

    async def _move_all(self, there: str) -> dict[str, dict[str, Any]]:
        """What the controller keeps of each service's move."""
        names = [service.name for service in self._services]
        moves = await asyncio.gather(*(self._moves.request(name, there) for name in names))
        try:
            await asyncio.gather(*map(self._moves.over, moves))
        except TimeoutError as error:
            raise NoMove(f"not all moves to {there} were over in time") from error
        told = dict(zip(names, [await self._moves.told(move) for move in moves], strict=True))
        for name, move in told.items():
            if move["resumed_monotonic_ns"] is None or move["stopped_monotonic_ns"] is None:
                raise NoMove(f"the move of {name} to {there} failed: {move['reason']}")
        return told


def _figures(flow: Flow, told: dict[str, Any], window: Window) -> MoveFigures:
    blackout = (told["resumed_monotonic_ns"] - told["stopped_monotonic_ns"]) / NS_PER_MS
    return move_figures({"to_service": flow}, window, blackout, blackout)
