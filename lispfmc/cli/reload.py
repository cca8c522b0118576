"""`lispfmc reload`: have daemons read their configuration anew, and say what that changed."""

from __future__ import annotations

import asyncio
from typing import Any

from lispfmc.cli.failure import CONFIG, DONE, unknown
from lispfmc.cli.output import Format, print_json, print_text, say
from lispfmc.lab.installation import Daemon, load

ROLE = "mapserver"  # whose configuration can change while it runs


async def reload(*, at: str | None, dry_run: bool, lab_name: str | None, output: Format) -> int:
    """Exits with 78 when a daemon has kept its configuration, or with `dry_run` would keep it."""
    daemons = [each for each in load(lab_name).daemons if each.role == ROLE and each.has_local_api]
    if at is not None:
        daemons = [each for each in daemons if each.name == at] or _none(at, daemons)
    items = await asyncio.gather(*(_ask(each, dry_run=dry_run) for each in daemons))
    if output is Format.json:
        print_json({"items": items})
    else:
        for item in items:
            _tell(item, dry_run=dry_run)
    return CONFIG if any(item["why"] for item in items) else DONE


def _none(at: str, daemons: list[Daemon]) -> list[Daemon]:
    raise unknown("Map-Server", at, (each.name for each in daemons))


async def _ask(daemon: Daemon, *, dry_run: bool) -> dict[str, Any]:
    async with daemon.client() as api:
        return {"daemon": daemon.name, **await api.post("/v1/reload", {"dry_run": dry_run})}


def _tell(item: dict[str, Any], *, dry_run: bool) -> None:
    for change in item["changes"]:
        print_text(f"{item['daemon']}: {change}")
    if item["why"]:
        say(f"{item['daemon']}: {'would keep' if dry_run else 'kept'} its configuration: {item['why']}")
    elif not item["changes"]:
        say(f"{item['daemon']}: nothing has changed")
