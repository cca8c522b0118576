"""Tells a controller how far other sites' locators are: what RLOC-probes measured since the last time.

`POST /v1/distances/report`, over a unix socket or TCP. A controller that cannot be reached is told of later: the newest
measurement of each locator counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from lispfmc.runtime.client import ApiClient
from lispfmc.wire.address import Ip, ip_text
from lispfmc.wire.errors import LocalError
from xtr.settings import DistanceSettings

_log = structlog.get_logger("distances")
Measurements = Callable[[], Mapping[Ip, tuple[float, float]]]


class Reporting:
    """`measured` gives each locator's last round-trip time in seconds, and when it was measured."""

    def __init__(self, settings: DistanceSettings, rlocs: tuple[Ip, ...], measured: Measurements) -> None:
        self._settings = settings
        self._rlocs = rlocs
        self._measured = measured
        self._told: dict[Ip, float] = {}
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def start(self) -> None:
        """Report in the background from now on, if there is whom to tell."""
        if self._settings.controller:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="distances")

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        settings = self._settings
        authority = settings.authority
        async with ApiClient(settings.controller, token=settings.token, authority=authority) as client:
            while True:
                await asyncio.sleep(settings.report_s)
                await self.report(client)

    async def report(self, client: ApiClient) -> None:
        """Tell what is new."""
        news = {rloc: (rtt_s, at) for rloc, (rtt_s, at) in self._measured().items() if at > self._told.get(rloc, -1.0)}
        if not news:
            return
        rtts = [{"rloc": ip_text(rloc), "ms": round(rtt_s * 1000, 3)} for rloc, (rtt_s, _) in news.items()]
        try:
            await client.post("/v1/distances/report", {"rloc": ip_text(self._rlocs[0]), "rtts": rtts})
        except LocalError as error:
            if not self._failing:
                _log.warning("distances.untold", why=str(error))
            self._failing = True
            return
        self._failing = False
        self._told = {rloc: at for rloc, (_, at) in news.items()} | {
            rloc: at for rloc, at in self._told.items() if rloc not in news
        }
