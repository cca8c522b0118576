"""The one record of what happened: each state change is an event with an id, a time, a name and fields.

Log, event stream and metrics are views of it. Readers hold no queue: each is a cursor into one bounded ring, so a slow
reader costs nothing and stalls nobody; it is told what it missed.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
import structlog

from lispfmc.core.effects import FieldValue, Lazy

LOGGED_A_SECOND = 200  # events; all of them are in the stream and in the counters
CAPACITY = 4096  # events kept for readers that come late or fall behind
GAP = "stream.gap"


class Event(msgspec.Struct, frozen=True, gc=False):
    """One state change. `time` is unix time in seconds; ids grow, across restarts of the daemon too."""

    id: int
    time: float
    name: str
    fields: Mapping[str, FieldValue]


class _Several(msgspec.Struct, frozen=True, gc=False):
    """Events of one name and time with ids that follow one another from `id` on; at least one."""

    id: int
    time: float
    name: str
    build: Callable[[Any], Mapping[str, FieldValue]]
    of: Sequence[object]

    def events(self) -> list[Event]:
        return [Event(number, self.time, self.name, self.build(each)) for number, each in enumerate(self.of, self.id)]


Watcher: TypeAlias = Callable[[Mapping[str, FieldValue]], None]


class EventLog:
    """Appended to by the driver, in the event loop's thread; read by any number of followers."""

    def __init__(
        self, *, capacity: int = CAPACITY, first_id: int | None = None, wall_clock: Callable[[], float] = time.time
    ) -> None:
        """Ids start at the unix time in microseconds: a reader's last id stays meaningful after a restart, since no
        daemon makes a million events a second."""
        self._ring: deque[Event | _Several] = deque()
        self._capacity = capacity
        self._kept = 0  # events in the ring
        self._next_id = int(wall_clock() * 1_000_000) if first_id is None else first_id
        self._wall_clock = wall_clock
        self._waiting: set[asyncio.Future[None]] = set()
        self._log = structlog.get_logger("event")
        self._second, self._logged, self._unlogged = wall_clock(), 0, 0
        self._watchers: dict[str, Watcher] = {}
        self.counts: dict[str, int] = {}

    @property
    def last_id(self) -> int:
        return self._next_id - 1

    def watch(self, name: str, told: Watcher) -> None:
        """Call `told(fields)` at each event of this name from now on, before anybody reads it: for what is measured.
        One watcher a name; it must be quick, and what it raises is its caller's bug."""
        if name in self._watchers:
            raise ValueError(f"{name} is watched already")
        self._watchers[name] = told

    def append(self, name: str, fields: Mapping[str, FieldValue] | None = None) -> Event:
        now = self._wall_clock()
        # fields that build themselves when they are read are left alone: in a storm hardly any are
        kept = fields if fields.__class__ is Lazy else dict(fields or {})
        event = Event(self._next_id, now, name, kept)
        self._keep(event, name, 1)
        if (watcher := self._watchers.get(name)) is not None:
            watcher(kept)
        if self._logged >= LOGGED_A_SECOND and 0 <= now - self._second < 1.0:
            self._unlogged += 1
        else:
            self._tell(event, now)
        if self._waiting:
            self._wake()
        return event

    def append_each(self, name: str, build: Callable[[Any], Mapping[str, FieldValue]], of: Sequence[object]) -> None:
        """One event for each of `of`, whose fields are built when somebody reads them: a storm comes in such lots."""
        now = self._wall_clock()
        several = _Several(self._next_id, now, name, build, of)
        number = len(of)
        self._keep(several, name, number)
        if (watcher := self._watchers.get(name)) is not None:
            for each in of:
                watcher(build(each))
        if self._logged >= LOGGED_A_SECOND and 0 <= now - self._second < 1.0:
            self._unlogged += number
        else:
            for event in several.events():
                self._tell(event, now)
        if self._waiting:
            self._wake()

    def _keep(self, entry: Event | _Several, name: str, number: int) -> None:
        self._next_id += number
        self.counts[name] = self.counts.get(name, 0) + number
        ring = self._ring
        ring.append(entry)
        self._kept += number
        while self._kept > self._capacity:
            size = _size(ring[0])
            if size > 1 and self._kept - size < self._capacity:
                break  # a lot is dropped as a whole, once none of it is wanted any more
            ring.popleft()
            self._kept -= size

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()

    def _tell(self, event: Event, now: float) -> None:
        """One line in the log, but so many a second at most: what a storm leaves out is told in one."""
        if not 0 <= now - self._second < 1.0:
            if self._unlogged:
                self._log.info("events.unlogged", count=self._unlogged)
            self._second, self._logged, self._unlogged = now, 0, 0
        if self._logged < LOGGED_A_SECOND:
            self._logged += 1
            self._log.info(event.name, **event.fields)
        else:
            self._unlogged += 1

    def since(self, after: int) -> list[Event]:
        """The events that follow id `after`, oldest first; a `stream.gap` event first when some are no longer kept.

        An id that is still to come is of an earlier run whose clock was ahead: all that is kept follows it."""
        ahead = after > self.last_id
        seen, after = after, 0 if ahead else after
        newer: list[Event] = []
        for entry in reversed(self._ring):
            if entry.id + _size(entry) - 1 <= after:
                break
            if isinstance(entry, _Several):
                newer.extend(event for event in reversed(entry.events()) if event.id > after)
            else:
                newer.append(_whole(entry))
        newer.reverse()
        oldest = newer[0].id if newer else self._next_id
        if ahead or 0 < after < oldest - 1:
            # the missing ids were dropped from the ring, or belong to an earlier run of this daemon
            gap = Event(oldest - 1, self._wall_clock(), GAP, {"after": seen, "oldest": oldest})
            newer.insert(0, gap)
        return newer

    async def follow(self, after: int | None = None) -> AsyncIterator[Event]:
        """Every event after id `after` (None: from now on; 0: all that is kept), then each new one as it happens."""
        seen = self.last_id if after is None else after
        while True:
            for event in self.since(seen):
                seen = event.id
                yield event
            if seen >= self.last_id:
                await self.wait()

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait for the next event, so long at most; whether there was one."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(waiter)
        return True


def _size(entry: Event | _Several) -> int:
    return len(entry.of) if isinstance(entry, _Several) else 1


def _whole(event: Event) -> Event:
    """With fields that can be written as JSON."""
    fields = event.fields
    return Event(event.id, event.time, event.name, dict(fields)) if isinstance(fields, Lazy) else event
