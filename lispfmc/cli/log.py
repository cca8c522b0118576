"""`lispfmc log`: from which level on daemons log, and another level while they run."""

from __future__ import annotations

import asyncio
from typing import Any

from lispfmc.cli.failure import DONE, UNREACHABLE, unknown
from lispfmc.cli.output import Format, print_items, say
from lispfmc.lab.installation import Daemon, load
from lispfmc.runtime.client import Unreachable

COLUMNS = {"DAEMON": "daemon", "LEVEL": "level", "BEFORE": "before"}


async def log(*, at: str | None, level: str | None, dry_run: bool, lab_name: str | None, output: Format) -> int:
    """Show the level of every daemon, or of the one; with `level` set it. Exit 2 when one does not answer."""
    daemons = [each for each in load(lab_name).daemons if each.has_local_api]
    if at is not None:
        chosen = [each for each in daemons if each.name == at]
        if not chosen:
            raise unknown("daemon", at, (each.name for each in daemons))
        daemons = chosen
    answers = await asyncio.gather(*(_ask(each, level, dry_run=dry_run) for each in daemons))
    items = [answer for answer in answers if answer is not None]
    columns = COLUMNS if level is not None else {title: key for title, key in COLUMNS.items() if key != "before"}
    print_items(items, columns, output, empty="no daemons")
    return DONE if len(items) == len(answers) else UNREACHABLE


async def _ask(daemon: Daemon, level: str | None, *, dry_run: bool) -> dict[str, Any] | None:
    """What one daemon answers; None: nothing, which is said."""
    try:
        async with daemon.client() as api:
            now = await api.get("/v1/log")
            if level is None:
                return {"daemon": daemon.name, **now}
            if dry_run:
                return {"daemon": daemon.name, "level": level, "before": now["level"], "dry_run": True}
            return {"daemon": daemon.name, **await api.post("/v1/log", {"level": level})}
    except Unreachable as error:
        say(f"lispfmc: {daemon.name}: {error}")
        return None
