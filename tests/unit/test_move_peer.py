"""What a peer of a moving service does when it is told where the service is now."""

from __future__ import annotations

from lispfmc.core.plans import Plan
from lispfmc.wire.address import Prefix, ip_of
from xtr.roles.peer import Mark, Moved, Peer, Use, step

SOURCE, TARGET = ip_of("198.18.0.21"), ip_of("198.18.0.22")
PLAN = Plan(7, 2, (Prefix.parse("100.64.101.10/32"),), (SOURCE,), (TARGET,))


def test_a_peer_that_is_told_sends_to_the_target_and_marks_the_end_of_the_old_path() -> None:
    assert step(Peer((SOURCE,), 1), Moved(PLAN), 0.0) == (Peer((TARGET,), 2), [Use(PLAN), Mark(PLAN, (SOURCE,))])


def test_a_peer_that_knew_from_the_map_server_still_marks_the_end_of_the_old_path() -> None:
    knew = Peer((TARGET,), 2)
    assert step(knew, Moved(PLAN), 0.0) == (knew, [Mark(PLAN, (SOURCE,))])


def test_a_peer_that_knows_better_or_sends_nothing_does_nothing() -> None:
    for peer in (Peer((SOURCE,), 3), Peer((TARGET,), 3), Peer()):
        assert step(peer, Moved(PLAN), 0.0) == (peer, [])
