"""The schemes that prepare the routers add nothing to the blackout, and lose nothing, however far everybody is."""

from __future__ import annotations

import itertools

import pytest

from lispfmc.wire.moves import MoveMessage, MovePhase
from tests.scenarios.led import PAUSE_S, LedWorld
from tests.scenarios.sites import ALICE_APP, SITES, rloc

PROBE_S = 0.001
FAR_S = {"fmcc": 0.100, "mapserver": 0.080, "access1": 0.045}
BETWEEN_DATACENTERS_S = 0.040  # at most the blackout: the machine's own state takes that way


def moved(scheme: str) -> LedWorld:
    world = LedWorld()
    for name, seconds in FAR_S.items():
        for site in SITES:
            world.network.delay(name, site, seconds)
    world.network.delay("dc1", "dc2", BETWEEN_DATACENTERS_S)
    world.sends_every(PROBE_S, 4.0)
    world.fmcc.asks("dc2", scheme)
    world.run(8.0)
    return world


@pytest.mark.parametrize("scheme", ["lossless", "bicast"])
def test_the_first_packet_is_there_when_the_machine_runs_and_none_is_lost(scheme: str) -> None:
    world = moved(scheme)
    assert world.deliverers(ALICE_APP) == ["dc2"]
    assert world.lost() == []
    app = world.hosts[ALICE_APP]
    arrivals = [at for at, packet in zip(app.got_at, app.got, strict=True) if packet.number in set(world.sent)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(arrivals)]
    assert max(gaps) == pytest.approx(PAUSE_S, abs=2 * PROBE_S)


@pytest.mark.parametrize(("scheme", "told"), [("lossless", True), ("bicast", False)])
def test_only_lossless_hears_of_the_stop(scheme: str, told: bool) -> None:
    world = moved(scheme)
    messages = [each.message for each in world.network.sent if each.to.ip == rloc("dc1")]
    assert told is any(isinstance(each, MoveMessage) and each.phase == MovePhase.FREEZE for each in messages)


def test_bicast_delivers_again_what_came_between_prepare_and_stop_and_lossless_the_last_milliseconds() -> None:
    def doubled(scheme: str) -> int:
        numbers = [packet.number for packet in moved(scheme).hosts[ALICE_APP].got]
        return len(numbers) - len(set(numbers))

    assert doubled("bicast") > 10 * doubled("lossless")
