"""Metrics are read from plain counters when somebody asks: nothing on a packet's path knows of Prometheus.

A registry per daemon. Labels name kinds (a reason, an event, a state), never an EID or an address. What alerts look at
is there from the start, at zero: an increase from nothing to one is none to Prometheus.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest

import lispfmc
from lispfmc.runtime.events import EventLog
from lispfmc.runtime.rejects import Rejects

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ALARMS = ("bad-authentication",)
"""Reasons of refusals that rules look at."""


def decades(first: float, last: float) -> tuple[float, ...]:
    """Bounds of buckets from `first` to `last` seconds, three in each decade: 1, 2 and 5 of it."""
    ends = (float(f"{step}e{power}") for power in range(-9, 6) for step in (1, 2, 5))
    return tuple(end for end in ends if first <= end <= last)


class _Reading:
    """One metric family, made from what `read` returns at the time of the scrape."""

    def __init__(self, make: Callable[[], Metric]) -> None:
        self._make = make

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        yield self._make()


class Histogram:
    """How often something took how long, in seconds: one plain counter a bucket."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` are the buckets' upper ends, growing; what took longer has a bucket of its own."""
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def family(self, name: str, help_text: str) -> Metric:
        ends = [*map(str, map(float, self._bounds)), "+Inf"]
        counts = list(zip(ends, accumulate(self._counts), strict=True))
        return HistogramMetricFamily(name, help_text, buckets=counts, sum_value=self._sum)


class Metrics:
    """A daemon's registry. Counters are named without the `_total` that the format adds."""

    def __init__(self, events: EventLog, rejects: Rejects) -> None:
        self._registry = CollectorRegistry()
        self._alarms: dict[str, int] = {}
        reasons = dict.fromkeys(ALARMS, 0)
        ProcessCollector(registry=self._registry)
        self.counters("lispfmc_events", "State changes by name", "name", lambda: {**self._alarms, **events.counts})
        self.counters("lispfmc_rejected", "Refused packets by reason", "reason", lambda: {**reasons, **rejects.counts})
        self.counter("lispfmc_bugs", "Exceptions that nobody expected", lambda: rejects.bugs)

    def alarms(self, *names: str) -> None:
        """Events that rules look at: counted from zero on."""
        self._alarms.update(dict.fromkeys(names, 0))

    def daemon(self, kind: str, name: str, not_ready: Callable[[], Sequence[str]]) -> None:
        """Which daemon this is, and whether it is ready."""

        def make() -> Metric:
            said = {"daemon": kind, "name": name, "version": lispfmc.__version__}
            return InfoMetricFamily("lispfmc", "The daemon", value=said)

        self._registry.register(_Reading(make))
        self.gauge("lispfmc_ready", "1 when /readyz says so", lambda: 0 if not_ready() else 1)

    def counter(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        def make() -> Metric:
            return CounterMetricFamily(name, help_text, value=read())

        self._registry.register(_Reading(make))

    def counters(self, name: str, help_text: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
        """A counter with one label, whose values are the keys of what `read` returns."""

        def make() -> Metric:
            family = CounterMetricFamily(name, help_text, labels=[label])
            for value, count in list(read().items()):
                family.add_metric([value], count)
            return family

        self._registry.register(_Reading(make))

    def table(
        self, name: str, help_text: str, labels: Sequence[str], read: Callable[[], Mapping[tuple[str, ...], float]]
    ) -> None:
        """A counter with several labels; the keys of what `read` returns are their values, in this order."""

        def make() -> Metric:
            family = CounterMetricFamily(name, help_text, labels=labels)
            for values, count in list(read().items()):
                family.add_metric(values, count)
            return family

        self._registry.register(_Reading(make))

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        def make() -> Metric:
            return GaugeMetricFamily(name, help_text, value=read())

        self._registry.register(_Reading(make))

    def histogram(self, name: str, help_text: str, bounds: Sequence[float]) -> Histogram:
        """How long something took, in seconds; `bounds` are the buckets' upper ends."""
        histogram = Histogram(bounds)
        self._registry.register(_Reading(lambda: histogram.family(name, help_text)))
        return histogram

    def text(self) -> bytes:
        """The whole registry in Prometheus' text format."""
        return generate_latest(self._registry)
