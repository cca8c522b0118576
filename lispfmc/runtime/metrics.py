"""Metrics are read from plain counters when somebody asks: nothing on a packet's path knows of Prometheus.

A registry per daemon. Labels name kinds (a reason, an event, a state), never an EID or an address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from lispfmc.runtime.events import EventLog
from lispfmc.runtime.rejects import Rejects

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class _Reading:
    """One metric family, made from what `read` returns at the time of the scrape."""

    def __init__(self, make: Callable[[], Metric]) -> None:
        self._make = make

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        yield self._make()


class Metrics:
    """A daemon's registry. Counters are named without the `_total` that the format adds."""

    def __init__(self, events: EventLog, rejects: Rejects) -> None:
        self._registry = CollectorRegistry()
        self.counters("lispfmc_events", "State changes by name", "name", lambda: events.counts)
        self.counters("lispfmc_rejected", "Refused packets by reason", "reason", lambda: rejects.counts)
        self.counter("lispfmc_bugs", "Exceptions that nobody expected", lambda: rejects.bugs)

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

    def gauge(self, name: str, help_text: str, read: Callable[[], float]) -> None:
        def make() -> Metric:
            return GaugeMetricFamily(name, help_text, value=read())

        self._registry.register(_Reading(make))

    def text(self) -> bytes:
        """The whole registry in Prometheus' text format."""
        return generate_latest(self._registry)
