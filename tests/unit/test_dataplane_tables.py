"""The packet path's tables: longest match behind a cache, bounded waiting, bounded memory of who talked to whom."""

from __future__ import annotations

import pytest

from lispfmc.wire.address import Ip, Prefix, ip_of
from xtr.dataplane import tables
from xtr.dataplane.tables import Budget, ForwardingTable, OnceInAWhile, Talkers, Waiting

A, B = ip_of("100.64.1.10"), ip_of("100.64.2.10")


def rloc(number: int) -> Ip:
    return ip_of("198.18.0.0")[:3] + bytes([number])


def test_a_more_specific_prefix_takes_over_and_gives_back() -> None:
    table: ForwardingTable[str] = ForwardingTable(0)
    table.install(Prefix.parse("100.64.1.0/24"), "home")
    assert table.find(A) == "home"
    table.install(Prefix.host(A), "roaming")
    assert table.hosts.get(A) is None, "the cache does not keep what is no longer so"
    assert table.find(A) == "roaming"
    table.remove(Prefix.host(A))
    assert table.find(A) == "home"
    table.remove(Prefix.parse("100.64.1.0/24"))
    assert table.hosts == {}
    assert table.find(A) is None


def test_the_cache_of_hosts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "CACHED_HOSTS", 8)
    table: ForwardingTable[str] = ForwardingTable(0)
    table.install(Prefix.parse("0.0.0.0/0"), "all")
    for number in range(100):
        assert table.find(rloc(number)) == "all"
        assert len(table.hosts) <= 8


def packet(source: Ip, number: int) -> bytes:
    return b"\x45" + bytes(11) + source + bytes([number])


def test_waiting_packets_are_bounded_for_each_and_for_all_and_leave_in_order() -> None:
    waiting = Waiting(packets=8, seconds=3.0)
    held = [waiting.hold(A, packet(rloc(n), n), None, 0.0) for n in range(3)]
    assert held == [True, True, False], "a quarter for one"
    held = [waiting.hold(rloc(n // 2), packet(rloc(n), n), 9, 1.0) for n in range(8)]
    assert held == [True] * 6 + [False] * 2
    [(ip, queue)] = waiting.release(Prefix.parse("100.64.0.0/10"))
    assert (ip, [each.packet[-1] for each in queue]) == (A, [0, 1])
    assert len(waiting) == 6
    assert waiting.expire(3.9) == 0
    assert waiting.expire(4.0) == 6
    assert (len(waiting), rloc(0) in waiting) == (0, False)


def test_a_host_that_scans_addresses_leaves_half_of_the_room_to_the_others() -> None:
    waiting = Waiting(packets=8, seconds=3.0)
    assert sum(waiting.hold(rloc(n), packet(A, n), None, 0.0) for n in range(8)) == 4
    assert waiting.hold(rloc(100), packet(B, 0), None, 0.0)
    assert waiting.expire(3.0) == 5
    assert waiting.hold(rloc(100), packet(A, 0), None, 4.0), "the room of what has left is free again"


def test_a_budget_is_a_rate_with_a_seconds_worth_at_once() -> None:
    budget = Budget(10.0)
    assert sum(budget.allows(100.0) for _ in range(50)) == 10
    assert [budget.allows(100.05), budget.allows(100.15)] == [False, True]
    assert sum(budget.allows(500.0) for _ in range(50)) == 10


def test_peers_are_those_of_the_last_minute_newest_first_and_bounded() -> None:
    talkers = Talkers()
    talkers.note(A, rloc(1), 0.0)
    talkers.note(A, rloc(2), 50.0)
    talkers.note(A, rloc(3), 55.0)
    talkers.note(B, rloc(4), 55.0)
    assert talkers.peers(Prefix.host(A).ip, 70.0) == [rloc(3), rloc(2)]
    for number in range(1000):
        talkers.note(A, number.to_bytes(4, "big"), 60.0 + number)
    assert len(talkers.peers(A, 1059.0)) <= tables.PEERS_PER_EID


def test_forged_local_eids_push_out_only_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "TALKING_EIDS", 4)
    talkers = Talkers()
    for number in range(10):
        talkers.note(rloc(number), A, 0.0)
    assert [bool(talkers.peers(rloc(number), 1.0)) for number in range(10)] == [False] * 6 + [True] * 4


def test_evidence_is_limited_for_each_key_and_in_all() -> None:
    limit = OnceInAWhile(1.0, keys=2)
    assert [limit.allows("a", at) for at in (0.0, 0.5, 1.0)] == [True, False, True]
    assert [limit.allows(key, 1.5) for key in ("b", "c")] == [True, False], "full: nothing new for a while"
    assert limit.allows("c", 2.6)


class Counted(float):
    """A time that counts how often another one is compared with it: what a packet costs."""

    looks = 0

    def __sub__(self, other: float) -> float:
        type(self).looks += 1
        return float(self) - other


def test_a_flood_of_ever_other_keys_costs_no_look_at_all_of_them_for_each_packet() -> None:
    limit = OnceInAWhile(seconds=1.0, keys=100)
    for number in range(100):
        assert limit.allows(number, 0.0)

    Counted.looks = 0
    for number in range(1000):
        assert not limit.allows(("forged", number), Counted(0.5 + number / 10_000))

    assert Counted.looks < 2000
    assert limit.allows("afterwards", 1.1)


def test_packets_to_ever_other_eids_do_not_have_all_talkers_looked_at_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "TALKING_EIDS", 256)
    talkers = Talkers()
    for number in range(256):
        talkers.note(number.to_bytes(4, "big"), A, 0.0)
    talkers.note(bytes(4), B, 5.0)

    Counted.looks = 0
    for number in range(256, 512):
        talkers.note(number.to_bytes(4, "big"), A, Counted(4.0))

    assert Counted.looks <= 256 * 9
    assert len(talkers._seen) <= 256
    assert talkers.peers(bytes(4), 10.0) == [B, A], "who talked last stays"
