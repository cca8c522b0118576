"""Metrics: what histograms say, what becomes of events, and that docs/metrics.md lists what the daemons have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fmcc.daemon import Daemon as Controller
from fmcc.hypervisor.agent import Agent
from fmcc.hypervisor.settings import AgentSettings
from fmcc.measures import Measures
from fmcc.settings import FmccSettings
from fmcc.steering.registry import SCHEMES
from lispfmc.core.effects import FieldValue
from lispfmc.lab.configs import Choices, Keys, daemon_plans
from lispfmc.lab.topology import load_topology
from lispfmc.runtime.events import EventLog
from lispfmc.runtime.http import Api
from lispfmc.runtime.metrics import Metrics, decades
from lispfmc.runtime.rejects import Rejects
from lispfmc.wire.address import Endpoint, ip_of
from mapserver.daemon import Daemon as MapServer
from mapserver.settings import MapServerSettings
from tests.unit.metrics_table import Row, documented, families
from xtr.daemon import Daemon as Xtr
from xtr.settings import XtrSettings


def apis(folder: Path) -> Iterator[tuple[str, Api]]:
    """The API of one real daemon of each kind, as the lab configures it; none of them runs."""
    choices = Choices(folder)
    seen = set()
    for plan in daemon_plans(load_topology("fig5"), Keys(folder), choices):
        if plan.role in seen:
            continue
        seen.add(plan.role)
        match plan.role:
            case "mapserver":
                yield plan.role, MapServer(MapServerSettings.model_validate(plan.config))._api
            case "fmcc":
                yield plan.role, Controller(FmccSettings.model_validate(plan.config)).api
            case "xtr":
                yield plan.role, Xtr(XtrSettings.model_validate(plan.config))._api
            case "agent":
                yield plan.role, Agent(AgentSettings.model_validate(plan.config), EventLog(), Rejects()).local


def test_the_table_is_what_the_daemons_have(tmp_path: Path) -> None:
    table = documented()
    found: dict[str, dict[str, Row]] = {}
    for kind, api in apis(tmp_path):
        api._events.append("something.happened")
        for name, type_, labels in families(api.metrics.text().decode()):
            found.setdefault(name, {})[kind] = Row(type_, labels, frozenset())
    assert {kind for rows in found.values() for kind in rows} == {"mapserver", "fmcc", "xtr", "agent"}
    assert table.keys() == found.keys()
    for name, row in table.items():
        assert found[name].keys() == row.daemons, name
        assert {(each.type, each.labels) for each in found[name].values()} == {(row.type, row.labels)}, name


def test_nothing_that_could_be_a_users_is_a_label() -> None:
    allowed = {"name", "reason", "answer", "what", "scheme", "outcome", "daemon", "version"}
    assert {label for row in documented().values() for label in row.labels} <= allowed


class World:
    """A registry and the log that it looks at."""

    def __init__(self) -> None:
        self.events, self.rejects = EventLog(first_id=1), Rejects()
        self.metrics = Metrics(self.events, self.rejects)

    def samples(self) -> dict[tuple[str, ...], float]:
        found = text_string_to_metric_families(self.metrics.text().decode())
        return {(each.name, *each.labels.values()): each.value for family in found for each in family.samples}


def test_a_histogram_counts_what_took_at_most_so_long() -> None:
    world = World()
    histogram = world.metrics.histogram("lispfmc_x_seconds", "x", decades(0.01, 0.1))
    for seconds in (0.001, 0.01, 0.03, 7.0):
        histogram.observe(seconds)
    samples = world.samples()
    counts = {each[1]: value for each, value in samples.items() if each[0] == "lispfmc_x_seconds_bucket"}
    assert counts == {"0.01": 2, "0.02": 2, "0.05": 3, "0.1": 3, "+Inf": 4}
    assert samples["lispfmc_x_seconds_count",] == 4
    assert samples["lispfmc_x_seconds_sum",] == pytest.approx(7.041)


def test_what_alerts_look_at_is_there_before_it_happens() -> None:
    world = World()
    world.metrics.alarms("host.flapping")
    assert world.samples()["lispfmc_events_total", "host.flapping"] == 0
    assert world.samples()["lispfmc_rejected_total", "bad-authentication"] == 0
    world.events.append("host.flapping")
    world.rejects.add("bad-authentication", Endpoint(ip_of("198.18.0.1"), 4342))
    assert world.samples()["lispfmc_events_total", "host.flapping"] == 1
    assert world.samples()["lispfmc_rejected_total", "bad-authentication"] == 1


def test_a_watcher_sees_each_event_of_its_name_with_its_fields() -> None:
    events, seen = EventLog(first_id=1), []
    events.watch("a.b", lambda fields: seen.append(fields["n"]))
    events.append("a.b", {"n": 1})
    events.append("a.c", {"n": 2})
    events.append_each("a.b", lambda n: {"n": n}, [3, 4])
    assert seen == [1, 3, 4]
    with pytest.raises(ValueError, match="watched already"):
        events.watch("a.b", lambda fields: None)


class Led(World):
    """A controller's events, as its core makes them, at a time that the test sets."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.came = 10.0, 10.0
        Measures(
            self.events, self.metrics, SCHEMES, default="lossless", began=lambda: self.came, clock=lambda: self.now
        )

    def happens(self, name: str, at_ms: float, **fields: FieldValue) -> None:
        self.events.append(name, {"move": "m1", "service": "app", "at_ms": at_ms, "scheme": "fig9", **fields})

    def sum(self, name: str) -> float:
        return self.samples()[f"lispfmc_{name}_seconds_sum",]

    def count(self, name: str) -> float:
        return self.samples()[f"lispfmc_{name}_seconds_count",]


def test_a_blackout_is_timed_by_the_hypervisors_clock_where_they_share_one() -> None:
    led = Led()
    led.happens("migration.stopped", 500.0, monotonic_ns=1_000_000_000, clock="host")
    led.happens("migration.resumed", 590.0, monotonic_ns=1_060_000_000, clock="host")
    assert led.count("blackout") == 1
    assert led.sum("blackout") == pytest.approx(0.06)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["in order", "RESUME heard first"])
def test_a_blackout_between_two_machines_is_timed_by_the_controller(order: tuple[int, int]) -> None:
    led = Led()
    halves: list[tuple[str, float, Mapping[str, FieldValue]]] = [
        ("migration.stopped", 500.0, {"monotonic_ns": 77, "clock": "a"}),
        ("migration.resumed", 590.0, {"monotonic_ns": 5, "clock": "b"}),
    ]
    for index in order:
        name, at_ms, fields = halves[index]
        led.happens(name, at_ms, **fields)
    assert led.count("blackout") == 1
    assert led.sum("blackout") == pytest.approx(0.09)


def test_a_move_that_failed_while_the_machine_stood_still_has_no_blackout() -> None:
    led = Led()
    led.happens("migration.stopped", 500.0, monotonic_ns=1, clock="host")
    led.happens("migration.failed", 600.0, reason="no", state="stopped")
    led.happens("migration.resumed", 700.0, monotonic_ns=2, clock="host")
    assert led.count("blackout") == 0
    assert led.samples()["lispfmc_moves_total", "failed", "fig9"] == 1


def test_moves_are_counted_by_scheme_and_outcome_and_changes_of_others_are_not() -> None:
    led = Led()
    assert led.samples()["lispfmc_moves_total", "committed", "fig9"] == 0
    led.happens("placement.changed", 900.0)
    led.events.append("placement.changed", {"service": "app", "from": "dc1", "to": "dc2"})
    led.happens("migration.unconfirmed", 900.0, scheme="")
    assert led.samples()["lispfmc_moves_total", "committed", "fig9"] == 1
    assert led.samples()["lispfmc_moves_total", "unconfirmed", "lossless"] == 1
    assert sum(value for name, value in led.samples().items() if name[0] == "lispfmc_moves_total") == 2


def test_a_decision_is_timed_from_what_asked_for_it() -> None:
    led = Led()
    led.now = 10.002
    led.events.append("decision.made", {"decision": "later"})
    led.events.append("decision.made", {"decision": "stay"})
    assert led.count("decision") == 1
    assert led.sum("decision") == pytest.approx(0.002)
