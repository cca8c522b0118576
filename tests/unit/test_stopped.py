"""When a machine stopped: said once by its hypervisor, so that no more is sent again than can be missing."""

from __future__ import annotations

import itertools

import pytest

from fmcc.hypervisor import Happened, Kind, Migration
from fmcc.hypervisor.telling import Telling
from lispfmc.core.effects import Send
from lispfmc.core.plans import Plan
from lispfmc.wire import decode
from lispfmc.wire.address import Endpoint, Prefix, ip_of
from lispfmc.wire.auth import Key, sign
from lispfmc.wire.moves import MoveMessage, instant, since_s
from xtr.dataplane.holding import GIVING_S, ReplayRing
from xtr.roles import Role, State, step
from xtr.roles.state import Stopped, Switch

MOVE = Migration("0000000000000007", "app", "dc1", "dc2", "lossless")


@pytest.mark.parametrize("at_s", [0.000_000_4, 12.5, 16.777_216, 16_000.123_456])
def test_an_instant_is_the_same_distance_away_whatever_the_clock_stands_at(at_s: float) -> None:
    since = since_s(instant(int(at_s * 1e9)), at_s + 0.03)
    assert since == pytest.approx(0.03, abs=3e-6)


def test_what_is_not_said_is_no_instant() -> None:
    assert since_s(b"\0\0\0", 5.0) is None


def test_every_copy_of_freeze_says_the_same_instant_on_the_wire() -> None:
    key = Key(6, b"agent")
    telling = Telling(Endpoint(ip_of("198.18.0.21"), 4342), key, itertools.count(1))
    sends = [*telling.tell(Happened(Kind.STOPPED, MOVE, 7_000_000_000), 7.001), *telling.expired(8.0)]
    messages = [each.message for each in sends if isinstance(each, Send)]
    told = [decode(sign(message, key)) for message in messages if isinstance(message, MoveMessage)]
    assert [each.stopped for each in told if isinstance(each, MoveMessage)] == [instant(7_000_000_000)] * 2
    (resumed,) = telling.tell(Happened(Kind.RESUMED, MOVE, 7_060_000_000), 7.061)
    assert isinstance(resumed, Send)
    assert isinstance(resumed.message, MoveMessage)
    assert resumed.message.stopped == b"\0\0\0"


def test_the_source_tells_the_data_plane_how_long_ago_the_service_stopped() -> None:
    plan = Plan(7, 5, (Prefix.host(ip_of("100.64.101.10")),), (ip_of("198.18.0.21"),), (ip_of("198.18.0.22"),))
    role, effects = step(Role(State.MIRRORING, plan), Stopped(7, 0.004), 1.0)
    assert role.state is State.FROZEN
    assert [each.stopped_s for each in effects if isinstance(each, Switch)] == [0.004]


def test_what_the_service_received_before_it_stopped_is_not_sent_again() -> None:
    ring = ReplayRing(most_bytes=100, recent_s=0.05)
    for at in range(5):
        ring.put(bytes([at]), at * 0.01)
    stopped_s = 0.005  # at 0.035; what was given to it shortly before may be on its way still
    assert [one.packet for one in ring.freeze(0.04, stopped_s)] == [b"\3", b"\4"]
    assert GIVING_S == 0.01


def test_a_machine_that_stopped_long_ago_is_sent_what_the_ring_has() -> None:
    ring = ReplayRing(most_bytes=100, recent_s=0.05)
    for at in range(8):
        ring.put(bytes([at]), at * 0.01)
    assert [one.packet for one in ring.freeze(0.07, 3.0)] == [bytes([at]) for at in range(8)]
