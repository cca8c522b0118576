"""`lispfmc status`: every daemon and node of the installation on one screen, and since when one is gone."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lispfmc.cli.failure import CONDITION, DONE, UNREACHABLE
from lispfmc.cli.output import Format, print_json, print_table
from lispfmc.lab.installation import Daemon, Installation, NodeEntry, NotUp, load
from lispfmc.runtime.client import Unreachable
from lispfmc.runtime.node_client import call
from lispfmc.wire.errors import LocalError

READY, NOT_READY, GONE = "ready", "not-ready", "unreachable"
_POLL_S = 0.2
_TIMEOUT_S = 1.5  # all are asked at once: a person waits no longer for one that hangs


async def status(*, lab_name: str | None, wait_s: float, output: Format) -> int:
    """Exit 0 when all are ready, 1 when one is not, 2 when one does not answer."""
    until = time.monotonic() + wait_s
    lab = await _found(lab_name, until)
    while True:
        daemons = await asyncio.gather(*(_daemon(daemon, lab.folder) for daemon in lab.daemons))
        nodes = await asyncio.gather(*(_node(node) for node in lab.nodes))
        code = _exit_code([*daemons, *nodes])
        if code == DONE or time.monotonic() >= until:
            break
        await asyncio.sleep(_POLL_S)
    if output is Format.json:
        print_json({"lab": lab.name, "topology": lab.topology, "kind": lab.kind, "daemons": daemons, "nodes": nodes})
    else:
        print_table(
            ["NAME", "ROLE", "STATE", "DETAIL"],
            [[one["name"], one["role"], one["state"], _detail(one)] for one in (*daemons, *nodes)],
        )
    return code


async def _found(name: str | None, until: float) -> Installation:
    """The lab of that name; containers are there before the lab that they make up."""
    while True:
        try:
            return load(name)
        except NotUp:
            if time.monotonic() >= until:
                raise
        await asyncio.sleep(_POLL_S)


async def _daemon(daemon: Daemon, folder: Path) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": daemon.name, "role": daemon.role, "api": daemon.api}
    if not daemon.has_local_api:
        return entry | await asyncio.to_thread(_from_outside, daemon)
    try:
        async with daemon.client(timeout_s=_TIMEOUT_S) as api:
            told: dict[str, Any] = await api.get("/v1/status")
    except LocalError as error:
        return entry | {"state": GONE, "reasons": [str(error)], "status": {}, "last_seen": last_seen(daemon, folder)}
    reasons = list(told.get("not_ready", []))
    return entry | {"state": NOT_READY if reasons else READY, "reasons": reasons, "status": told}


def last_seen(daemon: Daemon, folder: Path) -> float | None:
    """Unix time of the last sign of life of a daemon that does not answer; None: there is none.

    A running daemon marks its unix socket every second, and a killed one leaves it; one that ends removes it, and says
    so in its log.
    """
    signs = [folder / "logs" / f"{daemon.name}.log", folder / f"{daemon.name}.pid"]
    if daemon.api.startswith("unix:"):
        signs.append(Path(daemon.api.removeprefix("unix:")))
    times = []
    for sign in signs:
        with suppress(OSError):
            times.append(sign.stat().st_mtime)
    return max(times, default=None)


def _from_outside(daemon: Daemon) -> dict[str, Any]:
    """An API inside the site's network: only its readiness is told without a token."""
    from lispfmc.lab.readiness import why_not_ready  # here: it loads netlink

    why = why_not_ready(daemon)
    if why is None:
        return {"state": READY, "reasons": [], "status": {}}
    return {"state": NOT_READY if why.startswith("not ready") else GONE, "reasons": [why], "status": {}}


async def _node(node: NodeEntry) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": node.name, "role": node.role, "eids": node.eids}
    try:
        told = await call(node.socket, {"do": "status"}, timeout_s=_TIMEOUT_S)
    except (Unreachable, LocalError) as error:
        return entry | {"state": GONE, "reasons": [str(error)], "site": None}
    site = told["site"]
    frozen = bool(told.get("frozen"))
    reasons = [] if site or frozen else ["no link is up"]
    return entry | {"state": READY if not reasons else NOT_READY, "reasons": reasons, "site": site, "frozen": frozen}


def _exit_code(entries: list[dict[str, Any]]) -> int:
    states = {entry["state"] for entry in entries}
    if GONE in states:
        return UNREACHABLE
    return CONDITION if NOT_READY in states else DONE


def _detail(entry: dict[str, Any]) -> str:
    if (seen := entry.get("last_seen")) is not None:
        at = time.strftime("%H:%M:%S", time.localtime(seen))
        return f"last seen at {at}, {_ago(time.time() - seen)} ago: {'; '.join(entry['reasons'])}"
    if entry["reasons"]:
        return "; ".join(entry["reasons"])
    if "site" in entry:
        return "frozen" if entry["frozen"] else f"at {entry['site']}"
    told = entry["status"]
    if not told:
        return ""
    bugs = f", {told['bugs']} bugs: see its log" if told.get("bugs") else ""
    return f"up {told.get('uptime_s', 0):.0f} s, pid {told.get('pid', '?')}{bugs}"


def _ago(seconds: float) -> str:
    """A time in the unit that a person would take."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
