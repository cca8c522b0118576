"""The tunnel router as a process: settings make a core, a data plane and an API, and this wires them together.

Control messages and evidence go into the core by the driver; the effects that come out change the data plane.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import assert_never

from lispfmc.core.effects import Emit, FieldValue, Reject, Send
from lispfmc.runtime import config, logs, service
from lispfmc.runtime.driver import Driver
from lispfmc.runtime.events import EventLog
from lispfmc.runtime.http import Api
from lispfmc.runtime.metrics import Metrics, decades
from lispfmc.runtime.nonces import ordered_nonces, random_nonces
from lispfmc.runtime.rejects import Rejects
from lispfmc.runtime.udp import Sockets, open_dgram
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_text
from lispfmc.wire.errors import LocalError
from xtr.dataplane.choice import plane_for, started
from xtr.dataplane.sniffer import Sniffer
from xtr.effects import Deliver, Install, ProbeHost, Remove, StandIn, TakeOver, Undeliver, XtrEffect
from xtr.memory import Memory
from xtr.reporting import Reporting
from xtr.roles.peer import Await, Mark
from xtr.roles.state import Release, Remember, Switch
from xtr.router import Router
from xtr.settings import XtrSettings

CONTROL_PORT = 4342
REGISTERED = "registration.acknowledged"
ALARMS = ("host.flapping", "host.at-two-sites")


class Daemon:
    """One xTR. `start` raises LocalError; `close` undoes whatever `start` got done."""

    def __init__(self, settings: XtrSettings) -> None:
        self._settings = settings
        self.events = EventLog()
        self.rejects = Rejects()
        self._plane = plane_for(settings)
        self._sniffer = Sniffer(settings.instances)
        self._nonces = ordered_nonces(settings.state_dir)
        self._memory = Memory(settings.state_dir)
        self._router = Router(
            settings,
            self._nonces,
            random_nonces(),
            lambda eid: self._plane.peers(eid),
            heard=lambda eid: self._plane.heard(eid),
            used=lambda eid: self._plane.used(eid),
        )
        self._reporting = Reporting(settings.distances, settings.rlocs, self._router.measured)
        self._sockets = Sockets([])
        self._driver: Driver[XtrEffect] = Driver(
            self._router,
            perform=self._perform,
            send=lambda data, to: self._sockets.send(data, to),
            events=self.events,
            rejects=self.rejects,
        )
        self._api = Api(
            "xtr", settings.name, self.events, self.rejects, self._status, self._not_ready, settings=settings.api
        )
        self._api.get("/v1/map-cache", lambda: {"items": self._router.map_cache(time.monotonic())})
        self._api.get("/v1/hosts", lambda: {"items": self._router.hosts(time.monotonic())})
        self._api.get("/v1/moves", self._moves)
        self._api.get("/v1/counters", self._counters)
        self._measure(self._api.metrics)

    async def start(self) -> None:
        roles = self._memory.roles()
        await self._api.start(self._settings.api.listen)
        self._nonces.start()
        self._sockets = Sockets(
            [await open_dgram(Endpoint(rloc, CONTROL_PORT), self._driver.datagram) for rloc in self._settings.rlocs]
        )
        try:
            self._plane = started(self._plane, settings=self._settings, evidence=self)
            self._sniffer.start(self)
        except OSError as error:
            raise LocalError(
                f"data plane: {error}; it needs root or CAP_NET_ADMIN, /dev/net/tun, the configured RLOCs and the "
                f"site's interfaces ({', '.join(self._settings.site.interfaces)})"
            ) from error
        self._driver.start()
        self._driver.tell(self._router.start)
        self._driver.tell(self._router.restored, roles)
        self._reporting.start()

    async def close(self) -> None:
        self._reporting.close()
        if self._sockets.all:
            self._driver.tell(self._router.stop)
        self._driver.close()
        self._nonces.close()
        self._sniffer.close()
        self._plane.close()
        self._sockets.close()
        await self._api.close()

    # --- evidence of the data plane and the sniffer ----------------------------------------------------------------

    def missed(self, eid: Prefix) -> None:
        self._driver.tell(self._router.missed, eid)

    def unknown_source(self, eid: Prefix) -> None:
        self._driver.tell(self._router.unknown_source, eid)

    def moved_away(self, eid: Prefix, sender: Ip) -> None:
        self._driver.tell(self._router.moved_away, eid, sender)

    def announced(self, eid: Prefix, interface: str, mac: bytes) -> None:
        self._driver.tell(self._router.announced, eid, interface, mac)

    def sought(self, eid: Prefix, interface: str, asker: Ip, mac: bytes) -> None:
        self._driver.tell(self._router.sought, eid, interface, asker, mac)

    def mac_announced(self, mac: bytes, interface: str, iid: int) -> None:
        self._driver.tell(self._router.mac_announced, mac, interface, iid)

    def outdated(self, eid: Prefix, sender: Ip) -> None:
        self._driver.tell(self._router.outdated, eid, sender)

    def newer_source(self, eid: Prefix) -> None:
        self._driver.tell(self._router.newer_source, eid)

    def version(self, eid: Prefix) -> int | None:
        return self._router.version(eid)

    def worked_off(self, eids: tuple[Prefix, ...], packets: Mapping[str, int]) -> None:
        self._driver.tell(self._router.worked_off, eids, packets)

    # --- effects and views -----------------------------------------------------------------------------------------

    def _perform(self, effect: XtrEffect) -> None:
        match effect:
            case Install(eid=eid, forwarding=forwarding):
                self._plane.install(eid, forwarding)
            case Remove(eid=eid):
                self._plane.remove(eid)
            case Deliver(eid=eid, interface=interface, mac=mac):
                self._plane.deliver(eid, interface, mac)
            case Undeliver(eid=eid):
                self._plane.undeliver(eid)
            case ProbeHost(eid=eid):
                self._sniffer.probe(eid)
            case StandIn(eid=eid, interface=interface, asker=asker, mac=mac):
                self._sniffer.stand_in(eid, interface, asker, mac)
            case TakeOver(eid=eid):
                self._sniffer.take_over(eid)
            case Switch():
                self._plane.switch(effect)
            case Release(plan=plan):
                self._plane.release(plan)
            case Mark():
                self._plane.mark(effect)
            case Await():
                self._plane.await_markers(effect)
            case Remember(role=role):
                self._memory.remember(role)
            case Send() | Emit() | Reject():
                raise TypeError("the driver performs these itself")
            case _:
                assert_never(effect)

    def _measure(self, metrics: Metrics) -> None:
        metrics.counters("lispfmc_packets", "Data packets by what happened to them", "what", self._counters)
        metrics.gauge(
            "lispfmc_registrations_unacknowledged",
            "EIDs whose last Map-Register a Map-Server has not answered",
            lambda: self._router.unacknowledged,
        )
        metrics.alarms(*ALARMS)
        added = metrics.histogram(
            "lispfmc_added_downtime_seconds", "What the network adds to a service's blackout", decades(0.0001, 10)
        )

        def opened(fields: Mapping[str, FieldValue]) -> None:
            if "added_ms" in fields:  # the other switches of delivery keep nobody waiting
                added.observe(float(str(fields["added_ms"])) / 1e3)

        self.events.watch("move.packets", opened)

    def _status(self) -> dict[str, object]:
        now = time.monotonic()
        return {
            "rlocs": [ip_text(rloc) for rloc in self._settings.rlocs],
            "prefixes": [str(prefix) for prefix in self._settings.prefixes],
            "instance_id": self._settings.instance_id,
            "hosts": len(self._router.hosts(now)),
            "map_cache": len(self._router.map_cache(now)),
        }

    def _moves(self) -> dict[str, object]:
        return {"items": self._router.moves(self._plane.moved, time.monotonic())}

    def _not_ready(self) -> list[str]:
        missing = [] if self._sockets.all else ["sockets are not bound"]
        if self._settings.prefixes and not self.events.counts.get(REGISTERED):
            missing.append("no Map-Server has acknowledged the registration")
        return missing

    def _counters(self) -> dict[str, int]:
        return {**self._plane.counters(), "control.dropped": self._sockets.drops}


async def run(path: Path) -> None:
    """Run until cancelled."""
    settings = config.load(path, XtrSettings)
    logs.configure(settings.log)
    daemon = Daemon(settings)
    try:
        await daemon.start()
        service.settle()
        if settings.dataplane.realtime:
            service.prefer(settings.dataplane.realtime)
        await asyncio.Event().wait()
    finally:
        await daemon.close()
