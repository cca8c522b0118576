"""Quantiles, intervals and predictions against answers that are known."""

from __future__ import annotations

import pytest

from lispfmc.experiment.design import Point, headline
from lispfmc.experiment.network import rtts_at, rtts_ms, topology_of
from lispfmc.experiment.prediction import agrees, fig9
from lispfmc.experiment.statistics import Outcome, interval, median, quantile, summary
from lispfmc.experiment.ways import ways


def test_quantiles_are_values_that_were_measured() -> None:
    values = [float(each) for each in range(50, 0, -1)]
    assert quantile(values, 0.99) == 50.0, "the 99th percentile of 50 runs is their maximum"
    assert quantile(values, 0.95) == 48.0
    assert quantile([3.0], 0.95) == 3.0
    assert quantile([float(each) for each in range(1, 101)], 0.95) == 95.0


def test_the_median_of_an_even_number_is_between_the_middle_two() -> None:
    assert median([4.0, 1.0, 3.0, 2.0]) == 2.5


def test_the_interval_of_a_median_agrees_with_the_order_statistics() -> None:
    values = [float(each) for each in range(1, 101)]
    found = interval(values, 0.5, seed=1)
    # the exact interval of a median's rank, binomial with p 1/2 and n 100: ranks 40 to 61
    assert found.low == pytest.approx(40, abs=2)
    assert found.high == pytest.approx(61, abs=2)
    assert interval(values, 0.5, seed=1) == found
    assert interval([7.0] * 20, 0.95, seed=1).low == 7.0


def test_a_summary_leaves_no_run_out_and_sums_the_packets() -> None:
    runs = [Outcome(-0.5, 0, 1, 0)] * 48 + [Outcome(9.0, 3, 0, 2), Outcome(30.0, 4, 0, 0)]
    found = summary(runs, seed=1)
    assert (found.n, found.added_p50, found.added_p95, found.added_p99, found.added_max) == (50, -0.5, -0.5, 30, 30)
    assert (found.lost, found.duplicated, found.reordered, found.runs_with_loss) == (7, 48, 2, 2)


@pytest.mark.parametrize(
    ("point", "source", "target", "added"),
    [
        # d(2,C) 25 + d(C,1) 25 + d(1,3) 2.5 + d(3,2) 2.5
        (Point("fig9", 50.0), "dc1", "dc2", 55.0),
        (Point("fig9", 1.0), "dc2", "dc1", 6.0),
        # the papers' first case, (100, 10): towards the near data centre, and back, where the way to the target counts
        (Point("fig9", 100.0, datacenters_ms=(100.0, 10.0)), "dc1", "dc2", 60.0),
        (Point("fig9", 100.0, datacenters_ms=(100.0, 10.0)), "dc2", "dc1", 100.0),
        (Point("fig9", 50.0, datacenters_ms=(50.0, 50.0)), "dc1", "dc2", 55.0),
    ],
)
def test_what_fig9_should_add(point: Point, source: str, target: str, added: float) -> None:
    rtts = rtts_at(rtts_ms(topology_of(headline(), "fig9")), point)
    assert fig9(ways(rtts, source, target, "access1")) == added


def test_a_hypervisor_that_is_farther_than_its_router_is_heard_later() -> None:
    rtts = rtts_at(rtts_ms(topology_of(headline(), "fig9")), Point("fig9", 50.0))
    near, far = ways(rtts, "dc1", "dc2", "access1"), ways(rtts, "dc1", "dc2", "access1", 90.0)
    assert (fig9(far) - fig9(near), far.shortest - near.shortest) == (20.0, 20.0)


def test_a_figure_agrees_with_a_prediction_within_a_fifth_and_two_milliseconds() -> None:
    assert agrees(68.0, 55.0)
    assert agrees(42.0, 55.0)
    assert not agrees(68.1, 55.0)
    assert not agrees(41.9, 55.0)
