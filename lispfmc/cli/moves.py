"""`lispfmc moves list|show|start|abort`: the moves of services, by the controller's API."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote, urlencode

from lispfmc.cli.failure import CONDITION, DONE
from lispfmc.cli.output import Format, print_items, print_json, print_table, print_text, say
from lispfmc.lab.installation import load
from lispfmc.runtime.client import ApiError

COLUMNS = {
    "STARTED": "started",
    "SERVICE": "service",
    "FROM": "from",
    "TO": "to",
    "STATE": "state",
    "TOOK MS": "took_ms",
    "ID": "id",
    "REASON": "reason",
}


PHASES = {
    "decided": "it was decided",
    "admitted": "it had waited for other moves, and begins",
    "prepared": "both hypervisors are ready",
    "warmed": "PREPARE: the network is ready, as far as the scheme prepares it",
    "copy.started": "the hypervisor copies the service",
    "stopped": "STOP: the service stands still",
    "resumed": "RESUME: it runs at the target",
    "notified": "the tunnel routers are told",
    "active": "ACTIVATE: the target's tunnel router delivers",
    "acknowledged": "both tunnel routers have answered",
    "committed": "COMMIT: the Map-Server has published it",
    "unconfirmed": "it runs there, and the Map-Server has not said so in time",
    "found": "an agent has found it there",
    "failed": "it failed",
}
"""What the controller keeps of a move, in words; a name that is not here is shown as it is."""


async def shown(move: str, *, lab_name: str | None, output: Format) -> int:
    """Exit 1 when the controller knows no such move."""
    async with load(lab_name).the("fmcc").client() as api:
        try:
            found = await api.get(f"/v1/migrations/{quote(move, safe='')}")
        except ApiError as error:
            say(f"lispfmc: {error}")
            return CONDITION
    if output is Format.json:
        print_json(found)
        return DONE
    _tell(found)
    print_table(("MS", "SINCE THE ONE BEFORE", "PHASE", ""), timeline(found["phases"]))
    if found["blackout_events_ms"] is not None:
        print_text(f"STOP to RESUME by the hypervisors' clocks: {found['blackout_events_ms']:.1f} ms")
    return DONE


def timeline(phases: list[dict[str, Any]]) -> list[list[object]]:
    """A row for each phase, by time: from the decision, from the phase before, its name, what it means."""
    rows: list[list[object]] = []
    before = 0.0
    for phase in sorted(phases, key=lambda one: one["at_ms"]):
        since = phase["at_ms"] - before
        rows.append([f"{phase['at_ms']:.1f}", f"{since:.1f}", phase["name"], PHASES.get(phase["name"], "")])
        before = phase["at_ms"]
    return rows


async def listed(service: str | None, *, limit: int, lab_name: str | None, output: Format) -> int:
    query = {"limit": str(limit)} | ({"service": service} if service is not None else {})
    async with load(lab_name).the("fmcc").client() as api:
        items = (await api.get(f"/v1/migrations?{urlencode(query)}"))["items"]
    if output is Format.table:
        items = [item | {"started": _clock(item["started_at"]), "took_ms": _took_ms(item)} for item in items]
    print_items(items, COLUMNS, output, empty="nothing has moved yet")
    return DONE


async def started(service: str, to: str, *, scheme: str, dry_run: bool, lab_name: str | None, output: Format) -> int:
    path = "/v1/migrations/check" if dry_run else "/v1/migrations"
    return await _asked(path, {"service": service, "to": to, "scheme": scheme}, lab_name, output)


async def aborted(move: str, *, dry_run: bool, lab_name: str | None, output: Format) -> int:
    path = f"/v1/migrations/{quote(move, safe='')}"
    if dry_run:
        return await _seen(path, lab_name, output)
    return await _asked(f"{path}/abort", {}, lab_name, output)


async def _seen(path: str, lab_name: str | None, output: Format) -> int:
    """What would be given up. Exit 1 when there is no such move, or it has ended."""
    async with load(lab_name).the("fmcc").client() as api:
        try:
            move = await api.get(path)
        except ApiError as error:
            say(f"lispfmc: {error}")
            return CONDITION
    if output is Format.json:
        print_json(move)
    else:
        _tell(move)
    return DONE if move["state"] in {"queued", "preparing", "warming", "copying"} else CONDITION


async def _asked(path: str, body: dict[str, Any], lab_name: str | None, output: Format) -> int:
    """Exit 1 when the controller refuses: the condition for it is not met."""
    async with load(lab_name).the("fmcc").client() as api:
        try:
            move = await api.post(path, body)
        except ApiError as error:
            say(f"lispfmc: {error}")
            return CONDITION
    if output is Format.json:
        print_json(move)
    else:
        _tell(move)
    return DONE


def _tell(move: dict[str, Any]) -> None:
    what = f"{move['service']} from {move['from']} to {move['to']}"
    if "id" not in move:
        print_text(f"{what} by {move['scheme']}: it could move now")
        return
    why = f" ({move['reason']})" if move["reason"] else ""
    print_text(f"{move['id']}: {what}: {move['state']}{why}")


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _took_ms(move: dict[str, Any]) -> float | None:
    return move["phases"][-1]["at_ms"] if move["phases"] else None
