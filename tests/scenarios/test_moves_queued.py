"""`limits.moves_at_once`: so many moves for each data centre are under way, the others wait for their turn."""

from __future__ import annotations

from itertools import count

import pytest

from fmcc.controller import Controller
from fmcc.effects import FmccEffect, Persist, PrepareMigration
from fmcc.moves import Failed, Prepared, Resumed, State, Stopped
from fmcc.requests import RequestRefused
from fmcc.settings import FmccSettings
from fmcc.standing import Standing
from fmcc.steering.registry import schemes
from lispfmc.core.effects import Emit
from tests.scenarios.test_fmcc_move import FMCC, fmcc_settings

NAMES = [f"app-{number}" for number in range(1, 6)]


def settings(at_once: int | None) -> FmccSettings:
    services = [
        {"name": name, "eids": [f"100.64.101.{20 + at}/32"], "datacenter": "dc1"} for at, name in enumerate(NAMES)
    ]
    limits = {} if at_once is None else {"moves_at_once": at_once}
    # a scheme that prepares nobody and follows nobody: what is tested is who may begin
    return fmcc_settings(scheme="pubsub", policy="never", rlocs=[FMCC], services=services, limits=limits)


def controller(at_once: int | None) -> Controller:
    asked = settings(at_once)
    world, nonces = asked.world(), count(1)
    return Controller(world, asked.make_policy(), schemes(asked.scheme, world, nonces), nonces)


def begun(effects: list[FmccEffect]) -> list[str]:
    return [each.machine for each in effects if isinstance(each, PrepareMigration)]


def events(effects: list[FmccEffect]) -> list[str]:
    return [each.name for each in effects if isinstance(each, Emit)]


def states(core: Controller) -> dict[str, State]:
    return {name: placement.state for name, placement in core.placements.items()}


def move_of(core: Controller, name: str) -> str:
    move = core.placements[name].move
    assert move is not None
    return move.id


def all_asked(core: Controller) -> list[FmccEffect]:
    return [effect for name in NAMES for effect in core.requested(name, "dc2", "", 1.0)]


def arrive(core: Controller, name: str, now: float) -> list[FmccEffect]:
    """It runs at its target; that was never published, and time is over."""
    move = move_of(core, name)
    effects: list[FmccEffect] = []
    for report in (Prepared("emulated", emulated=True), Stopped(1), Resumed(2)):
        effects += core.agent_event(move, report, now)
    return effects + core.expired(now + core.world.limits.commit_s)


def test_without_a_limit_all_begin() -> None:
    assert begun(all_asked(controller(None))) == NAMES


def test_as_many_as_may_be_begin_and_the_others_are_queued_and_say_so() -> None:
    core = controller(2)
    effects = all_asked(core)
    assert begun(effects) == NAMES[:2]
    assert events(effects).count("migration.queued") == 3
    assert events(effects).count("migration.requested") == 5
    assert [states(core)[name] for name in NAMES] == [State.PREPARING] * 2 + [State.QUEUED] * 3


def test_each_move_that_ends_lets_the_next_one_begin_in_the_order_of_the_requests() -> None:
    core = controller(2)
    all_asked(core)
    assert begun(core.agent_event(move_of(core, "app-2"), Failed("refused"), 2.0)) == ["app-3"]
    assert begun(core.agent_event(move_of(core, "app-1"), Failed("refused"), 3.0)) == ["app-4"]
    assert begun(core.agent_event(move_of(core, "app-4"), Failed("refused"), 4.0)) == ["app-5"]
    assert begun(core.agent_event(move_of(core, "app-3"), Failed("refused"), 5.0)) == []


def test_a_move_that_waits_has_no_deadline_and_is_in_hand() -> None:
    core = controller(1)
    all_asked(core)
    core.agent_event(move_of(core, "app-1"), Prepared("emulated", emulated=True), 1.0)
    core.expired(core.world.limits.copy_s - 1)
    assert states(core)["app-2"] is State.QUEUED
    with pytest.raises(RequestRefused, match="on its way"):
        core.requested("app-2", "dc2", "", 5.0)


def test_a_move_that_waits_can_be_given_up_and_asks_nobody_for_anything() -> None:
    core = controller(1)
    all_asked(core)
    effects = core.abort(move_of(core, "app-2"), 2.0)
    assert [type(effect) for effect in effects] == [Persist, Emit]
    assert states(core)["app-2"] is State.FAILED
    assert begun(arrive(core, "app-1", 3.0)) == ["app-3"]


def test_one_that_was_given_up_and_asked_for_again_goes_to_the_end() -> None:
    core = controller(1)
    all_asked(core)
    core.abort(move_of(core, "app-2"), 2.0)
    core.requested("app-2", "dc2", "", 2.5)
    begins = []
    for at, name in enumerate(["app-1", "app-3", "app-4", "app-5"]):
        begins += begun(arrive(core, name, 100.0 * (at + 1)))
    assert begins == ["app-3", "app-4", "app-5", "app-2"]


def test_an_agent_that_was_restarted_does_not_end_what_it_has_never_heard_of() -> None:
    core = controller(1)
    all_asked(core)
    effects = core.agent_restarted("dc1", 2.0)
    assert states(core)["app-1"] is State.FAILED
    assert begun(effects) == ["app-2"]
    assert states(core)["app-3"] is State.QUEUED


def test_a_restart_forgets_no_move_that_waits() -> None:
    core, written = controller(1), dict[str, Standing]()
    for effect in all_asked(core):
        if isinstance(effect, Persist) and effect.standing is not None:
            written[effect.service] = effect.standing
    again = controller(1)
    again.restored(written, 10.0)
    assert [states(again)[name] for name in NAMES] == [State.PREPARING] + [State.QUEUED] * 4
    assert begun(arrive(again, "app-1", 11.0)) == ["app-2"]


def test_a_restart_with_a_higher_limit_begins_what_it_allows() -> None:
    core, written = controller(1), dict[str, Standing]()
    for effect in all_asked(core):
        if isinstance(effect, Persist) and effect.standing is not None:
            written[effect.service] = effect.standing
    again = controller(3)
    assert begun(again.restored(written, 10.0)) == ["app-1", "app-2", "app-3"]
