"""The controller and the Map-Server as real processes on loopback addresses, port 4342; tunnel routers are sockets of
the test, and no hypervisor agent answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fmcc.steering.lisp import records_of
from lispfmc.runtime.client import ApiClient, ApiError, Unreachable
from lispfmc.runtime.udp import DgramSocket, open_dgram
from lispfmc.wire import auth
from lispfmc.wire.address import Endpoint, Prefix, ip_of
from lispfmc.wire.auth import Key
from lispfmc.wire.messages import MapRegister

pytestmark = pytest.mark.asyncio
MAPSERVER, FMCC = "127.42.0.1", "127.42.0.2"
SITES = {"access1": "127.42.0.11", "access2": "127.42.0.12", "dc1": "127.42.0.21", "dc2": "127.42.0.22"}
ALICE, APP = Prefix.parse("100.64.1.10/32"), Prefix.parse("100.64.101.10/32")
RANGES = '["100.64.1.0/24", "100.64.101.0/24"]'


def mapserver_toml(folder: Path) -> str:
    sites = "".join(
        f'[[sites]]\nname = "{name}"\nkey_id = 1\nsecret = "site-{name}"\nroaming = {RANGES}\n' for name in SITES
    )
    return f"""
name = "mapserver"
listen = ["{MAPSERVER}"]
{sites}
[[subscribers]]
name = "fmcc"
key_id = 4
secret = "pubsub"
ranges = {RANGES}
address = "{FMCC}"
[api]
listen = "unix:{folder}/mapserver.sock"
"""


def fmcc_toml(folder: Path) -> str:
    sites = "".join(
        f'[[sites]]\nname = "{name}"\nrlocs = ["{rloc}"]\n'
        + (
            f'kind = "datacenter"\nagent = "{rloc}:9350"\nagent_token = "t"\nkey_id = 3\nsecret = "s"\n'
            if name.startswith("dc")
            else 'kind = "access"\n'
        )
        for name, rloc in SITES.items()
    )
    return f"""
name = "fmcc"
mode = "act"
state_dir = "{folder}/state"
policy = "nearest"
scheme = "fig9"
rlocs = ["{FMCC}"]
ranges = {RANGES}
{sites}
[map_server]
address = "{MAPSERVER}"
key_id = 4
secret = "pubsub"
[[rtts]]
a = "access2"
b = "dc1"
ms = 250
[[rtts]]
a = "access2"
b = "dc2"
ms = 3
[[users]]
name = "alice"
eids = ["{ALICE}"]
[[services]]
name = "app"
user = "alice"
eids = ["{APP}"]
datacenter = "dc1"
[api]
listen = "unix:{folder}/fmcc.sock"
"""


class World:
    """Two daemons, and what the test needs to talk to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, Process] = {}
        self.api = ApiClient(f"unix:{folder}/fmcc.sock")
        self._nonces = itertools.count(time.time_ns())

    async def start(self, module: str, text: str) -> None:
        path = self.folder / f"{module}.toml"
        path.write_text(text)
        self.processes[module] = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, "--config", str(path), stderr=(self.folder / f"{module}.log").open("wb")
        )

    async def close(self) -> None:
        await self.api.close()
        for process in self.processes.values():
            if process.returncode is None:
                process.terminate()
                await process.wait()

    async def subscribed(self) -> None:
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(Unreachable):
                    status = await self.api.get("/v1/status")
                    if all(status["subscriptions"].values()):
                        return
                await asyncio.sleep(0.02)

    async def registers(self, site: str, eid: Prefix) -> None:
        rloc = ip_of(SITES[site])
        register = MapRegister.of(
            *records_of((eid,), (rloc,), 0), nonce=next(self._nonces), xtr_id=site.encode().ljust(16), site_id=bytes(8)
        )
        router: DgramSocket = await open_dgram(Endpoint(rloc, 4342), lambda _data, _source: None)
        router.send(auth.sign(register, Key(1, f"site-{site}".encode())), Endpoint(ip_of(MAPSERVER), 4342))
        router.close()

    async def event(self, name: str) -> dict[str, Any]:
        async with asyncio.timeout(10):
            async for event in self.api.events(0):
                if event["name"] == name:
                    fields: dict[str, Any] = event["fields"]
                    return fields
        raise AssertionError("the stream ended")


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    await world.start("mapserver", mapserver_toml(tmp_path))
    await world.start("fmcc", fmcc_toml(tmp_path))
    try:
        await world.subscribed()
        yield world
    finally:
        await world.close()


async def test_a_registration_becomes_a_decision_and_without_agents_the_service_stays(world: World) -> None:
    await world.registers("access2", ALICE)
    moved = await world.event("user.moved")
    assert (moved["user"], moved["eid"], moved["to"]) == ("alice", str(ALICE), "access2")
    decided = await world.event("decision.made")
    assert (decided["service"], decided["from"], decided["to"]) == ("app", "dc1", "dc2")
    assert "cannot reach" in (await world.event("migration.failed"))["reason"]
    (placement,) = (await world.api.get("/v1/placements"))["items"]
    assert (placement["datacenter"], placement["state"]) == ("dc1", "failed")
    (user,) = (await world.api.get("/v1/users"))["items"]
    assert (user["site"], user["distance_ms"]) == ("access2", 250)
    (move,) = (await world.api.get("/v1/moves"))["items"]
    assert [phase["name"] for phase in move["phases"]] == ["user.moved", "decided", "failed"]
    status = await world.api.get("/v1/status")
    assert status["bugs"] == 0
    assert status["not_ready"] == ["no answer from the agent of dc1", "no answer from the agent of dc2"]


REFUSED: list[tuple[dict[str, Any], int]] = [
    ({}, 400),
    ({"service": "app"}, 400),
    ({"service": "app", "to": 2}, 400),
    ({"service": "app", "to": "dc2", "force": True}, 400),
    ({"service": "none", "to": "dc2"}, 404),
    ({"service": "app", "to": "dc9"}, 403),
    ({"service": "app", "to": "dc1"}, 409),
]


async def test_a_request_that_cannot_be_is_answered_with_what_why_and_what_to_do(world: World) -> None:
    for body, status in REFUSED:
        with pytest.raises(ApiError) as refused:
            await world.api.post("/v1/moves", body)
        assert refused.value.status == status, body
        assert refused.value.what
        assert refused.value.do


async def test_a_requested_move_is_answered_with_its_id(world: World) -> None:
    move = await world.api.post("/v1/moves", {"service": "app", "to": "dc2"})
    assert (move["service"], move["to"], move["scheme"]) == ("app", "dc2", "fig9")
    assert (await world.event("migration.requested"))["move"] == move["id"]


async def test_a_decision_explains_itself_and_what_is_told_of_the_world_counts(world: World) -> None:
    assert await world.api.post("/v1/distances", {"a": "access2", "b": "dc2", "ms": 7.5}) == {
        "a": "access2", "b": "dc2", "ms": 7.5,
    }  # fmt: skip
    await world.api.post("/v1/remaining", {"service": "app", "remaining_s": 3600})
    await world.registers("access2", ALICE)
    await world.event("decision.made")
    (decision,) = (await world.api.get("/v1/decisions"))["items"]
    assert (decision["user"], decision["decision"], decision["to"]) == ("alice", "move", "dc2")
    assert (decision["rule"], decision["policy"]) == ("nearest", "nearest")
    assert decision["runner_up"]
    assert {each["datacenter"]: each["rtt_ms"] for each in decision["candidates"]} == {"dc1": 250, "dc2": 7.5}
    for path, body in (
        ("/v1/distances", {"a": "access2", "b": "nowhere", "ms": 1}),
        ("/v1/distances", {"a": "access2", "b": "dc2", "ms": -1}),
        ("/v1/distances", {"a": "access2", "b": "dc2", "ms": True}),
        ("/v1/distances", {"a": "access2"}),
        ("/v1/remaining", {"service": "none", "remaining_s": 1}),
        ("/v1/remaining", {"service": "app", "remaining_s": -1}),
        ("/v1/remaining", {"service": "app"}),
    ):
        with pytest.raises(ApiError) as refused:
            await world.api.post(path, body)
        assert refused.value.status == 400, body


async def test_sigterm_ends_the_controller_at_once_and_cleanly(world: World) -> None:
    process = world.processes["fmcc"]
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 5) == 0
    assert not (world.folder / "fmcc.sock").exists()
    assert "Traceback" not in (world.folder / "fmcc.log").read_text()


async def test_a_controller_that_is_started_anew_goes_on_from_its_history(world: World) -> None:
    added = await world.api.post("/v1/users", {"name": "bob", "eids": ["100.64.1.77/32"]})
    assert added["added"]
    move = await world.api.post("/v1/migrations", {"service": "app", "to": "dc2"})
    await world.event("migration.failed")
    last = (await world.api.get("/v1/status"))["last_event"]
    world.processes["fmcc"].terminate()
    assert await asyncio.wait_for(world.processes["fmcc"].wait(), 5) == 0
    await world.start("fmcc", fmcc_toml(world.folder))
    await world.subscribed()
    (again,) = (await world.api.get("/v1/migrations"))["items"]
    assert (again["id"], again["state"]) == (move["id"], "failed")
    assert {user["name"] for user in (await world.api.get("/v1/users"))["items"]} == {"alice", "bob"}
    async for event in world.api.events(last):
        assert event["name"] == "stream.gap"
        assert event["fields"]["oldest"] > last, "ids go on growing"
        break
