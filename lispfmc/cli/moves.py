"""`lispfmc moves list|start|abort`: the moves of services, by the controller's API."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote, urlencode

from lispfmc.cli.failure import CONDITION, DONE
from lispfmc.cli.output import Format, print_items, print_json, print_text, say
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
    return DONE if move["state"] in {"preparing", "warming", "copying"} else CONDITION


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
