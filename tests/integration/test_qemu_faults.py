"""Live migrations of a real virtual machine that go wrong: it runs where it was, once, and the reason is told."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.integration.agent_pair import refusal
from tests.integration.virtual_machines import Machines, machines

pytestmark = pytest.mark.namespaces
_moves = (f"f{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def app() -> Iterator[Machines]:
    with machines("gfault") as made:
        yield made


async def prepare(app: Machines) -> dict[str, str]:
    """A move to dc2 that both ends are ready for."""
    move = {"move": next(_moves), "machine": "app", "from": "dc1", "to": "dc2"}
    for end in ("dc2", "dc1"):
        await app.pair.clients[end].post("/v1/migrations/prepare", move)
    return move


async def fails(app: Machines, *, during_copy: Callable[[], None] = lambda: None) -> str:
    """Start a move and disturb it; returns the reason why it failed."""
    move = await prepare(app)
    await app.pair.clients["dc1"].post("/v1/migrations", move)
    await app.pair.until("dc1", "progress", move["move"])
    during_copy()
    failed = await app.pair.until("dc1", "failed", move["move"])
    return str(failed["reason"])


async def is_at_dc1_alone(app: Machines) -> None:
    assert await app.where() == ["dc1"]
    assert len(app.pids("dc1")) == 1
    assert app.pids("dc2") == []


def test_a_target_whose_qemu_dies_during_the_copy(app: Machines) -> None:
    async def story() -> None:
        reason = await fails(app, during_copy=lambda: os.kill(app.pids("dc2")[0], signal.SIGKILL))
        assert "it runs at dc1, where it was" in reason
        await is_at_dc1_alone(app)

    app.stage.run(story())


def test_a_target_whose_qemu_hangs_during_the_copy(app: Machines) -> None:
    async def story() -> None:
        reason = await fails(app, during_copy=lambda: os.kill(app.pids("dc2")[0], signal.SIGSTOP))
        assert "the target hangs" in reason
        assert "it runs at dc1, where it was" in reason
        await is_at_dc1_alone(app)

    app.stage.run(story())


def test_success_that_is_reported_for_a_machine_that_does_not_answer(app: Machines) -> None:
    """Its port at the target is dead: QEMU completes the migration, and nobody would ever reach the service."""

    async def story() -> None:
        move = await prepare(app)
        app.stage.ip("link set vm-dc2 nomaster")
        await app.pair.clients["dc1"].post("/v1/migrations", move)
        failed = await app.pair.until("dc1", "failed", move["move"])
        assert "QEMU reports success at dc2, but the machine is dead" in failed["reason"]
        assert "resumed at dc1 again" in failed["reason"]
        await is_at_dc1_alone(app)
        names = [event.name for event in app.pair.agents["dc2"].api._events.since(0)]
        assert "hypervisor.resumed" not in names, "nobody may be led to a dead machine"

    app.stage.run(story())


def test_a_target_without_room_refuses(app: Machines) -> None:
    async def story() -> None:
        move = {"move": next(_moves), "machine": "huge", "from": "dc1", "to": "dc2"}
        refused = await refusal(app.pair.clients["dc2"].post("/v1/migrations/prepare", move))
        assert "MB of memory left and the machine takes" in refused.why
        await is_at_dc1_alone(app)

    app.stage.run(story())


def test_agents_that_are_started_anew_find_the_machine_that_has_gone_on_without_them(app: Machines) -> None:
    async def story() -> None:
        (before,) = app.pids()
        for name in ("dc1", "dc2"):
            await app.pair.stop(name)
        assert await app.where() == ["dc1"]
        for name in ("dc1", "dc2"):
            await app.pair.start_agent(name)
        await app.ready()
        assert app.pids() == [before]
        await is_at_dc1_alone(app)

    app.stage.run(story())


def test_a_target_whose_agent_dies_during_the_copy_has_the_machine_and_the_source_waits_for_its_word(
    app: Machines,
) -> None:
    async def story() -> None:
        move = await prepare(app)
        await app.pair.clients["dc1"].post("/v1/migrations", move)
        await app.pair.stop("dc2")
        await app.pair.until("dc1", "stopped", move["move"])
        assert await app.where() == ["dc2"], "QEMU has gone on by itself"
        await app.pair.start_agent("dc2")
        await app.pair.until("dc1", "completed", move["move"])
        assert await app.where() == ["dc2"]
        assert app.pids("dc1") == []
        back = {"move": next(_moves), "machine": "app", "from": "dc2", "to": "dc1"}
        for end in ("dc1", "dc2"):
            await app.pair.clients[end].post("/v1/migrations/prepare", back)
        await app.pair.clients["dc2"].post("/v1/migrations", back)
        await app.pair.until("dc2", "completed", back["move"])
        await is_at_dc1_alone(app)

    app.stage.run(story())


def test_a_source_whose_agent_is_killed_while_the_machine_is_away_does_not_run_it_twice(app: Machines) -> None:
    async def story() -> None:
        move = await prepare(app)
        await app.pair.clients["dc1"].post("/v1/migrations", move)
        await app.pair.until("dc1", "progress", move["move"])  # QEMU copies, and goes on without the agent
        await app.pair.stop("dc1")
        await app.pair.until("dc2", "resumed", move["move"])
        await app.pair.start_agent("dc1")
        await app.ready()
        assert await app.where() == ["dc2"]
        assert app.pids("dc1") == []

    app.stage.run(story())


def test_a_machine_whose_qemu_dies_is_nowhere_and_its_agent_says_so(app: Machines) -> None:
    async def story() -> None:
        os.kill(app.pids("dc2")[0], signal.SIGKILL)
        await asyncio.sleep(0)
        for _ in range(100):
            (place,) = [
                p for p in (await app.pair.clients["dc2"].get("/v1/machines"))["items"] if p["machine"] == "app"
            ]
            if not place["here"]:
                break
            await asyncio.sleep(0.02)
        assert place["why"]
        assert await app.where() == []

    app.stage.run(story())
