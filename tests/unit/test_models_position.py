"""The position of a user relative to its data centre, and the disruption of a move: values that are known exactly."""

from __future__ import annotations

import pytest

from fmcc.policy.models import ctmc, disruption
from fmcc.policy.models.checks import BadParameter
from fmcc.policy.models.hexagons import cells, class_of, classes, distance, neighbours

# k: pi_0, E[Dist], E[D] in seconds, migrations per handover, SDT in seconds of 1 Gb
KNOWN = {
    2: (0.400000, 0.600000, 0.012000, 0.300000, 116.31),
    3: (0.211268, 1.126761, 0.036056, 0.136150, 155.67),
    5: (0.090364, 2.085198, 0.114668, 0.049327, 289.00),
}


@pytest.mark.parametrize("rings", sorted(KNOWN))
def test_the_stationary_position_has_the_known_values(rings: int) -> None:
    position = ctmc.aggregated(rings)
    pi0, mean_distance, mean_delay_s, migrations, _ = KNOWN[rings]
    assert position.pi0 == pytest.approx(pi0, abs=5e-7)
    assert position.mean_distance == pytest.approx(mean_distance, abs=5e-7)
    assert position.mean_delay_s == pytest.approx(mean_delay_s, abs=5e-7)
    assert position.migrations_per_handover == pytest.approx(migrations, abs=5e-7)


@pytest.mark.parametrize("rings", range(1, 8))
def test_the_aggregated_chain_equals_the_full_one(rings: int) -> None:
    aggregated, full = ctmc.aggregated(rings), ctmc.full(rings)
    assert aggregated.probability.keys() == full.probability.keys()
    for state, value in aggregated.probability.items():
        assert full.probability[state] == pytest.approx(value, abs=1e-12)
    assert full.migrations_per_handover == pytest.approx(aggregated.migrations_per_handover, abs=1e-12)
    assert sum(aggregated.probability.values()) == pytest.approx(1.0, abs=1e-12)


def test_a_service_that_moves_at_ring_1_moves_at_every_handover() -> None:
    position = ctmc.aggregated(1)
    assert (position.pi0, position.mean_distance) == (1.0, 0.0)
    assert position.migrations_per_handover == pytest.approx(1.0, abs=1e-12)


def test_the_papers_statements_hold() -> None:
    positions = {position.rings: position for position in ctmc.by_rings(7)}
    assert positions[7].mean_delay_s - positions[2].mean_delay_s == pytest.approx(0.22, abs=0.005)
    assert positions[4].mean_distance < 2 < positions[5].mean_distance
    rates = [position.migrations_per_handover for position in positions.values()]
    assert rates == sorted(rates, reverse=True)
    assert positions[3].cost(5e8, 100.0) == pytest.approx(positions[3].migrations_per_handover * (5e8 + 300))


def test_the_classes_are_the_cells_that_look_alike() -> None:
    """A class's neighbours are the classes of the neighbours of each of its cells."""
    around = ((1, 0), (0, 1), (-1, 1), (-1, 0), (0, -1), (1, -1))
    for q, r in cells(9):
        beside = sorted(class_of((q + step_q, r + step_r)) for step_q, step_r in around)
        assert beside == sorted(neighbours(class_of((q, r))))
    assert {class_of(cell) for cell in cells(9)} == set(classes(9))
    assert len(cells(7)) == 3 * 7 * 6 + 1


def test_distance_is_the_fewest_handovers() -> None:
    assert [distance((0, 0), cell) for cell in ((0, 0), (3, 0), (-1, 2), (2, -5), (-4, 1))] == [0, 3, 2, 5, 4]


@pytest.mark.parametrize("rings", sorted(KNOWN))
def test_the_disruption_of_one_gigabit_has_the_known_values(rings: int) -> None:
    assert disruption.disruption_s(1e9, disruption.rtt_s(rings)) == pytest.approx(KNOWN[rings][4], abs=0.005)


def test_the_disruption_grows_with_size_distance_and_loss() -> None:
    base = disruption.disruption_s(1e8, 0.04)
    assert disruption.disruption_s(5e8, 0.04) > base
    assert disruption.disruption_s(1e8, 0.09) > base
    assert disruption.disruption_s(1e8, 0.04, loss=0.001) > base
    assert disruption.disruption_s(1e8, 0.04, window=10) > base


def test_the_losses_have_their_place_in_the_formula() -> None:
    """Every term by hand: 1 segment (no slow start), loss 1/2, a round trip of 1 s, a window of 4."""
    f = 2.32 * (1 + 1 + 2) / 8 + 1.5 / 1000
    assert disruption.disruption_s(8 * 1460, 1.0, loss=0.5, window=4) == pytest.approx(f + 10 + 13 / 16)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ctmc.aggregated(0), "rings is 0"),
        (lambda: ctmc.aggregated(1000), "rings is 1000"),
        (lambda: ctmc.aggregated(3).cost(float("nan")), "object's size"),
        (lambda: disruption.disruption_s(1e9, 0.0), "round-trip time"),
        (lambda: disruption.disruption_s(1e9, 0.1, loss=1.0), "loss is 1.0"),
        (lambda: disruption.disruption_s(-1, 0.1), "object's size"),
    ],
)
def test_what_has_no_meaning_is_refused(call: object, says: str) -> None:
    with pytest.raises(BadParameter, match=says):
        call()  # type: ignore[operator]
