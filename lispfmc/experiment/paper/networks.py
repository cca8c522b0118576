"""Networks of the parts: a shipped topology as values, with what a part changes, and the lab on it."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lispfmc.experiment.running import lab_of
from lispfmc.lab.installation import Installation, NodeEntry
from lispfmc.lab.interruption import interruptible
from lispfmc.lab.toml_text import toml_text
from lispfmc.lab.topology import SHIPPED

BIG = {"memory_mb": 1024, "filled_mb": 225, "bandwidth_mbit": 100.0, "boot_s": 280.0}
"""The papers' machine: 1 GB, of which some 300 MB are not zero (225 and what a small Linux takes itself)."""
SMALL = {"memory_mb": 96, "filled_mb": 8, "bandwidth_mbit": 100.0}
TINY = {"memory_mb": 96, "filled_mb": 0, "bandwidth_mbit": 100.0}
"""For many moves: some seconds each."""
REAL = (
    'The "VM" is real: a Linux guest in QEMU, moved by QEMU\'s own live migration at 100 Mbit/s. Without KVM '
    "(accelerator TCG) its processor is emulated, so that its pause and its answers take longer than on hardware."
)


def network(topology: str, *, policy: str, **changes: Mapping[str, Any]) -> dict[str, Any]:
    """One user and one service of a shipped topology; `changes` replace whole tables."""
    values = tomllib.loads((SHIPPED / f"{topology}.toml").read_text())
    values["users"] = values["users"][:1]
    owner = values["users"][0]["name"]
    values["services"] = [each for each in values["services"] if each["user"] == owner][:1]
    values["fmcc"] = {**values["fmcc"], "policy": policy}
    return {**values, **changes}


@contextmanager
def lab_on(
    values: Mapping[str, Any], folder: Path, say: Callable[[str], None], driver: str = "emulated"
) -> Iterator[Installation]:
    """Up, and down again whatever happens."""
    path = folder / "topology.toml"
    path.write_text(toml_text(dict(values)))
    with interruptible(), lab_of(path, folder, say, driver) as lab:
        yield lab


def the_user(lab: Installation) -> NodeEntry:
    return lab.users()[0]


def the_service(values: Mapping[str, Any]) -> tuple[str, str]:
    """Its name and its IPv4 EID."""
    service = values["services"][0]
    return service["name"], next(eid for eid in service["eids"] if ":" not in eid)
