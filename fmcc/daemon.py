"""The controller as a daemon: UDP 4342 to the Map-Server and the tunnel routers, HTTP to agents and operators."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from fmcc import views
from fmcc.agents import Agents
from fmcc.controller import Controller
from fmcc.effects import AbortMigration, FmccEffect, Persist, PrepareMigration, RecallMigration, StartMigration
from fmcc.memory import Forgetful, Journal, Memory
from fmcc.moves import AgentReport
from fmcc.requests import RequestRefused
from fmcc.settings import CONTROL_PORT, FmccSettings
from fmcc.steering.registry import schemes
from lispfmc.core.effects import Emit, Reject, Send
from lispfmc.runtime import config, logs
from lispfmc.runtime.client import ApiClient
from lispfmc.runtime.driver import Driver
from lispfmc.runtime.events import EventLog
from lispfmc.runtime.http import Api, Refused
from lispfmc.runtime.nonces import ordered_nonces
from lispfmc.runtime.rejects import Rejects
from lispfmc.runtime.udp import Sockets, open_dgram
from lispfmc.wire.address import Endpoint
from lispfmc.wire.errors import LocalError


class Daemon:
    """Everything that one controller process holds."""

    def __init__(self, settings: FmccSettings) -> None:
        self._settings = settings
        self._events = EventLog()
        self._rejects = Rejects()
        world = settings.world()
        self._nonces = ordered_nonces(settings.state_dir)
        steering = schemes(settings.scheme, world, self._nonces)
        self._memory: Memory = Journal(settings.state_dir) if settings.state_dir else Forgetful()
        self._controller = Controller(world, settings.make_policy(), steering, self._nonces)
        self._clients = {
            site.name: ApiClient(str(site.agent), token=site.agent_token)
            for site in settings.sites
            if site.agent is not None
        }
        self._agents = Agents(self._clients, self._tell, self._restarted, self._found)
        self._sockets: Sockets | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._driver: Driver[FmccEffect] = Driver(
            self._controller,
            perform=self._perform,
            send=self._send,
            events=self._events,
            rejects=self._rejects,
        )
        self.api = self._make_api()

    async def run(self) -> None:
        """Serve until cancelled."""
        async with contextlib.AsyncExitStack() as stack:
            for client in self._clients.values():
                await stack.enter_async_context(client)
            stack.push_async_callback(self.api.close)
            opened = []
            for rloc in self._settings.rlocs:
                opened.append(await open_dgram(Endpoint(rloc, CONTROL_PORT), self._driver.datagram))
                stack.callback(opened[-1].close)
            self._sockets = Sockets(opened)
            stack.callback(self._driver.close)
            self._nonces.start()
            stack.callback(self._nonces.close)
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                await self.api.start(self._settings.api.listen)
                for datacenter in self._clients:
                    tasks.create_task(self._agents.follow(datacenter), name=f"follow {datacenter}")
                self._driver.start()
                self._driver.tell(self._controller.restored, self._memory.load())

    # --- effects ------------------------------------------------------------------------------------------------------

    def _perform(self, effect: FmccEffect) -> None:
        match effect:
            case Persist(service=service, standing=standing):
                self._memory.remember(service, standing)
            case PrepareMigration() | StartMigration() | AbortMigration() | RecallMigration():
                assert self._tasks is not None, "effects come after the start"
                self._tasks.create_task(self._agents.perform(effect), name=f"{type(effect).__name__} {effect.move}")
            case Send() | Emit() | Reject():
                raise TypeError("the driver performs these itself")

    def _send(self, data: bytes, to: Endpoint) -> None:
        assert self._sockets is not None, "effects come after the start"
        self._sockets.send(data, to)

    def _tell(self, move: str, report: AgentReport) -> None:
        self._driver.tell(self._controller.agent_event, move, report)

    def _restarted(self, datacenter: str) -> None:
        self._driver.tell(self._controller.agent_restarted, datacenter)

    def _found(self, datacenter: str, machines: Collection[str], asked: float) -> None:
        self._driver.tell(self._controller.found, datacenter, machines, asked)

    # --- the API ------------------------------------------------------------------------------------------------------

    def _make_api(self) -> Api:
        api = Api("fmcc", self._settings.name, self._events, self._rejects, self._status, self._not_ready)
        api.get("/v1/users", lambda: views.users(self._controller, time.monotonic()))
        api.get("/v1/placements", lambda: views.placements(self._controller))
        api.get("/v1/moves", lambda: views.moves(self._controller))
        api.get("/v1/decisions", lambda: views.decisions(self._controller, time.monotonic()))
        api.post("/v1/moves", self._request_move)
        api.post("/v1/schemes", self._steer)
        api.post("/v1/distances", self._measured)
        api.post("/v1/remaining", self._remaining)
        return api

    async def _request_move(self, body: dict[str, Any]) -> dict[str, Any]:
        name, datacenter, scheme = body.get("service"), body.get("to"), body.get("scheme", "")
        known = set(body) <= {"service", "to", "scheme"}
        if not (isinstance(name, str) and isinstance(datacenter, str) and isinstance(scheme, str) and known):
            why, do = "it needs service and to, and may name a scheme", 'send {"service": …, "to": …}'
            raise Refused("not a valid request", why=why, do=do)
        with _refusals():
            self._controller.requests.check(name, datacenter, scheme)
        self._driver.tell(self._controller.requested, name, datacenter, scheme)
        return views.move(self._controller.migrations.last(name))

    async def _steer(self, body: dict[str, Any]) -> dict[str, Any]:
        service, scheme = body.get("service"), body.get("scheme")
        if not isinstance(service, str) or not isinstance(scheme, str | None) or set(body) != {"service", "scheme"}:
            why, do = "it needs service and scheme (null: as configured)", 'send {"service": …, "scheme": "fig9"}'
            raise Refused("not a valid request", why=why, do=do)
        with _refusals():
            self._controller.steered(service, scheme or "")
        return {"service": service, "scheme": scheme}

    async def _measured(self, body: dict[str, Any]) -> dict[str, Any]:
        a, b, ms = body.get("a"), body.get("b"), body.get("ms")
        named = isinstance(a, str) and isinstance(b, str) and set(body) == {"a", "b", "ms"}
        if not named or isinstance(ms, bool) or not isinstance(ms, int | float):
            raise Refused("not a valid distance", why="it needs a, b and ms", do='send {"a": …, "b": …, "ms": …}')
        now = time.monotonic()
        try:
            self._controller.deliberation.measured(str(a), str(b), ms, now)
        except LocalError as error:
            raise Refused(str(error)) from error
        return {"a": a, "b": b, "ms": self._controller.deliberation.rtt_ms(str(a), str(b), now)}

    async def _remaining(self, body: dict[str, Any]) -> dict[str, Any]:
        service, seconds = body.get("service"), body.get("remaining_s")
        numeric = seconds is None or (isinstance(seconds, int | float) and not isinstance(seconds, bool))
        if not isinstance(service, str) or not numeric or set(body) != {"service", "remaining_s"}:
            why, do = "it needs service and remaining_s (null: not known)", 'send {"service": …, "remaining_s": 90}'
            raise Refused("not valid", why=why, do=do)
        try:
            self._controller.deliberation.remaining(service, seconds, time.monotonic())
        except LocalError as error:
            raise Refused(str(error)) from error
        return {"service": service, "remaining_s": seconds}

    def _status(self) -> dict[str, Any]:
        return {
            "mode": self._settings.mode,
            "policy": self._settings.policy,
            "scheme": self._controller.steering.scheme,
            "subscriptions": {str(each): self._controller.subscriber.confirmed(each) for each in self._ranges},
            "agents": {name: name in self._agents.following for name in self._clients},
            "users": len(self._controller.world.users),
            "services": len(self._controller.world.services),
            "drops": self._sockets.drops if self._sockets else 0,
        }

    def _not_ready(self) -> list[str]:
        confirmed, following = self._controller.subscriber.confirmed, self._agents.following
        missing = [f"no subscription to {each}" for each in self._ranges if not confirmed(each)]
        return missing + [f"no answer from the agent of {each}" for each in self._clients if each not in following]

    @property
    def _ranges(self) -> list[Any]:
        return list(self._controller.world.ranges)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What cannot be asked, as the HTTP answer that says so."""
    try:
        yield
    except RequestRefused as refused:
        raise Refused(refused.what, why=refused.why, do=refused.do, status=refused.status) from refused


def load(path: Path) -> FmccSettings:
    return config.load(path, FmccSettings)


async def run(path: Path) -> None:
    """The controller with the configuration at `path`, until cancelled."""
    settings = load(path)
    logs.configure(settings.log)
    await Daemon(settings).run()
