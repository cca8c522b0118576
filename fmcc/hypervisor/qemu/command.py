"""QEMU's command line for a machine, and its port in the site's network."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from fmcc.hypervisor.machine import RealMachine
from fmcc.hypervisor.qemu.process import QemuError
from fmcc.hypervisor.settings import QemuSettings
from lispfmc.wire.address import ip_text

CONSOLE = "console=ttyS0 quiet panic=-1"  # a guest that panics ends its QEMU instead of standing there
SANDBOX = "on,obsolete=deny,resourcecontrol=deny"  # the rest would refuse to become a daemon


def command(settings: QemuSettings, accelerator: str, machine: RealMachine, console: Path) -> list[str]:
    """Both ends of a migration must run the same, but for where they are."""
    line = [*base(settings, accelerator, machine.memory_mb), "-name", machine.name, "-sandbox", SANDBOX]
    line += ["-serial", f"file:{console}"]
    line += ["-netdev", f"tap,id=net0,ifname={machine.interface},script=no,downscript=no"]
    # romfile: it never boots from the network
    line += ["-device", f"virtio-net-pci,netdev=net0,id=nic0,mac={machine.mac},romfile="]
    kernel, initrd = machine.kernel or settings.kernel, machine.initrd or settings.initrd
    if kernel is not None:
        line += ["-kernel", str(kernel), "-append", f"{CONSOLE} {machine.append}".strip()]
    if initrd is not None:
        line += ["-initrd", str(initrd)]
    return [*line, *machine.arguments]


def base(settings: QemuSettings, accelerator: str, memory_mb: int) -> list[str]:
    """What does not depend on the machine."""
    line = [str(settings.binary), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    line += ["-machine", settings.machine, "-accel", accelerator, "-m", str(memory_mb), "-smp", "1"]
    return [*line, "-cpu", "host"] if accelerator == "kvm" else line


async def plug_in(interface: str, bridge: str) -> None:
    """A port for the machine in the site's network. Raises QemuError."""
    await unplug(interface)
    await _ip(f"tuntap add dev {interface} mode tap\nlink set dev {interface} master {bridge} up\n")


async def introduce(machine: RealMachine, bridge: str) -> None:
    """Tell this host the machine's MAC: a first ARP request that is lost costs a second, in the middle of a move."""
    if machine.echo is not None:
        with contextlib.suppress(QemuError):  # it is known already
            await _ip(f"neigh add {ip_text(machine.echo.ip)} lladdr {machine.mac} dev {bridge} nud stale\n")


async def unplug(interface: str) -> None:
    """Remove it, if it is there."""
    if await _exists(interface):
        await _ip(f"link del dev {interface}\n")


async def _exists(interface: str) -> bool:
    process = await asyncio.create_subprocess_exec(
        "ip", "link", "show", "dev", interface, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait() == 0


async def _ip(batch: str) -> None:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec("ip", "-batch", "-", stdin=pipe, stdout=pipe, stderr=pipe)
    _, errors = await process.communicate(batch.encode())
    if process.returncode:
        raise QemuError(f"the machine gets no port in the site's network: {errors.decode().strip()}")
