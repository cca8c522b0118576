"""What runs where: `lab.json` of a run directory, as values. The lab writes it; the command line and the measurements
read it, in namespaces and in containers alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from lispfmc.runtime.client import ApiClient
from lispfmc.wire.errors import LocalError

DEFAULT_RUN = "/run/lispfmc"
FILE = "lab.json"


class NotUp(LocalError):  # noqa: N818 - reads as the answer that it is
    """No lab runs here, or not the one that was asked for."""


class Ambiguous(LocalError):  # noqa: N818 - reads as the answer that it is
    """Several labs run and none was named."""


class BadName(LocalError):  # noqa: N818 - reads as the answer that it is
    """No lab can have this name."""


class Daemon(msgspec.Struct, frozen=True):
    name: str
    role: str
    api: str
    pid: int | None = None
    namespace: str | None = None

    @property
    def has_local_api(self) -> bool:
        """True when its API is for us; a hypervisor agent's is in its site's network and asks for its own token."""
        return self.api.startswith(("unix:", "https:"))

    def client(self, *, timeout_s: float = 10.0) -> ApiClient:
        """A client of its API, with the token in LISPFMC_TOKEN and the certificate authority in LISPFMC_CA, if set."""
        authority = os.environ.get("LISPFMC_CA")
        token = os.environ.get("LISPFMC_TOKEN")
        return ApiClient(self.api, token=token, timeout_s=timeout_s, authority=Path(authority) if authority else None)


class NodeEntry(msgspec.Struct, frozen=True):
    """A user or an emulated service: the socket of its agent, its addresses, the sites it is wired to."""

    name: str
    role: str
    socket: str
    eids: list[str]
    sites: list[str]
    namespace: str | None = None

    def eid(self, *, version: int = 4) -> str:
        """Its address of one IP version. Raises LocalError when it has none."""
        for eid in self.eids:
            address = eid.split("/")[0]
            if (":" in address) == (version == 6):
                return address
        raise LocalError(f"{self.name} has no IPv{version} EID; it has: {', '.join(self.eids)}")


class Installation(msgspec.Struct, frozen=True):
    """One running lab."""

    name: str
    topology: str
    kind: str
    daemons: list[Daemon]
    nodes: list[NodeEntry]
    map_resolver: str
    lookup_namespace: str | None = None

    @property
    def folder(self) -> Path:
        return run_directory() / self.name

    def of_role(self, role: str) -> list[Daemon]:
        return [daemon for daemon in self.daemons if daemon.role == role]

    def the(self, role: str) -> Daemon:
        """The one daemon of a role. Raises LocalError when the installation has none."""
        for daemon in self.daemons:
            if daemon.role == role:
                return daemon
        raise LocalError(f"lab {self.name} has no {role}; look at {self.folder / FILE}")

    def users(self) -> list[NodeEntry]:
        return [node for node in self.nodes if node.role == "user"]

    def node(self, name: str) -> NodeEntry | None:
        return next((node for node in self.nodes if node.name == name), None)


def run_directory() -> Path:
    return Path(os.environ.get("LISPFMC_RUN", DEFAULT_RUN))


def running() -> Iterator[str]:
    """The names of the labs that have a `lab.json`, in order."""
    for path in sorted(run_directory().glob(f"*/{FILE}")):
        yield path.parent.name


def load(name: str | None = None) -> Installation:
    """The lab of that name, or the only one. Raises NotUp or Ambiguous."""
    names = list(running())
    if name is None:
        if not names:
            raise NotUp(f"no lab is up: no {FILE} under {run_directory()}; run: lispfmc lab up")
        if len(names) > 1:
            raise Ambiguous(f"several labs are up: {', '.join(names)}; choose one with --lab NAME")
        name = names[0]
    elif name not in names:
        raise NotUp(f"lab {name} is not up: up are: {', '.join(names) or 'none'}; run: lispfmc lab up")
    path = run_directory() / name / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Installation)
    except (OSError, msgspec.DecodeError) as error:
        raise NotUp(f"{path}: cannot be read: {error}; run: lispfmc lab down, then lispfmc lab up") from error
