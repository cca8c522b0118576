"""Which plane runs: the kernel's where the machine can, else the portable one; and why."""

from __future__ import annotations

import os
import re

import structlog

from xtr.dataplane import DataPlane, Evidence
from xtr.dataplane.ebpf import EbpfPlane
from xtr.dataplane.libbpf import LIBRARY, Loaded, library
from xtr.dataplane.tun import TunPlane
from xtr.settings import XtrSettings

_log = structlog.get_logger("dataplane")

OLDEST_LINUX = (6, 3)  # decapsulating one IP version out of the other; routing without resolving the neighbour


def unavailable() -> str:
    """Why this machine cannot run the kernel plane, or "" when it can."""
    release = os.uname().release
    found = re.match(r"(\d+)\.(\d+)", release)
    if found is None or (int(found[1]), int(found[2])) < OLDEST_LINUX:
        return f"Linux {release} is older than {'.'.join(map(str, OLDEST_LINUX))}"
    try:
        library()
    except OSError:
        return f"{LIBRARY} is not installed (Debian: libbpf1)"
    try:
        Loaded().close()
    except OSError as error:
        return f"the program cannot be loaded ({error.strerror}); it needs CAP_BPF and CAP_NET_ADMIN"
    return ""


def plane_for(settings: XtrSettings) -> DataPlane:
    """The plane that the configuration asks for; with "auto" the kernel's where this machine can."""
    kind = settings.dataplane.kind
    if kind == "ebpf" or (kind == "auto" and not _why_not(settings)):
        return EbpfPlane(settings)
    return TunPlane(settings)


def _why_not(settings: XtrSettings) -> str:
    return "map-versions are sent by the portable plane" if settings.dataplane.map_versioning else unavailable()


def started(plane: DataPlane, *, settings: XtrSettings, evidence: Evidence) -> DataPlane:
    """Start it, and say which one runs and why; with "auto" the portable one stands in. Raises OSError."""
    why = "configured"
    if settings.dataplane.kind == "auto":
        why = "this machine can" if isinstance(plane, EbpfPlane) else _why_not(settings)
    try:
        plane.start(evidence)
    except OSError as error:
        if settings.dataplane.kind != "auto" or not isinstance(plane, EbpfPlane):
            raise
        why = f"the kernel plane did not start: {error.strerror or error}"
        plane = TunPlane(settings)
        plane.start(evidence)
    _log.info("dataplane.chosen", plane="ebpf" if isinstance(plane, EbpfPlane) else "tun", why=why)
    return plane
