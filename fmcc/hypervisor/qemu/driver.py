"""Real live migration with QEMU: the driver of one data centre.

The target starts a QEMU that waits (`prepare`), the source's QEMU sends the machine over (`start`). STOP is told by the
source's QEMU; RESUMED by the target, with the instant of its QEMU's RESUME, once the machine's own service has answered
there. A machine that is dead at the target although QEMU reports success is ended there and goes on at the source: the
source's QEMU keeps it, stopped, until the target's agent has given its verdict. It never runs at both.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from fmcc.hypervisor import CannotMigrate, Happened, Kind, Migration, Place, Recovered
from fmcc.hypervisor.ends import End, Ends, State, cannot, expected
from fmcc.hypervisor.machine import RealMachine
from fmcc.hypervisor.qemu.arrivals import Arrivals, state_of
from fmcc.hypervisor.qemu.following import Following, make_ready
from fmcc.hypervisor.qemu.host import Host
from fmcc.hypervisor.qemu.process import Qemu, QemuError
from fmcc.hypervisor.recovery import AGAIN_S, LONGEST_AGAIN_S, Peer
from fmcc.hypervisor.settings import QemuSettings
from lispfmc.wire.errors import LocalError

READY_AGAIN_S = 10.0
CALL_OFF_S = 6.0
"""How long the target's agent may take to end a QEMU that may hang."""
GOES_ON_S = 5.0
"""How long QEMU may take to go on at the source after a migration that failed."""
_log = structlog.get_logger("qemu")


class QemuDriver:
    """Bounded: one QEMU a machine, and machines are configured."""

    name = "qemu"
    emulated = False
    tells_stop = True

    def __init__(
        self,
        datacenter: str,
        settings: QemuSettings,
        machines: Mapping[str, RealMachine],
        peers: Mapping[str, Peer],
        report: Callable[[Happened], None],
        tasks: asyncio.TaskGroup,
        *,
        recovered: Callable[[Recovered], None] = lambda _: None,
    ) -> None:
        self._datacenter = datacenter
        self._settings = settings
        self._machines = machines
        self._peers = peers
        self._report = report
        self._tasks = tasks
        self._recovered = recovered
        self._host = Host(settings)
        self._ends = Ends(datacenter, machines)
        self._here: dict[str, Qemu] = {}
        self._arrivals = Arrivals(datacenter, settings, self._host, self._ends, self._here, report, tasks)
        self._uris: dict[str, str] = {}  # by machine, where its prepared move goes
        self._unsettled = set(machines)  # of which we do not know yet whether they are here
        self._preparing = asyncio.Lock()

    def machines(self) -> tuple[str, ...]:
        return tuple(self._machines)

    def waiting(self) -> list[str]:
        return [f"machine {name} has not been found or started yet" for name in sorted(self._unsettled)]

    def migrations(self) -> list[dict[str, str]]:
        return self._ends.listed()

    async def places(self) -> list[Place]:
        return await asyncio.gather(*map(self._place, self._machines))

    # --- the seam's verbs ---------------------------------------------------------------------------------------------

    async def prepare(self, migration: Migration) -> None:
        await self._ends.settled(migration)
        async with self._preparing:
            role = self._ends.check(migration)
            if migration.machine in self._unsettled:
                raise CannotMigrate(cannot(migration), "it is still being found or started; try again", status=503)
            if role == "target":
                await self._arrivals.prepare(self._machines[migration.machine], migration)
            else:
                await self._prepare_source(migration)

    async def start(self, migration: Migration) -> None:
        end = self._ends.to_start(migration)
        if end is None:
            return
        end.state = State.COPYING
        end.task = self._tasks.create_task(self._run(end), name=f"migration {migration.move}")

    async def abort(self, move: str) -> None:
        end = self._ends.to_abort(move)
        machine = end.migration.machine
        if end.role == "target":
            await self._arrivals.call_off(self._machines[machine])
        elif end.task is None:
            end.state = State.ENDED
        else:
            await self._here[machine].ask("migrate_cancel")
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({end.task}, timeout=GOES_ON_S)
            if end.state is State.MOVING:
                raise CannotMigrate(f"move {move} cannot be aborted", "the machine has stopped: it resumes at one end")

    async def close(self) -> None:
        for qemu in (*self._here.values(), *self._arrivals.waiting()):
            await qemu.close()

    async def incoming(self, word: dict[str, Any]) -> dict[str, Any]:
        """The source's agent speaks: is all "ready"? Or does not come ("cancel"). Or any agent asks: "runs" it here?"""
        machine = word.get("machine")
        match word.get("phase"):
            case "ready":
                end = expected(self._ends.target(word.get("move"), machine))
                end.heard()
                return {"ready": True, "uri": self._arrivals.uri(end), **await self._host.facts()}
            case "cancel":
                end = self._ends.target(word.get("move"), machine)
                await self._arrivals.call_off(self._machines[end.migration.machine])
                return {"cancelled": True}
            case "runs" if isinstance(machine, str) and machine in self._machines:
                why = await self._runs(machine)
                return {"runs": why is None, "why": why or ""}
        what, known = f"phase {word.get('phase')!r} of {machine!r} is not understood", "ready, cancel, runs"
        raise CannotMigrate(what, f"it is none of {known}, or no machine of here", status=400)

    # --- the source's end ---------------------------------------------------------------------------------------------

    async def _prepare_source(self, migration: Migration) -> None:
        what = cannot(migration)
        qemu = self._here.get(migration.machine)
        if qemu is None:
            raise CannotMigrate(what, "it is not here")
        try:
            if (status := await qemu.status()) != "running":
                raise CannotMigrate(what, f"it does not run, QEMU says {status}")
            await make_ready(qemu, self._settings, source=True)
        except QemuError as error:
            raise CannotMigrate(what, str(error), status=502) from error
        answer = await self._ready(migration, what)
        for fact, ours in (await self._host.facts()).items():
            if answer.get(fact) != ours:
                why = f"{fact} is {ours} at {self._datacenter} and {answer.get(fact)} at {migration.target}"
                raise CannotMigrate(what, f"{why}; both must be the same")
        self._uris[migration.machine] = str(answer["uri"])
        self._ends.prepared(migration)

    async def _ready(self, migration: Migration, what: str) -> dict[str, Any]:
        peer = self._peers.get(migration.target)
        if peer is None:
            raise CannotMigrate(what, f"{self._datacenter} has no peer {migration.target}", status=404)
        word = {"phase": "ready", "move": migration.move, "machine": migration.machine}
        answer: dict[str, Any] = await peer.post("/v1/incoming", word)
        return answer

    async def _run(self, end: End) -> None:
        """Ends with completed or failed, and the machine running at one end, whatever happens."""
        machine = self._machines[end.migration.machine]
        qemu = self._here[machine.name]
        shown_ready = time.monotonic()

        async def progress(percent: float) -> None:
            nonlocal shown_ready
            self._tell(end, Kind.PROGRESS, percent=percent)
            if time.monotonic() - shown_ready > READY_AGAIN_S:
                shown_ready = time.monotonic()
                await self._ready(end.migration, f"{machine.name} cannot go on with its move")

        def stopped(at_ns: int) -> None:
            end.state = State.MOVING
            self._tell(end, Kind.STOPPED, at_ns=at_ns)

        reason = ""
        try:
            await Following(qemu, self._settings, progress, stopped).run(self._uris[machine.name])
            end.state = State.MOVING
        except Exception as error:  # one migration that goes wrong, in whatever way, must not end the agent
            reason = _text(error)
        try:
            await self._settle_end(end, machine, qemu, reason)
        finally:
            end.state = State.ENDED

    async def _settle_end(self, end: End, machine: RealMachine, qemu: Qemu, reason: str) -> None:
        status = "postmigrate"
        if reason:
            try:
                status = await self._go_on(end, qemu)
            except QemuError as error:
                self._tell(end, Kind.FAILED, reason=f"{reason}; {error}")
                return
        if status == "running":
            reason += f"; it runs at {self._datacenter}, where it was"
            self._tell(end, Kind.FAILED, reason=reason, runs_here=True)
            return
        # it has been handed over: only the target can say whether it lives
        why = await self._verdict(end.migration)
        if why is None:
            self._here.pop(machine.name, None)
            await self._host.drop(machine, qemu)
            self._tell(end, Kind.COMPLETED, reason=reason)
            return
        runs_here = False
        with contextlib.suppress(QemuError):
            await self._host.resume(qemu)
            runs_here = True
            why += f"; resumed at {self._datacenter} again"
        self._tell(end, Kind.FAILED, reason=why, runs_here=runs_here)

    async def _go_on(self, end: End, qemu: Qemu) -> str:
        """Call the target off and have QEMU go on here; returns its status. Raises QemuError."""
        with contextlib.suppress(QemuError):
            await qemu.ask("migrate_cancel")
        word = {"phase": "cancel", "move": end.migration.move, "machine": end.migration.machine}
        with contextlib.suppress(LocalError, OSError, TimeoutError):
            async with asyncio.timeout(CALL_OFF_S):
                await self._peers[end.migration.target].post("/v1/incoming", word)
        until = time.monotonic() + GOES_ON_S
        while (status := await qemu.status()) not in {"running", "postmigrate"}:
            if time.monotonic() > until:
                break
            await asyncio.sleep(0.02)
        return status

    async def _verdict(self, migration: Migration) -> str | None:
        """None when the machine runs at the target, else why not. Asks until the target's agent answers: meanwhile the
        machine may run there, and must not here."""
        again_s = AGAIN_S
        while True:
            try:
                word = {"phase": "runs", "machine": migration.machine}
                answer = await self._peers[migration.target].post("/v1/incoming", word)
                return None if answer["runs"] else str(answer["why"])
            except (LocalError, OSError, TimeoutError, KeyError) as error:
                _log.warning("machine.unsure", machine=migration.machine, at=migration.target, why=_text(error))
            await asyncio.sleep(again_s)
            again_s = min(again_s * 2, LONGEST_AGAIN_S)

    async def _runs(self, name: str) -> str | None:
        """None when the machine runs here, else why not. Raises CannotMigrate when we cannot say."""
        if name in self._unsettled:
            raise CannotMigrate(f"nobody knows whether {name} is here", "the agent has just started", status=503)
        if name in self._arrivals:
            return await self._arrivals.verdict(name)
        if name not in self._here:
            return "it is not here"
        return None if await state_of(self._here[name]) == "running" else "it does not run here"

    # --- what is here when the agent starts ---------------------------------------------------------------------------

    async def recover(self) -> None:
        await self._host.facts()  # a trial of KVM takes its time: not in the middle of a move
        await asyncio.gather(*map(self._recover, self._machines.values()))

    async def _recover(self, machine: RealMachine) -> None:
        again_s = AGAIN_S
        while machine.name in self._unsettled:
            try:
                await self._find(machine)
                self._unsettled.discard(machine.name)
            except Exception as error:  # whatever goes wrong with one machine must not end the agent
                _log.warning("machine.unrecovered", machine=machine.name, why=_text(error))
                await asyncio.sleep(again_s)
                again_s = min(again_s * 2, LONGEST_AGAIN_S)

    async def _find(self, machine: RealMachine) -> None:
        """Take over the QEMU that an earlier agent left, or boot the machine when it is ours to boot."""
        qemu = await self._host.left_over(machine)
        if qemu is not None and await qemu.status() in {"running", "paused"}:
            self._here[machine.name] = qemu
            return
        elsewhere = await self._runs_elsewhere(machine.name) if qemu is not None or self._boots(machine) else False
        if qemu is not None and not elsewhere:
            await self._host.resume(qemu)
            self._here[machine.name] = qemu
            self._recovered(Recovered(machine.name, self._datacenter, time.monotonic_ns()))
        elif qemu is not None:
            await self._host.drop(machine, qemu)
        elif self._boots(machine) and not elsewhere:
            self._here[machine.name] = await self._host.boot(machine)
            _log.info("machine.booted", machine=machine.name)
            await self._host.booted(machine)

    def _boots(self, machine: RealMachine) -> bool:
        return machine.start == self._datacenter

    async def _runs_elsewhere(self, name: str) -> bool:
        """Raises when an agent does not answer: it may run there."""
        word = {"phase": "runs", "machine": name}
        found = [(await peer.post("/v1/incoming", word))["runs"] for peer in self._peers.values()]
        return any(found)

    # --- both ---------------------------------------------------------------------------------------------------------

    async def _place(self, name: str) -> Place:
        if name in self._unsettled:
            return Place(name, here=False, why="it is being found or started")
        if name not in self._here:
            return Place(name, here=False)
        try:
            status = await self._here[name].status()
        except QemuError as error:
            return Place(name, here=False, why=str(error))
        runs = status == "running"
        return Place(name, here=runs, site=self._datacenter, frozen=not runs, why="" if runs else f"QEMU says {status}")

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


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
