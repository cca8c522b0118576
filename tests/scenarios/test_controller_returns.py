"""A controller that was killed goes on with a move by its own scheme, whatever it remembers of an earlier one."""

from __future__ import annotations

from itertools import count

import pytest

from fmcc.controller import Controller
from fmcc.effects import AbortMigration, StartMigration
from fmcc.moves import Move, Phase, State
from fmcc.standing import Standing
from fmcc.steering.lead import Lead, Published, step
from fmcc.steering.lead import State as LeadState
from fmcc.steering.registry import schemes
from lispfmc.core.effects import Send
from lispfmc.core.plans import Plan
from lispfmc.wire.address import ip_of
from lispfmc.wire.moves import MoveMessage, MovePhase
from tests.scenarios.led import fmcc_settings
from tests.scenarios.sites import ALICE_APP, RLOCS

PAST = Plan(6, 4, (ALICE_APP,), (ip_of(RLOCS["dc2"][0]),), (ip_of(RLOCS["dc1"][0]),))


def returned(state: State, scheme: str, lead: Lead, move: str = "0000000000000007") -> list[object]:
    settings = fmcc_settings(RLOCS["fmcc"][0], "fmcc")
    world, nonces = settings.world(), count(1)
    core = Controller(world, settings.make_policy(), schemes(settings.scheme, world, nonces), nonces)
    under_way = Move(move, "dc1", "dc2", 5, state, (Phase("decided", 0.0),), scheme=scheme)
    return list(core.restored({"alice-app": Standing("dc1", 4, under_way, lead)}, 1.0))


def test_a_move_by_a_scheme_that_prepares_nobody_goes_on_beside_a_lead_of_the_past() -> None:
    effects = returned(State.WARMING, "smr", Lead(LeadState.COMMITTED, PAST, resumed=True, published=True))
    assert any(isinstance(each, StartMigration) for each in effects)


def test_a_move_that_is_led_is_not_begun_twice() -> None:
    plan = Plan(7, 5, (ALICE_APP,), PAST.target, PAST.source)
    effects = returned(State.WARMING, "lossless", Lead(LeadState.PREPARING_TARGET, plan))
    asked = [each.message for each in effects if isinstance(each, Send) and isinstance(each.message, MoveMessage)]
    assert [(each.phase, each.move, each.epoch) for each in asked] == [(MovePhase.PREPARE, 7, 5)]


@pytest.mark.parametrize(("state", "forgets"), [(LeadState.ABORTING, True), (LeadState.ABORTED, False)])
def test_hypervisors_are_told_again_of_a_move_that_is_still_being_given_up(state: LeadState, forgets: bool) -> None:
    plan = Plan(7, 5, (ALICE_APP,), PAST.target, PAST.source)
    effects = returned(State.FAILED, "lossless", Lead(state, plan))
    assert any(isinstance(each, AbortMigration) for each in effects) is forgets


@pytest.mark.parametrize(("epoch", "committed"), [(3, False), (4, True), (5, True)])
def test_a_publication_of_an_older_epoch_ends_no_move(epoch: int, committed: bool) -> None:
    after, _ = step(Lead(LeadState.CONVERGING, PAST), Published(epoch), 0.0)
    assert (after.state is LeadState.COMMITTED) is committed
