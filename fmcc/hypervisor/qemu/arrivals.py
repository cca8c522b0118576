"""The target's end of a live migration: a QEMU that waits, and the proof that the machine in it lives.

RESUMED is told with the instant of QEMU's RESUME, but only once the machine's own service has answered here: QEMU has
been seen to report success for a guest that was dead. A machine that does not answer is ended, and the verdict says so:
its source, which still holds it, lets it go on there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from fmcc.hypervisor import CannotMigrate, Happened, Kind, Migration
from fmcc.hypervisor.echo import answers
from fmcc.hypervisor.ends import End, Ends, State, cannot
from fmcc.hypervisor.machine import RealMachine
from fmcc.hypervisor.qemu.host import Host
from fmcc.hypervisor.qemu.process import Qemu, QemuError
from fmcc.hypervisor.settings import QemuSettings

HANGS_S = 1.0
"""After which a QEMU that says nothing of its state is taken for dead."""
_LOOK_S = 1.0


class _Arrival:
    """A QEMU that waits for its machine."""

    def __init__(self, machine: RealMachine, qemu: Qemu, end: End, uri: str) -> None:
        self.machine = machine
        self.qemu = qemu
        self.end = end
        self.uri = uri
        self.verdict: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        """None when the machine runs here, else why it does not."""


class Arrivals:
    """The machines that are expected here."""

    def __init__(
        self,
        datacenter: str,
        settings: QemuSettings,
        host: Host,
        ends: Ends,
        here: dict[str, Qemu],
        report: Callable[[Happened], None],
        tasks: asyncio.TaskGroup,
    ) -> None:
        """A machine that has come is entered in `here`."""
        self._datacenter = datacenter
        self._settings = settings
        self._host = host
        self._ends = ends
        self._here = here
        self._report = report
        self._tasks = tasks
        self._arrivals: dict[str, _Arrival] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._arrivals

    def waiting(self) -> list[Qemu]:
        return [arrival.qemu for arrival in self._arrivals.values()]

    def uri(self, end: End) -> str:
        """Where the machine of a prepared end is waited for."""
        return self._arrivals[end.migration.machine].uri

    async def prepare(self, machine: RealMachine, migration: Migration) -> None:
        """Raises CannotMigrate."""
        what = cannot(migration)
        if (arrival := self._arrivals.get(machine.name)) is not None:
            arrival.end.heard()  # again is no error
            return
        if machine.name in self._here:
            raise CannotMigrate(what, "it is here already")
        self._host.refuse_without_room(machine, what)
        try:
            qemu, uri = await self._host.await_machine(machine)
        except QemuError as error:
            raise CannotMigrate(what, str(error), status=502) from error
        arrival = _Arrival(machine, qemu, self._ends.prepared(migration), uri)
        self._arrivals[machine.name] = arrival
        arrival.end.task = self._tasks.create_task(self._expect(arrival), name=f"arrival {migration.move}")

    async def call_off(self, machine: RealMachine) -> None:
        """End the QEMU that waits. Raises CannotMigrate when the machine is in it already."""
        arrival = self._arrivals.get(machine.name)
        if arrival is None:
            return
        if arrival.end.state is State.MOVING or await state_of(arrival.qemu) == "running":
            raise CannotMigrate(f"{machine.name} cannot be called off", "it has come already")
        arrival.end.expires = 0.0
        await arrival.qemu.end()
        await asyncio.shield(arrival.verdict)  # the rest is done where its end is noticed

    async def verdict(self, name: str) -> str | None:
        """None when the machine lives here, else why it does not. Waits while that is being found out."""
        arrival = self._arrivals[name]
        if await state_of(arrival.qemu) == "inmigrate":
            return "it has not come"
        return await asyncio.shield(arrival.verdict)

    async def _expect(self, arrival: _Arrival) -> None:
        """Wait for the machine, see that it lives. Ends with a verdict, whatever happens."""
        end, machine = arrival.end, arrival.machine
        why: str | None = None
        try:
            resumed_ns = await self._resumed(arrival)
            end.state = State.MOVING
            await self._see_alive(machine)
            self._here[machine.name] = arrival.qemu
            self._report(Happened(Kind.RESUMED, end.migration, resumed_ns))
        except Exception as error:  # one machine that does not come, in whatever way, must not end the agent
            await self._host.drop(machine, arrival.qemu)
            why = str(error) or type(error).__name__
        end.state = State.ENDED
        self._arrivals.pop(machine.name, None)
        arrival.verdict.set_result(why)

    async def _resumed(self, arrival: _Arrival) -> int:
        """The instant (CLOCK_MONOTONIC) at which QEMU resumed the machine here. Raises QemuError."""
        while True:
            told = await arrival.qemu.next_event(_LOOK_S)
            if told is not None and told.name == "RESUME":
                return told.at_ns
            if told is not None and told.data.get("status") == "failed":
                raise QemuError("QEMU at the target could not take the machine in")
            if not arrival.end.alive(time.monotonic()):
                raise QemuError("the machine has not come in time")

    async def _see_alive(self, machine: RealMachine) -> None:
        """Raises QemuError when its service does not answer here."""
        if machine.echo is None:
            return
        if not await answers(machine.echo, self._settings.bridge, self._settings.alive_s):
            why = f"its service at {machine.echo} does not answer within {self._settings.alive_s:g} s"
            raise QemuError(f"QEMU reports success at {self._datacenter}, but the machine is dead: {why}")


async def state_of(qemu: Qemu) -> str:
    """As `Qemu.status`; "dead" when it does not answer."""
    try:
        return await qemu.status(HANGS_S)
    except QemuError:
        return "dead"
