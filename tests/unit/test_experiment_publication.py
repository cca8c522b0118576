"""The published form of a result: a page made from the data alone, and the formulae that stand on it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from lispfmc.experiment.design import Design, Kind, Planned, Point
from lispfmc.experiment.network import rtts_at, rtts_ms, topology_of
from lispfmc.experiment.prediction import fig9
from lispfmc.experiment.publication import PICTURES, page, publish
from lispfmc.experiment.records import Lateness, Record
from lispfmc.experiment.report import document
from lispfmc.experiment.ways import ways
from lispfmc.lab.analysis import Figures, MoveFigures

DESIGN = Design(("lossless", "fig9"), (1.0, 50.0), losses=(0.0, 5.0), runs=2, null_runs=2, bridge_runs=2)
ENVIRONMENT = {"cpus": 2, "cpu": "a processor", "kernel": "6.1", "commit": "abc", "started": "2026-01-02T03:04:05"}


def measured(planned: Planned) -> Record:
    bridge = planned.point.kind is Kind.BRIDGE
    one = Figures(60.4, 60.0, 0.7 if bridge else 0.4, 4000, 0, 7, 0, 0)
    figures = MoveFigures(60.4, 60.0, one.added_ms, 0, 7, 0, 0, {"to_service": one, "to_user": one}, 60.1)
    return Record(planned, 0, "committed", 1.0, 0.5, origin="dc1", target="dc2", figures=figures)


def records() -> list[Record]:
    return [measured(planned) for session in DESIGN.sessions() for planned in session.runs]


def test_the_page_says_first_what_the_machine_is_and_has_every_point_and_both_controls(tmp_path: Path) -> None:
    (tmp_path / "measured").mkdir()
    (tmp_path / "measured" / "added-distribution.svg").write_text("<svg/>")
    made = records()
    found = document(DESIGN, made, ENVIRONMENT)
    written = publish(found, made, tmp_path / "measured", tmp_path / "page")
    assert {path.name for path in written} == {
        "README.md", "results.json", "environment.json", "runs.csv", "added-distribution.svg",
    }  # fmt: skip
    said = (tmp_path / "page" / "README.md").read_text()
    assert 'The "VM" is emulated' in said.splitlines()[2]
    assert "| lossless | 50 | 5 | 2 | 0.40 |" in said
    assert "| control: same bridge | - | - | 2 | 0.70 |" in said
    assert "![Added downtime, distribution](added-distribution.svg)" in said
    assert "2 cores (a processor), Linux 6.1, commit `abc`" in said
    kept = json.loads((tmp_path / "page" / "results.json").read_text())
    assert kept["summary"] == found["summary"]
    assert "runs" not in kept
    assert "runs" not in kept["control"]
    assert len((tmp_path / "page" / "runs.csv").read_text().splitlines()) == 1 + 2 * len(made)


def test_a_broken_promise_and_a_failed_run_are_on_the_page(tmp_path: Path) -> None:
    first, *others = records()
    assert first.figures is not None
    lost = msgspec.structs.replace(first.figures.directions["to_user"], lost=3)
    figures = msgspec.structs.replace(first.figures, lost=3, directions={"to_user": lost})
    lossless = next(at for at, each in enumerate(others) if each.planned.point == Point("lossless", 50.0))
    others[lossless] = msgspec.structs.replace(others[lossless], figures=figures)
    failed = msgspec.structs.replace(first, figures=None, outcome="failed: the agent was gone")
    made = [failed, *others]
    publish(document(DESIGN, made, ENVIRONMENT), made, tmp_path, tmp_path / "page")
    said = (tmp_path / "page" / "README.md").read_text()
    assert "| lossless, controller at 50 ms: packets lost | 3 | 0 | packets | **no** |" in said
    assert f"* Run {failed.planned.number} was not measured: failed: the agent was gone" in said


def test_the_page_says_where_a_receivers_socket_had_no_room_and_nothing_where_it_had() -> None:
    design = msgspec.structs.replace(DESIGN, services=2, service_rounds=1, at_once=1)
    made = []
    for planned in (planned for session in design.sessions() for planned in session.runs):
        one = msgspec.structs.replace(measured(planned), lateness={"to_service": Lateness(0.1, 0)})
        if planned.point.kind is Kind.CROWD:
            assert one.figures is not None
            one = msgspec.structs.replace(one, figures=None, lateness={}, services={"service-1": one.figures})
        made.append(one)
    assert "socket" not in page(document(design, made, ENVIRONMENT), [])
    full = [
        msgspec.structs.replace(one, overflowed=5)
        if one.planned.point in (Point("lossless", 50.0, 5.0), Point("fig9", 50.0, kind=Kind.CROWD, at_once=1))
        or one.planned.point.kind is Kind.NULL
        else one
        for one in made
    ]
    found = document(design, full, ENVIRONMENT)
    assert found["probes"]["overflowed"] == 5 * 2 + 5 + 5 * 2, "of a crowd, too"
    assert found["services_at_once"]["fig9"]["overflowed"] == 5
    said = [line for line in page(found, []).splitlines() if "socket" in line]
    assert said == [
        "Packets that a receiver's socket had no room for, and no network lost: "
        "10 (lossless at 50 ms, 5 % loss), 10 (control: null move).",
        "| 2 services at once, 1 under way at a time, `fig9`: A, 95th percentile | 0.40 ms | 0 packets lost, "
        "a receiver's socket had no room for 5 |",
    ]


def test_the_page_that_is_kept_is_what_its_data_say() -> None:
    kept = Path(__file__).parents[2] / "docs" / "results" / "moves"
    pictures = [f"{name}.svg" for name in PICTURES if (kept / f"{name}.svg").exists()]
    assert page(json.loads((kept / "results.json").read_text()), pictures) == (kept / "README.md").read_text()


@pytest.mark.parametrize(
    ("case", "source", "target", "formula", "by_messages"),
    [
        ((50.0, 50.0), "dc1", "dc2", 55.0, 55.0),
        # the Map-Server's word is first: 5 + (5 + 2 + 2) + 2.5 + 2.5
        ((100.0, 10.0), "dc1", "dc2", 60.0, 19.0),
        # the target delivers to who announces itself, and need not be told: 50 + 5 + 2.5 + 2.5
        ((100.0, 10.0), "dc2", "dc1", 100.0, 60.0),
    ],
)
def test_the_papers_cases_by_the_formula_and_by_the_messages_that_are_sent(
    case: tuple[float, float], source: str, target: str, formula: float, by_messages: float
) -> None:
    base = rtts_ms(topology_of(DESIGN, "fig9"))
    rtts = rtts_at(base, Point("fig9", max(case), 0.0, case))
    delays = ways(rtts, source, target, "access1")
    assert (fig9(delays), delays.shortest) == (formula, by_messages)
