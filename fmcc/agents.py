"""The controller's ends of the hypervisor agents: what it asks of them, and their events as events of a move.

Each agent's event stream is followed for ever and resumed by id, so what happened while the stream was broken is not
lost. Every failure to ask becomes a `Failed` of that move. Which machines run at a data centre is asked when its agent
answers first or again, and whenever that may have changed without us: the stream tells of our own moves only in full.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

import structlog

from fmcc.effects import AbortMigration, AgentEffect, PrepareMigration, RecallMigration, StartMigration
from fmcc.moves import AgentReport, Failed, Prepared, Progress, Resumed, Stopped
from lispfmc.runtime.client import STRANGE, ApiClient, not_ours
from lispfmc.wire.errors import LocalError

Tell: TypeAlias = Callable[[str, AgentReport], None]
Found: TypeAlias = Callable[[str, Collection[str], float], None]

FOLLOW_AGAIN_S = 1.0
ASK_TRIES = 5
MOST_MOVES = 4096
"""Of our own moves, the last ones: of an older one that resumes we ask once more than is needed."""
_log = structlog.get_logger("agents")


class Agents:
    """One client a data centre. `tell(move, report)` takes the reports into the core."""

    def __init__(
        self,
        clients: Mapping[str, ApiClient],
        tell: Tell,
        restarted: Callable[[str], None],
        found: Found,
        *,
        reached: Callable[[str, str], None] = lambda _datacenter, _why: None,
    ) -> None:
        """`restarted(datacenter)` is called when an agent has started anew and forgotten its moves;
        `found(datacenter, machines, asked)` with those that run there, as asked at CLOCK_MONOTONIC `asked`;
        `reached(datacenter, why)` when it answers (why "") or does not."""
        self._clients = clients
        self._tell = tell
        self._restarted = restarted
        self._found = found
        self._reached = reached
        self.following: set[str] = set()
        """The data centres whose agent has answered."""
        self._answered = {datacenter: asyncio.Event() for datacenter in clients}
        self._moves: dict[str, None] = {}
        self._asking: dict[str, bool] = {}
        """The data centres that are being asked, and whether they are to be asked again."""

    async def follow(self, datacenter: str) -> None:
        """Take in the events of one agent until cancelled."""
        # asking goes on beside the stream: a node that is slow to answer must not hold up a RESUMED
        async with asyncio.TaskGroup() as asking:
            await self._follow(datacenter, asking)

    async def _follow(self, datacenter: str, asking: asyncio.TaskGroup) -> None:
        client = self._clients[datacenter]
        last: int | None = None
        while True:
            try:
                status = await client.get("/v1/status")
                # from the first answer on; later from where the stream broke
                last = int(status["last_event"]) if last is None else last
                self.following.add(datacenter)
                self._reached(datacenter, "")
                self._answered[datacenter].set()
                self._ask_soon(datacenter, asking)
                async for event in client.events(last):
                    last = int(event["id"])
                    self._take(datacenter, event)
                    for other in self._to_ask(datacenter, event):
                        self._ask_soon(other, asking)
            except STRANGE as error:
                why = not_ours(client.listen, error)
                if datacenter in self.following:
                    _log.warning("agent.lost", datacenter=datacenter, why=why)
                self.following.discard(datacenter)
                self._reached(datacenter, why)
            await asyncio.sleep(FOLLOW_AGAIN_S)

    def _take(self, datacenter: str, event: dict[str, Any]) -> None:
        if event["name"] == "hypervisor.started":
            self._restarted(datacenter)
            return
        report = report_of(event["name"], event["fields"])
        if report is not None:
            self._tell(str(event["fields"]["move"]), report)

    def _to_ask(self, datacenter: str, event: dict[str, Any]) -> Collection[str]:
        """Whose machines may be others than we know after an event."""
        match event["name"]:
            case "hypervisor.started" | "hypervisor.recovered":
                return self._clients  # the machine may be at the other end of what was forgotten
            case "hypervisor.resumed" if event["fields"].get("move") in self._moves:
                return ()  # the event has said it: to ask about all machines after each would be work by the square
            case "hypervisor.resumed" | "hypervisor.failed":
                return (datacenter,)  # by a move that we know nothing of, when we have just started
        return ()

    def _ask_soon(self, datacenter: str, asking: asyncio.TaskGroup) -> None:
        """While a question is under way, all further ones are one."""
        if datacenter in self._asking:
            self._asking[datacenter] = True
            return
        self._asking[datacenter] = False
        asking.create_task(self._ask_all(datacenter))

    async def _ask_all(self, datacenter: str) -> None:
        try:
            await self._ask(datacenter)
            while self._asking[datacenter]:
                self._asking[datacenter] = False
                await self._ask(datacenter)
        finally:
            del self._asking[datacenter]

    async def _ask(self, datacenter: str, tries: int = ASK_TRIES) -> None:
        for left in reversed(range(tries)):
            asked = time.monotonic()
            try:
                answer = await self._clients[datacenter].get("/v1/machines")
                here = [str(each["machine"]) for each in answer["items"] if each["here"]]
            except STRANGE as error:
                _log.info("agent.machines.unknown", datacenter=datacenter, why=str(error))
                await asyncio.sleep(FOLLOW_AGAIN_S if left else 0)
                continue
            self._found(datacenter, here, asked)
            return

    async def perform(self, effect: AgentEffect) -> None:
        """Carry out one effect; what goes wrong is told, never raised."""
        body = {"move": effect.move, "machine": effect.machine, "from": effect.source, "to": effect.target}
        body |= {} if isinstance(effect, AbortMigration) else {"scheme": effect.scheme}
        source, target = self._clients[effect.source], self._clients[effect.target]
        self._moves[effect.move] = None
        if len(self._moves) > MOST_MOVES:
            del self._moves[next(iter(self._moves))]
        try:
            match effect:
                case PrepareMigration():
                    await target.post("/v1/migrations/prepare", body)
                    ready = await source.post("/v1/migrations/prepare", body)
                    tells_stop = bool(ready.get("tells_stop", True))
                    self._tell(effect.move, Prepared(str(ready["driver"]), bool(ready["emulated"]), tells_stop))
                case StartMigration():
                    await source.post("/v1/migrations", body)
                case RecallMigration():
                    await self._recall(effect, body)
                case AbortMigration():
                    await asyncio.gather(*(self._abort(client, effect.move) for client in (source, target)))
        except STRANGE as error:
            if isinstance(effect, PrepareMigration):  # it may be refused because the machine is at the target already
                await self._ask(effect.target, tries=1)
            self._tell(effect.move, Failed(str(error)))

    async def _recall(self, effect: RecallMigration, body: dict[str, str]) -> None:
        """How far the source is. What it has told meanwhile is lost to us; what it tells from now on is not."""
        for datacenter in (effect.source, effect.target):
            await self._answered[datacenter].wait()
        source = self._clients[effect.source]
        under_way = (await source.get("/v1/migrations"))["items"]
        state = next((each["state"] for each in under_way if each["move"] == effect.move), None)
        if state == "prepared":  # we were killed before we could say so
            await source.post("/v1/migrations", body)
        elif state in {None, "ended"}:
            await self._ask(effect.target, tries=1)  # when it runs there, this is heard first and the next does nothing
            self._tell(effect.move, Failed(f"it has ended at {effect.source} while the controller was away"))

    async def _abort(self, client: ApiClient, move: str) -> None:
        try:
            await client.post("/v1/migrations/abort", {"move": move})
        except LocalError as error:
            # it knows of no such move, or the machine has stopped: its own events say how that ends
            _log.info("agent.abort.refused", agent=client.listen, move=move, why=str(error))


def report_of(name: str, fields: Mapping[str, Any]) -> AgentReport | None:
    """An agent's event as an event of the move; None for those that decide nothing (completed)."""
    match name:
        case "hypervisor.progress":
            return Progress(float(fields.get("percent", 0.0)))
        case "hypervisor.stopped":
            return Stopped(int(fields["monotonic_ns"]), str(fields.get("clock", "")))
        case "hypervisor.resumed":
            return Resumed(int(fields["monotonic_ns"]), str(fields.get("clock", "")))
        case "hypervisor.failed":
            return Failed(str(fields.get("reason", "")))
    return None
