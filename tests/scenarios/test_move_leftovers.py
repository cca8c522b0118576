"""What is left over from moves that others never answered, or that ended long ago: nothing of it stands in the way."""

from __future__ import annotations

from itertools import count

import msgspec
import pytest

from fmcc.steering import Redirect, choosing
from fmcc.steering.lead import Begin, GiveUp, Lead, Published, step
from fmcc.steering.lead import State as LeadState
from fmcc.steering.lossless import Lossless as Leading
from fmcc.steering.unled import Unled
from fmcc.world import DataCenter
from lispfmc.core.exchanges import Exchanges
from lispfmc.core.plans import Answered, Ask, Party, Plan, TimedOut
from lispfmc.wire.address import Endpoint, Prefix
from lispfmc.wire.messages import EidRecord, Locator
from lispfmc.wire.moves import MoveMessage, MovePhase, Verdict
from tests.scenarios.alone import APP, APP6, CONTROLLER, DC1, DC2, DC3, FMCC, KEY, PEER, PLAN, ROUTER, router, told
from xtr.roles import Role, State
from xtr.roles import step as role_step
from xtr.roles.state import Mode, Release, Remember, Superseded, Switch


@pytest.mark.parametrize(
    ("ask", "ends"),
    [
        (Ask(Party.PEERS, MovePhase.ACTIVATE, PLAN), True),
        (Ask(Party.TARGET, MovePhase.PEERS, PLAN), True),
        (Ask(Party.SOURCE, MovePhase.ACTIVATE, PLAN), False),
    ],
)
def test_a_peer_that_never_answers_is_given_up_and_a_site_is_not(ask: Ask, ends: bool) -> None:
    exchanges = Exchanges(count(1), lambda _: KEY)
    exchanges.ask(ask, [PEER], 0.0)
    sent = 1
    while sent < 100 and (due := exchanges.next_deadline()) is not None:
        sent += len(exchanges.expired(due))
    assert (len(exchanges) == 0) is ends
    assert sent == (20 if ends else 100)


def test_peers_of_a_move_that_never_came_to_pass_are_forgotten() -> None:
    target = router()
    for epoch in range(2, 50):
        plan = msgspec.structs.replace(PLAN, move=epoch, epoch=epoch)
        told(target, MovePhase.PREPARE, plan)
        record = EidRecord.of(Prefix.parse("100.64.1.0/24"), [Locator.of(PEER)], ttl_minutes=60)
        peers = MoveMessage.of(MovePhase.PEERS, record, nonce=epoch, move=epoch, epoch=epoch)
        target.received(peers, ROUTER, Endpoint(DC1, 4342), 0.0)
    assert list(target._warm) == [49]
    target.superseded(EidRecord.of(APP, [Locator.of(DC3)], ttl_minutes=60, map_version=60), 0.0)
    assert not target._warm


def test_a_target_that_gave_a_move_up_leads_packets_to_the_source_for_a_while_only() -> None:
    role, _ = role_step(Role(State.HOLDING, PLAN, promised=5), TimedOut(), 0.0)
    assert (role.state, role.deadline) == (State.ABORTED, 900.0)
    after, effects = role_step(role, TimedOut(), 900.0)
    assert (after.state, after.deadline, effects) == (State.ABORTED, None, [Release(PLAN)])
    assert role_step(after, Superseded(PLAN), 900.0)[1] == []


def test_a_target_that_gave_a_move_up_believes_a_later_one_by_others() -> None:
    later = Plan(0, 6, (APP,), (DC2,), (DC3,))
    after, effects = role_step(Role(State.ABORTED, PLAN, promised=5), Superseded(later), 0.0)
    assert (after.state, after.promised) == (State.GONE, 6)
    assert any(isinstance(each, Switch) and each.mode is Mode.FORWARD for each in effects)


def test_a_service_that_got_another_address_since_its_last_move_moves_again() -> None:
    at = router()
    told(at, MovePhase.PREPARE, PLAN)
    both = Plan(8, 6, (APP, APP6), (DC1,), (DC2,))
    refused = at.received(both.message(MovePhase.PREPARE, 9), CONTROLLER, Endpoint(FMCC, 4342), 0.0)
    assert [each.reason for each in refused if hasattr(each, "reason")] == ["overlapping-move"]
    assert told(at, MovePhase.ABORT, PLAN) is Verdict.ABORTED
    assert told(at, MovePhase.PREPARE, both) is Verdict.DONE
    assert told(at, MovePhase.COMMIT, PLAN) is Verdict.STALE  # its sender hears that it may end
    assert at.role(APP).state is at.role(APP6).state is State.HOLDING


def test_what_was_promised_of_one_address_holds_for_all_after_a_restart_too() -> None:
    at, disk = router(), {}
    both = Plan(8, 6, (APP, APP6), (DC1,), (DC2,))
    for phase, plan in ((MovePhase.PREPARE, PLAN), (MovePhase.ABORT, PLAN), (MovePhase.PREPARE, both)):
        for effect in at.received(plan.message(phase, 9), CONTROLLER, Endpoint(FMCC, 4342), 0.0):
            if isinstance(effect, Remember) and effect.role.plan is not None:
                disk[effect.role.plan.eids] = effect.role
    for order in (list(disk.values()), list(disk.values())[::-1]):
        again = router()
        again.restored(order, 0.0)
        assert again.role(APP) == again.role(APP6)
        assert again.role(APP).state is State.HOLDING
        assert told(again, MovePhase.PREPARE, msgspec.structs.replace(both, epoch=5, move=9)) is Verdict.STALE


def test_a_service_that_is_here_already_is_taken_over_when_the_controller_finds_it_here() -> None:
    at = router(owned=3)
    assert told(at, MovePhase.ACTIVATE, PLAN) is Verdict.ACTIVE
    assert (at.role(APP).state, at.role(APP).owned) == (State.HERE, 5)


def test_a_data_centre_that_never_answers_does_not_keep_a_service_from_going_to_another() -> None:
    lead, _ = step(Lead(), Begin(PLAN), 0.0)
    for event in (GiveUp(), TimedOut(), Answered(Party.TARGET, MovePhase.PREPARE, PLAN, Verdict.STALE)):
        ended, effects = step(lead, event, 1.0)
        assert ended.state is LeadState.ABORTED
        assert Ask(Party.TARGET, MovePhase.ABORT, PLAN) in effects
        assert not any(isinstance(each, Ask) and each.to is Party.SOURCE for each in effects)
        other = Plan(8, 6, (APP,), (DC1,), (DC3,))
        assert step(ended, Begin(other), 2.0)[0].state is LeadState.PREPARING_TARGET
        # it had activated all the same: the network follows
        active = Answered(Party.TARGET, MovePhase.ABORT, PLAN, Verdict.ACTIVE)
        assert step(ended, active, 2.0)[0].state is LeadState.CONVERGING


def test_a_publication_that_comes_before_the_late_word_of_the_target_is_not_waited_for_again() -> None:
    lead, _ = step(Lead(), Begin(PLAN), 0.0)
    lead, _ = step(lead, TimedOut(), 1.0)
    lead, effects = step(lead, Published(PLAN.epoch), 2.0)
    assert lead.state is LeadState.ABORTED  # it may be somebody else's
    assert not any(isinstance(each, Ask) for each in effects)
    lead, effects = step(lead, Answered(Party.TARGET, MovePhase.ABORT, PLAN, Verdict.ACTIVE), 3.0)
    assert lead.state is LeadState.COMMITTED
    assert [(each.to, each.phase) for each in effects if isinstance(each, Ask)] == [
        (Party.TARGET, MovePhase.COMMIT),
        (Party.SOURCE, MovePhase.COMMIT),
    ]


@pytest.fixture
def schemes() -> choosing.Schemes:
    centres = {name: DataCenter(name, KEY) for name in ("dc1", "dc2")}
    sites = {"dc1": (DC1,), "dc2": (DC2,)}
    makes = {"lossless": lambda _world, nonces: Leading(sites, centres, nonces), "smr": lambda _w, _n: Unled()}
    return choosing.Schemes("smr", makes, None, count(1))  # type: ignore[arg-type]


def test_a_lead_is_remembered_whichever_scheme_leads_the_moves_that_name_none(schemes: choosing.Schemes) -> None:
    lead = Lead(LeadState.CONVERGING, PLAN)
    schemes.restored({"app": lead}, 0.0)
    assert schemes.lead("app") == lead
    assert "published" in schemes.busy("app")


def test_a_move_by_another_scheme_between_two_does_not_use_an_epoch_twice(schemes: choosing.Schemes) -> None:
    schemes.restored({"app": Lead(LeadState.COMMITTED, PLAN)}, 0.0)
    schemes.prepare(Redirect("a", "app", (APP,), 1, "dc1", "dc2", "smr"), 1.0)
    again = schemes.lead("app")
    assert again is not None
    assert again.plan == PLAN
    schemes.prepare(Redirect("b", "app", (APP,), 1, "dc1", "dc2", "lossless"), 2.0)
    after = schemes.lead("app")
    assert after is not None
    assert after.plan is not None
    assert after.plan.epoch == 6
