"""The Hypervisor seam: what moves a machine between two data centres. One driver runs at each end, in its agent.

`prepare` at the target, then at the source; `start` at the source; what happens then is told by events, each by the
end where it happened: progress, stopped, completed and failed by the source, resumed by the target. Before STOP a
migration can be aborted; after it the machine runs at the target, or again at the source, never nowhere.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Protocol

import msgspec

from lispfmc.wire.errors import LocalError

__all__ = ["CannotMigrate", "Happened", "Hypervisor", "Kind", "Migration", "Place", "Recovered"]


class CannotMigrate(LocalError):  # noqa: N818 - reads as the answer that it becomes
    """The driver refuses, and why. `status` is the HTTP status that says so."""

    def __init__(self, what: str, why: str, *, status: int = 409) -> None:
        super().__init__(f"{what}: {why}")
        self.what, self.why, self.status = what, why, status


class Migration(msgspec.Struct, frozen=True):
    """One machine's way from a data centre to another; both ends know it by the same `move`."""

    move: str
    machine: str
    source: str = msgspec.field(name="from")
    target: str = msgspec.field(name="to")
    scheme: str = ""


class Kind(StrEnum):
    PROGRESS = "progress"
    STOPPED = "stopped"
    RESUMED = "resumed"
    COMPLETED = "completed"
    FAILED = "failed"


class Happened(msgspec.Struct, frozen=True):
    """An event of a migration, after the fact. `at_ns` is CLOCK_MONOTONIC of the machine that it happened on."""

    kind: Kind
    migration: Migration
    at_ns: int
    percent: float | None = None
    reason: str = ""
    runs_here: bool = False
    """A migration that failed has left the machine running, or running again, where it was."""


class Place(msgspec.Struct, frozen=True):
    """Where a machine is now. `site` None: nowhere, or not known, and `why` says so; `here`: it runs at this end."""

    machine: str
    here: bool
    site: str | None = None
    frozen: bool = False
    why: str = ""


class Recovered(msgspec.Struct, frozen=True):
    """A machine that a dead agent had left frozen runs again at `datacenter`, since `at_ns` (CLOCK_MONOTONIC)."""

    machine: str
    datacenter: str
    at_ns: int


class Hypervisor(Protocol):
    """A driver. It tells its events to the callback that it was made with, in order."""

    @property
    def name(self) -> str: ...

    @property
    def emulated(self) -> bool:
        """True when the machine is none: every report says so."""

    @property
    def tells_stop(self) -> bool:
        """Whether STOPPED is told when it happens; without it, routers copy to the target beforehand (bicast)."""

    def machines(self) -> tuple[str, ...]: ...

    def waiting(self) -> list[str]:
        """What the driver is not ready for yet, in words."""

    async def places(self) -> list[Place]:
        """Where each machine is."""

    async def recover(self) -> None:
        """Have every machine run that was left frozen and that nobody is moving; returns when none is."""

    def migrations(self) -> list[dict[str, str]]:
        """What is prepared or under way here: move, machine, from, to, role, state."""

    async def prepare(self, migration: Migration) -> None:
        """Make this end ready, for a limited time; again is no error. Raises CannotMigrate."""

    async def start(self, migration: Migration) -> None:
        """At the source: begin, and return; again is no error. Raises CannotMigrate."""

    async def abort(self, move: str) -> None:
        """Forget the migration; the machine stays. Raises CannotMigrate when it is too late."""

    async def close(self) -> None:
        """The agent ends; machines go on."""

    async def incoming(self, word: dict[str, Any]) -> dict[str, Any]:
        """What the driver at the other end has to say to this one. Raises CannotMigrate."""
