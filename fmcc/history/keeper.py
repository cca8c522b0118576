"""Writes down what changes in the controller, twice a second, off its path: the cores tell `Changes`, this takes them.

The rows are made in the event loop, a few at a time, and written by a thread in one transaction. While that fails
nothing is forgotten, and it is said once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

from fmcc.controller import Controller
from fmcc.history.database import History, HistoryError
from fmcc.history.records import Batch, migration, past_decision, service_record, user_record
from lispfmc.runtime.events import EventLog
from lispfmc.wire.address import ip_text

EVERY_S = 0.5
AGAIN_S = 5.0
"""After a failure; a full disk does not become emptier by being asked."""
AT_ONCE = 50
"""Rows that are made before the event loop has its turn: half a millisecond."""
MOST = 1_000
"""Rows of each kind in one transaction: in a storm the history may lag, the decisions may not."""


class Keeper:
    """Keeps one controller's history."""

    def __init__(
        self,
        history: History,
        controller: Controller,
        events: EventLog,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._history = history
        self._controller = controller
        self._events = events
        self._clock, self._wall_clock = clock, wall_clock
        self._users: list[str] = []
        self._services: list[str] = []
        self._located: dict[str, list[str]] | None = None
        self._untold = True
        self.failures = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            written = await self.keep()
            await asyncio.sleep(EVERY_S if written else AGAIN_S)

    async def keep(self) -> bool:
        """Write what has changed; False when that could not be."""
        batch = Batch()
        for made, _ in enumerate(self._taken(batch)):
            if made % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
        if not batch:
            return True
        writing = asyncio.ensure_future(asyncio.to_thread(self._history.write, batch))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait({writing})  # the database must not be closed under the thread's hands
            self._settle(batch, writing.exception())
            raise
        except HistoryError as error:
            return self._settle(batch, error)
        return self._settle(batch, None)

    def close(self) -> None:
        """The last of it, at once."""
        while self._controller.changes or self._users or self._services:
            batch = Batch()
            for _ in self._taken(batch):
                pass
            try:
                self._history.write(batch)
            except HistoryError as error:
                self._settle(batch, error)
                return

    def _settle(self, batch: Batch, error: BaseException | None) -> bool:
        if error is None:
            self._untold = True
            return True
        self.failures += 1
        if self._untold:
            self._events.append("history.failed", {"why": str(error)})
        self._untold = False
        changes = self._controller.changes
        changes.users |= dict.fromkeys([*(each.name for each in batch.users), *batch.gone_users])
        changes.services |= dict.fromkeys([*(each.name for each in batch.services), *batch.gone_services])
        for record in self._controller.moves:
            changes.moves.setdefault(record.move.id, record)
        changes.lost += len(batch.decisions)
        self._located = None if batch.sites is not None else self._located
        return False

    def _taken(self, batch: Batch) -> Iterator[None]:
        """Fills the batch row by row."""
        changes = self._controller.changes
        now = self._clock()
        offset = self._wall_clock() - now
        self._take_sites(batch)
        self._users, changes.users = _waiting(self._users, changes.users)
        self._services, changes.services = _waiting(self._services, changes.services)
        while self._users and len(batch.users) < MOST:
            self._take_user(self._users.pop(), batch, offset)
            yield
        while self._services and len(batch.services) < MOST:
            self._take_service(self._services.pop(), batch, now, offset)
            yield
        while changes.moves and len(batch.moves) < MOST:
            _, record = changes.moves.popitem(last=False)
            batch.moves.append(migration(record, offset))
            yield
        while changes.decisions and len(batch.decisions) < MOST:
            batch.decisions.append(past_decision(changes.decisions.popleft(), self._controller.policy.name, offset))
            yield

    def _take_user(self, name: str, batch: Batch, offset: float) -> None:
        user = self._controller.world.users.get(name)
        if user is None:
            batch.gone_users.append(name)
            return
        here = self._controller.whereabouts(name)
        since = None if here.since is None else round(here.since + offset, 3)
        batch.users.append(user_record(user, here.site, since))

    def _take_service(self, name: str, batch: Batch, now: float, offset: float) -> None:
        placement = self._controller.placements.get(name)
        if placement is None:
            batch.gone_services.append(name)
            return
        learned = self._controller.deliberation.state(name, now)
        kept = None if learned is None else dict(learned)
        place = placement.datacenter, placement.version
        batch.services.append(service_record(placement.service, *place, kept, round(now + offset, 3)))

    def _take_sites(self, batch: Batch) -> None:
        world = self._controller.world
        located = {site: [ip_text(rloc) for rloc in world.sites[site]] for site in world.site_prefixes.values()}
        if located != self._located:
            self._located = batch.sites = located


def _waiting(waiting: list[str], told: dict[str, None]) -> tuple[list[str], dict[str, None]]:
    """Who is to be written next, the last first: those that are told of meanwhile wait until these are done."""
    return (waiting, told) if waiting else (list(reversed(told)), {})
