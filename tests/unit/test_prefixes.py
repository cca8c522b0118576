"""The EID tables, checked against a plain list of prefixes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lispfmc.core.prefixes import PrefixTable
from lispfmc.wire.address import Prefix


def table(*texts: str) -> PrefixTable[str]:
    entries: PrefixTable[str] = PrefixTable()
    for text in texts:
        entries.set(Prefix.parse(text), text)
    return entries


def found(entries: PrefixTable[str], text: str) -> str | None:
    match = entries.longest(Prefix.parse(text))
    return match[1] if match else None


def test_the_longest_entry_that_covers_the_address_wins() -> None:
    entries = table("100.64.1.0/24", "100.64.1.10/32", "100.64.0.0/10", "fd00::/8")
    assert found(entries, "100.64.1.10/32") == "100.64.1.10/32"
    assert found(entries, "100.64.1.11/32") == "100.64.1.0/24"
    assert found(entries, "100.64.1.0/24") == "100.64.1.0/24"
    assert found(entries, "100.64.0.0/16") == "100.64.0.0/10"
    assert found(entries, "fd00::1/128") == "fd00::/8"
    assert found(entries, "10.0.0.1/32") is None


def test_instance_ids_are_tables_of_their_own() -> None:
    entries = table("[7]10.0.0.0/8")
    assert found(entries, "10.1.1.1/32") is None
    assert found(entries, "[7]10.1.1.1/32") == "[7]10.0.0.0/8"


def test_removing_the_last_entry_of_an_instance_id_leaves_nothing_behind() -> None:
    entries = table("[7]10.0.0.0/8", "[7]10.1.0.0/16")
    assert entries.remove(Prefix.parse("[7]10.0.0.0/8")) == "[7]10.0.0.0/8"
    assert entries.remove(Prefix.parse("[7]10.0.0.0/8")) is None
    assert entries.remove(Prefix.parse("[7]10.1.0.0/16")) == "[7]10.1.0.0/16"
    assert len(entries) == 0
    assert entries._tables == {}


def test_more_specifics_come_with_the_prefix_itself() -> None:
    entries = table("10.1.0.0/24", "10.1.0.5/32", "10.1.0.9/32", "10.1.1.5/32", "10.0.0.0/8")
    assert [text for _, text in entries.covered_by(Prefix.parse("10.1.0.0/24"))] == [
        "10.1.0.0/24",
        "10.1.0.5/32",
        "10.1.0.9/32",
    ]


@pytest.mark.parametrize(
    ("entries", "wanted", "hole"),
    [
        ((), "10.1.1.1/32", "0.0.0.0/0"),
        (("10.1.0.0/24",), "10.1.1.1/32", "10.1.1.0/24"),
        (("10.1.0.0/24",), "192.0.2.1/32", "128.0.0.0/1"),
        (("10.1.0.0/24", "10.1.1.2/32"), "10.1.1.1/32", "10.1.1.0/31"),
        (("10.0.0.0/8", "10.1.0.0/24"), "10.1.1.1/32", "10.1.1.0/24"),  # the aggregate itself does not count
        (("10.1.0.5/32",), "10.1.0.0/24", "10.1.0.0/24"),  # an entry inside: nothing less specific is free
    ],
)
def test_the_hole_covers_the_question_and_no_entry(entries: tuple[str, ...], wanted: str, hole: str) -> None:
    assert table(*entries).hole(Prefix.parse(wanted)) == Prefix.parse(hole)


def test_a_hole_is_never_shorter_than_asked() -> None:
    assert table().hole(Prefix.parse("10.1.1.1/32"), shortest=16) == Prefix.parse("10.1.0.0/16")


def test_many_entries_stay_in_order_through_insertions_and_removals() -> None:
    entries: PrefixTable[int] = PrefixTable()
    numbers = [(number * 7919) % 10_007 for number in range(10_007)]
    for number in numbers:
        entries.set(Prefix.host(number.to_bytes(4, "big")), number)
    for number in numbers[::2]:
        entries.remove(Prefix.host(number.to_bytes(4, "big")))
    assert [number for _, number in entries.items()] == sorted(numbers[1::2])


# few bits, so that prefixes often cover one another
prefixes = st.builds(
    lambda bits, length, iid: Prefix.of(bytes([bits, 0, 0, 0]), length, iid),
    st.integers(0, 255),
    st.integers(0, 8),
    st.integers(0, 1),
)


@given(st.lists(prefixes), st.lists(prefixes), prefixes)
def test_answers_equal_those_of_a_plain_list(added: list[Prefix], removed: list[Prefix], wanted: Prefix) -> None:
    entries: PrefixTable[str] = PrefixTable()
    for prefix in added:
        entries.set(prefix, str(prefix))
    for prefix in removed:
        entries.remove(prefix)
    plain = set(added) - set(removed)
    covering = sorted((prefix for prefix in plain if prefix.covers(wanted)), key=lambda prefix: -prefix.length)
    assert [prefix for prefix, _ in entries.covering(wanted)] == covering
    assert {prefix for prefix, _ in entries.covered_by(wanted)} == {entry for entry in plain if wanted.covers(entry)}
    assert {prefix for prefix, _ in entries.items()} == plain
    assert len(entries) == len(plain)
    inner = [entry for entry in plain if not entry.covers(wanted)]
    candidates = [Prefix.of(wanted.ip, length, wanted.iid) for length in range(wanted.length + 1)]
    free = [hole for hole in candidates if not any(hole.covers(entry) for entry in inner)]
    assert entries.hole(wanted) == (free[0] if free else wanted)


@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(28, 32)), max_size=8),
    st.integers(0, 15),
)
def test_an_address_is_answered_alone_where_its_match_holds_nothing_else(
    entries: list[tuple[int, int]], host: int
) -> None:
    known: PrefixTable[Prefix] = PrefixTable()
    for number, length in entries:
        prefix = Prefix.of(bytes([10, 0, 0, number << 1]), length)
        known.set(prefix, prefix)
    address = Prefix.host(bytes([10, 0, 0, host]))
    match = known.longest(address)
    inside = list(known.covered_by(match[0])) if match else []
    assert known.alone(0, address.ip) == (match[1] if match and len(inside) == 1 else None)


LOTS = st.lists(st.lists(st.integers(0, 4000), min_size=1, max_size=40, unique=True), max_size=30)


@given(LOTS, st.sampled_from([4, 16]), st.lists(st.sampled_from([0, 8, 22, 30]), max_size=2))
def test_hosts_added_by_the_lot_are_there_as_if_added_one_by_one(
    lots: list[list[int]], size: int, covering: list[int]
) -> None:
    by_lots: PrefixTable[int] = PrefixTable()
    one_by_one: PrefixTable[int] = PrefixTable()
    for length in covering:
        for each in (by_lots, one_by_one):
            each.set(Prefix.of(bytes(size), length * size // 4), -1)
    for lot in lots:
        ips = [number.to_bytes(size, "big") for number in lot]
        free = [ip for ip in ips if one_by_one.longest(Prefix.host(ip)) is None]
        assert list(by_lots.uncovered(ips)) == free
        new = [ip for ip in ips if Prefix.host(ip) not in one_by_one]
        if new:
            by_lots.add_hosts(new, range(len(new)))
        for value, ip in enumerate(new):
            one_by_one.set(Prefix.host(ip), value)
        assert list(by_lots.items()) == list(one_by_one.items())
        assert len(by_lots) == len(one_by_one)


def test_many_lots_in_any_order_stay_in_order() -> None:
    entries: PrefixTable[bytes] = PrefixTable()
    starts = [start * 20 for start in range(300)]
    for start in starts[::3] + starts[1::3] + starts[2::3]:
        ips = [number.to_bytes(4, "big") for number in range(start, start + 20)]
        entries.add_hosts(ips, ips)
    assert [prefix.ip for prefix, _ in entries.items()] == [number.to_bytes(4, "big") for number in range(6000)]
