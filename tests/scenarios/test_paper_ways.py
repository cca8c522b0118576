"""What the papers' scheme adds by the delays alone, on the real cores: who tells the source's router first counts."""

from __future__ import annotations

import pytest

from lispfmc.experiment.ways import Ways, ways
from tests.scenarios import schemes_world
from tests.scenarios.schemes_world import CLIENT, DELAYS_S, FMCC, MS, NEW, OLD, PROBE_S, SchemeWorld, d


def reckoned() -> Ways:
    rtts_ms = {frozenset(pair): 2000 * seconds for pair, seconds in DELAYS_S.items()}
    return ways(rtts_ms, OLD, NEW, CLIENT, 2000 * d(NEW, FMCC))


@pytest.mark.parametrize(
    ("changed", "first"),
    [
        ({}, "by the controller"),
        ({(OLD, FMCC): 0.090}, "by the target's registration"),  # the papers' first case: the controller is far from 1
        ({(OLD, FMCC): 0.090, (NEW, MS): 0.200}, "by the controller"),  # and the Map-Server is farther
    ],
)
def test_the_first_of_two_ways_ends_the_old_mapping(
    changed: dict[tuple[str, str], float], first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pair, seconds in changed.items():
        monkeypatch.setitem(schemes_world.DELAYS_S, pair, seconds)
    world = SchemeWorld("fig9", "fig9")
    world.move()
    expected = reckoned()
    assert expected.name == first
    assert 0 <= world.gap_end() - world.began - expected.shortest / 1000 + 1e-9 <= 2 * PROBE_S
    said = world.wire()
    registered = said.index("mapserver notify dc1") < said.index("dc1 notify access2")
    assert registered or first == "by the controller"
