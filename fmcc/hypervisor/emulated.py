"""An emulated hypervisor: the "machine" is a lab node with a link to every data centre, of which one is up.

Nothing is copied: the copy is time, the STOP is real (link down, then frozen), and the last state is one message to
the other agent over the same network that a real hypervisor would use, so it takes at least that way's delay. The
target resumes when that message is there and the configured pause is over. A machine that was stopped and cannot
resume at the target resumes at the source; one that a killed agent left frozen is looked after at the next start
(`fmcc.hypervisor.recovery`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from fmcc.hypervisor import CannotMigrate, Happened, Kind, Migration, Place, Recovered
from fmcc.hypervisor.ends import End, Ends, State, cannot, expected
from fmcc.hypervisor.recovery import NodeCall, Peer, Recovery
from lispfmc.runtime import node_client
from lispfmc.wire.errors import LocalError

PROGRESS_SHARE = 0.05
PROGRESS_S = 0.25
READY_AGAIN_S = 10.0
"""How often the source shows itself to the target while it copies; it also keeps their connection open."""
HAND_OVER_S = 3.0
"""How much longer than the pause the target may take to resume, before the source asks where the machine is."""
STATUS_S = 2.0
"""How long a node may take to say where it is."""
CANCEL_S = 0.5
"""How long the source tries to call a lost target off: the machine stands still meanwhile."""


class Machine(msgspec.Struct, frozen=True):
    name: str
    node_socket: Path
    copy_s: float
    pause_ms: float


class Emulated:
    """The driver of one data centre. Bounded: one migration a machine, and machines are configured."""

    name = "emulated"
    emulated = True
    tells_stop = True

    def __init__(
        self,
        datacenter: str,
        machines: Mapping[str, Machine],
        peers: Mapping[str, Peer],
        report: Callable[[Happened], None],
        tasks: asyncio.TaskGroup,
        *,
        node: NodeCall = node_client.call,
        recovered: Callable[[Recovered], None] = lambda _: None,
    ) -> None:
        self._datacenter = datacenter
        self._machines = machines
        self._peers = peers
        self._report = report
        self._tasks = tasks
        self._node = node
        self._ends = Ends(datacenter, machines)
        self._recovery = Recovery(datacenter, peers, node, self._ends.under_way, recovered)

    def machines(self) -> tuple[str, ...]:
        return tuple(self._machines)

    def migrations(self) -> list[dict[str, str]]:
        return self._ends.listed()

    def waiting(self) -> list[str]:
        return []

    async def places(self) -> list[Place]:
        return await asyncio.gather(*map(self._place, self._machines.values()))

    async def recover(self) -> None:
        sockets = {machine.name: machine.node_socket for machine in self._machines.values()}
        await asyncio.gather(*(self._recovery.recover(name, at) for name, at in sockets.items()))

    # --- the seam's verbs ---------------------------------------------------------------------------------------------

    async def prepare(self, migration: Migration) -> None:
        what = cannot(migration)
        await self._ends.settled(migration)
        role = self._ends.check(migration)
        machine = self._machines[migration.machine]
        status = await self._node(machine.node_socket, {"do": "status"})
        if role == "target" and status.get("site") == self._datacenter:
            raise CannotMigrate(what, "it is here already")
        if role == "source":
            if status.get("site") != self._datacenter or status.get("frozen"):
                where = "frozen" if status.get("frozen") else status.get("site")
                raise CannotMigrate(what, f"it is not here but {where}")
            await self._ready(migration, what)  # opens the connection that the last state will take
        self._ends.prepared(migration)

    async def start(self, migration: Migration) -> None:
        end = self._ends.to_start(migration)
        if end is None:
            return
        end.state = State.COPYING
        end.task = self._tasks.create_task(self._run(end), name=f"migration {migration.move}")

    async def abort(self, move: str) -> None:
        end = self._ends.to_abort(move)
        end.state = State.ENDED
        if end.task is not None:
            end.task.cancel()
            self._tell(end, Kind.FAILED, reason="aborted before STOP", runs_here=True)

    async def close(self) -> None:
        """It holds nothing open."""

    async def incoming(self, word: dict[str, Any]) -> dict[str, Any]:
        """The source's agent speaks: it is "ready", sends the last "state", or will not come ("cancel")."""
        machine = word.get("machine")
        end = expected(self._ends.target(word.get("move"), machine))
        match word.get("phase"):
            case "ready":
                end.heard()
                return {"ready": True}
            case "state" if isinstance(word.get("stopped_ns"), int):
                return await self._arrive(end, word["stopped_ns"])
            case "cancel":
                end.state = State.ENDED
                return {"cancelled": True}
        what, known = f"{machine} is not expected here", "ready, state (with stopped_ns), cancel"
        raise CannotMigrate(what, f"phase {word.get('phase')!r} is none of {known}", status=400)

    # --- the source's end ---------------------------------------------------------------------------------------------

    async def _run(self, end: End) -> None:
        """Copy, stop, hand over. Ends with completed or failed, whatever happens."""
        try:
            await self._copy(end)
        except Exception as error:  # one migration that goes wrong, in whatever way, must not end the agent
            end.state = State.ENDED
            self._tell(end, Kind.FAILED, reason=_text(error), runs_here=True)
            return
        end.state = State.MOVING
        try:
            await self._hand_over(end)
        except asyncio.CancelledError:
            # the agent is being stopped in mid-move: its last act is to leave the machine running
            await self._take_back(end, "the source's agent was stopped")
            raise
        except Exception as error:
            await self._take_back(end, _text(error))
        finally:
            end.state = State.ENDED

    async def _copy(self, end: End) -> None:
        machine = self._machines[end.migration.machine]
        started = shown_ready = time.monotonic()
        step_s = max(machine.copy_s * PROGRESS_SHARE, PROGRESS_S)
        self._tell(end, Kind.PROGRESS, percent=0.0)
        while (left_s := started + machine.copy_s - time.monotonic()) > 0:
            await asyncio.sleep(min(step_s, left_s))
            now = time.monotonic()
            self._tell(end, Kind.PROGRESS, percent=round(min(100.0, (now - started) / machine.copy_s * 100), 1))
            if now - shown_ready >= READY_AGAIN_S:
                shown_ready = now
                await self._ready(end.migration, f"{machine.name} cannot go on with its move")
        # once more just before the STOP: a target that is gone costs no downtime, and the connection is warm
        await self._ready(end.migration, f"{machine.name} does not stop")

    async def _hand_over(self, end: End) -> None:
        machine = self._machines[end.migration.machine]
        frozen = await self._node(machine.node_socket, {"do": "freeze"})
        stopped_ns = int(frozen["down_ns"])  # from here on nothing reaches it: what came later is to be sent again
        self._tell(end, Kind.STOPPED, at_ns=stopped_ns)
        state = {"phase": "state", "stopped_ns": stopped_ns, "machine": machine.name, "move": end.migration.move}
        async with asyncio.timeout(machine.pause_ms / 1000 + HAND_OVER_S):
            await self._peers[end.migration.target].post("/v1/incoming", state)
        self._tell(end, Kind.COMPLETED)

    async def _take_back(self, end: End, reason: str) -> None:
        """The hand-over failed: call the target off, see where the machine runs, and if nowhere resume it here.

        The node lets only one of the two ends thaw it, so a last state that arrives late resumes nothing twice.
        """
        machine = self._machines[end.migration.machine]
        runs_here = False
        word = {"phase": "cancel", "move": end.migration.move, "machine": machine.name}
        try:
            with contextlib.suppress(LocalError, OSError, TimeoutError):
                async with asyncio.timeout(CANCEL_S):
                    await self._peers[end.migration.target].post("/v1/incoming", word)
            status = await self._node(machine.node_socket, {"do": "status"})
            if status.get("frozen"):
                await self._node(machine.node_socket, {"do": "thaw", "site": self._datacenter})
                reason += f"; resumed at {self._datacenter} again"
                runs_here = True
            elif status.get("site") == end.migration.target:
                self._tell(end, Kind.COMPLETED, reason=f"resumed at the target, though: {reason}")
                return
        except Exception as error:
            reason += f"; it could not be resumed at {self._datacenter}: {_text(error)}"
            # a node that is silent now may answer later: the machine is not left frozen until an agent restarts
            with contextlib.suppress(RuntimeError):  # we are being stopped: the next agent looks after it
                self._tasks.create_task(self._recovery.recover(machine.name, machine.node_socket))
        self._tell(end, Kind.FAILED, reason=reason, runs_here=runs_here)

    async def _ready(self, migration: Migration, what: str) -> None:
        peer = self._peers.get(migration.target)
        if peer is None:
            raise CannotMigrate(what, f"{self._datacenter} has no peer {migration.target}", status=404)
        await peer.post("/v1/incoming", {"phase": "ready", "move": migration.move, "machine": migration.machine})

    # --- the target's end ---------------------------------------------------------------------------------------------

    async def _arrive(self, end: End, stopped_ns: int) -> dict[str, Any]:
        machine = self._machines[end.migration.machine]
        end.state = State.MOVING
        try:
            # both ends' clocks are one in the lab; the bound holds where they are not
            left_s = (stopped_ns - time.monotonic_ns()) / 1e9 + machine.pause_ms / 1000
            await asyncio.sleep(min(max(left_s, 0.0), machine.pause_ms / 1000))
            thawed = await self._node(machine.node_socket, {"do": "thaw", "site": self._datacenter})
        finally:
            end.state = State.ENDED
        self._tell(end, Kind.RESUMED, at_ns=int(thawed["resumed_ns"]))
        await asyncio.sleep(0)  # who listens hears of it before the source's agent has its answer: packets wait for it
        return {"resumed_ns": thawed["resumed_ns"]}

    # --- both ---------------------------------------------------------------------------------------------------------

    async def _place(self, machine: Machine) -> Place:
        try:
            async with asyncio.timeout(STATUS_S):
                status = await self._node(machine.node_socket, {"do": "status"})
        except (LocalError, TimeoutError) as error:
            return Place(machine.name, here=False, why=_text(error))
        site, frozen = status.get("site"), bool(status.get("frozen"))
        return Place(machine.name, here=site == self._datacenter and not frozen, site=site, frozen=frozen)

    def _tell(
        self,
        end: End,
        kind: Kind,
        *,
        at_ns: int | None = None,
        percent: float | None = None,
        reason: str = "",
        runs_here: bool = False,
    ) -> None:
        at_ns = time.monotonic_ns() if at_ns is None else at_ns
        self._report(Happened(kind, end.migration, at_ns, percent, reason, runs_here))


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
