"""The lab with real virtual machines: where QEMU and the guest are, and what the agents' driver is told of them.

Both are made by `make guest` (deploy/guest.sh) under build/; another QEMU or guest is named by LISPFMC_QEMU and
LISPFMC_GUEST.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lispfmc
from fmcc.hypervisor.drivers import check_installed
from fmcc.hypervisor.settings import QemuSettings
from lispfmc.lab.link import GATEWAY4, GATEWAY6
from lispfmc.lab.topology import Service, Virtual
from lispfmc.lab.workload import ECHO_UDP
from lispfmc.wire.address import ip_text
from lispfmc.wire.errors import LocalError

OLDEST_QEMU = 10  # live migration under TCG can corrupt the guest with QEMU 7
BUILD = Path(lispfmc.__file__).parent.parent / "build"


@dataclass(frozen=True)
class Engine:
    """A QEMU and a guest for it."""

    qemu: Path
    guest: Path
    accelerator: str


def find_engine() -> Engine:
    """What KVM is good for is tried once; the answer is kept beside the guest. Raises LocalError: what is missing."""
    check_installed("qemu")
    from fmcc.hypervisor.qemu.trial import accelerator  # after that, because it imports what may be missing

    guest = Path(os.environ.get("LISPFMC_GUEST", BUILD / "guest"))
    for part in ("vmlinuz", "initrd.gz"):
        if not (guest / part).exists():
            raise LocalError(f"{guest / part} is missing, the virtual machines' guest; run: make guest")
    qemu = _find_qemu()
    trial = {"binary": qemu, "folder": guest, "migration_address": "127.0.0.1"} | _kernel(guest)
    return Engine(qemu, guest, asyncio.run(accelerator(QemuSettings.model_validate(trial))))


def _kernel(guest: Path) -> dict[str, Any]:
    return {"kernel": guest / "vmlinuz", "initrd": guest / "initrd.gz"}


def _find_qemu() -> Path:
    named = os.environ.get("LISPFMC_QEMU")
    unpacked = BUILD / "qemu" / "qemu-system-x86_64"
    candidates = [named] if named else [str(unpacked), shutil.which("qemu-system-x86_64") or ""]
    for candidate in filter(os.path.exists, candidates):
        if _version(candidate) >= OLDEST_QEMU:
            return Path(candidate)
    raise LocalError(f"no QEMU {OLDEST_QEMU} or newer at {' or '.join(filter(None, candidates))}; run: make guest")


def _version(qemu: str) -> int:
    """The major version, 0 when it does not start."""
    told = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    word = told.removeprefix("QEMU emulator version ").split(".")[0]
    return int(word) if word.isdigit() else 0


def driver_settings(engine: Engine, virtual: Virtual, address: str, folder: Path) -> dict[str, Any]:
    """The agent's table [qemu]. `address` is where the data centre takes machines in."""
    settings = {"binary": engine.qemu, "folder": folder, "migration_address": address} | _kernel(engine.guest)
    return {key: str(value) for key, value in settings.items()} | {
        "accelerator": engine.accelerator,
        "bandwidth_mbit": virtual.bandwidth_mbit,
        "boot_s": virtual.boot_s,
    }


def machine_settings(virtual: Virtual, service: Service, mac: str) -> dict[str, Any]:
    """The agent's [[machines]] entry of a service."""
    eids = [ip_text(eid) for eid in service.eids]
    first = f"[{eids[0]}]" if ":" in eids[0] else eids[0]
    gateways = [ip_text(GATEWAY4), ip_text(GATEWAY6)]
    filled = f" fmc.ram={virtual.filled_mb},0" if virtual.filled_mb else ""
    return {
        "name": service.name,
        "start": service.start,
        "echo": f"{first}:{ECHO_UDP}",
        "memory_mb": virtual.memory_mb,
        "mac": mac,
        "append": f"fmc.eids={','.join(eids)} fmc.gateways={','.join(gateways)}{filled}",
    }
