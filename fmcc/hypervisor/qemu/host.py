"""The machines' QEMU processes on this host: boots them, has them wait for a migration, ends them.

The accelerator is found out once (`fmcc.hypervisor.qemu.trial`).
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import structlog

from fmcc.hypervisor import CannotMigrate
from fmcc.hypervisor.echo import answers
from fmcc.hypervisor.machine import RealMachine
from fmcc.hypervisor.qemu.command import command, introduce, plug_in, unplug
from fmcc.hypervisor.qemu.following import make_ready
from fmcc.hypervisor.qemu.process import Qemu, QemuError, end_leftover, socket_of
from fmcc.hypervisor.qemu.trial import accelerator
from fmcc.hypervisor.settings import QemuSettings
from lispfmc.wire.address import ip_text

OVERHEAD_MB = 160
"""What a QEMU takes beside the machine's memory (measured under TCG: 80-100 MB)."""
_MEMORY = Path("/proc/meminfo")
_log = structlog.get_logger("qemu")


class Host:
    """This host's QEMU, by machine."""

    def __init__(self, settings: QemuSettings) -> None:
        settings.folder.mkdir(parents=True, exist_ok=True)
        self._settings = settings
        self._accelerator = ""
        self._trying = asyncio.Lock()

    async def facts(self) -> dict[str, Any]:
        """What has to be the same at both ends."""
        return {"accelerator": await self._accelerated(), "machine": self._settings.machine}

    def refuse_without_room(self, machine: RealMachine, what: str) -> None:
        """Raises CannotMigrate."""
        needed = machine.memory_mb + OVERHEAD_MB
        available = _available_mb()
        if available < needed:
            raise CannotMigrate(what, f"this host has {available} MB of memory left and the machine takes {needed} MB")

    async def boot(self, machine: RealMachine) -> Qemu:
        """Raises QemuError."""
        return await self._launch(machine, [])

    async def booted(self, machine: RealMachine) -> None:
        """Returns when its service answers; if it never does, it is there all the same."""
        if machine.echo is not None and not await answers(machine.echo, self._settings.bridge, self._settings.boot_s):
            _log.warning("machine.silent", machine=machine.name, echo=str(machine.echo))

    async def await_machine(self, machine: RealMachine) -> tuple[Qemu, str]:
        """A QEMU that waits for the machine, and where. Raises QemuError."""
        qemu = await self._launch(machine, ["-incoming", "defer"])
        try:
            await make_ready(qemu, self._settings, source=False)
            host = ip_text(self._settings.migration_address)
            host = f"[{host}]" if ":" in host else host
            await qemu.ask("migrate-incoming", uri=f"tcp:{host}:{self._settings.migration_port}")
            (where,) = (await qemu.ask("query-migrate"))["socket-address"]
        except (QemuError, KeyError, ValueError) as error:
            await self.drop(machine, qemu)
            raise QemuError(f"QEMU cannot wait for {machine.name}: {error}") from error
        return qemu, f"tcp:{host}:{where['port']}"

    async def drop(self, machine: RealMachine, qemu: Qemu) -> None:
        """End a QEMU that does not hold the machine any more. A port that stays is replaced by the next `_launch`."""
        await qemu.end()
        with contextlib.suppress(QemuError):
            await unplug(machine.interface)

    async def resume(self, qemu: Qemu) -> None:
        """Have a stopped machine go on here, and be heard. Raises QemuError."""
        await qemu.ask("cont")
        announce = {"initial": 10, "max": 100, "rounds": 8, "step": 10}
        await qemu.ask("announce-self", **announce)

    async def left_over(self, machine: RealMachine) -> Qemu | None:
        """The QEMU of it that an earlier agent left, if it holds the machine. Raises QemuError when it hangs."""
        if not socket_of(machine.name, self._settings.folder).exists():
            return None
        qemu = Qemu(machine.name, self._settings.folder)
        if not qemu.lives():
            await end_leftover(machine.name, self._settings.folder)
            return None
        await qemu.connect()
        if await qemu.status() == "inmigrate":  # whoever was to come has nobody here to look after it
            await self.drop(machine, qemu)
            return None
        if (await qemu.ask("query-migrate")).get("status") in {"setup", "active", "device"}:
            await qemu.ask("migrate_cancel")
            await asyncio.sleep(0.2)
        return qemu

    async def _launch(self, machine: RealMachine, options: list[str]) -> Qemu:
        folder = self._settings.folder
        await end_leftover(machine.name, folder)
        await plug_in(machine.interface, self._settings.bridge)
        await introduce(machine, self._settings.bridge)
        console = folder / f"{machine.name}.console"
        line = command(self._settings, await self._accelerated(), machine, console)
        try:
            return await Qemu.launch(machine.name, folder, [*line, *options])
        except QemuError:
            await unplug(machine.interface)
            raise

    async def _accelerated(self) -> str:
        async with self._trying:
            self._accelerator = self._accelerator or await accelerator(self._settings)
        return self._accelerator


def _available_mb() -> int:
    for line in _MEMORY.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0
