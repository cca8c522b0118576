"""The controller as a daemon: UDP 4342 to the Map-Server and the tunnel routers, HTTP to agents and operators."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from fmcc import page
from fmcc.agents import Agents
from fmcc.api import answers
from fmcc.api.routes import Routes
from fmcc.controller import Controller
from fmcc.effects import AbortMigration, FmccEffect, Persist, PrepareMigration, RecallMigration, StartMigration
from fmcc.history import restoring
from fmcc.history.database import History
from fmcc.history.keeper import Keeper
from fmcc.measures import Measures
from fmcc.memory import Forgetful, Journal, Memory
from fmcc.moves import AgentReport
from fmcc.parts import Parts
from fmcc.routers import Routers
from fmcc.settings import CONTROL_PORT, FmccSettings
from fmcc.steering.registry import SCHEMES, schemes
from lispfmc.core.effects import Emit, Reject, Send, Transmit
from lispfmc.runtime import config, logs, service
from lispfmc.runtime.client import ApiClient
from lispfmc.runtime.driver import Driver
from lispfmc.runtime.events import EventLog
from lispfmc.runtime.http import Api
from lispfmc.runtime.nonces import ordered_nonces
from lispfmc.runtime.rejects import Rejects
from lispfmc.runtime.udp import Sockets, open_dgram
from lispfmc.wire.address import Endpoint

MAP_SERVER = "map-server"


def agent_of(datacenter: str) -> str:
    """What the agent of a data centre is called among the parts."""
    return f"hypervisor-{datacenter}"


class Daemon:
    """Everything that one controller process holds."""

    def __init__(self, settings: FmccSettings) -> None:
        # the world has them from here on, in a tenth of the memory
        self._settings = settings.model_copy(update={"users": (), "services": ()})
        self._events = EventLog()
        self._rejects = Rejects()
        world = settings.world()
        self._nonces = ordered_nonces(settings.state_dir)
        self._history = None if settings.state_dir is None else History(settings.state_dir)
        if self._history is not None:
            restoring.locate(self._history, world)
        steering = schemes(settings.scheme, world, self._nonces)
        self._memory: Memory = Journal(settings.state_dir) if settings.state_dir else Forgetful()
        self._controller = Controller(world, settings.make_policy(), steering, self._nonces)
        self._keeper: Keeper | None = None
        if self._history is not None:
            now = time.monotonic()
            restoring.restore(self._history, self._controller, now, time.time() - now)
            self._keeper = Keeper(self._history, self._controller, self._events)
        self._clients = {
            site.name: ApiClient(str(site.agent), token=site.agent_token)
            for site in settings.sites
            if site.agent is not None
        }
        self._parts = Parts(self._events)
        self._parts.expect(MAP_SERVER, "mapping system")
        for datacenter in self._clients:
            self._parts.expect(agent_of(datacenter), "hypervisor agent")
        self._routers = {
            site.name: ApiClient(site.api, token=site.api_token) for site in settings.sites if site.api is not None
        }
        self._router_news = Routers(self._routers, self._parts, self._events)
        self._agents = Agents(self._clients, self._tell, self._restarted, self._found, reached=self._reached)
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
            for client in (*self._clients.values(), *self._routers.values()):
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
            stack.callback(self._close_history)
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                await self.api.start(self._settings.api.listen)
                for datacenter in self._clients:
                    tasks.create_task(self._agents.follow(datacenter), name=f"follow {datacenter}")
                for site in self._routers:
                    tasks.create_task(self._router_news.follow(site), name=f"follow {site}")
                if self._keeper is not None:
                    tasks.create_task(self._keeper.run(), name="history")
                self._driver.start()
                self._driver.tell(self._controller.restored, self._memory.load())
                service.settle()

    def _close_history(self) -> None:
        if self._keeper is not None and self._history is not None:
            self._keeper.close()
            self._history.close()

    # --- effects ------------------------------------------------------------------------------------------------------

    def _perform(self, effect: FmccEffect) -> None:
        match effect:
            case Persist(service=service, standing=standing):
                self._memory.remember(service, standing)
            case PrepareMigration() | StartMigration() | AbortMigration() | RecallMigration():
                assert self._tasks is not None, "effects come after the start"
                self._tasks.create_task(self._agents.perform(effect), name=f"{type(effect).__name__} {effect.move}")
            case Send() | Transmit() | Emit() | Reject():
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

    def _reached(self, datacenter: str, why: str) -> None:
        self._parts.found(agent_of(datacenter), up=not why, why=why)

    # --- the API ------------------------------------------------------------------------------------------------------

    def _make_api(self) -> Api:
        settings = self._settings
        api = Api(
            "fmcc",
            settings.name,
            self._events,
            self._rejects,
            self._status,
            self._not_ready,
            settings=settings.api,
            status_type=answers.Status,
        )
        classes = {each.name for each in settings.service_classes}
        Routes(
            self._controller,
            self._driver.tell,
            self._history,
            classes=classes,
            instance_id=settings.instance_id,
            following=self._agents.following,
            packets=self._router_news.packets,
        ).add_to(api)
        page.add_to(api)
        Measures(
            self._events,
            api.metrics,
            SCHEMES,
            default=self._controller.steering.scheme,
            began=lambda: self._driver.began,
        )
        agents, following = len(self._clients), self._agents.following
        api.metrics.gauge(
            "lispfmc_agents_unreachable", "Hypervisor agents that do not answer", lambda: agents - len(following)
        )
        if self._keeper is not None:
            keeper, changes = self._keeper, self._controller.changes
            api.metrics.counter(
                "lispfmc_history_failures", "Writes of the history that failed", lambda: keeper.failures
            )
            api.metrics.counter("lispfmc_history_lost", "Decisions that the history has not", lambda: changes.lost)
        return api

    def _status(self) -> dict[str, Any]:
        status = answers.Status(
            mode=self._settings.mode,
            policy=self._settings.policy,
            scheme=self._controller.steering.scheme,
            subscriptions={str(each): self._controller.subscriber.confirmed(each) for each in self._ranges},
            agents={name: name in self._agents.following for name in self._clients},
            users=len(self._controller.world.users),
            services=len(self._controller.world.services),
            drops=self._sockets.drops if self._sockets else 0,
            history="none" if self._history is None else str(self._history.path),
            parts=self._all_parts(),
        )
        return msgspec.structs.asdict(status)

    def _all_parts(self) -> list[answers.PartView]:
        missing = [str(each) for each in self._ranges if not self._controller.subscriber.confirmed(each)]
        self._parts.found(MAP_SERVER, up=not missing, why=f"no subscription to {', '.join(missing)}")
        return self._parts.view()

    def _not_ready(self) -> list[str]:
        confirmed, following = self._controller.subscriber.confirmed, self._agents.following
        missing = [f"no subscription to {each}" for each in self._ranges if not confirmed(each)]
        return missing + [f"no answer from the agent of {each}" for each in self._clients if each not in following]

    @property
    def _ranges(self) -> list[Any]:
        return list(self._controller.world.ranges)


def load(path: Path) -> FmccSettings:
    return config.load(path, FmccSettings)


async def run(path: Path) -> None:
    """The controller with the configuration at `path`, until cancelled."""
    settings = load(path)
    logs.configure(settings.log)
    await Daemon(settings).run()
