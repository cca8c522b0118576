"""The Map-Server as a process: settings make a core, its sockets and an API, and this wires them together."""

from __future__ import annotations

import asyncio
import signal
import time
from functools import partial
from pathlib import Path
from typing import assert_never

from lispfmc.core.effects import Effect, Emit, EmitEach, Reject, Send, Transmit
from lispfmc.runtime import config, logs, service
from lispfmc.runtime.batched import BatchedSocket
from lispfmc.runtime.differences import differences
from lispfmc.runtime.driver import Driver
from lispfmc.runtime.events import EventLog
from lispfmc.runtime.http import Api
from lispfmc.runtime.metrics import decades
from lispfmc.runtime.nonces import ordered_nonces
from lispfmc.runtime.rejects import Rejects
from lispfmc.runtime.udp import Sockets, open_batched
from lispfmc.wire.address import Endpoint, ip_text
from lispfmc.wire.errors import LocalError
from mapserver import keeping, views
from mapserver.server import MapServer
from mapserver.settings import MapServerSettings
from mapserver.workers import Workers

ALARMS = ("registration.flapping", "registration.damped", "registration.contested")
NEEDS_RESTART = {"name", "listen", "port", "state_dir", "store", "workers", "api", "log", "timers"}


class Daemon:
    """One Map-Server. `start` raises LocalError; `close` undoes whatever `start` got done."""

    def __init__(self, settings: MapServerSettings, path: Path | None = None) -> None:
        self._settings = settings
        self._path = path
        self.events = EventLog()
        self.rejects = Rejects()
        self._nonces = ordered_nonces(settings.state_dir)
        self._store = keeping.opened(settings)
        self._server = MapServer(settings, self._nonces, self._store)
        self._keeping = keeping.Keeping(self._store, self.events)
        self._policy = keeping.Policy(settings)
        self._sockets = Sockets([])
        others = settings.workers - 1 if path is not None else 0
        self._workers = Workers(path or Path(), others, self._store, self._received, self.events, self.rejects)
        self._driver: Driver[Effect] = Driver(
            self._server,
            perform=_perform,
            send=lambda data, to: self._sockets.send(data, to),
            events=self.events,
            rejects=self.rejects,
            quick=self._server.at_once,
        )
        self._api = Api(
            "mapserver", settings.name, self.events, self.rejects, self.status, self._not_ready, settings=settings.api
        )
        self._api.query("/v1/registrations", lambda query: views.registrations(self._server, query, time.monotonic()))
        self._api.post("/v1/reload", self._reload)
        self._api.get("/v1/subscriptions", lambda: views.subscriptions(self._server))
        metrics = self._api.metrics
        metrics.counters("lispfmc_map_requests", "Map-Requests by what became of them", "answer", self._answers)
        metrics.counter(
            "lispfmc_store_failures", "Batches that the store could not keep", lambda: self._keeping.failures
        )
        metrics.counter("lispfmc_control_dropped", "Control datagrams not sent", self._dropped)
        metrics.gauge("lispfmc_notify_oldest_seconds", "Age of the oldest Map-Notify without answer", self._oldest)
        metrics.alarms(*ALARMS)
        publication = metrics.histogram(
            "lispfmc_publication_seconds", "From a change to its publication's acknowledgement", decades(0.0005, 60)
        )
        self.events.watch(
            "publication.acknowledged", lambda fields: publication.observe(float(str(fields["change_ms"])) / 1e3)
        )
        for name in self._server.counts():
            metrics.gauge(f"lispfmc_{name}", f"Entries in the table of {name}", partial(self._count, name))

    async def start(self) -> None:
        await self._api.start(self._settings.api.listen)
        self._nonces.start()
        opened: list[BatchedSocket] = []
        for ip in self._settings.listen:
            local = Endpoint(ip, self._settings.port)
            opened.append(await self._open(local))
            self._sockets = Sockets(opened)  # what is open when the next one fails is closed by `close`
        self._driver.start()
        self._driver.tell(self._server.started)
        if not self._policy.is_kept(self._settings):
            self._driver.tell(self._server.policed)
            self._keeping.policed(self._policy, self._settings)
        self._keeping.start()
        await self._workers.start()

    async def close(self) -> None:
        await self._workers.close()
        self._driver.close()
        self._nonces.close()
        self._sockets.close()
        self._keeping.close()
        await self._api.close()

    async def _open(self, local: Endpoint) -> BatchedSocket:
        shared = self._settings.workers > 1
        return await open_batched(local, self._driver.datagram, may_leave=self._may_leave, shared=shared)

    def _may_leave(self) -> bool:
        self._workers.wake()
        return self._keeping.commit()

    def _received(self, data: bytes, source: Endpoint) -> None:
        self._driver.datagram(data, source)

    def _dropped(self) -> int:
        return self._sockets.drops + self._workers.dropped

    def _answers(self) -> dict[str, int]:
        return {name: count + self._workers.answers[name] for name, count in self._server.answers().items()}

    def reload(self, *, dry_run: bool = False) -> dict[str, object]:
        """Read the configuration anew: applied as a whole, or kept as it was. `dry_run`: only say what would be."""
        try:
            settings = config.load(self._path, MapServerSettings) if self._path is not None else self._settings
        except LocalError as error:
            if not dry_run:
                self.events.append("configuration.kept", {"why": str(error)})
            return {"applied": False, "changes": [], "why": str(error)}
        changes = differences(self._settings, settings)
        fixed = sorted({change.key for change in changes} & NEEDS_RESTART)
        if fixed:
            why = f"{', '.join(fixed)}: only a restart changes that; restart, or undo it and reload"
            if not dry_run:
                self.events.append("configuration.kept", {"why": why})
            return {"applied": False, "changes": [change.text for change in changes], "why": why}
        if changes and not dry_run:
            self._settings = settings
            self._driver.tell(self._server.configured, settings)
            self._keeping.policed(self._policy, settings)
            self._workers.restart()
            self.events.append("configuration.changed", {"changes": [change.text for change in changes]})
        return {"applied": not dry_run, "changes": [change.text for change in changes], "why": ""}

    async def _reload(self, body: dict[str, object]) -> dict[str, object]:
        return self.reload(dry_run=body.get("dry_run") is True)

    def _oldest(self) -> float:
        return self._server.longest_unanswered(time.monotonic())

    def _count(self, name: str) -> int:
        return self._server.counts()[name]

    def status(self) -> dict[str, object]:
        return {
            "listen": [ip_text(ip) for ip in self._settings.listen],
            "port": self._settings.port,
            "sites": len(self._settings.sites),
            "workers": 1 + self._workers.following,
            **self._server.counts(),
        }

    def _not_ready(self) -> list[str]:
        return [] if self._sockets.all else ["sockets are not bound"]


def _perform(effect: Effect) -> None:
    match effect:
        case Send() | Transmit() | Emit() | EmitEach() | Reject():
            raise TypeError("the driver performs these itself")
        case _:
            assert_never(effect)


async def run(path: Path) -> None:
    """Run until cancelled."""
    settings = config.load(path, MapServerSettings)
    logs.configure(settings.log)
    daemon = Daemon(settings, path)
    loop = asyncio.get_running_loop()
    try:
        await daemon.start()
        loop.add_signal_handler(signal.SIGHUP, daemon.reload)
        service.settle()
        await asyncio.Event().wait()
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        await daemon.close()
