"""The Map-Server as a process: settings make a core, its sockets and an API, and this wires them together."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import assert_never

from lispfmc.core.effects import Effect, Emit, Reject, Send
from lispfmc.runtime import config, logs, service
from lispfmc.runtime.driver import Driver
from lispfmc.runtime.events import EventLog
from lispfmc.runtime.http import Api
from lispfmc.runtime.nonces import ordered_nonces
from lispfmc.runtime.rejects import Rejects
from lispfmc.runtime.udp import DrainedSocket, Sockets, open_drained
from lispfmc.wire.address import Endpoint, ip_text
from mapserver import views
from mapserver.server import MapServer
from mapserver.settings import MapServerSettings


class Daemon:
    """One Map-Server. `start` raises LocalError; `close` undoes whatever `start` got done."""

    def __init__(self, settings: MapServerSettings) -> None:
        self._settings = settings
        self.events = EventLog()
        self.rejects = Rejects()
        self._nonces = ordered_nonces(settings.state_dir)
        self._server = MapServer(settings, self._nonces)
        self._sockets = Sockets([])
        self._driver: Driver[Effect] = Driver(
            self._server,
            perform=_perform,
            send=lambda data, to: self._sockets.send(data, to),
            events=self.events,
            rejects=self.rejects,
        )
        self._api = Api("mapserver", settings.name, self.events, self.rejects, self._status, self._not_ready)
        self._api.get("/v1/registrations", lambda: views.registrations(self._server, time.monotonic()))
        self._api.get("/v1/subscriptions", lambda: views.subscriptions(self._server))
        metrics = self._api.metrics
        metrics.counters("lispfmc_map_requests", "Map-Requests by what became of them", "answer", self._server.answers)
        metrics.counter("lispfmc_control_dropped", "Control datagrams not sent", lambda: self._sockets.drops)
        for name in self._server.counts():
            metrics.gauge(f"lispfmc_{name}", f"Entries in the table of {name}", partial(self._count, name))

    async def start(self) -> None:
        await self._api.start(self._settings.api.listen)
        self._nonces.start()
        opened: list[DrainedSocket] = []
        for ip in self._settings.listen:
            opened.append(await open_drained(Endpoint(ip, self._settings.port), self._driver.datagram))
            self._sockets = Sockets(opened)  # what is open when the next one fails is closed by `close`
        self._driver.start()

    async def close(self) -> None:
        self._driver.close()
        self._nonces.close()
        self._sockets.close()
        await self._api.close()

    def _count(self, name: str) -> int:
        return self._server.counts()[name]

    def _status(self) -> dict[str, object]:
        return {
            "listen": [ip_text(ip) for ip in self._settings.listen],
            "port": self._settings.port,
            "sites": len(self._settings.sites),
            **self._server.counts(),
        }

    def _not_ready(self) -> list[str]:
        return [] if self._sockets.all else ["sockets are not bound"]


def _perform(effect: Effect) -> None:
    match effect:
        case Send() | Emit() | Reject():
            raise TypeError("the driver performs these itself")
        case _:
            assert_never(effect)


async def run(path: Path) -> None:
    """Run until cancelled."""
    settings = config.load(path, MapServerSettings)
    logs.configure(settings.log)
    daemon = Daemon(settings)
    try:
        await daemon.start()
        service.settle()
        await asyncio.Event().wait()
    finally:
        await daemon.close()
