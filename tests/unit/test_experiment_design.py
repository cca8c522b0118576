"""Designs of experiments: what they ask for, the order drawn by lot, and the networks that they run on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec
import pytest

from lispfmc.experiment.design import NULL, BadDesign, Design, Kind, Point, headline, swept
from lispfmc.experiment.network import rtts_at, rtts_ms, topology_of
from lispfmc.lab.configs import Choices, Keys, daemon_plans
from lispfmc.lab.toml_text import toml_text
from lispfmc.lab.topology import load_topology
from xtr.settings import XtrSettings

SMALL = Design(schemes=("fig9", "lossless"), fmcc_rtts_ms=(1.0, 200.0), losses=(0.0, 5.0), runs=10, null_runs=7)


def test_every_point_has_its_runs_and_each_run_its_number() -> None:
    runs = [planned for session in SMALL.sessions() for planned in session.runs]
    assert sorted(planned.number for planned in runs) == list(range(len(runs)))
    counted = Counter(planned.point for planned in runs)
    for scheme in SMALL.schemes:
        for point in (Point(scheme, 1.0), Point(scheme, 200.0), Point(scheme, 200.0, 5.0)):
            assert counted.pop(point) == 10
    (null,) = counted
    assert null.scheme == NULL
    assert counted[null] == 7


def test_the_order_is_drawn_by_lot_and_the_same_again() -> None:
    order = [planned.point for session in SMALL.sessions() for planned in session.runs]
    assert SMALL.sessions() == SMALL.sessions()
    other = msgspec.structs.replace(SMALL, seed=2).sessions()
    assert [planned.point for session in other for planned in session.runs] != order
    first = SMALL.sessions()[0].runs
    assert [planned.point for planned in first] != sorted((planned.point for planned in first), key=str)


def test_blocks_hold_every_scheme_once_and_an_equal_share_of_each_point() -> None:
    sessions = [session for session in headline().sessions() if session.services == 1]
    assert len(sessions) == 5 * 2
    for block in range(5):
        mine = [session for session in sessions if session.block == block]
        assert {session.scheme for session in mine} == {"lossless", "fig9"}
        counted = Counter(planned.point for session in mine for planned in session.runs)
        plain = {point: runs for point, runs in counted.items() if point.datacenters_ms is None}
        assert {runs for point, runs in plain.items() if point.kind is not Kind.TCP} == {10}
        assert {runs for point, runs in counted.items() if point not in plain or point.kind is Kind.TCP} == {4}


def test_the_losses_of_each_run_have_a_seed_of_their_own() -> None:
    seeds = [planned.seed for session in SMALL.sessions() for planned in session.runs]
    assert len(set(seeds)) == len(seeds)


def test_losses_are_measured_with_the_controller_at_50_ms_or_in_the_middle() -> None:
    assert headline().loss_rtt_ms == 50.0
    assert Design(schemes=("fig9",), fmcc_rtts_ms=(200.0, 1.0, 10.0)).loss_rtt_ms == 10.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schemes": ("magic",)}, "no scheme 'magic'"),
        ({"schemes": ()}, "nothing to measure"),
        ({"schemes": ("fig9", "fig9")}, "twice"),
        ({"losses": (100.0,)}, "below 100"),
        ({"fmcc_rtts_ms": (-1.0,)}, "not below 0"),
        ({"interval_us": 50}, "every 100 to 5000 us"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(BadDesign, match=said):
        headline(**changes).checked()


def test_a_sweep_names_what_it_sweeps() -> None:
    assert swept("fmcc-rtt=1,10,50") == (1.0, 10.0, 50.0)
    for wrong in ("1,10", "dc-rtt=1", "fmcc-rtt=", "fmcc-rtt=1,x"):
        with pytest.raises(BadDesign):
            swept(wrong)


def test_the_network_is_metro_with_the_user_between_the_data_centres(tmp_path: Path) -> None:
    path = tmp_path / "topology.toml"
    path.write_text(toml_text(topology_of(headline(), "fig9")))
    topology = load_topology(str(path))
    assert topology.pair("access1", "dc1").rtt_ms == topology.pair("access1", "dc2").rtt_ms == 5.0
    assert topology.pair("dc1", "dc2").rtt_ms == 6
    assert (topology.emulation.copy_s, topology.emulation.pause_ms) == (0.1, 60)
    assert topology.fmcc.policy == "never", "only the experiment moves the service"
    assert [node.name for node in topology.nodes] == ["alice", "alice-app"]


def test_a_point_moves_the_controller_and_nobody_else() -> None:
    base = rtts_ms(topology_of(headline(), "fig9"))
    far = rtts_at(base, Point("fig9", 200.0))
    assert {rtt for pair, rtt in far.items() if "fmcc" in pair} == {200.0}
    assert {pair: rtt for pair, rtt in far.items() if "fmcc" not in pair} == {
        pair: rtt for pair, rtt in base.items() if "fmcc" not in pair
    }
    case = rtts_at(base, Point("fig9", 100.0, datacenters_ms=(100.0, 10.0)))
    assert (case[frozenset(("fmcc", "dc1"))], case[frozenset(("fmcc", "dc2"))]) == (100.0, 10.0)


@pytest.mark.parametrize(
    ("scheme", "setting"), [("lossless-no-replay", "replay_ms"), ("lossless-no-hold", "hold_bytes")]
)
def test_an_ablation_is_the_lossless_scheme_without_one_of_its_parts(scheme: str, setting: str, tmp_path: Path) -> None:
    path = tmp_path / "topology.toml"
    path.write_text(toml_text(topology_of(headline(), scheme)))
    topology = load_topology(str(path))
    assert topology.fmcc.scheme == "lossless"
    plans = daemon_plans(topology, Keys(tmp_path), Choices(tmp_path))
    routers = [plan.config["dataplane"] for plan in plans if plan.role == "xtr"]
    assert all(router.get(setting) == 0 for router in routers)
    XtrSettings.model_validate(next(plan.config for plan in plans if plan.name == "dc1"))


def test_a_user_without_a_service_and_a_topology_that_is_not_there_are_told() -> None:
    with pytest.raises(BadDesign, match="no user 'carol'"):
        topology_of(headline(user="carol"), "fig9")
    with pytest.raises(BadDesign, match="nowhere"):
        topology_of(headline(topology="nowhere"), "fig9")


def test_many_services_have_a_lab_of_their_own_and_move_at_once(tmp_path: Path) -> None:
    design = headline(services=120).checked()
    session, other, *limited = [session for session in design.sessions() if session.services > 1]
    assert {session.scheme, other.scheme} == {"lossless", "fig9"}
    assert [(each.services, each.at_once) for each in limited] == [(120, 8)] * 2
    assert {planned.point.at_once for each in limited for planned in each.runs} == {8}
    assert [planned.point.kind for planned in session.runs] == [Kind.CROWD] * 3
    path = tmp_path / "topology.toml"
    path.write_text(toml_text(topology_of(design, "fig9", session.services)))
    topology = load_topology(str(path))
    assert len(topology.services) == 120
    assert len({eid for service in topology.services for eid in service.eids}) == 240
    assert topology.fmcc.moves_at_once is None
    path.write_text(toml_text(topology_of(design, "fig9", 120, 8)))
    assert load_topology(str(path)).fmcc.moves_at_once == 8
    with pytest.raises(BadDesign, match="at most 200"):
        headline(services=300).checked()
    limited = headline(all_at_once=False).sessions()
    assert {session.at_once for session in limited if session.services > 1} == {8}
    with pytest.raises(BadDesign, match="--services"):
        headline(services=0).checked()
