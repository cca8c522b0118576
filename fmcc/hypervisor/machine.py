"""The machines of drivers that run real ones: what they are and where their service answers."""

from __future__ import annotations

from pathlib import Path

import msgspec

from lispfmc.wire.address import Endpoint


class RealMachine(msgspec.Struct, frozen=True):
    """A machine for QEMU or libvirt; both ends of a move know it alike."""

    name: str
    start: str | None = None
    """The data centre that boots it when nobody has it."""
    echo: Endpoint | None = None
    """UDP, an echo service in the machine: whether it is alive. Without, the hypervisor's word has to do."""
    memory_mb: int = 128
    mac: str = "52:54:00:00:00:01"
    interface: str = "vm"
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    arguments: tuple[str, ...] = ()
