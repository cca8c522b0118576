"""`lispfmc status`, `show` and `monitor` against real APIs on unix sockets, and one that nobody serves."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lispfmc.lab.installation import Daemon, Installation
from lispfmc.runtime import logs
from lispfmc.runtime.events import EventLog
from lispfmc.runtime.http import Api
from lispfmc.runtime.rejects import Rejects
from lispfmc.wire.address import Endpoint, ip_of

pytestmark = pytest.mark.asyncio
NO_ONE = Endpoint(ip_of("198.18.0.9"), 4342)


async def lispfmc(*arguments: str) -> tuple[int, str]:
    """The command as a process of its own: exit code and stdout."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lispfmc.cli", *arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, out.decode()


class World:
    """A lab of one Map-Server whose API is real."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.listen = f"unix:{folder}/mapserver.sock"
        self.events, self.rejects = EventLog(), Rejects()
        self.missing: list[str] = []
        self.not_ready_answers = 0  # so many times more it is asked in vain
        self.api = Api("mapserver", "mapserver", self.events, self.rejects, dict[str, Any], self._not_ready)
        self.api.get("/v1/registrations", self._registrations)

    def _not_ready(self) -> list[str]:
        if self.not_ready_answers:
            self.not_ready_answers -= 1
            return ["not yet"]
        return self.missing

    def _registrations(self) -> dict[str, Any]:
        locators = [
            {"rloc": "2001:2::11", "priority": 2, "weight": 100},
            {"rloc": "198.18.0.11", "priority": 1, "weight": 100},
        ]
        return {"items": [{"eid": "100.64.1.10/32", "site": "access1", "locators": locators, "version": 0}]}

    def write(self, *more: Daemon) -> None:
        lab = Installation(
            "t", "t", "namespaces", [Daemon("mapserver", "mapserver", self.listen), *more], [], "198.18.0.1"
        )
        (self._folder / "t").mkdir()
        (self._folder / "t" / "lab.json").write_bytes(msgspec.json.encode(lab))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("LISPFMC_RUN", str(tmp_path))
    return World(tmp_path)


@pytest.mark.parametrize(("missing", "code", "state"), [([], 0, "ready"), (["no store"], 1, "not-ready")])
async def test_status_ends_as_the_daemons_are(world: World, missing: list[str], code: int, state: str) -> None:
    world.write()
    world.missing += missing
    await world.api.start(world.listen)
    try:
        ended, out = await lispfmc("status", "-o", "json")
    finally:
        await world.api.close()
    (daemon,) = json.loads(out)["daemons"]
    assert (ended, daemon["state"], daemon["reasons"]) == (code, state, missing)


async def test_a_daemon_that_does_not_answer_is_2_and_the_others_are_still_shown(world: World) -> None:
    world.write(Daemon("gone", "xtr", "unix:/nowhere/gone.sock"))
    await world.api.start(world.listen)
    try:
        ended, out = await lispfmc("status")
    finally:
        await world.api.close()
    assert ended == 2
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert "ready" in lines["mapserver"]
    assert "unreachable" in lines["gone"]


async def test_a_daemon_that_is_gone_was_last_seen_when_it_last_marked_its_socket(world: World, tmp_path: Path) -> None:
    killed, never = tmp_path / "killed.sock", tmp_path / "never.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(killed))
    world.write(Daemon("killed", "xtr", f"unix:{killed}"), Daemon("never", "xtr", f"unix:{never}"))
    os.utime(killed, (1000.0, 1000.0))
    (tmp_path / "t/killed.pid").write_text("1 1\n")
    os.utime(tmp_path / "t/killed.pid", (900.0, 900.0))
    _, out = await lispfmc("status", "-o", "json")
    seen = {each["name"]: each.get("last_seen") for each in json.loads(out)["daemons"]}
    assert (seen["killed"], seen["never"]) == (1000.0, None)
    ended, out = await lispfmc("status")
    assert ended == 2
    assert "last seen at" in next(line for line in out.splitlines() if line.startswith("killed"))


async def test_the_log_level_is_shown_set_and_only_named_in_a_dry_run(world: World) -> None:
    world.write(Daemon("gone", "xtr", "unix:/nowhere/gone.sock"))
    before = logs.level()
    await world.api.start(world.listen)
    try:
        asked = ["log", "--at", "mapserver", "--level", "error", "-o", "json"]
        _, out = await lispfmc(*asked, "--dry-run")
        assert json.loads(out)["items"] == [
            {"daemon": "mapserver", "level": "error", "before": before, "dry_run": True}
        ]
        assert logs.level() == before
        _, out = await lispfmc(*asked)
        assert json.loads(out)["items"] == [{"daemon": "mapserver", "level": "error", "before": before}]
        assert logs.level() == "error"
        ended, out = await lispfmc("log", "-o", "json")
        assert ended == 2, "one does not answer; the others are shown"
        assert json.loads(out)["items"] == [{"daemon": "mapserver", "level": "error"}]
        assert (await lispfmc("log", "--at", "nobody"))[0] == 64
        assert world.events.counts == {"log.changed": 1}
    finally:
        await world.api.close()
        logs.set_level(before)


async def test_status_can_wait_until_all_is_ready(world: World) -> None:
    world.write()
    world.not_ready_answers = 2
    await world.api.start(world.listen)
    try:
        assert (await lispfmc("status", "--wait", "--timeout", "20"))[0] == 0
    finally:
        await world.api.close()
    assert world.not_ready_answers == 0


async def test_a_table_shows_the_most_preferred_locator_first(world: World) -> None:
    world.write()
    await world.api.start(world.listen)
    try:
        _, out = await lispfmc("show", "registrations")
        ended, document = await lispfmc("show", "registrations", "-o", "json")
    finally:
        await world.api.close()
    assert out.index("198.18.0.11/1/100") < out.index("2001:2::11/2/100")
    assert ended == 0
    assert json.loads(document)["items"][0]["daemon"] == "mapserver"


async def test_rejects_are_counted_by_reason(world: World) -> None:
    world.write()
    world.rejects.add("replayed-nonce", NO_ONE, "once")
    await world.api.start(world.listen)
    try:
        _, out = await lispfmc("show", "rejects", "-o", "json")
    finally:
        await world.api.close()
    assert json.loads(out)["items"] == [{"daemon": "mapserver", "reason": "replayed-nonce", "count": 1}]


async def test_the_monitor_writes_one_object_a_line_for_the_eid_that_was_asked_for(world: World) -> None:
    world.write()
    world.events.append("registration.added", {"eid": "100.64.1.10/32"})
    world.events.append("registration.added", {"eid": "100.64.2.10/32"})
    world.events.append("registration.changed", {"eid": "100.64.1.10/32"})
    await world.api.start(world.listen)
    command = [sys.executable, "-m", "lispfmc.cli", "monitor", "--snapshot", "--eid", "100.64.1.10", "-o", "json"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        lines = [json.loads(await asyncio.wait_for(process.stdout.readline(), 20)) for _ in range(2)]
    finally:
        process.terminate()
        await process.wait()
        await world.api.close()
    assert [one["name"] for one in lines] == ["registration.added", "registration.changed"]
    assert {one["fields"]["eid"] for one in lines} == {"100.64.1.10/32"}
