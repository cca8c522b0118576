"""Policies inside the controller, on virtual time: what is measured, told and learned decides, and it says why."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from fmcc import views
from fmcc.deliberation import MEASURED_FOR_S
from fmcc.moves import State
from fmcc.settings import FmccSettings
from lispfmc.wire.address import Prefix
from lispfmc.wire.errors import LocalError
from tests.scenarios.test_fmcc_move import Net, fmcc_settings


def explained(net: Net) -> dict[str, Any]:
    (item,) = msgspec.to_builtins(views.decisions(net.fmcc, net.now))["items"]
    assert isinstance(item, dict)
    return item


def decisions(net: Net) -> list[str]:
    return [fields["decision"] for _, name, fields in net.events if name == "decision.made"]


def back_and_forth(net: Net, times: int, copy_s: float = 1.0) -> None:
    """Alice goes to the other access network each time; hypervisors do what they are asked."""
    for number in range(times):
        before = len(net.asked)
        net.alice_moves("access2" if number % 2 == 0 else "access1")
        net.run(1.0)
        if len(net.asked) > before and net.placement.in_flight:
            net.hypervisor_moves(copy_s=copy_s)
        net.run(60.0)


@pytest.mark.parametrize("policy", ["always", "threshold:3", "mdp", "learned"])
def test_every_policy_that_follows_moves_the_service_and_explains_it(policy: str) -> None:
    net = Net(policy=policy)
    net.settles()
    net.alice_moves()
    net.run(0.1)
    fields = net.fields("decision.made")
    assert (fields["decision"], fields["to"], fields["policy"], fields["rule"]) == ("move", "dc2", policy, policy)
    assert fields["runner_up"].startswith("stay at dc1")
    item = explained(net)
    assert item["reason"] == fields["reason"]
    assert [each["datacenter"] for each in item["candidates"]] == ["dc1", "dc2"]
    net.hypervisor_moves()
    net.run(1.0)
    assert net.placement.state is State.COMMITTED


def test_a_threshold_that_is_not_reached_leaves_the_service() -> None:
    net = Net(policy="threshold:30")
    net.settles()
    net.alice_moves()
    net.run(0.1)
    assert net.fields("decision.made")["decision"] == "stay"
    assert not net.asked


def test_a_measured_distance_counts_more_than_the_configured_one_until_it_is_old() -> None:
    net = Net()
    net.settles()
    net.fmcc.deliberation.measured("access2", "dc1", 2.0, net.now)
    net.alice_moves()
    net.run(0.1)
    assert net.fields("decision.made")["decision"] == "stay"
    net.alice_moves("access1")
    net.run(MEASURED_FOR_S)
    net.alice_moves()
    net.run(0.1)
    assert net.fields("decision.made")["decision"] == "move"


def test_measurements_are_smoothed_and_wrong_ones_refused() -> None:
    deliberation = Net().fmcc.deliberation
    deliberation.measured("access1", "dc1", 100.0, 1.0)
    deliberation.measured("dc1", "access1", 20.0, 2.0)
    assert deliberation.rtt_ms("access1", "dc1", 3.0) == 80.0
    for a, b, ms in (("access1", "dc9", 1.0), ("dc1", "dc1", 1.0), ("access1", "dc1", float("nan"))):
        with pytest.raises(LocalError, match="the distance of"):
            deliberation.measured(a, b, ms, 3.0)


def test_a_service_that_is_nearly_finished_stays() -> None:
    net = Net(model={"link_mbit_s": 100}, policy="always", services=[service(size_bytes=10**9)])
    net.settles()
    net.fmcc.deliberation.remaining("app", 79.0, net.now)  # 80 s to copy
    net.alice_moves()
    net.run(0.1)
    assert explained(net)["rule"] == "nearly-finished"
    assert explained(net)["runner_up"].startswith("always: move to dc2")
    net.fmcc.deliberation.remaining("app", None, net.now)
    net.alice_moves("access1")
    net.run(1.0)
    net.alice_moves()
    net.run(0.1)
    assert explained(net)["decision"] == "move"


def test_a_partial_migration_costs_what_its_part_takes_to_copy() -> None:
    net = Net(model={"link_mbit_s": 100}, policy="always", services=[service(size_bytes=10**9, fraction=0.5)])
    net.settles()
    net.fmcc.deliberation.remaining("app", 41.0, net.now)  # 40 s to copy the half
    net.alice_moves()
    net.run(0.1)
    assert explained(net)["decision"] == "move"


def service(**changes: object) -> dict[str, object]:
    eids = ["100.64.101.10/32", "fd00:0:0:101::10/128"]
    return {"name": "app", "user": "alice", "eids": eids, "datacenter": "dc1", **changes}


def test_a_classs_rules_hold_for_its_services() -> None:
    net = Net(
        policy="never",
        service_classes=[{"name": "emergency", "always_follows": True}],
        services=[service(service_class="emergency")],
    )
    net.settles()
    net.alice_moves()
    net.run(0.1)
    assert net.fields("decision.made")["rule"] == "always-follows"
    assert explained(net)["service_class"] == "emergency"


def test_a_user_that_goes_back_and_forth_is_counted_and_held_by_the_settling_time() -> None:
    restless = Net()
    restless.settles()
    back_and_forth(restless, 4)
    assert restless.fmcc.deliberation.ping_pongs == {"app": 3}
    assert restless.fields("migration.pingpong")["count"] == 3
    (placement,) = msgspec.to_builtins(views.placements(restless.fmcc))["items"]
    assert placement["ping_pongs"] == 3

    held = Net(service_classes=[{"name": "calm", "settle_s": 200}], services=[service(service_class="calm")])
    held.settles()
    back_and_forth(held, 4)
    assert held.fmcc.deliberation.ping_pongs == {}
    assert "settling" in {fields["rule"] for _, name, fields in held.events if name == "decision.made"}


def test_only_a_return_is_a_ping_pong_and_only_a_soon_one() -> None:
    net = Net()
    deliberation, home = net.fmcc.deliberation, net.placement
    away, farther = (msgspec.structs.replace(home, datacenter=name) for name in ("dc2", "dc3"))
    deliberation.heard("app")
    assert deliberation.replaced(home, away, 0.0) == []
    assert deliberation.replaced(away, farther, 1.0) == []
    assert len(deliberation.replaced(farther, away, 300.0)) == 1
    assert deliberation.replaced(away, farther, 601.0) == [], "it stayed for longer than ping_pong_s"


def test_the_time_that_a_copy_took_is_what_the_next_one_is_expected_to_cost() -> None:
    net = Net(policy="mdp")
    net.settles()
    net.alice_moves()
    net.run(0.1)
    assert explained(net)["candidates"][1]["transfer_s"] is None
    net.hypervisor_moves(copy_s=300.0)
    net.run(10.0)
    net.alice_moves("access1")
    net.run(0.1)
    assert explained(net)["candidates"][0]["transfer_s"] == pytest.approx(300.06, abs=0.01)
    assert "cost 18.8" in explained(net)["reason"]


def test_the_learned_policy_stops_following_a_commuter_whose_service_costs_too_much_to_move() -> None:
    net = Net(policy="learned", model={"step_ms": 50.0}, services=[service(size_bytes=10**9)])
    net.settles()
    assert decisions(net) == ["stay"]
    back_and_forth(net, 8, copy_s=80.0)
    assert "move" in decisions(net), "at first the model decides"
    back_and_forth(net, 16, copy_s=80.0)
    seen = len(net.events)
    back_and_forth(net, 5, copy_s=80.0)
    late = [fields for _, name, fields in net.events[seen:] if name == "decision.made"]
    assert {fields["decision"] for fields in late} == {"stay"}
    assert any("handovers replayed" in fields["reason"] for fields in late)


def test_to_be_seen_for_the_first_time_is_no_handover() -> None:
    net = Net(policy="learned")
    net.settles()
    assert net.fmcc.whereabouts("alice").site == "access1"
    assert net.fmcc.deliberation.state("app", net.now) is None
    net.alice_moves()
    net.run(0.1)
    state = net.fmcc.deliberation.state("app", net.now)
    assert state is not None
    assert state["learned"]["handovers"] == 1


def test_room_is_counted_through_a_move_and_after_it() -> None:
    net = Net(sites=with_capacity(1))
    net.settles()
    deliberation = net.fmcc.deliberation
    assert (deliberation._taken["dc1"], deliberation._taken["dc2"]) == (1, 0)
    net.alice_moves()
    net.run(0.1)
    assert (deliberation._taken["dc1"], deliberation._taken["dc2"]) == (1, 1)
    net.hypervisor_moves()
    net.run(1.0)
    assert (deliberation._taken["dc1"], deliberation._taken["dc2"]) == (0, 1)
    assert deliberation.has_room(net.placement, "dc2"), "its own place is free to it"


def with_capacity(capacity: int) -> list[dict[str, object]]:
    sites: list[dict[str, object]] = []
    for site in fmcc_settings().sites:
        datacenter = site.kind == "datacenter"
        sites.append({**site.model_dump(), "capacity": capacity if datacenter else None})
    return sites


def test_the_configuration_of_policies_becomes_policies() -> None:
    settings = FmccSettings.model_validate(
        {
            **fmcc_settings().model_dump(),
            "policy": "threshold:2",
            "model": {"step_ms": 5, "link_mbit_s": 1000},
            "service_classes": [{"name": "film", "policy": "learned", "latency_curve": [[0, 0], [200, 0], [300, 10]]}],
            "rtts": [{"a": "dc1", "b": "dc2", "ms": 10, "mbit_s": 100}],
            "services": [service(service_class="film", size_bytes=10**9)],
        }
    )
    policy, world = settings.make_policy(), settings.world()
    assert policy.name == "threshold:2"
    app = world.services["app"]
    assert app.service_class == "film"
    assert world.transfer_s(app, "dc2", "dc1") == 80.0
    assert app.eids == tuple(map(Prefix.parse, ("100.64.101.10/32", "fd00:0:0:101::10/128")))


def test_what_was_learned_goes_on_after_a_restart() -> None:
    net = Net(policy="learned")
    net.settles()
    back_and_forth(net, 24, copy_s=80.0)
    saved = json.loads(json.dumps(net.fmcc.deliberation.state("app", net.now)))
    assert saved["policy"] == "learned"
    assert saved["ping_pongs"] > 0
    again = Net(policy="learned").fmcc.deliberation
    assert again.state("app", 7.0) is None
    again.restore("app", saved, 7.0)
    assert again.state("app", 7.0) == saved
    later = again.state("app", 9.0)
    assert later is not None
    assert later["settled_s"] == saved["settled_s"] + 2.0
    view = net.fmcc.deliberation.view(net.placement, "access2", net.now)
    assert again.policy.decide(view) == net.fmcc.policy.decide(view)
    other = Net(policy="mdp").fmcc.deliberation
    other.restore("app", saved, 7.0)
    assert other.state("app", 7.0) == {**saved, "policy": "mdp", "learned": None}


@pytest.mark.parametrize(
    "damage", [{"copied_s": -1}, {"copied_s": "long"}, {"ping_pongs": -2}, {"learned": {"costs": 3}}]
)
def test_a_damaged_state_is_refused(damage: dict[str, object]) -> None:
    deliberation = Net(policy="learned").fmcc.deliberation
    with pytest.raises(LocalError, match="learned anew"):
        deliberation.restore(
            "app", {"policy": "learned", "copied_s": 1.0, "ping_pongs": 1, "learned": None, **damage}, 0.0
        )
    assert deliberation.state("app", 0.0) is None
    with pytest.raises(LocalError, match="not configured"):
        deliberation.restore("nobody", {}, 0.0)


def test_the_load_of_a_data_centre_is_part_of_its_distance() -> None:
    net = Net(sites=with_capacity(4), policy="always", model={"load_ms": 1000.0})
    net.settles()
    net.alice_moves()
    net.run(0.1)
    loads = {each["datacenter"]: (each["load"], each["free"]) for each in explained(net)["candidates"]}
    assert loads == {"dc1": (0.25, 4), "dc2": (0.0, 4)}
