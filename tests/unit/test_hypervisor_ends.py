"""What an agent answers while an earlier move of the machine is at its very end."""

from __future__ import annotations

import asyncio

import pytest

from fmcc.hypervisor import CannotMigrate, Migration
from fmcc.hypervisor.ends import Ends, State

THERE = Migration("0000000000000001", "app", "dc1", "dc2", "lossless")
BACK = Migration("0000000000000002", "app", "dc2", "dc1", "lossless")


@pytest.mark.asyncio
async def test_the_next_move_waits_for_the_last_word_about_the_one_before() -> None:
    ends = Ends("dc1", ("app",))
    end, verdict = ends.prepared(THERE), asyncio.Event()

    async def makes_sure() -> None:
        await verdict.wait()
        end.state = State.ENDED

    end.state, end.task = State.MOVING, asyncio.create_task(makes_sure())
    prepared = asyncio.create_task(ends.settled(BACK))
    await asyncio.sleep(0)
    assert not prepared.done()
    verdict.set()
    await prepared
    assert ends.prepared(BACK).role == "target"


@pytest.mark.asyncio
async def test_a_machine_that_is_still_copied_is_not_waited_for() -> None:
    ends = Ends("dc1", ("app",))
    end, never = ends.prepared(THERE), asyncio.Event()

    async def copies() -> None:
        await never.wait()

    end.state, end.task = State.COPYING, asyncio.create_task(copies())
    await ends.settled(BACK)
    with pytest.raises(CannotMigrate, match="is copying"):
        ends.check(BACK)
    end.task.cancel()
