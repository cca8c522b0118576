"""Moves that end otherwise: a machine that does not resume, a queue that is full, a machine carried by hand."""

from __future__ import annotations

import pytest

from fmcc.hypervisor import Happened, Kind
from fmcc.moves import Failed, State
from fmcc.steering import lead as leading
from lispfmc.core.plans import Answered, Party, Plan
from lispfmc.wire.moves import MovePhase, Verdict
from tests.scenarios.led import COPY_S, PAUSE_S, LedWorld
from tests.scenarios.sites import ALICE_APP, rloc
from xtr.dataplane.holding import HoldQueue
from xtr.roles import Role, step
from xtr.roles import State as Part
from xtr.roles.state import Activate, Commit, verdict

STOPPED_AT = 0.036 + COPY_S


def moving(world: LedWorld, for_s: float = 4.0) -> LedWorld:
    world.sends_every(0.001, for_s)
    world.run(0.01)
    world.fmcc.asks("dc2")
    return world


def part(world: LedWorld, site: str) -> str:
    return str(world.router(site).core.moves(lambda _: {}, world.network.now)[0]["state"])


def at_rest(world: LedWorld, site: str) -> None:
    assert world.deliverers(ALICE_APP) == [site]
    assert world.registered_at(ALICE_APP) == rloc(site)
    assert world.fmcc.placement.datacenter == site
    assert world.fmcc.core.migrations.busy("alice-app") == ""


def test_a_machine_that_never_resumes_at_the_target_gets_all_that_was_held_at_the_source() -> None:
    world = moving(LedWorld())
    world.may_resume = False
    while world.hosts[ALICE_APP].site is not None:
        world.run(0.005)
    (migration,) = world.copying.values()
    world.run(0.05)
    assert (part(world, "dc1"), part(world, "dc2")) == ("frozen", "holding")
    assert len(world.router("dc2").led[ALICE_APP].hold) > 0
    world.attach(world.hosts[ALICE_APP], "dc1")
    agent = world.agents["dc1"]
    failed = Happened(Kind.FAILED, migration, int(world.network.now * 1e9), runs_here=True)
    agent.apply(list(agent.core.tell(failed, world.network.now)))
    world.fmcc.hears(migration.move, Failed("the target has no memory"))
    world.run(10.0)
    at_rest(world, "dc1")
    assert part(world, "dc2") == "aborted"
    assert world.fmcc.placement.state is State.FAILED
    assert world.lost() == []


def test_what_the_target_has_no_room_for_is_lost_last_and_told_with_its_reason() -> None:
    world = moving(LedWorld())
    world.run(0.3)
    dc2 = world.router("dc2")
    hold = dc2.led[ALICE_APP].hold = HoldQueue(3000, 30.0)
    world.run(6.0)
    at_rest(world, "dc2")
    full = hold.counters["dropped.hold-full"]
    assert 0 < len(world.lost()) <= full
    assert world.lost() == list(range(world.lost()[0], world.lost()[-1] + 1)), "those that came last before RESUME"
    eids = world.fmcc.placement.service.eids
    dc2.apply(dc2.core.worked_off(eids, {"held": hold.counters["held"], "lost.hold-full": full}, world.network.now))
    told = [event for _, event in dc2.events if event.name == "move.packets"]
    assert told[-1].fields["lost.hold-full"] == full


@pytest.mark.parametrize("after_s", [PAUSE_S + 0.003, PAUSE_S + 0.03, 3.0], ids=["notified", "converging", "committed"])
def test_a_machine_that_is_carried_back_by_hand_is_followed(after_s: float) -> None:
    """Its hypervisor lists it at dc1, perhaps before the move to dc2 has ended: what was seen is not forgotten."""
    world = moving(LedWorld(), for_s=0.5)
    while world.hosts[ALICE_APP].site is not None:
        world.run(0.005)
    world.run(after_s)
    while world.fmcc.placement.datacenter != "dc2":
        world.run(0.001)
    world.attach(world.hosts[ALICE_APP], "dc1")
    now = world.network.now
    world.fmcc.apply(list(world.fmcc.core.found("dc1", ["alice-app"], now, now)))
    world.run(20.0)
    at_rest(world, "dc1")
    before = len(world.sent)
    world.sends_every(0.01, 0.1)
    world.run(1.0)
    assert not set(world.sent[before:]) & set(world.lost())


# --- what the controller says to a router that does not expect it ---

PLAN = Plan(7, 2, (ALICE_APP,), (rloc("dc1"),), (rloc("dc2"),))
NEXT = Plan(8, 3, (ALICE_APP,), (rloc("dc2"),), (rloc("dc1"),))


def test_a_source_that_was_never_prepared_lets_go_at_its_controllers_commit_and_at_nobody_elses() -> None:
    here = Role(Part.HERE, owned=1, promised=1)
    assert step(here, Commit(PLAN, Party.SOURCE, Party.TARGET), 0.0) == (here, [])
    after, _ = step(here, Commit(PLAN, Party.SOURCE, Party.CONTROLLER), 0.0)
    assert (after.state, after.promised) == (Part.GONE, 2)
    newer = Role(Part.HERE, owned=3, promised=3)
    assert step(newer, Commit(PLAN, Party.SOURCE, Party.CONTROLLER), 0.0) == (newer, [])


@pytest.mark.parametrize("state", [Part.MIRRORING, Part.FROZEN])
def test_a_source_whose_service_is_found_with_it_asks_the_target_first(state: Part) -> None:
    source = Role(state, PLAN, owned=1, promised=2)
    after, effects = step(source, Activate(NEXT, Party.TARGET, Party.CONTROLLER), 0.0)
    assert (after.state, after.asking, after.owned) == (state, True, 1)
    assert [getattr(each, "phase", None) for each in effects] == [None, MovePhase.ABORT]
    assert verdict(after, MovePhase.ACTIVATE, NEXT) is Verdict.BUSY


def test_a_router_that_has_the_service_already_takes_it_by_the_epoch_that_it_is_told() -> None:
    here = Role(Part.HERE, PLAN, owned=1, promised=2)
    after, _ = step(here, Activate(NEXT, Party.TARGET, Party.CONTROLLER), 0.0)
    assert (after.state, after.owned) == (Part.HERE, 3)
    assert verdict(after, MovePhase.ACTIVATE, NEXT) is Verdict.ACTIVE
    assert step(here, Activate(NEXT, Party.TARGET, Party.SOURCE), 0.0) == (here, [])


def test_a_move_that_a_router_refuses_because_it_has_the_service_ends_and_another_may_begin() -> None:
    """It answers ABORT as well by saying that it knows nothing of the move: there is nothing to wait for."""
    plan = NEXT
    lead, _ = leading.step(leading.Lead(), leading.Begin(plan), 0.0)
    for phase in (MovePhase.PREPARE, MovePhase.ABORT):
        answer = Answered(Party.TARGET, phase, plan, Verdict.UNPREPARED, again=False)
        lead, _ = leading.step(lead, answer, 0.0)
    assert lead.state is leading.State.ABORTED
