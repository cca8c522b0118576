"""`lispfmc monitor`: the event streams of all daemons, merged as they come, until interrupted."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from lispfmc.cli.failure import DONE
from lispfmc.cli.output import Format, cell, print_json_line, print_text, say
from lispfmc.lab.installation import Daemon, load
from lispfmc.runtime.client import Unreachable


async def monitor(*, lab_name: str | None, snapshot: bool, eid: str | None, output: Format) -> int:
    """A daemon that goes away is waited for; its stream goes on where it broke."""
    lab = load(lab_name)
    daemons = [daemon for daemon in lab.daemons if daemon.role != "agent"]  # the controller repeats what agents say
    events: asyncio.Queue[tuple[Daemon, dict[str, Any]]] = asyncio.Queue(maxsize=1024)
    if output is Format.table:
        say(f"events of {', '.join(daemon.name for daemon in daemons)}; Ctrl-C ends")
    try:
        async with asyncio.TaskGroup() as readers:
            for daemon in daemons:
                readers.create_task(_read(daemon, 0 if snapshot else None, events))
            await _print_all(events, eid, output)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from group  # one line says it; the others are consequences
    return DONE


async def _print_all(events: asyncio.Queue[tuple[Daemon, dict[str, Any]]], eid: str | None, output: Format) -> None:
    while True:
        daemon, event = await events.get()
        if eid is None or _names(event["fields"], eid):
            _print(daemon, event, output)


async def _read(daemon: Daemon, after: int | None, events: asyncio.Queue[tuple[Daemon, dict[str, Any]]]) -> None:
    told = False

    def broken(error: Unreachable) -> None:
        nonlocal told
        if not told:
            say(f"lispfmc: {daemon.name}: {error} waiting for it")
        told = True

    async with daemon.client() as api:
        async for event in api.events(after, reconnect=True, broken=broken):
            told = False
            await events.put((daemon, event))


def _names(fields: dict[str, Any], eid: str) -> bool:
    """True when the event is about `eid`: an address matches its host route too."""
    named = [str(fields.get("eid", "")), *map(str, fields.get("eids") or [])]
    return any(one == eid or one.rsplit("/", 1)[0] == eid for one in named)


def _print(daemon: Daemon, event: dict[str, Any], output: Format) -> None:
    if output is Format.json:
        print_json_line({"daemon": daemon.name, "role": daemon.role, **event})
        return
    at = event["time"]
    clock = time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at * 1000) % 1000:03d}"
    fields = "  ".join(f"{key}={cell(value)}" for key, value in event["fields"].items())
    print_text(f"{clock}  {daemon.name:<14} {event['name']:<26} {fields}")
