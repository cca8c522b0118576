"""The HTTP API and its client, over a unix socket and TCP, on asyncio and on uvloop."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop

from lispfmc.runtime import http
from lispfmc.runtime.client import ApiClient, ApiError, Unreachable
from lispfmc.runtime.events import EventLog
from lispfmc.runtime.http import Api, Refused
from lispfmc.runtime.rejects import Rejects
from lispfmc.wire.address import Endpoint, ip_of
from lispfmc.wire.errors import LocalError

Run = Callable[..., Any]
LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


class World:
    def __init__(self, token: str | None = None) -> None:
        self.events = EventLog(first_id=1)
        self.rejects = Rejects()
        self.missing = ["sockets"]
        self.api = Api(
            "xtr", "access1", self.events, self.rejects, lambda: {"hosts": 2}, lambda: self.missing, token=token
        )
        self.api.get("/v1/hosts", lambda: {"items": [1]})
        self.api.get("/v1/broken", lambda: list[int]()[1])
        self.api.post("/v1/moves", self.move)

    async def move(self, body: dict[str, Any]) -> dict[str, Any]:
        if "to" not in body:
            raise Refused("no destination", why="`to` is missing", do="name a data centre", status=422)
        return {"moved": body["to"]}


@asynccontextmanager
async def running(listen: str, token: str | None = None) -> AsyncIterator[tuple[World, ApiClient]]:
    world = World(token)
    await world.api.start(listen)
    where = f"127.0.0.1:{world.api.port}" if world.api.port else listen
    async with ApiClient(where, token=token) as client:
        try:
            yield world, client
        finally:
            await world.api.close()


@LOOPS
def test_the_daemon_answers_on_a_private_unix_socket_and_on_loopback(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"

    async def story() -> None:
        for listen in (f"unix:{path}", "127.0.0.1:0"):
            async with running(listen) as (world, client):
                if listen.startswith("unix:"):
                    assert stat.S_IMODE(path.stat().st_mode) == 0o600
                assert await client.get("/healthz") == {"healthy": True}
                assert await client.get("/readyz") == {"ready": False, "missing": ["sockets"]}
                world.missing = []
                assert await client.get("/readyz") == {"ready": True, "missing": []}
                status = await client.get("/v1/status")
                assert (status["daemon"], status["name"], status["hosts"]) == ("xtr", "access1", 2)
                assert await client.get("/v1/hosts") == {"items": [1]}
                assert await client.post("/v1/moves", {"to": "dc2"}) == {"moved": "dc2"}
        assert not path.exists()

    run(story())


@LOOPS
def test_errors_say_what_why_and_what_to_do(run: Run, tmp_path: Path) -> None:
    async def story() -> None:
        async with running(f"unix:{tmp_path}/a.sock") as (world, client):
            with pytest.raises(ApiError) as refused:
                await client.post("/v1/moves", {})
            error = refused.value
            assert (error.status, error.what, error.why) == (422, "no destination", "`to` is missing")
            assert error.do == "name a data centre"
            for path, status in (
                ("/v1/nothing", 404),
                ("/v1/broken", 500),
                ("/v1/moves", 405),
                ("/v1/events?after=x", 400),
            ):
                with pytest.raises(ApiError) as refused:
                    await client.get(path)
                assert refused.value.status == status
            assert world.rejects.bugs == 1
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(f"{tmp_path}/a.sock")) as session:
                # what a web page of another origin can send without being asked first
                async with session.post("http://x/v1/moves", data='{"to": "dc2"}') as answer:
                    assert answer.status == 415
                async with session.post(
                    "http://x/v1/moves", data="[1", headers={"Content-Type": "application/json"}
                ) as answer:
                    assert answer.status == 400
                    assert set((await answer.json())["error"]) == {"what", "why", "do"}

    run(story())


@LOOPS
def test_with_a_token_everything_below_v1_asks_for_it(run: Run) -> None:
    async def story() -> None:
        async with running("127.0.0.1:0", token="t0ken") as (_world, client):
            assert await client.get("/v1/hosts") == {"items": [1]}
            async with ApiClient(client.listen, token="wrong") as liar:
                assert await liar.get("/healthz") == {"healthy": True}
                with pytest.raises(ApiError, match="not authorised"):
                    await liar.get("/v1/hosts")
                with pytest.raises(ApiError, match="not authorised"):
                    await anext(liar.events())

    run(story())


@LOOPS
def test_metrics_show_events_rejects_and_bugs_without_addresses(run: Run, tmp_path: Path) -> None:
    async def story() -> None:
        async with running(f"unix:{tmp_path}/a.sock") as (world, client):
            world.events.append("host.arrived", {"eid": "100.64.1.10/32"})
            world.rejects.add("malformed", Endpoint(ip_of("198.18.0.1"), 4342), "x")
            world.api.metrics.gauge("lispfmc_hosts", "Hosts here", lambda: 3)
            text = await client.get("/metrics")
            for line in (
                'lispfmc_events_total{name="host.arrived"} 1.0',
                'lispfmc_rejected_total{reason="malformed"} 1.0',
                "lispfmc_bugs_total 0.0",
                "lispfmc_hosts 3.0",
            ):
                assert line in text.splitlines()
            assert "100.64" not in text
            rejects = await client.get("/v1/rejects")
            assert rejects["items"][0]["source"] == "198.18.0.1:4342"

    run(story())


@LOOPS
def test_the_event_stream_is_resumed_where_it_broke(run: Run, tmp_path: Path) -> None:
    async def story() -> None:
        async with running(f"unix:{tmp_path}/a.sock") as (world, client):
            for number in range(3):
                world.events.append(f"n{number}", {"eid": "100.64.1.10/32"})
            stream = client.events(after=1)
            first = await anext(stream)
            assert (first["id"], first["name"], first["fields"]) == (2, "n1", {"eid": "100.64.1.10/32"})
            assert (await anext(stream))["name"] == "n2"
            world.events.append("n3")
            assert (await anext(stream))["name"] == "n3"
            await stream.aclose()
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(f"{tmp_path}/a.sock")) as session:
                resumed = session.get("http://x/v1/events?after=0", headers={"Last-Event-ID": "3"})
                async with resumed as answer:
                    assert answer.headers["Content-Type"] == "text/event-stream"
                    lines = [await answer.content.readline() for _ in range(6)]
            assert lines[:2] == [b": lispfmc xtr access1\n", b"retry: 1000\n"]
            assert lines[3:5] == [b"id: 4\n", b"event: n3\n"]
            assert json.loads(lines[5].removeprefix(b"data: "))["id"] == 4

    run(story())


@LOOPS
def test_a_client_that_reconnects_misses_nothing_of_a_restarted_daemon(run: Run, tmp_path: Path) -> None:
    listen = f"unix:{tmp_path}/a.sock"

    async def story() -> None:
        async with ApiClient(listen) as client:
            async with running(listen) as (world, _):
                world.events.append("before")
                stream = client.events(after=0, reconnect=True)
                assert (await anext(stream))["name"] == "before"
            again = asyncio.ensure_future(anext(stream))
            async with running(listen) as (world, _):
                world.events.append("while away")
                world.events.append("after")
                assert (await asyncio.wait_for(again, 5))["name"] == "after"
                await stream.aclose()

    run(story())


@LOOPS
def test_a_client_that_does_not_read_is_dropped_and_stalls_nobody(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "SLOW_CLIENT", 0.2)

    async def story() -> None:
        async with running(f"unix:{tmp_path}/a.sock") as (world, client):
            reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/a.sock", limit=1024)
            writer.write(b"GET /v1/events?after=0 HTTP/1.1\r\nHost: x\r\n\r\n")
            await reader.readline()
            for _ in range(4000):
                world.events.append("big", {"detail": "x" * 1000})
            async with asyncio.timeout(5):
                while world.api._streams:
                    assert await client.get("/healthz") == {"healthy": True}
            writer.close()

    run(story())


@LOOPS
def test_a_stale_socket_gives_way_and_a_live_one_does_not(run: Run, tmp_path: Path) -> None:
    listen = f"unix:{tmp_path}/a.sock"

    async def story() -> None:
        async with running(listen):
            with pytest.raises(LocalError, match="another daemon answers there"):
                await World().api.start(listen)
        left_behind = await asyncio.start_unix_server(lambda _reader, _writer: None, f"{tmp_path}/a.sock")
        left_behind.close()
        await left_behind.wait_closed()
        async with running(listen) as (world, client):
            assert await client.get("/healthz") == {"healthy": True}
            await world.api.close()
            with pytest.raises(Unreachable, match=r"a\.sock: cannot reach the daemon, [a-z ]+; is it running\?$"):
                await client.get("/healthz")

    run(story())
