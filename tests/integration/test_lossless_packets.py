"""A service's packets through a real move, on each data plane: none is lost, each comes once, in order."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from lispfmc.wire.moves import MovePhase, Verdict
from tests.integration.moving_sites import RLOC, SERVICE, Stream, World, network, world
from tests.integration.planes import KINDS, until
from xtr.dataplane import moving
from xtr.dataplane.handover import Handover
from xtr.dataplane.moving import TURN_S, Moving

pytestmark = pytest.mark.namespaces
REPLAYED = 5


@pytest.fixture(scope="module", autouse=True)
def built() -> Iterator[None]:
    with network():
        yield


@pytest.fixture(params=KINDS)
def plane(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


async def moves(made: World, stream: Stream, *, rarp: bool = False, said: bool = True) -> None:
    """The machine moves; `said` by the target's hypervisor, or shown by its announcement alone."""
    await made.prepare()
    await stream.arrived(100)
    made.stops()
    stopped_ns = time.monotonic_ns()
    # packets for a machine that has stopped already: whatever the load is, they are those that are sent again
    await until(lambda: made.copied_since("source", stopped_ns) >= REPLAYED, "the source delivers to nobody")
    assert await made.agent("source", MovePhase.FREEZE, stopped_ns) is Verdict.DONE
    await until(lambda: made.packets("target")["held"] >= 50, "the target holds")
    made.announces("after", rarp=rarp)
    if said:
        assert await made.agent("target", MovePhase.ACTIVATE) is Verdict.ACTIVE
    await until(lambda: (made.state("source"), made.state("target")) == ("gone", "here"), "both know")
    await stream.arrived(200)


async def ends(stream: Stream) -> None:
    await stream.stop()
    await until(lambda: not stream.missing(), f"all {stream.sent} arrive, missing {stream.missing()[:10]}")


@pytest.mark.parametrize("host", ["user", "near", "close"])
def test_no_packet_is_lost_and_each_comes_once_in_order(plane: str, host: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with world(plane, tmp_path) as made, Stream(host) as stream:
            await stream.arrived(100)
            await moves(made, stream)
            await ends(stream)
            before, after = stream.at("before"), stream.at("after")
            assert before == sorted(set(before))
            assert len(after) == len(set(after)), "each once"
            if host != "close":  # its packets went to the source and back while that led everything
                assert after == sorted(after), "in order"
            assert made.packets("target")["lost"] == made.packets("source")["lost"] == 0
            assert made.packets("source")["replayed"] >= REPLAYED
            if host == "user":
                assert made.sends_to("access") == {RLOC["target"]}
                assert "marker-missed" not in made.packets("target"), "the end of the old path was seen"

    asyncio.run(story())


def test_a_rarp_alone_activates_the_move(plane: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with world(plane, tmp_path) as made, Stream("user") as stream:
            await stream.arrived(50)
            made.announces("after", rarp=True)  # nobody is waited for: nothing happens
            await moves(made, stream, rarp=True, said=False)
            await ends(stream)
            assert stream.at("after") == sorted(set(stream.at("after")))

    asyncio.run(story())


async def moves_there_and_back(made: World, stream: Stream) -> None:
    await stream.arrived(50)
    await moves(made, stream)
    there, made.plan = made.plan, made.plan_back()
    await made.prepare(source="target", target="source")
    await stream.arrived(50)
    made.stops("after")
    assert await made.agent("target", MovePhase.FREEZE) is Verdict.DONE
    await until(lambda: made.packets("source")["held"] >= 50, "the first data centre holds")
    made.runs("before")
    assert await made.agent("source", MovePhase.ACTIVATE) is Verdict.ACTIVE
    await until(lambda: (made.state("source"), made.state("target")) == ("here", "gone"), "both know")
    await stream.arrived(100)
    await ends(stream)
    assert await made.controller("target", MovePhase.ACTIVATE, there) is Verdict.STALE
    assert made.packets("target")["lost"] == made.packets("source")["lost"] == 0


def test_a_service_that_moves_back_at_once_loses_nothing(plane: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with world(plane, tmp_path) as made, Stream("user") as stream:
            await moves_there_and_back(made, stream)

    asyncio.run(story())


def test_nor_does_one_whose_last_packet_is_worked_off_just_when_the_time_for_it_is_over(
    plane: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "BITE", 1)  # the time is looked at after each packet, and is over
    monkeypatch.setattr(Moving._bite, "__defaults__", (0.0,))
    monkeypatch.setattr(moving, "TURN_S", 0.0)

    async def story() -> None:
        async with world(plane, tmp_path) as made, Stream("user") as stream:
            await moves_there_and_back(made, stream)

    asyncio.run(story())


def test_without_a_stop_event_the_source_copies_and_nothing_is_lost(plane: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with world(plane, tmp_path) as made, Stream("user") as stream:
            made.plan = msgspec.structs.replace(made.plan, bicast=True, hold_ms=1000)
            await stream.arrived(50)
            await made.prepare()
            await stream.arrived(100)
            made.stops()
            sent = stream.sent
            await until(lambda: stream.sent > sent + 50, "nobody says that it has stopped")
            made.announces("after")
            await until(lambda: (made.state("source"), made.state("target")) == ("gone", "here"), "both know")
            await stream.arrived(100)
            await ends(stream)
            assert stream.at("after") == sorted(set(stream.at("after")))

    asyncio.run(story())


def test_a_service_that_never_resumes_gets_at_the_source_what_came_meanwhile(plane: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with world(plane, tmp_path) as made, Stream("user") as stream:
            await stream.arrived(50)
            await made.prepare()
            await stream.arrived(50)
            made.stops()
            assert await made.agent("source", MovePhase.FREEZE) is Verdict.DONE
            await until(lambda: made.packets("target")["held"] >= 50, "the target holds")
            made.runs("before")
            await made.agent("source", MovePhase.ABORT)
            await until(lambda: (made.state("source"), made.state("target")) == ("here", "aborted"), "both know")
            await stream.arrived(100)
            await ends(stream)
            assert stream.at("after") == []
            assert stream.at("before")[-50:] == sorted(stream.at("before")[-50:])

    asyncio.run(story())


def test_what_the_target_has_no_room_for_is_dropped_last_and_counted(plane: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with world(plane, tmp_path) as made, Stream("user") as stream:
            made.plan = msgspec.structs.replace(made.plan, hold_bytes=36 * 30)
            await stream.arrived(50)
            await made.prepare()
            await stream.arrived(50)
            made.stops()
            await made.agent("source", MovePhase.FREEZE)
            await until(lambda: made.packets("target").get("lost.hold-full", 0) >= 20, "it is full")
            made.announces("after")
            await until(lambda: (made.state("source"), made.state("target")) == ("gone", "here"), "both know")
            await stream.arrived(50)
            await stream.stop()
            counted = made.packets("target")["lost"]
            await until(lambda: len(stream.missing()) <= counted, f"{len(stream.missing())} missing, {counted} counted")
            first = stream.at("after")[:30]
            assert first == list(range(first[0], first[0] + 30)), "those that were held are the first"
            told = made.told("target", "move.packets")
            assert told[-1].fields["lost.hold-full"] == counted

    asyncio.run(story())


def during_the_drain(leading: Moving) -> list[int]:
    """How much was left each time that packets of the site had their turn while held ones were delivered.

    The time goes on with the work meanwhile: a process that is kept from the core takes fewer turns.
    """
    left: list[int] = []
    outbound, take_turns, shared = leading._outbounds[0], leading._take_turns, leading._shared
    readable, now = outbound.readable, shared.now

    def noted(handover: Handover) -> None:
        began, steps = now(), itertools.count()
        shared.now = lambda: began + next(steps) * TURN_S / 2

        def turn() -> bool:
            left.append(len(handover.todo))
            return readable()

        outbound.readable = turn  # type: ignore[method-assign]
        take_turns(handover)
        outbound.readable = readable  # type: ignore[method-assign]
        shared.now = now

    leading._take_turns = noted  # type: ignore[method-assign]
    return left


def test_a_long_queue_is_drained_in_order_and_the_loop_goes_on(plane: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with world(plane, tmp_path) as made, Stream("user") as stream:
            await stream.arrived(50)
            await made.prepare()
            made.stops()
            await made.agent("source", MovePhase.FREEZE)
            turns: list[int] = []
            for _ in range(40):
                stream.burst(50)
                await asyncio.sleep(0)
            await until(lambda: made.packets("target")["held"] >= 2000, "2000 packets are held")

            async def ticking() -> None:
                while True:
                    turns.append(len(stream.got))
                    await asyncio.sleep(0)

            ticks = asyncio.get_running_loop().create_task(ticking())
            turns_of_the_site = during_the_drain(made.moving("target"))
            made.announces("after")
            await ends(stream)
            ticks.cancel()
            assert len(turns_of_the_site) > 2, "what the service sends does not wait until it has all that was held"
            after = stream.at("after")
            assert after == sorted(set(after))
            assert any(turns[0] < turn < turns[-1] for turn in turns), "others had their turn while it was drained"

    asyncio.run(story())


def test_a_plane_that_closes_while_a_host_shows_itself_leaves_nothing_to_do(plane: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with world(plane, tmp_path) as made, Stream("user") as stream:
            await stream.arrived(50)
            await moves(made, stream)
            leading = made.moving("target")
            for _ in range(2):
                assert leading.placed(SERVICE, *leading._places[SERVICE])
            made.xtrs["target"]._plane.close()
            await asyncio.sleep(0.01)  # the loop would print what is asked of the closed plane, which fails the test

    asyncio.run(story())
