"""When registrations end: the queue keeps the deadlines of those that live, and little else."""

from __future__ import annotations

from lispfmc.core.leases import Leases
from lispfmc.core.merging import merge
from lispfmc.core.registry import Accepted, Lease, Registrant
from lispfmc.store.memory import MemoryStore
from lispfmc.wire.address import Endpoint
from tests.properties.registers import EIDS, KEY, LIFE_S, OWNERS, query, register

REGISTRANT = Registrant(OWNERS[0], KEY, Endpoint(bytes(4), 4342), 0)


def lease(ends: float) -> Lease:
    return Lease(ends, 0, ends, REGISTRANT, live=1)


def test_an_xtr_that_says_something_else_each_time_does_not_fill_the_memory() -> None:
    store = MemoryStore()
    for nonce in range(5000):
        message = register(OWNERS[0], EIDS[:2], nonce, weight=1 + nonce % 2)
        outcome = merge(message, store.view(query(message)), now := nonce / 100)
        assert isinstance(outcome, Accepted)
        store.apply([outcome], now)
    assert len(store.leases) < 2500
    assert len(list(store.leases)) == 1
    assert store.next_deadline() == now + LIFE_S


def test_leases_end_in_their_order_whatever_left_meanwhile() -> None:
    leases, live = Leases(), []
    for number in range(6000):
        leases.add(each := lease(float(number * 7919 % 6000)))
        if number % 10:
            each.live = 0
            leases.left()
        else:
            live.append(each.due)
    ended = []
    while (each_ended := leases.pop(6000.0)) is not None:
        ended.append(each_ended.due)
    assert ended == sorted(live)
    assert len(leases) == 0
