"""The controller's ends of the agents: what they tell, in order, and where machines are."""

from __future__ import annotations

import asyncio

import pytest

from fmcc.agents import Agents
from fmcc.effects import AbortMigration, PrepareMigration, StartMigration
from fmcc.moves import AgentReport, Failed, Prepared, Resumed, Stopped
from tests.integration.agent_pair import BODY, MakePair, eventually, ignored, left_frozen

pytestmark = pytest.mark.asyncio


async def test_the_controller_hears_which_machines_run_where_first_and_whenever_it_may_have_changed(
    make_pair: MakePair,
) -> None:
    pair = await make_pair(copy_s=0.0)
    found: asyncio.Queue[tuple[str, tuple[str, ...]]] = asyncio.Queue()
    agents = Agents(
        pair.clients,
        lambda move, report: None,
        lambda datacenter: None,
        lambda datacenter, machines, asked: found.put_nowait((datacenter, tuple(machines))),
    )
    following = [asyncio.create_task(agents.follow(name)) for name in pair.ports]

    async def hears(*expected: tuple[str, tuple[str, ...]]) -> None:
        missing = set(expected)
        async with asyncio.timeout(10):
            while missing:
                missing.discard(await found.get())

    try:
        await hears(("dc1", ("app",)), ("dc2", ()))
        await pair.prepare()
        await pair.clients["dc1"].post("/v1/migrations", BODY)  # not by this controller
        await hears(("dc2", ("app",)))
        await pair.stop("dc1")
        await left_frozen(pair, last_site="dc1")
        await pair.start_agent("dc1")
        await hears(("dc1", ("app",)), ("dc2", ()))
        await agents.perform(PrepareMigration("m2", "app", "dc2", "dc1"))
        await hears(("dc1", ("app",)))
        pair.node.refuses_thaw_at = "dc2"
        await pair.prepare()
        await pair.clients["dc1"].post("/v1/migrations", BODY)
        await hears(("dc1", ("app",)))
    finally:
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)


async def test_a_machine_that_the_controller_moved_itself_needs_no_question_about_all_machines(
    make_pair: MakePair,
) -> None:
    """A hundred that resume at once would be a hundred questions about a hundred machines."""
    pair = await make_pair(copy_s=0.0)
    found: asyncio.Queue[tuple[str, tuple[str, ...]]] = asyncio.Queue()
    reports: asyncio.Queue[AgentReport] = asyncio.Queue()
    agents = Agents(
        pair.clients,
        lambda move, report: reports.put_nowait(report),
        lambda datacenter: None,
        lambda datacenter, machines, asked: found.put_nowait((datacenter, tuple(machines))),
    )
    following = [asyncio.create_task(agents.follow(name)) for name in pair.ports]
    try:
        async with asyncio.timeout(10):
            assert {await found.get(), await found.get()} == {("dc1", ("app",)), ("dc2", ())}
            await agents.perform(PrepareMigration("m1", "app", "dc1", "dc2"))
            await agents.perform(StartMigration("m1", "app", "dc1", "dc2"))
            while not isinstance(await reports.get(), Resumed):
                pass
            back = {**BODY, "move": "m2", "from": "dc2", "to": "dc1"}
            await eventually(lambda: pair.node.site == "dc2")
            await pair.clients["dc1"].post("/v1/migrations/prepare", back)
            await pair.clients["dc2"].post("/v1/migrations/prepare", back)
            await pair.clients["dc2"].post("/v1/migrations", back)  # not by this controller
            assert await found.get() == ("dc1", ("app",))
    finally:
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)


async def test_the_controllers_side_hears_every_step_in_order(make_pair: MakePair) -> None:
    pair = await make_pair(copy_s=0.3)
    reports: asyncio.Queue[tuple[str, AgentReport]] = asyncio.Queue()
    agents = Agents(pair.clients, lambda move, report: reports.put_nowait((move, report)), lambda _: None, ignored)
    following = [asyncio.create_task(agents.follow(name)) for name in pair.ports]
    try:
        async with asyncio.timeout(10):
            await eventually(lambda: set(pair.ports) <= agents.following)
            await agents.perform(PrepareMigration("m1", "app", "dc1", "dc2"))
            await agents.perform(StartMigration("m1", "app", "dc1", "dc2"))
            heard = [await reports.get()]
            while not isinstance(heard[-1][1], Resumed):
                heard.append(await reports.get())
            await agents.perform(AbortMigration("m1", "app", "dc1", "dc2"))  # too late, and no error
            await agents.perform(PrepareMigration("m2", "app", "dc1", "dc2"))  # it is not there any more
            last = await reports.get()
    finally:
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
    assert isinstance(heard[0][1], Prepared)
    assert isinstance(heard[-2][1], Stopped)
    assert {move for move, _ in heard} == {"m1"}
    assert isinstance(last[1], Failed)
    assert "here already" in last[1].reason
