"""What a move message must say to be a plan, and what its answers teach about the way to who answered."""

from __future__ import annotations

from itertools import count

import msgspec
import pytest

from lispfmc.core.exchanges import LEAST_WAIT_S, UNKNOWN_RTT_S, Exchanges
from lispfmc.core.plans import Ask, Party, Plan, plan_of
from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.auth import Key
from lispfmc.wire.moves import MoveMessage, MovePhase, Verdict

EIDS = (Prefix.parse("100.64.101.10/32"), Prefix.parse("fd00:0:0:101::10/128"))
DC1, DC2, DC3 = (ip_of(f"198.18.0.{last}") for last in (21, 22, 23))
PLAN = Plan(7, 5, EIDS, (DC1,), (DC2,))


def test_a_message_carries_its_plan_whole() -> None:
    plan = msgspec.structs.replace(PLAN, bicast=True, hold_bytes=1000, hold_ms=20)
    assert plan_of(plan.message(MovePhase.PREPARE, 1)) == plan


@pytest.mark.parametrize(
    "wrong",
    [
        msgspec.structs.replace(PLAN, target=(DC1,)),
        msgspec.structs.replace(PLAN, source=(DC1, DC3), target=(DC3,)),
        msgspec.structs.replace(PLAN, eids=EIDS[:1] * 2),
        msgspec.structs.replace(PLAN, eids=(Prefix.parse("100.64.101.0/24"),)),
        msgspec.structs.replace(PLAN, eids=()),
        msgspec.structs.replace(PLAN, source=()),
        msgspec.structs.replace(PLAN, target=()),
        msgspec.structs.replace(PLAN, epoch=0),
    ],
)
def test_a_plan_that_contradicts_itself_is_none(wrong: Plan) -> None:
    assert plan_of(wrong.message(MovePhase.PREPARE, 1)) is None


def test_records_that_name_different_places_are_no_plan() -> None:
    other = msgspec.structs.replace(PLAN, eids=EIDS[1:], target=(DC3,))
    records = (*PLAN.records()[:1], *other.records())
    assert plan_of(MoveMessage.of(MovePhase.PREPARE, *records, nonce=1, move=7, epoch=5)) is None


def test_a_repeated_message_teaches_nothing_about_the_round_trip() -> None:
    exchanges = Exchanges(count(1), lambda _: Key(1, b"key"))

    def asked(at: float) -> MoveMessage:
        (send,) = exchanges.ask(Ask(Party.TARGET, MovePhase.PREPARE, PLAN), [DC2], at)
        assert isinstance(send.message, MoveMessage)
        return send.message.acknowledgement(Verdict.DONE)

    answer = asked(0.0)
    assert exchanges.expired(2 * UNKNOWN_RTT_S)
    answered = exchanges.answered(answer, DC2, 5.0)  # Karn: of the first copy, or of the second?
    assert answered is not None
    assert answered.again
    assert exchanges.round_trips.first_wait_s(DC2) == 2 * UNKNOWN_RTT_S
    exchanges.answered(asked(10.0), DC2, 10.001)
    assert exchanges.round_trips.first_wait_s(DC2) == LEAST_WAIT_S
