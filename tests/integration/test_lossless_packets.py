"""A service's packets through a real move, on each data plane: none is lost, each comes once, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from lispfmc.wire.moves import MovePhase, Verdict
from tests.integration.moving_sites import RLOC, Stream, World, network, world
from tests.integration.planes import KINDS, until

pytestmark = pytest.mark.namespaces


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
    assert await made.agent("source", MovePhase.FREEZE) is Verdict.DONE
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
            assert made.packets("source")["replayed"] > 0
            if host == "user":
                assert made.sends_to("access") == {RLOC["target"]}
                assert "marker-missed" not in made.packets("target"), "the end of the old path was seen"

    asyncio.run(story())
