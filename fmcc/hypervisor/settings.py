"""What a hypervisor agent's configuration file (TOML) says, field by field."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from fmcc.hypervisor.emulated import Machine
from fmcc.hypervisor.machine import RealMachine
from lispfmc.runtime.config import EndpointField, IpField, LogSettings, PrefixField, Settings, SharedKey, Wrong


class PeerSettings(Settings):
    """Another data centre's agent; `token` is what it asks for."""

    datacenter: str
    """Its data centre."""
    address: EndpointField
    """Where it listens."""
    token: str = Field(min_length=1)
    """What it asks for."""


class MachineSettings(Settings):
    """A machine that may be here or come here. Both ends list it, alike."""

    name: str
    """The service's name at the controller."""
    eids: tuple[PrefixField, ...] = Field(default=(), max_length=11)
    """Told to the tunnel router where nobody else does (scheme `cp`): as many as one message holds."""
    start: str | None = None
    """The data centre where it is, or is booted, when nobody has moved it yet (all drivers but `emulated`)."""
    node_socket: Path | None = None
    """`emulated`: the agent of the lab node that stands for the machine."""
    copy_s: float = Field(default=5.0, ge=0)
    """`emulated`: how long the copy takes."""
    pause_ms: float = Field(default=60.0, ge=0)
    """`emulated`: how long it stands still."""
    fraction: float = Field(default=1.0, gt=0, le=1)
    """`emulated`: the part of the state that a move takes along; the copy takes that part of `copy_s`."""
    echo: EndpointField | None = None
    """A UDP echo service in the machine: it is alive where this answers (`qemu`, `libvirt`)."""
    memory_mb: int = Field(default=128, ge=96)
    """`qemu`: its memory."""
    mac: str = Field(default="52:54:00:00:00:01", pattern="^[0-9a-f]{2}(:[0-9a-f]{2}){5}$")
    """`qemu`: its MAC address, the same everywhere."""
    interface: str = Field(default="", max_length=15)
    """Its port in the site's network; "vm-" and its name unless given."""
    kernel: Path | None = None
    """`qemu`: in place of the driver's."""
    initrd: Path | None = None
    """`qemu`: in place of the driver's."""
    append: str = ""
    """`qemu`: more for the kernel's command line."""
    arguments: tuple[str, ...] = ()
    """More for QEMU's command line, a disk on shared storage for example."""


class QemuSettings(Settings):
    """The driver `qemu`."""

    binary: Path = Path("qemu-system-x86_64")
    """QEMU 10 or newer."""
    folder: Path = Path("/run/lispfmc-agent")
    """Sockets, pid files and consoles."""
    bridge: str = Field(default="lan", max_length=15)
    """The site's network."""
    migration_address: IpField
    """Where this host takes machines in: on a network of trust, the stream is not encrypted."""
    migration_port: int = Field(default=0, ge=0, le=65535)
    """0: any that is free."""
    kernel: Path | None = None
    """Of machines that name none."""
    initrd: Path | None = None
    """Of machines that name none."""
    accelerator: Literal["auto", "kvm", "tcg"] = "auto"
    """`auto`: KVM where a guest boots with it within `trial_s`."""
    trial_s: float = Field(default=8.0, gt=0)
    """How long that trial may take."""
    machine: str = "pc"
    """QEMU's machine type."""
    bandwidth_mbit: float = Field(default=1000.0, gt=0)
    """Of the link between the data centres: QEMU reckons the last pass with it."""
    downtime_limit_ms: float = Field(default=50.0, ge=20)
    """Below 20 ms, QEMU 7 under TCG has corrupted guests."""
    post_copy_after_s: float | None = Field(default=None, gt=0)
    """Go over to post-copy after this; default: never."""
    stalled_s: float = Field(default=10.0, gt=0)
    """A copy that stands still for so long has failed."""
    alive_s: float = Field(default=3.0, gt=0, le=5)
    """How long a machine's echo may take after it has come."""
    boot_s: float = Field(default=60.0, gt=0)
    """And after it was booted."""


class LibvirtSettings(Settings):
    """The driver `libvirt`."""

    uri: str = "qemu:///system"
    """This host's libvirt."""
    reached_at: str
    """The libvirt of this host as the other data centres reach it, for example "qemu+tls://dc2.example.net/system"."""
    bridge: str = Field(default="lan", max_length=15)
    """The site's network."""
    bandwidth_mbit: float = Field(default=1000.0, gt=0)
    """Of the link between the data centres."""
    downtime_limit_ms: float = Field(default=50.0, ge=20)
    """How long a machine may stand still."""
    unsafe: bool = False
    """Migrate although libvirt cannot see that disks are shared: for machines without."""
    alive_s: float = Field(default=3.0, gt=0, le=5)
    """How long a machine's echo may take after it has come."""


class RouterSettings(SharedKey):
    """Our data centre's own tunnel router, and the key that we share with it (its `[agent]`)."""

    address: IpField
    """Where it takes control messages."""


class LocalApiSettings(Settings):
    """A second, read-only API without token, for tools on the machine itself: a unix socket, as "unix:/path"."""

    listen: str | None = Field(default=None, pattern="^unix:/")
    """For example "unix:/run/lispfmc-agent/api.sock"; default: none."""


class AgentSettings(Settings):
    """The whole file. Whoever shows `token` may have machines moved: the controller and the other agents.

    Without `xtr` the tunnel router hears of STOP and RESUME from the controller alone, a way longer.
    """

    name: str
    """Its name in logs."""
    datacenter: str
    """As the controller names it."""
    listen: EndpointField
    """Its API."""
    token: str = Field(min_length=1)
    """What it asks for."""
    driver: Literal["emulated", "qemu", "libvirt", "dryrun"] = "emulated"
    """What it moves machines with: [hypervisors](../hypervisors.md)."""
    qemu: QemuSettings | None = None
    libvirt: LibvirtSettings | None = None
    xtr: RouterSettings | None = None
    peers: tuple[PeerSettings, ...] = ()
    machines: tuple[MachineSettings, ...] = ()
    api: LocalApiSettings = LocalApiSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for index, peer in enumerate(self.peers):
            if peer.datacenter == self.datacenter:
                raise Wrong(f"{peer.datacenter} is this data centre, no peer; remove it", "peers", index, "datacenter")
        names = [machine.name for machine in self.machines]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise Wrong(f"{name!r} is there twice; give each its own name", "machines", index, "name")
        return self

    @model_validator(mode="after")
    def _driver_has_what_it_needs(self) -> Self:
        for index, machine in enumerate(self.machines):
            if self.driver == "emulated" and machine.node_socket is None:
                raise Wrong("the emulated driver moves a lab node; name its socket", "machines", index, "node_socket")
        if self.driver == "qemu" and self.qemu is None:
            raise Wrong("the driver qemu needs its settings; add a table [qemu] with migration_address", "driver")
        if self.driver == "libvirt" and self.libvirt is None:
            raise Wrong("the driver libvirt needs its settings; add a table [libvirt] with reached_at", "driver")
        return self

    def emulated_machines(self) -> dict[str, Machine]:
        return {
            each.name: Machine(each.name, each.node_socket, each.copy_s * each.fraction, each.pause_ms)
            for each in self.machines
            if each.node_socket is not None
        }

    def real_machines(self) -> dict[str, RealMachine]:
        return {
            each.name: RealMachine(
                each.name,
                each.start,
                each.echo,
                each.memory_mb,
                each.mac,
                each.interface or f"vm-{each.name}"[:15],
                each.kernel,
                each.initrd,
                each.append,
                each.arguments,
            )
            for each in self.machines
        }
