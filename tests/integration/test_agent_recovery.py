"""Emulated machines that were left frozen run again, and never at two places."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from fmcc.hypervisor.agent import Agent
from fmcc.hypervisor.settings import AgentSettings
from lispfmc.runtime.events import EventLog
from lispfmc.runtime.rejects import Rejects
from lispfmc.wire.address import Endpoint, ip_of
from tests.integration.agent_pair import BODY, MakePair, eventually, free_port, left_frozen

pytestmark = pytest.mark.asyncio


async def test_an_agent_killed_between_freeze_and_thaw_resumes_the_machine_at_its_next_start(
    make_pair: MakePair, tmp_path: Path
) -> None:
    pair = await make_pair(copy_s=0.0, pause_ms=60_000.0)
    await pair.stop("dc1")
    config = tmp_path / "dc1.toml"
    config.write_text(as_toml(pair.settings["dc1"]))
    command = (sys.executable, "-m", "fmcc.hypervisor.agent", "--config", str(config))
    killed = await asyncio.create_subprocess_exec(*command)
    try:
        await pair.answers("dc1")
        await pair.stop("dc2")
        await pair.start_agent("dc2")
        await pair.prepare()
        await pair.clients["dc1"].post("/v1/migrations", BODY)
        await pair.until("dc1", "stopped")
    finally:
        killed.kill()
        await killed.wait()
    assert pair.node.process_state() == "T"
    await pair.stop("dc2")  # it was about to resume it, and is gone as well
    await pair.start_agent("dc1")
    await asyncio.sleep(0.7)
    assert pair.node.process_state() == "T", "the other agent cannot be asked: it may be resuming it"
    await pair.start_agent("dc2")
    await eventually(lambda: pair.node.process_state() != "T")
    assert pair.node.site == "dc1"


async def test_a_machine_that_was_left_frozen_is_resumed_where_it_was_last_up(make_pair: MakePair) -> None:
    pair = await make_pair()
    await pair.stop("dc1")
    await left_frozen(pair, last_site="dc2")
    await pair.start_agent("dc1")
    recovered = await pair.until("dc1", "recovered")
    assert (recovered["machine"], recovered["datacenter"]) == ("app", "dc2")
    assert (pair.node.site, pair.node.frozen) == ("dc2", False)


async def test_where_nothing_is_known_a_frozen_machine_is_resumed_at_the_agents_own_data_centre(
    make_pair: MakePair,
) -> None:
    pair = await make_pair()
    await pair.stop("dc1")
    await left_frozen(pair, last_site="access1")
    await pair.start_agent("dc1")
    assert (await pair.until("dc1", "recovered"))["datacenter"] == "dc1"


async def test_a_target_that_waits_for_the_state_of_a_dead_source_is_called_off(make_pair: MakePair) -> None:
    pair = await make_pair()
    await pair.prepare()
    await pair.stop("dc1")
    await left_frozen(pair)
    await pair.start_agent("dc1")
    await pair.until("dc1", "recovered")
    (end,) = (await pair.clients["dc2"].get("/v1/migrations"))["items"]
    assert (end["role"], end["state"]) == ("target", "ended")
    assert pair.node.site == "dc1"


async def test_a_machine_that_another_agent_is_moving_is_left_alone(make_pair: MakePair) -> None:
    pair = await make_pair(copy_s=0.0, pause_ms=1500.0)
    await pair.prepare()
    await pair.clients["dc1"].post("/v1/migrations", BODY)
    await pair.until("dc1", "stopped")
    peers = pair.settings["dc1"].peers + pair.settings["dc2"].peers
    listen = Endpoint(ip_of("127.0.0.1"), free_port())
    third = pair.settings["dc1"].model_copy(update={"datacenter": "dc3", "listen": listen, "peers": peers})
    events = EventLog()
    task = asyncio.create_task(Agent(third, events, Rejects()).run())
    try:
        await pair.until("dc1", "completed")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert pair.node.site == "dc2"
    assert "hypervisor.recovered" not in [event.name for event in events.since(0)]


async def test_a_node_that_is_silent_when_a_machine_is_to_be_taken_back_is_asked_until_it_answers(
    make_pair: MakePair,
) -> None:
    pair = await make_pair(copy_s=0.0)
    pair.node.refuses_thaw_at = "dc2"
    pair.node.silent_once_frozen = True
    await pair.prepare()
    await pair.clients["dc1"].post("/v1/migrations", BODY)
    assert "could not be resumed at dc1" in (await pair.until("dc1", "failed"))["reason"]
    assert pair.node.process_state() == "T"
    pair.node.silent_once_frozen = False
    assert (await pair.until("dc1", "recovered"))["datacenter"] == "dc1"
    assert (pair.node.site, pair.node.frozen) == ("dc1", False)


def as_toml(settings: AgentSettings) -> str:
    """The configuration file of an agent of a pair."""
    (peer,), (machine,) = settings.peers, settings.machines
    return f"""
name = "{settings.name}"
datacenter = "{settings.datacenter}"
listen = "{settings.listen}"
token = "{settings.token}"
[[peers]]
datacenter = "{peer.datacenter}"
address = "{peer.address}"
token = "{peer.token}"
[[machines]]
name = "{machine.name}"
node_socket = "{machine.node_socket}"
copy_s = {machine.copy_s}
pause_ms = {machine.pause_ms}
"""
