"""EIDs that arrive too often are held off, longer each time."""

from __future__ import annotations

from lispfmc.wire.address import Prefix
from xtr.damping import FREE, Damping

ALICE, BOB = Prefix.parse("100.64.1.10/32"), Prefix.parse("100.64.2.10/32")


def test_a_few_arrivals_a_minute_are_taken_at_once() -> None:
    damping = Damping()
    for number in range(30):
        assert damping.arrives(ALICE, number * 15.0) == (True, [])


def test_a_further_one_waits_with_an_alarm_and_is_asked_again_when_its_time_is_over() -> None:
    damping = Damping()
    assert [damping.arrives(ALICE, float(n))[0] for n in range(FREE)] == [True] * FREE
    taken, (alarm,) = damping.arrives(ALICE, 5.0)
    assert not taken
    assert (alarm.name, alarm.fields["held_s"]) == ("host.flapping", 1.0)
    assert damping.arrives(ALICE, 5.5) == (False, []), "one alarm for one wait"
    assert damping.next_deadline() == 6.0
    assert damping.expired(6.0) == [ALICE]
    assert damping.arrives(ALICE, 6.01) == (True, [])
    assert damping.arrives(BOB, 6.01) == (True, [])


def test_the_wait_grows_up_to_a_bound_and_a_quiet_minute_ends_it() -> None:
    damping = Damping()
    now, waits = 0.0, []
    for _ in range(16):
        taken, alarms = damping.arrives(ALICE, now)
        if not taken:
            waits.append(alarms[0].fields["held_s"])
            now += float(str(waits[-1]))
            damping.expired(now)
            assert damping.arrives(ALICE, now)[0]
        now += 0.1
    assert waits[:5] == [1.0, 2.0, 4.0, 8.0, 8.0]
    assert damping.arrives(ALICE, now + 60.0) == (True, [])
