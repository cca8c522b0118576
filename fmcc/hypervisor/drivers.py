"""The driver that an agent's configuration asks for. Each is imported only when it is used."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Mapping

from fmcc.hypervisor import Happened, Hypervisor, Recovered
from fmcc.hypervisor.recovery import Peer
from fmcc.hypervisor.settings import AgentSettings
from lispfmc.wire.errors import LocalError

_NEEDS = {"qemu": ("qemu.qmp", "qemu"), "libvirt": ("libvirt", "libvirt")}


def check_installed(driver: str) -> None:
    """Raises LocalError when a package that the driver needs is not there."""
    package, extra = _NEEDS.get(driver, ("", ""))
    try:
        if package:
            importlib.import_module(package)
    except ImportError as error:
        raise LocalError(
            f"driver {driver!r}: the Python package {package} cannot be used, {error}; "
            f"install it: pip install 'lispfmc[{extra}]'"
        ) from error


def make(
    settings: AgentSettings,
    peers: Mapping[str, Peer],
    report: Callable[[Happened], None],
    tasks: asyncio.TaskGroup,
    recovered: Callable[[Recovered], None],
) -> Hypervisor:
    """Raises LocalError when what the driver needs is not installed."""
    datacenter = settings.datacenter
    match settings.driver:
        case "emulated":
            from fmcc.hypervisor.emulated import Emulated

            machines = settings.emulated_machines()
            return Emulated(datacenter, machines, peers, report, tasks, recovered=recovered)
        case "qemu":
            from fmcc.hypervisor.qemu.driver import QemuDriver

            assert settings.qemu is not None, "the settings were checked"
            real = settings.real_machines()
            return QemuDriver(datacenter, settings.qemu, real, peers, report, tasks, recovered=recovered)
        case "libvirt":
            from fmcc.hypervisor.libvirt import LibvirtDriver

            assert settings.libvirt is not None, "the settings were checked"
            return LibvirtDriver(datacenter, settings.libvirt, settings.real_machines(), peers, report, tasks)
        case "dryrun":
            from fmcc.hypervisor.dryrun import DryRun

            starts = {machine.name: machine.start for machine in settings.machines}
            return DryRun(datacenter, starts, peers, report)
