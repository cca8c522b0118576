"""Who may say what of a move: the controller what it is configured to, the two sites their own part, nobody more."""

from __future__ import annotations

import msgspec
import pytest

from lispfmc.core.effects import Reject, Send
from lispfmc.core.plans import Plan
from lispfmc.wire.address import Endpoint, Ip, Prefix, ip_of
from lispfmc.wire.messages import EidRecord, Locator
from lispfmc.wire.moves import MoveMessage, MovePhase
from tests.scenarios.alone import APP, CONTROLLER, DC1, DC2, FMCC, KEY, PEER, PLAN, ROUTER, router, told
from xtr.lossless import MOST_PEERS, Lossless
from xtr.roles import State
from xtr.roles.state import Switch, Warm
from xtr.senders import Sender

ELSEWHERE = ip_of("203.0.113.1")


def refused(at: Lossless, message: MoveMessage, sender: Sender, source: Ip) -> str:
    """Why; "" when it was heard. A refusal is all that comes of a message."""
    effects = at.received(message, sender, Endpoint(source, 4342), 0.0)
    reasons = [each.reason for each in effects if isinstance(each, Reject)]
    assert not reasons or len(effects) == 1
    return reasons[0] if reasons else ""


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (msgspec.structs.replace(PLAN, source=(ELSEWHERE,)), "foreign-locator"),
        (Plan(7, 5, (APP,), (DC2,), (ELSEWHERE,)), "foreign-locator"),
        (msgspec.structs.replace(PLAN, eids=(APP, Prefix.parse("192.0.2.1/32"))), "foreign-prefix"),
        (PLAN, ""),
    ],
)
@pytest.mark.parametrize("phase", [MovePhase.PREPARE, MovePhase.ACTIVATE, MovePhase.ABORT])
def test_a_controller_moves_what_it_may_between_places_that_it_may(wrong: Plan, reason: str, phase: MovePhase) -> None:
    at = router()
    assert refused(at, wrong.message(phase, 1), CONTROLLER, FMCC) == reason
    assert (at.role(APP).plan is None) is bool(reason)


@pytest.mark.parametrize(
    ("source", "heard"),
    [
        (DC1, {MovePhase.FREEZE, MovePhase.ABORT}),
        (DC2, {MovePhase.ACTIVATE}),
        (PEER, set()),
    ],
)
def test_a_router_speaks_for_its_own_part_of_a_move_only(source: Ip, heard: set[MovePhase]) -> None:
    here = DC1 if source == DC2 else DC2
    for phase in set(MovePhase) - {MovePhase.PEERS}:
        at = router(here, owned=1 if here == DC1 else None)
        told(at, MovePhase.PREPARE, PLAN)
        before = at.role(APP)
        reason = refused(at, PLAN.message(phase, 2), ROUTER, source)
        assert reason == ("" if phase in heard else "not-a-party"), phase
        assert phase in heard or at.role(APP) == before


def test_only_the_source_names_the_peers_and_no_more_than_so_many() -> None:
    at = router()
    told(at, MovePhase.PREPARE, PLAN)
    nonce = 0
    for source, reason in ((PEER, "not-a-party"), (DC2, "not-a-party"), (DC1, "")):
        for number in range(MOST_PEERS + 10):
            nonce += 1
            record = EidRecord.of(APP, [Locator.of(ip_of(f"198.18.9.{number}"))], ttl_minutes=1)
            message = MoveMessage.of(MovePhase.PEERS, record, nonce=nonce, move=PLAN.move, epoch=PLAN.epoch)
            effects = at.received(message, ROUTER, Endpoint(source, 4342), 0.0)
            assert [each.reason for each in effects if isinstance(each, Reject)] == [reason] * bool(reason)
            assert any(isinstance(each, Warm) for each in effects) is not bool(reason)
    assert len(at._warm[PLAN.move]) == MOST_PEERS
    at.announced(APP, 1.0)
    peers = {each.to.ip for each in at.expired(1.0) if isinstance(each, Send)} - {DC1}
    assert len(peers) == MOST_PEERS


@pytest.mark.parametrize(("agent", "ago_s"), [(DC1, 0.5), (PEER, None)])
def test_the_instant_of_stop_counts_only_from_an_agent_that_has_our_clock(agent: Ip, ago_s: float | None) -> None:
    at = router(DC1, owned=1)
    told(at, MovePhase.PREPARE, PLAN)
    stop = MoveMessage.of(MovePhase.FREEZE, nonce=1, move=PLAN.move, epoch=0, stopped_ns=int(9.5e9))
    effects = at.reported(stop, KEY, Endpoint(agent, 9350), 10.0)
    assert at.role(APP).state is State.FROZEN
    (switch,) = (each for each in effects if isinstance(each, Switch))
    assert switch.stopped_s == (None if ago_s is None else pytest.approx(ago_s))


def test_the_mapping_systems_word_that_a_service_is_here_takes_it_away_from_nobody() -> None:
    at = router(owned=1)
    told(at, MovePhase.ACTIVATE, PLAN)
    record = EidRecord.of(APP, [Locator.of(DC2)], ttl_minutes=60, map_version=9)
    assert at.superseded(record, 1.0) == []
    assert at.role(APP).state is State.HERE
