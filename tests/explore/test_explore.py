"""The moves survive every interleaving of messages, losses, a duplicate, a reordering and a crash, to a bound.

`make explore` goes further (docs/moves.md says how far it has gone).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import xtr.roles
from fmcc.steering import lead
from lispfmc.core.plans import Ask, Party
from lispfmc.wire.moves import MovePhase
from tests.explore.explorer import Violation, along, explore, sequence
from tests.explore.world import Budget, forget, initial
from xtr.roles import source, target
from xtr.roles.state import Abort, Commit, Evidence, Row, State, always

MOST_STATES = int(os.environ.get("EXPLORE_STATES", "15000"))
FAULTS = Budget(
    losses=2,
    duplicates=1,
    reorders=1,
    crashes=1,
    timeouts=1,
    give_ups=1,
    returns=1,
    refreshes=1,
    packets=2,
    moves_back=1,
    carried=1,
)


def violation_text(violation: Violation | None) -> str:
    return sequence(violation) if violation else ""


def test_no_interleaving_of_messages_and_faults_breaks_a_move() -> None:
    result = explore(along(initial(FAULTS)), most_states=MOST_STATES)
    assert result.violation is None, "\n" + violation_text(result.violation)
    assert result.states >= MOST_STATES


def test_neither_without_stop_events() -> None:
    result = explore(along(initial(FAULTS, bicast=True)), most_states=MOST_STATES // 4)
    assert result.violation is None, "\n" + violation_text(result.violation)


def test_the_run_without_faults_ends_where_it_should() -> None:
    result = explore(along(initial(Budget()))[-1:], most_states=10)
    assert (result.complete, result.states, result.violation) == (True, 1, None)


@pytest.fixture(name="_planted")
def planted() -> Iterator[None]:
    """Decisions that were remembered are those of the unchanged tables, before and after."""
    forget()
    yield
    forget()


def plant(monkeypatch: pytest.MonkeyPatch, state: State, event: type, row: Row) -> None:
    monkeypatch.setitem(xtr.roles.TABLE, (state, event), (row,))


@pytest.mark.usefixtures("_planted")
def test_a_source_that_takes_the_service_back_unasked_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mistake that the protocol is built against: an abort that does not ask the target."""
    plant(monkeypatch, State.FROZEN, Abort, Row(State.HERE, source._take_back, always, "ABORT"))
    result = explore(along(initial(FAULTS)), most_states=50_000)
    assert result.violation is not None
    text = sequence(result.violation)
    assert "ABORT 2" in text
    print(text)  # noqa: T201 - with -s, to be looked at


@pytest.mark.usefixtures("_planted")
def test_a_target_that_forgets_its_promise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An aborted target that activates on what it sees, because it was not written down that it never would."""
    plant(monkeypatch, State.HOLDING, Abort, Row(State.HOLDING, lambda role, _: (role, []), always, "ABORT"))
    plant(monkeypatch, State.ABORTED, Evidence, Row(State.HERE, target._open, always, "evidence"))
    result = explore(along(initial(FAULTS)), most_states=50_000)
    assert result.violation is not None


@pytest.mark.usefixtures("_planted")
def test_a_controller_that_follows_a_found_machine_by_the_old_epoch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has come by no move of ours; the epoch that brought it where it was before has been used."""

    def stale(before: lead.Lead, event: lead.Event) -> lead.Outcome:
        assert isinstance(event, lead.Found)
        assert before.plan is not None
        plan = lead.replace(event.plan, epoch=before.plan.epoch)
        return lead.Lead(plan=plan, resumed=True), [Ask(Party.TARGET, MovePhase.ACTIVATE, plan)]

    row = lead.Row(lead.State.ACTIVATING, stale, lead._always, "found")
    monkeypatch.setitem(lead.TABLE, (lead.State.COMMITTED, lead.Found), (row,))
    result = explore(along(initial(FAULTS)), most_states=50_000)
    assert result.violation is not None
    assert "THE MACHINE IS CARRIED AWAY" in sequence(result.violation)


@pytest.mark.usefixtures("_planted")
def test_a_source_that_learns_of_its_loss_by_activate_alone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that was never prepared, and whose target has activated on what it saw, hears nothing but COMMIT."""
    plant(monkeypatch, State.HERE, Commit, Row(State.HERE, lambda role, _: (role, []), always, "COMMIT"))
    result = explore(along(initial(Budget(losses=1, crashes=1, timeouts=1, carried=1))), most_states=50_000)
    assert result.violation is not None
    assert "nobody tells the one that has lost" in result.violation.why
