"""Something else answers where the controller looks for its agents and routers: it says so, and goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import web

from fmcc.agents import Agents
from fmcc.parts import Parts
from fmcc.routers import Routers
from lispfmc.runtime.client import ApiClient
from lispfmc.runtime.events import EventLog
from tests.integration.agent_pair import eventually

pytestmark = pytest.mark.asyncio

STATUSES = ["{}", "[]", "nonsense", '{"last_event": "x"}']
EVENTS = [
    "{}",
    '{"id": 1}',
    '{"id": 2, "name": "hypervisor.resumed", "fields": {}}',
    "nonsense",
    "[]",
    '{"id": 3, "name": "hypervisor.failed", "fields": "x"}',
]


@pytest_asyncio.fixture(name="client")
async def answers_nonsense() -> AsyncIterator[tuple[ApiClient, list[str], list[str]]]:
    """A client of a server that gives these statuses and events, one at each request."""
    statuses, events = list(STATUSES), list(EVENTS)

    async def status(_: web.Request) -> web.Response:
        text = statuses.pop(0) if statuses else json.dumps({"last_event": 0})
        return web.Response(text=text, content_type="application/json")

    async def stream(_: web.Request) -> web.Response:
        return web.Response(text=f"data: {events.pop(0)}\n\n" if events else "", content_type="text/event-stream")

    app = web.Application()
    app.add_routes([web.get("/v1/status", status), web.get("/v1/events", stream)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with ApiClient(f"127.0.0.1:{runner.addresses[0][1]}") as made:
        yield made, statuses, events
    await runner.cleanup()


async def test_an_agents_place_that_answers_nonsense_does_not_end_the_controller(
    client: tuple[ApiClient, list[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmcc.agents.FOLLOW_AGAIN_S", 0.01)
    made, statuses, events = client
    reasons: list[str] = []
    agents = Agents(
        {"dc1": made}, lambda *_: None, lambda _: None, lambda *_: None, reached=lambda _, why: reasons.append(why)
    )
    following = asyncio.create_task(agents.follow("dc1"))
    await eventually(lambda: following.done() or not (statuses or events))
    assert not following.done()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert "what answers there is no daemon of ours (KeyError: 'last_event'); see the address" in reasons[0]


async def test_a_routers_place_that_answers_nonsense_does_not_either(
    client: tuple[ApiClient, list[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmcc.routers.AGAIN_S", 0.01)
    made, statuses, events = client
    routers = Routers({"access1": made}, Parts(EventLog()), EventLog())
    following = asyncio.create_task(routers.follow("access1"))
    await eventually(lambda: following.done() or not (statuses or events))
    assert not following.done()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
