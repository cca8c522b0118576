"""What a hypervisor agent's configuration file (TOML) says, field by field."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from fmcc.hypervisor.emulated import Machine
from lispfmc.runtime.config import EndpointField, IpField, LogSettings, PrefixField, Settings, SharedKey, Wrong


class PeerSettings(Settings):
    """Another data centre's agent; `token` is what it asks for."""

    datacenter: str
    address: EndpointField
    token: str = Field(min_length=1)


class MachineSettings(Settings):
    """A machine that may be here or come here. Both ends list it, with the same node socket.

    `eids` are told to the tunnel router where nobody else does (scheme `cp`): as many as one message holds.
    """

    name: str
    eids: tuple[PrefixField, ...] = Field(default=(), max_length=11)
    node_socket: Path
    copy_s: float = Field(default=5.0, ge=0)
    pause_ms: float = Field(default=60.0, ge=0)


class RouterSettings(SharedKey):
    """Our data centre's own tunnel router, and the key that we share with it (its `[agent]`)."""

    address: IpField


class LocalApiSettings(Settings):
    """A second, read-only API without token, for tools on the machine itself: a unix socket, as "unix:/path"."""

    listen: str | None = Field(default=None, pattern="^unix:/")


class AgentSettings(Settings):
    """The whole file. Whoever shows `token` may have machines moved: the controller and the other agents.

    Without `xtr` the tunnel router hears of STOP and RESUME from the controller alone, a way longer.
    """

    name: str
    datacenter: str
    listen: EndpointField
    token: str = Field(min_length=1)
    driver: Literal["emulated"] = "emulated"
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

    def machines_by_name(self) -> dict[str, Machine]:
        return {each.name: Machine(each.name, each.node_socket, each.copy_s, each.pause_ms) for each in self.machines}
