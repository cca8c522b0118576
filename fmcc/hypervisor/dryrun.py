"""Nothing moves: every step is checked and logged, and each migration ends as failed, with "dry run" as its reason.

So a controller in earnest can be watched over machines that stay where they are, and the network is led nowhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from fmcc.hypervisor import CannotMigrate, Happened, Kind, Migration, Place
from fmcc.hypervisor.ends import Ends, State, cannot, expected
from fmcc.hypervisor.recovery import Peer

_log = structlog.get_logger("dryrun")


class DryRun:
    """The driver of one data centre. A machine is where its configuration says that it starts."""

    name = "dryrun"
    emulated = True
    tells_stop = True

    def __init__(
        self,
        datacenter: str,
        starts: Mapping[str, str | None],
        peers: Mapping[str, Peer],
        report: Callable[[Happened], None],
    ) -> None:
        """`starts`: by machine, the data centre where it is."""
        self._datacenter = datacenter
        self._starts = starts
        self._peers = peers
        self._report = report
        self._ends = Ends(datacenter, starts)

    def machines(self) -> tuple[str, ...]:
        return tuple(self._starts)

    def waiting(self) -> list[str]:
        return []

    def migrations(self) -> list[dict[str, str]]:
        return self._ends.listed()

    async def places(self) -> list[Place]:
        return [Place(name, here=start == self._datacenter, site=start) for name, start in self._starts.items()]

    async def recover(self) -> None:
        """Nothing is ever left frozen."""

    async def prepare(self, migration: Migration) -> None:
        role = self._ends.check(migration)
        here = self._starts[migration.machine] == self._datacenter
        if role == "target" and here:
            raise CannotMigrate(cannot(migration), "it is here already")
        if role == "source":
            if not here:
                raise CannotMigrate(cannot(migration), f"it is not here but {self._starts[migration.machine]}")
            await self._say("ready", migration)
        self._ends.prepared(migration)
        _log.info("would.prepare", role=role, move=migration.move, machine=migration.machine)

    async def start(self, migration: Migration) -> None:
        end = self._ends.to_start(migration)
        if end is None:
            return
        end.state = State.ENDED
        way = {"from": migration.source, "to": migration.target}
        _log.info("would.migrate", move=migration.move, machine=migration.machine, **way)
        await self._say("cancel", migration)
        self._tell(migration, "dry run: nothing was moved")

    async def abort(self, move: str) -> None:
        end = self._ends.to_abort(move)
        end.state = State.ENDED
        _log.info("would.abort", move=move, machine=end.migration.machine)

    async def close(self) -> None:
        """It holds nothing open."""

    async def incoming(self, word: dict[str, Any]) -> dict[str, Any]:
        end = expected(self._ends.target(word.get("move"), word.get("machine")))
        match word.get("phase"):
            case "ready":
                end.heard()
                return {"ready": True}
            case "cancel":
                end.state = State.ENDED
                return {"cancelled": True}
        what = f"{end.migration.machine} is not expected here"
        raise CannotMigrate(what, f"phase {word.get('phase')!r} is none of ready, cancel", status=400)

    async def _say(self, phase: str, migration: Migration) -> None:
        peer = self._peers.get(migration.target)
        if peer is None:
            raise CannotMigrate(cannot(migration), f"{self._datacenter} has no peer {migration.target}", status=404)
        await peer.post("/v1/incoming", {"phase": phase, "move": migration.move, "machine": migration.machine})

    def _tell(self, migration: Migration, reason: str) -> None:
        self._report(Happened(Kind.FAILED, migration, time.monotonic_ns(), reason=reason, runs_here=True))
