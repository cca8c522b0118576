"""The migrations that one end takes part in: who is prepared, what is under way, what is over. Shared by the drivers.

One migration a machine. A prepared end forgets a move of which it hears nothing for a while, so a dead controller
blocks no machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from enum import StrEnum

import msgspec

from fmcc.hypervisor import CannotMigrate, Migration

PREPARED_S = 60.0
SETTLES_S = 4.0
"""Twice, once at each end, it is less than the controller waits for the answer to its PREPARE."""


class State(StrEnum):
    PREPARED = "prepared"
    COPYING = "copying"
    MOVING = "moving"  # from the STOP on: too late for an abort
    ENDED = "ended"


class End:
    """Our end of one migration."""

    def __init__(self, migration: Migration, role: str) -> None:
        self.migration = migration
        self.role = role
        self.expires = time.monotonic() + PREPARED_S
        self.state = State.PREPARED
        self.task: asyncio.Task[None] | None = None

    def alive(self, now: float) -> bool:
        return self.state in {State.COPYING, State.MOVING} or (self.state is State.PREPARED and now < self.expires)

    def heard(self) -> None:
        """The other end is still there."""
        self.expires = time.monotonic() + PREPARED_S


class Ends:
    """By machine. Bounded: machines are configured."""

    def __init__(self, datacenter: str, machines: Collection[str]) -> None:
        self._datacenter = datacenter
        self._machines = machines
        self._ends: dict[str, End] = {}

    def listed(self) -> list[dict[str, str]]:
        """What is prepared or under way here, and what was last: the seam's `migrations`."""
        now = time.monotonic()
        return [
            {
                **msgspec.to_builtins(end.migration),
                "role": end.role,
                "state": str(end.state if end.alive(now) else State.ENDED),
            }
            for end in self._ends.values()
        ]

    def under_way(self, machine: str) -> bool:
        end = self._ends.get(machine)
        return end is not None and end.alive(time.monotonic())

    def check(self, migration: Migration) -> str:
        """Our role, "source" or "target". Raises CannotMigrate: no such machine or end, or another move of it."""
        what = cannot(migration)
        if migration.machine not in self._machines:
            known = ", ".join(sorted(self._machines)) or "none"
            raise CannotMigrate(f"no machine {migration.machine!r}", f"known are {known}", status=404)
        if self._datacenter not in {migration.source, migration.target} or migration.source == migration.target:
            raise CannotMigrate(what, f"{self._datacenter} must be one of two different ends", status=400)
        end = self._ends.get(migration.machine)
        again = end is not None and end.migration == migration and end.state is State.PREPARED
        if end is not None and end.alive(time.monotonic()) and not again:
            raise CannotMigrate(what, f"move {end.migration.move} of it is {end.state}")
        return "target" if migration.target == self._datacenter else "source"

    async def settled(self, migration: Migration) -> None:
        """Wait, a while, for the last word about an earlier move of the machine: it runs at one end already, and the
        network, and the next handover, may be quicker than hypervisors that make sure of it."""
        end = self._ends.get(migration.machine)
        if end is not None and end.state is State.MOVING and end.migration != migration and end.task is not None:
            await asyncio.wait({end.task}, timeout=SETTLES_S)

    def prepared(self, migration: Migration) -> End:
        """Enter it, once this end is ready: someone else may have come meanwhile. Raises CannotMigrate."""
        role = self.check(migration)
        end = self._ends[migration.machine] = End(migration, role)
        return end

    def to_start(self, migration: Migration) -> End | None:
        """The prepared source of it; None when it has started already: a controller that was restarted asks again.
        Raises CannotMigrate."""
        what = f"{migration.machine} cannot start its move"
        end = self._ends.get(migration.machine)
        if end is None or end.migration != migration or end.role != "source" or not end.alive(time.monotonic()):
            raise CannotMigrate(what, "no such move is prepared here as the source")
        return end if end.state is State.PREPARED else None

    def to_abort(self, move: str) -> End:
        """The end of it that has not stopped. Raises CannotMigrate."""
        what = f"move {move} cannot be aborted"
        end = self.of(move)
        if end is None or end.state is State.ENDED:
            raise CannotMigrate(what, "no such move is under way here", status=404)
        if end.state is State.MOVING:
            raise CannotMigrate(what, "the machine has stopped: it resumes at one end")
        return end

    def target(self, move: object, machine: object) -> End:
        """The target's end of it, for what the source has to say. Raises CannotMigrate."""
        end = self.of(move)
        if end is None or end.role != "target":
            raise CannotMigrate(f"{machine} is not expected here", "no such move is prepared here as the target")
        return end

    def current(self, machine: str) -> End | None:
        """The last that there was of it, if it has not ended."""
        end = self._ends.get(machine)
        return end if end is not None and end.state is not State.ENDED else None

    def of(self, move: object) -> End | None:
        return next((end for end in self._ends.values() if end.migration.move == move), None)


def expected(end: End) -> End:
    """The same, when it is prepared and waits. Raises CannotMigrate."""
    what = f"{end.migration.machine} is not expected here"
    if end.state is not State.PREPARED:
        raise CannotMigrate(what, "no such move is prepared here as the target")
    if not end.alive(time.monotonic()):
        raise CannotMigrate(what, f"its preparation is older than {PREPARED_S:g} s")
    return end


def cannot(migration: Migration) -> str:
    return f"{migration.machine} cannot move from {migration.source} to {migration.target}"
