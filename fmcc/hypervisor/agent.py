"""The daemon `lispfmc-agent`, one at each data centre: drives its hypervisor for the controller and the other agents.

HTTP, every /v1 path behind a bearer token. What happens to machines is told after the fact and by the end where it
happened: first to the data centre's own tunnel router, by UDP; then to all others as events (server-sent, resumable).
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fmcc.hypervisor import CannotMigrate, Happened, Hypervisor, Migration, Recovered
from fmcc.hypervisor.drivers import check_installed, make
from fmcc.hypervisor.settings import AgentSettings, RouterSettings
from fmcc.hypervisor.telling import TelEffect, Telling
from lispfmc.core.effects import FieldValue
from lispfmc.runtime import config, logs, service
from lispfmc.runtime.client import ApiClient, ApiError, Unreachable
from lispfmc.runtime.driver import Driver
from lispfmc.runtime.events import EventLog
from lispfmc.runtime.http import Api, Refused
from lispfmc.runtime.node_client import NodeError
from lispfmc.runtime.nonces import ordered_nonces
from lispfmc.runtime.rejects import Rejects
from lispfmc.runtime.udp import open_dgram
from lispfmc.wire.address import Endpoint

T = TypeVar("T")

CONTROL_PORT = 4342
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Agent:
    """The HTTP face of one driver."""

    def __init__(self, settings: AgentSettings, events: EventLog, rejects: Rejects) -> None:
        self._settings = settings
        self._events = events
        self._rejects = rejects
        # whose CLOCK_MONOTONIC our times are of: those of two agents on one machine can be compared
        self._clock = BOOT_ID.read_text().strip()
        self._driver: Hypervisor | None = None
        self._tell_router: Callable[[Happened], None] = lambda _: None
        # on the machine itself, by a unix socket: what is shown, nothing that acts
        self.local = Api("agent", settings.name, events, rejects, self._status, self._not_ready)
        self.local.get("/v1/migrations", lambda: {"items": self._hypervisor.migrations()})
        self.local.ask("/v1/machines", self._machines)
        self.api = Api("agent", settings.name, events, rejects, self._status, self._not_ready, token=settings.token)
        self.api.post("/v1/migrations/prepare", self._prepare)
        self.api.post("/v1/migrations/abort", self._abort)
        self.api.post("/v1/migrations", self._start)
        self.api.post("/v1/incoming", self._incoming)
        self.api.get("/v1/migrations", lambda: {"items": self._hypervisor.migrations()})
        self.api.ask("/v1/machines", self._machines)

    async def run(self) -> None:
        """Serve until cancelled."""
        async with contextlib.AsyncExitStack() as stack:
            peers = {
                peer.datacenter: await stack.enter_async_context(ApiClient(str(peer.address), token=peer.token))
                for peer in self._settings.peers
            }
            stack.push_async_callback(self.api.close)
            stack.push_async_callback(self.local.close)
            stack.push_async_callback(self._close_driver)
            async with asyncio.TaskGroup() as tasks:
                self._driver = make(self._settings, peers, self.report, tasks, self.recovered)
                if self._settings.xtr is not None:
                    await self._reach(self._settings.xtr, stack)
                await self.api.start(str(self._settings.listen))
                if self._settings.api.listen is not None:
                    await self.local.start(self._settings.api.listen)
                # a controller that had moves under way here learns from this that they are forgotten
                self._events.append("hypervisor.started", {"datacenter": self._settings.datacenter})
                service.settle()
                await self._driver.recover()
                await asyncio.Event().wait()

    async def _close_driver(self) -> None:
        if self._driver is not None:
            await self._driver.close()

    async def _reach(self, router: RouterSettings, stack: contextlib.AsyncExitStack) -> None:
        """From now on our tunnel router is told of machines that stop, resume and are taken back."""
        eids = {machine.name: machine.eids for machine in self._settings.machines}
        emulated = self._hypervisor.emulated
        router_at = Endpoint(router.address, CONTROL_PORT)
        telling = Telling(router_at, router.key, ordered_nonces(), eids, emulated=emulated)
        driver: Driver[TelEffect] = Driver(
            telling,
            perform=_nothing_else,
            send=lambda data, to: socket.send(data, to),
            events=self._events,
            rejects=self._rejects,
        )
        # by the address that the router knows us by, opened before the first move: no look-up when it counts
        socket = await open_dgram(Endpoint(self._settings.listen.ip, 0), driver.datagram)
        stack.callback(socket.close)
        stack.callback(driver.close)
        driver.start()
        self._tell_router = lambda happened: driver.tell(telling.tell, happened)

    def report(self, happened: Happened) -> None:
        """Tell what happened to a machine: the router first, packets wait for it; then all others, by an event."""
        self._tell_router(happened)
        fields: dict[str, FieldValue] = {
            "move": happened.migration.move,
            "machine": happened.migration.machine,
            "datacenter": self._settings.datacenter,
            "monotonic_ns": happened.at_ns,
            "clock": self._clock,
            "driver": self._hypervisor.name,
            "emulated": self._hypervisor.emulated,
        }
        if happened.percent is not None:
            fields["percent"] = happened.percent
        if happened.reason:
            fields["reason"] = happened.reason
        self._events.append(f"hypervisor.{happened.kind}", fields)

    def recovered(self, recovered: Recovered) -> None:
        """Make it an event that a machine was found frozen and runs again."""
        self._events.append(
            "hypervisor.recovered",
            {
                "machine": recovered.machine,
                "datacenter": recovered.datacenter,
                "monotonic_ns": recovered.at_ns,
                "driver": self._hypervisor.name,
                "emulated": self._hypervisor.emulated,
            },
        )

    @property
    def _hypervisor(self) -> Hypervisor:
        if self._driver is None:
            raise Refused("not ready", why="the driver is starting", do="try again", status=503)
        return self._driver

    def _status(self) -> dict[str, Any]:
        driver = self._hypervisor
        return {
            "datacenter": self._settings.datacenter,
            "driver": driver.name,
            "emulated": driver.emulated,
            "machines": list(driver.machines()),
            "migrations": len(driver.migrations()),
        }

    def _not_ready(self) -> list[str]:
        return self._driver.waiting() if self._driver is not None else ["the driver is starting"]

    async def _machines(self) -> dict[str, Any]:
        return {"items": [msgspec.to_builtins(place) for place in await self._hypervisor.places()]}

    async def _prepare(self, body: dict[str, Any]) -> dict[str, Any]:
        migration = _read(body, Migration)
        with _refusals():
            await self._hypervisor.prepare(migration)
        driver = self._hypervisor
        return {
            "move": migration.move,
            "driver": driver.name,
            "emulated": driver.emulated,
            "tells_stop": driver.tells_stop,
        }

    async def _start(self, body: dict[str, Any]) -> dict[str, Any]:
        migration = _read(body, Migration)
        with _refusals():
            await self._hypervisor.start(migration)
        return {"move": migration.move, "started": True}

    async def _abort(self, body: dict[str, Any]) -> dict[str, Any]:
        move = _read(body, _MoveId).move
        with _refusals():
            await self._hypervisor.abort(move)
        return {"move": move, "aborted": True}

    async def _incoming(self, body: dict[str, Any]) -> dict[str, Any]:
        with _refusals():
            return await self._hypervisor.incoming(body)


def _nothing_else(effect: TelEffect) -> None:
    raise TypeError(f"the driver performs a {type(effect).__name__} itself")


class _MoveId(msgspec.Struct, frozen=True):
    move: str


def _read(body: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise Refused("not a valid request", why=str(error), do="send move, machine, from and to as text") from error


@contextlib.contextmanager
def _refusals() -> Any:
    """What the driver cannot do, as the HTTP answer that says so."""
    try:
        yield
    except CannotMigrate as error:
        raise Refused(error.what, why=error.why, do="see GET /v1/status of the agents", status=error.status) from error
    except ApiError as error:
        raise Refused(f"the other agent: {error.what}", why=error.why, do=error.do, status=409) from error
    except (Unreachable, NodeError) as error:
        raise Refused("the migration cannot go on", why=str(error), do="see that it runs", status=502) from error


def load(path: Path) -> AgentSettings:
    """Raises LocalError: the configuration is wrong, or its driver is not installed."""
    settings = config.load(path, AgentSettings)
    check_installed(settings.driver)
    return settings


async def run(path: Path) -> None:
    """The agent with the configuration at `path`, until cancelled."""
    settings = load(path)
    logs.configure(settings.log)
    await Agent(settings, EventLog(), Rejects()).run()


def main() -> int:
    return service.main(run, "lispfmc-agent", check=load)


if __name__ == "__main__":
    sys.exit(main())
