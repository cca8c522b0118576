"""Decisions of the roles that few interleavings depend on: each alone."""

from __future__ import annotations

import msgspec
import pytest

from lispfmc.core.plans import Answered, Party, Plan
from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.moves import MovePhase, Verdict
from xtr.roles import Role, State, step
from xtr.roles.state import Abort, Activate, Held, Prepare, Superseded, Switch, verdict

EIDS = (Prefix.parse("100.64.101.10/32"),)
DC1, DC2, DC3 = ((ip_of(f"198.18.0.{last}"),) for last in (21, 22, 23))
PLAN = Plan(7, 5, EIDS, DC1, DC2)
FROZEN = Role(State.FROZEN, PLAN, owned=4, promised=5)


def switches(role: Role, event: object) -> list[Held]:
    _, effects = step(role, event, 0.0)  # type: ignore[arg-type]
    return [each.held for each in effects if isinstance(each, Switch)]


@pytest.mark.parametrize(("reached", "held"), [(False, Held.SEND), (True, Held.DISCARD)])
def test_copies_go_to_a_target_once_more_unless_it_has_said_that_it_holds(reached: bool, held: Held) -> None:
    role = msgspec.structs.replace(FROZEN, reached=reached)
    assert switches(role, Activate(PLAN, Party.SOURCE, Party.TARGET)) == [held]


@pytest.mark.parametrize(("again", "held"), [(False, []), (True, [Held.SEND])])
def test_copies_are_sent_anew_when_the_target_may_have_come_after_them(again: bool, held: list[Held]) -> None:
    answer = Answered(Party.TARGET, MovePhase.FREEZE, PLAN, Verdict.DONE, again)
    assert switches(FROZEN, answer) == held
    assert step(FROZEN, answer, 0.0)[0].reached


@pytest.mark.parametrize("state", [State.HERE, State.MIRRORING, State.FROZEN])
@pytest.mark.parametrize(("epoch", "goes"), [(3, False), (4, False), (6, True)])
def test_who_has_a_service_lets_go_for_a_higher_epoch_alone(state: State, epoch: int, goes: bool) -> None:
    role = msgspec.structs.replace(FROZEN, state=state)
    after, effects = step(role, Superseded(Plan(0, epoch, EIDS, DC1, DC3)), 0.0)
    assert (after.state is State.GONE) is bool(effects) is goes


def test_a_target_that_expects_a_service_makes_way_for_a_higher_epoch_alone() -> None:
    role = Role(State.HOLDING, PLAN, promised=5)
    assert step(role, Superseded(Plan(0, 5, EIDS, DC2, DC3)), 0.0) == (role, [])
    assert step(role, Superseded(Plan(0, 6, EIDS, DC2, DC3)), 0.0)[0].state is State.GONE


@pytest.mark.parametrize(
    ("owned", "said"), [(4, Verdict.ABORTED), (5, Verdict.ACTIVE), (6, Verdict.ACTIVE), (0, Verdict.ABORTED)]
)
def test_to_give_up_an_epoch_that_was_active_here_or_came_before_one_that_was_is_refused(
    owned: int, said: Verdict
) -> None:
    later = Role(State.HERE, Plan(9, 8, EIDS, DC2, DC3), owned=owned, promised=8)
    assert verdict(later, MovePhase.ABORT, PLAN) is said


def test_what_was_given_up_before_it_was_prepared_is_not_prepared_after_it() -> None:
    given_up, _ = step(Role(), Abort(PLAN, Party.TARGET, Party.CONTROLLER), 0.0)
    assert (given_up.state, given_up.promised) == (State.ABORTED, 5)
    for late in (Prepare(PLAN, Party.TARGET), Activate(PLAN, Party.TARGET, Party.CONTROLLER)):
        assert step(given_up, late, 1.0) == (given_up, [])
