"""Retransmission on virtual time."""

from __future__ import annotations

import pytest

from lispfmc.core.effects import Send
from lispfmc.core.retransmission import Retransmissions, Schedule
from lispfmc.wire.address import Endpoint
from lispfmc.wire.messages import MapNotify

PEER = Endpoint(b"\xc6\x12\x00\x0b", 4342)
THREE_TRIES = Schedule(first_s=0.25, longest_s=10.0, tries=3)


def message(nonce: int) -> Send:
    return Send(MapNotify.of(nonce=nonce), PEER)


def test_an_unanswered_message_goes_again_at_doubling_intervals_and_is_given_up() -> None:
    waiting: Retransmissions[str] = Retransmissions()
    assert waiting.start("move", [message(1)], THREE_TRIES, 0.0) == [message(1)]
    assert waiting.next() == pytest.approx(0.25)
    assert waiting.expired(0.1) == ([], [])
    assert waiting.expired(0.25) == ([message(1)], [])
    assert waiting.next() == pytest.approx(0.75)
    assert waiting.expired(0.75) == ([message(1)], [])
    assert waiting.expired(1.75) == ([], ["move"])
    assert waiting.next() is None
    assert len(waiting) == 0


def test_an_acknowledged_message_is_not_sent_again() -> None:
    waiting: Retransmissions[str] = Retransmissions()
    waiting.start("move", [message(1)], THREE_TRIES, 0.0)
    assert waiting.acknowledged("move")
    assert not waiting.acknowledged("move")
    assert waiting.expired(5.0) == ([], [])


def test_a_new_message_takes_the_place_of_the_old_one() -> None:
    waiting: Retransmissions[str] = Retransmissions()
    waiting.start("move", [message(1)], THREE_TRIES, 0.0)
    waiting.start("move", [message(2)], THREE_TRIES, 0.15)
    assert waiting.expired(0.25) == ([], [])
    assert waiting.expired(0.4) == ([message(2)], [])
    assert waiting.sends("move") == (message(2),)


def test_intervals_stop_growing_at_the_longest_and_never_end_without_a_limit_of_tries() -> None:
    waiting: Retransmissions[str] = Retransmissions()
    waiting.start("register", [message(1)], Schedule(first_s=1.0, longest_s=60.0), 0.0)
    intervals = []
    now = 0.0
    for _ in range(10):
        due = waiting.next()
        assert due is not None
        intervals.append(due - now)
        now = due
        assert waiting.expired(now) == ([message(1)], [])
    assert intervals == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_a_late_timer_sends_once_not_once_per_missed_interval() -> None:
    waiting: Retransmissions[str] = Retransmissions()
    waiting.start("move", [message(1)], THREE_TRIES, 0.0)
    assert waiting.expired(100.0) == ([message(1)], [])
    assert waiting.next() == pytest.approx(100.5)
