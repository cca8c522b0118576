"""Live migration by libvirt, for hosts whose machines it keeps: the driver of one data centre.

libvirt does the work and looks after the machines; we ask, and tell what happens. `migrate3` returns long after the
machine runs at the target (measured: 1.4 s), so RESUMED is the lifecycle event of the target's own libvirt, told once
the machine's service has answered there. The library blocks: every call runs in a thread, its event loop in one too.

What libvirt decides, and we cannot: a source that has handed over is ended by it. A machine that is dead at the target
then stays dead, and is told as failed; with QEMU by QMP (`fmcc.hypervisor.qemu`) it goes on at the source.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from fmcc.hypervisor import CannotMigrate, Happened, Kind, Migration, Place
from fmcc.hypervisor.echo import answers
from fmcc.hypervisor.ends import End, Ends, State, cannot, expected
from fmcc.hypervisor.machine import RealMachine
from fmcc.hypervisor.recovery import AGAIN_S, LONGEST_AGAIN_S, Peer
from fmcc.hypervisor.settings import LibvirtSettings

try:
    import libvirt
except ModuleNotFoundError:  # an optional extra: `fmcc.hypervisor.drivers.check_installed` says so in words
    libvirt = None

PROGRESS_S = 0.25
_log = structlog.get_logger("libvirt")
_event_loop = threading.Lock()
_event_thread: threading.Thread | None = None


class LibvirtDriver:
    """Bounded: one migration a machine, and machines are configured. A machine's name is its domain's."""

    name = "libvirt"
    emulated = False
    tells_stop = True

    def __init__(
        self,
        datacenter: str,
        settings: LibvirtSettings,
        machines: Mapping[str, RealMachine],
        peers: Mapping[str, Peer],
        report: Callable[[Happened], None],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._datacenter = datacenter
        self._settings = settings
        self._machines = machines
        self._peers = peers
        self._report = report
        self._tasks = tasks
        self._ends = Ends(datacenter, machines)
        self._reach: dict[str, str] = {}  # by machine, the libvirt that its prepared move goes to
        self._loop = asyncio.get_running_loop()
        self._connection: Any = None

    def machines(self) -> tuple[str, ...]:
        return tuple(self._machines)

    def waiting(self) -> list[str]:
        return [] if self._connection is not None else [f"libvirt does not answer at {self._settings.uri}"]

    def migrations(self) -> list[dict[str, str]]:
        return self._ends.listed()

    async def places(self) -> list[Place]:
        return await asyncio.gather(*map(self._place, self._machines))

    async def recover(self) -> None:
        """libvirt looks after its machines; we only have to reach it."""
        again_s = AGAIN_S
        while self._connection is None:
            try:
                self._connection = await asyncio.to_thread(self._connect)
            except libvirt.libvirtError as error:
                _log.warning("libvirt.unreachable", uri=self._settings.uri, why=str(error))
                await asyncio.sleep(again_s)
                again_s = min(again_s * 2, LONGEST_AGAIN_S)

    async def close(self) -> None:
        if self._connection is not None:
            await asyncio.to_thread(self._connection.close)

    # --- the seam's verbs ---------------------------------------------------------------------------------------------

    async def prepare(self, migration: Migration) -> None:
        what = cannot(migration)
        await self._ends.settled(migration)
        role = self._ends.check(migration)
        place = await self._place(migration.machine)
        if role == "target" and place.here:
            raise CannotMigrate(what, "it is here already")
        if role == "target" and self._connection is None:
            raise CannotMigrate(what, self.waiting()[0], status=503)
        if role == "source":
            if not place.here:
                raise CannotMigrate(what, f"it is not here{': ' * bool(place.why)}{place.why}")
            self._reach[migration.machine] = str((await self._say("ready", migration))["uri"])
        self._ends.prepared(migration)

    async def start(self, migration: Migration) -> None:
        end = self._ends.to_start(migration)
        if end is None:
            return
        end.state = State.COPYING
        end.task = self._tasks.create_task(self._run(end), name=f"migration {migration.move}")

    async def abort(self, move: str) -> None:
        end = self._ends.to_abort(move)
        if end.task is None:
            end.state = State.ENDED
            return
        domain = await self._domain(end.migration.machine)
        await self._call(domain.abortJob)

    async def incoming(self, word: dict[str, Any]) -> dict[str, Any]:
        end = expected(self._ends.target(word.get("move"), word.get("machine")))
        match word.get("phase"):
            case "ready":
                end.heard()
                return {"ready": True, "uri": self._settings.reached_at}
            case "cancel":
                end.state = State.ENDED
                return {"cancelled": True}
        what = f"{end.migration.machine} is not expected here"
        raise CannotMigrate(what, f"phase {word.get('phase')!r} is none of ready, cancel", status=400)

    # --- the source's end ---------------------------------------------------------------------------------------------

    async def _run(self, end: End) -> None:
        try:
            domain = await self._domain(end.migration.machine)
            migrating = asyncio.create_task(
                asyncio.to_thread(self._migrate, domain, self._reach[end.migration.machine])
            )
            while not migrating.done():
                await asyncio.wait({migrating}, timeout=PROGRESS_S)
                await self._progress(end, domain)
            migrating.result()
        except Exception as error:  # one migration that goes wrong, in whatever way, must not end the agent
            self._tell(end, Kind.FAILED, reason=str(error) or type(error).__name__, runs_here=True)
        else:
            self._tell(end, Kind.COMPLETED)
        finally:
            end.state = State.ENDED

    def _migrate(self, domain: Any, uri: str) -> None:
        """In a thread: returns when libvirt has finished, raises libvirtError and leaves the machine here."""
        target = libvirt.open(uri)
        try:
            flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_AUTO_CONVERGE
            if self._settings.unsafe:
                flags |= libvirt.VIR_MIGRATE_UNSAFE
            # MiB/s: the link's own rate, by which QEMU reckons the last pass
            limits = {libvirt.VIR_MIGRATE_PARAM_BANDWIDTH: max(1, int(self._settings.bandwidth_mbit / 8.388608))}
            domain.migrateSetMaxDowntime(int(self._settings.downtime_limit_ms))
            domain.migrate3(target, limits, flags)
        finally:
            target.close()

    async def _progress(self, end: End, domain: Any) -> None:
        try:
            stats = await asyncio.to_thread(domain.jobStats)
        except libvirt.libvirtError:
            return  # it is away already
        if total := stats.get("memory_total"):
            self._tell(end, Kind.PROGRESS, percent=round(100.0 * (total - stats["memory_remaining"]) / total, 1))

    # --- what libvirt tells -------------------------------------------------------------------------------------------

    def _connect(self) -> Any:
        _serve_events()
        connection = libvirt.open(self._settings.uri)
        lifecycle = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
        connection.domainEventRegisterAny(None, lifecycle, self._heard, None)
        return connection

    def _heard(self, _connection: Any, domain: Any, event: int, detail: int, _: Any) -> None:
        """In libvirt's thread."""
        self._loop.call_soon_threadsafe(self._lifecycle, domain.name(), event, detail, time.monotonic_ns())

    def _lifecycle(self, machine: str, event: int, detail: int, at_ns: int) -> None:
        end = self._ends.current(machine)
        if end is None:
            return
        migrated = libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED
        if (event, detail) == (libvirt.VIR_DOMAIN_EVENT_RESUMED, migrated) and end.role == "target":
            end.state = State.MOVING
            self._tasks.create_task(self._see_alive(end, at_ns), name=f"arrival {end.migration.move}")
        suspended = libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED
        if (event, detail) == (libvirt.VIR_DOMAIN_EVENT_SUSPENDED, suspended) and end.role == "source":
            end.state = State.MOVING
            self._tell(end, Kind.STOPPED, at_ns=at_ns)

    async def _see_alive(self, end: End, resumed_ns: int) -> None:
        machine = self._machines[end.migration.machine]
        bridge, alive_s = self._settings.bridge, self._settings.alive_s
        if machine.echo is None or await answers(machine.echo, bridge, alive_s):
            self._tell(end, Kind.RESUMED, at_ns=resumed_ns)
        else:
            why = f"its service at {machine.echo} does not answer within {alive_s:g} s"
            self._tell(end, Kind.FAILED, reason=f"libvirt reports success, but the machine is dead: {why}")
        end.state = State.ENDED

    # --- both ---------------------------------------------------------------------------------------------------------

    async def _place(self, name: str) -> Place:
        if self._connection is None:
            return Place(name, here=False, why=self.waiting()[0])
        try:
            domain = await asyncio.to_thread(self._connection.lookupByName, name)
            state, _ = await asyncio.to_thread(domain.state)
        except libvirt.libvirtError as error:
            return Place(name, here=False, why=str(error))
        frozen = state == libvirt.VIR_DOMAIN_PAUSED
        here = state in {libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED}
        return Place(name, here=here, site=self._datacenter if here or frozen else None, frozen=frozen)

    async def _domain(self, name: str) -> Any:
        return await self._call(self._connection.lookupByName, name)

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await asyncio.to_thread(function, *arguments)
        except libvirt.libvirtError as error:
            raise CannotMigrate("libvirt refuses", str(error), status=502) from error

    async def _say(self, phase: str, migration: Migration) -> dict[str, Any]:
        peer = self._peers.get(migration.target)
        if peer is None:
            raise CannotMigrate(cannot(migration), f"{self._datacenter} has no peer {migration.target}", status=404)
        word = {"phase": phase, "move": migration.move, "machine": migration.machine}
        answer: dict[str, Any] = await peer.post("/v1/incoming", word)
        return answer

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


def _serve_events() -> None:
    """libvirt's own event loop, once a process; it has to be there before the first connection."""
    global _event_thread
    with _event_loop:
        if _event_thread is None:
            libvirt.registerErrorHandler(lambda _context, _error: None, None)  # errors are raised, not printed
            libvirt.virEventRegisterDefaultImpl()
            _event_thread = threading.Thread(target=_serve, name="libvirt events", daemon=True)
            _event_thread.start()


def _serve() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
