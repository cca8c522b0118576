"""What an agent tells its own tunnel router, and for how long."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from fmcc.hypervisor import Happened, Kind, Migration
from fmcc.hypervisor.telling import MOST_MOVES, Telling
from lispfmc.core.effects import Emit, Reject, Send
from lispfmc.core.exchanges import LEAST_WAIT_S
from lispfmc.wire import decode
from lispfmc.wire.address import Endpoint, Prefix, ip_of
from lispfmc.wire.auth import Key, sign
from lispfmc.wire.moves import MoveMessage, MovePhase, Verdict

ROUTER = Endpoint(ip_of("198.18.0.21"), 4342)
KEY = Key(6, b"agent")
MOVE = Migration("0000000000000007", "app", "dc1", "dc2", "lossless")
STOPPED = Happened(Kind.STOPPED, MOVE, 1)


def new() -> Telling:
    return Telling(ROUTER, KEY, itertools.count(1))


def only(effects: list[Any]) -> MoveMessage:
    (send,) = effects
    assert isinstance(send, Send)
    assert (send.to, send.key) == (ROUTER, KEY)
    assert isinstance(send.message, MoveMessage)
    return send.message


def answer(telling: Telling, message: MoveMessage, verdict: Verdict, now: float, key: Key = KEY) -> list[Any]:
    datagram = sign(message.acknowledgement(verdict), key)
    return list(telling.received(decode(datagram), datagram, ROUTER, now))


@pytest.mark.parametrize(
    ("happened", "phase"),
    [
        (STOPPED, MovePhase.FREEZE),
        (Happened(Kind.RESUMED, MOVE, 1), MovePhase.ACTIVATE),
        (Happened(Kind.FAILED, MOVE, 1, runs_here=True), MovePhase.ABORT),
    ],
)
def test_what_happens_to_the_machine_becomes_a_phase(happened: Happened, phase: MovePhase) -> None:
    message = only(new().tell(happened, 0.0))
    assert (message.phase, message.move, message.records) == (phase, 7, ())


def test_a_real_machine_that_had_not_read_all_yet_stopped_so_much_earlier_for_the_router() -> None:
    real = Telling(ROUTER, KEY, itertools.count(1), emulated=False)
    stopped, earlier = (Happened(Kind.STOPPED, MOVE, at_ns) for at_ns in (5_000_000_000, 4_960_000_000))
    assert only(real.tell(stopped, 0.0)) == only(new().tell(earlier, 0.0))


def test_in_change_priority_the_router_has_not_been_prepared_and_is_told_the_eids_that_have_come() -> None:
    eids = (Prefix.parse("100.64.101.10/32"), Prefix.parse("fd00:0:0:101::10/128"))
    telling = Telling(ROUTER, KEY, itertools.count(1), {"app": eids, "another": (Prefix.parse("100.64.101.20/32"),)})
    move = Migration("0000000000000007", "app", "dc1", "dc2", "cp")
    assert telling.tell(Happened(Kind.STOPPED, move, 1), 0.0) == []
    message = only(telling.tell(Happened(Kind.RESUMED, move, 1), 0.1))
    assert message.phase == MovePhase.ACTIVATE
    assert tuple(record.prefix for record in message.records) == eids


@pytest.mark.parametrize(
    "happened",
    [
        Happened(Kind.PROGRESS, MOVE, 1, 50.0),
        Happened(Kind.COMPLETED, MOVE, 1),
        Happened(Kind.FAILED, MOVE, 1),  # it runs nowhere yet
        Happened(Kind.STOPPED, Migration("07", "app", "dc1", "dc2", "fig9"), 1),
    ],
)
def test_what_the_router_need_not_know_is_not_told(happened: Happened) -> None:
    assert new().tell(happened, 0.0) == []


def test_it_is_said_again_until_the_router_answers() -> None:
    telling = new()
    first = only(telling.tell(STOPPED, 0.0))
    at = telling.next_deadline()
    assert at is not None
    assert at >= LEAST_WAIT_S
    assert only(telling.expired(at)) == first
    (told,) = answer(telling, first, Verdict.DONE, at + 0.001)
    assert isinstance(told, Emit)
    assert (told.name, told.fields["phase"], told.fields["verdict"]) == ("router.told", "FREEZE", "done")
    assert telling.next_deadline() is None


def test_a_router_that_is_busy_is_asked_again() -> None:
    telling = new()
    first = only(telling.tell(STOPPED, 0.0))
    assert answer(telling, first, Verdict.BUSY, 0.001) == []
    assert telling.next_deadline() is not None


def test_the_wait_follows_the_routers_round_trip_time() -> None:
    telling = new()
    answer(telling, only(telling.tell(STOPPED, 0.0)), Verdict.DONE, 0.0004)
    telling.tell(Happened(Kind.RESUMED, MOVE, 1), 10.0)
    assert telling.next_deadline() == pytest.approx(10.0 + LEAST_WAIT_S)


def test_a_machine_that_is_taken_back_ends_what_was_said_before() -> None:
    telling = new()
    telling.tell(STOPPED, 0.0)
    abort = only(telling.tell(Happened(Kind.FAILED, MOVE, 1, runs_here=True), 0.01))
    assert only(telling.expired(60.0)) == abort


def test_a_forged_answer_counts_for_nothing() -> None:
    telling = new()
    first = only(telling.tell(STOPPED, 0.0))
    (reject,) = answer(telling, first, Verdict.DONE, 0.001, Key(6, b"forged"))
    assert isinstance(reject, Reject)
    assert telling.next_deadline() is not None


def test_a_router_that_never_answers_does_not_fill_the_memory() -> None:
    telling = new()
    for number in range(MOST_MOVES + 10):
        move = Migration(f"{number:016x}", "app", "dc1", "dc2", "lossless")
        telling.tell(Happened(Kind.STOPPED, move, 1), 0.0)
    assert len(telling.expired(1000.0)) == MOST_MOVES
