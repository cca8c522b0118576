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
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from fmcc.hypervisor import CannotMigrate, Happened, Kind, Migration, Place, Recovered
from fmcc.hypervisor.recovery import NodeCall, Peer, Recovery
from lispfmc.runtime import node_client
from lispfmc.wire.errors import LocalError

PROGRESS_SHARE = 0.05
PROGRESS_S = 0.25
PREPARED_S = 60.0
"""A prepared end forgets a move of which it hears nothing for so long: a dead controller blocks no machine."""
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


class _State(StrEnum):
    PREPARED = "prepared"
    COPYING = "copying"
    MOVING = "moving"  # from the STOP on: too late for an abort
    ENDED = "ended"


class _End:
    """Our end of one migration."""

    def __init__(self, migration: Migration, role: str, expires: float) -> None:
        self.migration = migration
        self.role = role
        self.expires = expires
        self.state = _State.PREPARED
        self.task: asyncio.Task[None] | None = None

    def alive(self, now: float) -> bool:
        return self.state in {_State.COPYING, _State.MOVING} or (self.state is _State.PREPARED and now < self.expires)


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
        self._ends: dict[str, _End] = {}  # by machine
        self._recovery = Recovery(datacenter, peers, node, self._under_way, recovered)

    def machines(self) -> tuple[str, ...]:
        return tuple(self._machines)

    def migrations(self) -> list[dict[str, str]]:
        now = time.monotonic()
        return [
            {
                **msgspec.to_builtins(end.migration),
                "role": end.role,
                "state": str(end.state if end.alive(now) else _State.ENDED),
            }
            for end in self._ends.values()
        ]

    async def places(self) -> list[Place]:
        return await asyncio.gather(*map(self._place, self._machines.values()))

    async def recover(self) -> None:
        sockets = {machine.name: machine.node_socket for machine in self._machines.values()}
        await asyncio.gather(*(self._recovery.recover(name, at) for name, at in sockets.items()))

    # --- the seam's verbs ---------------------------------------------------------------------------------------------

    async def prepare(self, migration: Migration) -> None:
        what = f"{migration.machine} cannot move from {migration.source} to {migration.target}"
        machine = self._machine(migration.machine)
        if self._datacenter not in {migration.source, migration.target} or migration.source == migration.target:
            raise CannotMigrate(what, f"{self._datacenter} must be one of two different ends", status=400)
        self._refuse_second(migration, what)
        status = await self._node(machine.node_socket, {"do": "status"})
        if migration.target == self._datacenter:
            if status.get("site") == self._datacenter:
                raise CannotMigrate(what, "it is here already")
            self._refuse_second(migration, what)  # someone else may have come while the node answered
            self._ends[machine.name] = _End(migration, "target", time.monotonic() + PREPARED_S)
            return
        if status.get("site") != self._datacenter or status.get("frozen"):
            raise CannotMigrate(what, f"it is not here but {'frozen' if status.get('frozen') else status.get('site')}")
        await self._ready(migration, what)  # opens the connection that the last state will take
        self._refuse_second(migration, what)
        self._ends[machine.name] = _End(migration, "source", time.monotonic() + PREPARED_S)

    async def start(self, migration: Migration) -> None:
        what = f"{migration.machine} cannot start its move"
        self._machine(migration.machine)
        end = self._ends.get(migration.machine)
        if end is None or end.migration != migration or end.role != "source" or not end.alive(time.monotonic()):
            raise CannotMigrate(what, "no such move is prepared here as the source")
        if end.state is not _State.PREPARED:
            return  # a controller that was restarted asks again
        end.state = _State.COPYING
        end.task = self._tasks.create_task(self._run(end), name=f"migration {migration.move}")

    async def abort(self, move: str) -> None:
        end = next((end for end in self._ends.values() if end.migration.move == move), None)
        if end is None or end.state is _State.ENDED:
            raise CannotMigrate(f"move {move} cannot be aborted", "no such move is under way here", status=404)
        if end.state is _State.MOVING:
            raise CannotMigrate(f"move {move} cannot be aborted", "the machine has stopped: it resumes at one end")
        end.state = _State.ENDED
        if end.task is not None:
            end.task.cancel()
            self._tell(end, Kind.FAILED, reason="aborted before STOP", runs_here=True)

    async def incoming(self, word: dict[str, Any]) -> dict[str, Any]:
        """The source's agent speaks: it is "ready", sends the last "state", or will not come ("cancel")."""
        end = next((e for e in self._ends.values() if e.migration.move == word.get("move")), None)
        what = f"{word.get('machine')} is not expected here"
        if end is None or end.role != "target" or end.state is not _State.PREPARED:
            raise CannotMigrate(what, "no such move is prepared here as the target")
        if not end.alive(time.monotonic()):
            raise CannotMigrate(what, f"its preparation is older than {PREPARED_S:g} s")
        match word.get("phase"):
            case "ready":
                end.expires = time.monotonic() + PREPARED_S
                return {"ready": True}
            case "state" if isinstance(word.get("stopped_ns"), int):
                return await self._arrive(end, word["stopped_ns"])
            case "cancel":
                end.state = _State.ENDED
                return {"cancelled": True}
        raise CannotMigrate(
            what, f"phase {word.get('phase')!r} is none of ready, state (with stopped_ns), cancel", status=400
        )

    # --- the source's end ---------------------------------------------------------------------------------------------

    async def _run(self, end: _End) -> None:
        """Copy, stop, hand over. Ends with completed or failed, whatever happens."""
        try:
            await self._copy(end)
        except Exception as error:  # one migration that goes wrong, in whatever way, must not end the agent
            end.state = _State.ENDED
            self._tell(end, Kind.FAILED, reason=_text(error), runs_here=True)
            return
        end.state = _State.MOVING
        try:
            await self._hand_over(end)
        except asyncio.CancelledError:
            # the agent is being stopped in mid-move: its last act is to leave the machine running
            await self._take_back(end, "the source's agent was stopped")
            raise
        except Exception as error:
            await self._take_back(end, _text(error))
        finally:
            end.state = _State.ENDED

    async def _copy(self, end: _End) -> None:
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

    async def _hand_over(self, end: _End) -> None:
        machine = self._machines[end.migration.machine]
        frozen = await self._node(machine.node_socket, {"do": "freeze"})
        stopped_ns = int(frozen["stopped_ns"])
        self._tell(end, Kind.STOPPED, at_ns=stopped_ns)
        state = {"phase": "state", "stopped_ns": stopped_ns, "machine": machine.name, "move": end.migration.move}
        async with asyncio.timeout(machine.pause_ms / 1000 + HAND_OVER_S):
            await self._peers[end.migration.target].post("/v1/incoming", state)
        self._tell(end, Kind.COMPLETED)

    async def _take_back(self, end: _End, reason: str) -> None:
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
        self._tell(end, Kind.FAILED, reason=reason, runs_here=runs_here)

    async def _ready(self, migration: Migration, what: str) -> None:
        peer = self._peers.get(migration.target)
        if peer is None:
            raise CannotMigrate(what, f"{self._datacenter} has no peer {migration.target}", status=404)
        await peer.post("/v1/incoming", {"phase": "ready", "move": migration.move, "machine": migration.machine})

    # --- the target's end ---------------------------------------------------------------------------------------------

    async def _arrive(self, end: _End, stopped_ns: int) -> dict[str, Any]:
        machine = self._machines[end.migration.machine]
        end.state = _State.MOVING
        try:
            # both ends' clocks are one in the lab; the bound holds where they are not
            left_s = (stopped_ns - time.monotonic_ns()) / 1e9 + machine.pause_ms / 1000
            await asyncio.sleep(min(max(left_s, 0.0), machine.pause_ms / 1000))
            thawed = await self._node(machine.node_socket, {"do": "thaw", "site": self._datacenter})
        finally:
            end.state = _State.ENDED
        self._tell(end, Kind.RESUMED, at_ns=int(thawed["resumed_ns"]))
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

    def _under_way(self, machine: str) -> bool:
        end = self._ends.get(machine)
        return end is not None and end.alive(time.monotonic())

    def _machine(self, name: str) -> Machine:
        machine = self._machines.get(name)
        if machine is None:
            raise CannotMigrate(f"no machine {name!r}", f"known are {', '.join(sorted(self._machines))}", status=404)
        return machine

    def _refuse_second(self, migration: Migration, what: str) -> None:
        end = self._ends.get(migration.machine)
        if end is None or not end.alive(time.monotonic()):
            return
        if end.migration != migration or end.state is not _State.PREPARED:
            raise CannotMigrate(what, f"move {end.migration.move} of it is {end.state}")

    def _tell(
        self,
        end: _End,
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
