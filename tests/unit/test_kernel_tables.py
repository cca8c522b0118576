"""The kernel plane's entries as bytes: keys that keep apart what must be, locators by weight, what is left to whom."""

from __future__ import annotations

from collections import Counter

import pytest

from lispfmc.wire.address import Prefix, ip_of
from xtr.dataplane import kernel_tables as tables
from xtr.dataplane.kernel_tables import Action, Delivery, Local
from xtr.effects import Drop, Forward, Forwarding, Hop, Native

BOTH, OWN = frozenset({4, 16}), frozenset({ip_of("198.18.0.11")})
FAR = [ip_of(f"198.18.1.{number}") for number in range(1, 20)]


def action(forwarding: Forwarding, families: frozenset[int] = BOTH) -> Action:
    return Action(tables.mapping(forwarding, families, OWN)[8])


@pytest.mark.parametrize(
    "text", ["10.0.0.0/8", "0.0.0.0/0", "::/0", "fd00::/8", "[7]10.1.2.3/32", "[16777215]fd00::1/128"]
)
def test_a_key_says_its_prefix(text: str) -> None:
    prefix = Prefix.parse(text)
    assert tables.prefix_of(tables.key(prefix)) == prefix
    if prefix.is_host:
        assert tables.host_of(tables.host_key(prefix)) == prefix


def test_a_prefix_of_one_ip_version_or_instance_covers_nothing_of_another() -> None:
    def bits(text: str) -> str:
        key = tables.key(Prefix.parse(text))
        return "".join(f"{each:08b}" for each in key[4:])[: int.from_bytes(key[:4], "little")]

    assert bits("10.1.0.0/16").startswith(bits("0.0.0.0/0"))
    assert not bits("10.1.0.0/16").startswith(bits("::/0"))
    assert not bits("[7]10.1.0.0/16").startswith(bits("0.0.0.0/0"))


def test_what_follows_the_length_in_a_key_keeps_the_value_on_eight_bytes() -> None:
    assert len(tables.key(Prefix.parse("10.0.0.0/8"))[4:]) % 8 == 0


@pytest.mark.parametrize(
    ("weights", "shares"), [([1], [32]), ([50, 50], [16, 16]), ([75, 25], [24, 8]), ([0, 0], [16, 16])]
)
def test_locators_have_slots_by_their_weights(weights: list[int], shares: list[int]) -> None:
    counted = Counter(tables.slots(weights))
    assert [counted[index] for index in range(len(weights))] == shares


def test_a_locator_of_little_weight_has_a_slot() -> None:
    assert set(tables.slots([1, 254])) == {0, 1}


def test_the_kernel_takes_what_is_usual_and_leaves_the_rest_to_the_stack() -> None:
    assert action(Forward((Hop(FAR[0], 100),))) is Action.ENCAPSULATE
    assert action(Forward(tuple(Hop(rloc, 1) for rloc in FAR[:8]))) is Action.ENCAPSULATE
    assert action(Forward(tuple(Hop(rloc, 1) for rloc in FAR[:9]))) is Action.STACK
    assert action(Forward(tuple(Hop(rloc, 1) for rloc in FAR[:4]), replicate=True)) is Action.REPLICATE
    assert action(Forward(tuple(Hop(rloc, 1) for rloc in FAR[:5]), replicate=True)) is Action.STACK
    assert action(Forward((Hop(FAR[0], 1), Hop(ip_of("2001:2::1"), 1)), replicate=True)) is Action.STACK
    assert action(Forward((Hop(ip_of("2001:2::1"), 1),)), frozenset({4})) is Action.STACK
    assert action(Forward((Hop(FAR[0], 1), Hop(next(iter(OWN)), 1)))) is Action.STACK
    assert action(Drop()) is Action.DROP
    assert action(Drop(native=True)) is Action.STACK
    assert action(Native()) is Action.STACK


def test_a_local_entry_comes_back_as_it_was() -> None:
    entry = Local(Delivery.FORWARD, 7, b"\2\0\0\0\0\1", b"\2\0\0\0\0\2", 12.25, 1, 2, 3, 4)
    assert tables.local_of(tables.local(entry)) == entry
