"""No input of n bytes costs more than linear work: the steps of Python are counted, not the time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from lispfmc.wire import PeerError, decode
from lispfmc.wire.tree import tree

Make = Callable[[int], bytes]
SMALL, TIMES = 2000, 8
NONCE = bytes(8)


def steps(work: Callable[[], Any]) -> int:
    """How many lines of Python run."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except PeerError:
        pass
    finally:
        sys.settrace(before)
    return count


def reply(locator: bytes, mask: int = 0) -> bytes:
    """A Map-Reply with one record for an EID of AFI 0 and one locator, or none."""
    record = bytes([0, 0, 0, 1, 1 if locator else 0, mask]) + bytes(6)
    return b"\x20\0\0\x01" + NONCE + record + (bytes(6) + locator if locator else b"")


def lcaf(kind: int, body: bytes) -> bytes:
    return b"\x40\x03\0\0" + bytes([kind, 0]) + len(body).to_bytes(2, "big") + body


def nested(size: int) -> bytes:
    """AFI-lists in AFI-lists, deeper than anyone may go."""
    inside = b""
    while len(inside) < size:
        inside = lcaf(1, inside)
    return reply(inside)


def locators(size: int) -> bytes:
    """As many records of 255 locators as there is room for."""
    record = bytes([0, 0, 0, 1, 255, 0]) + bytes(6) + (bytes(6) + b"\0\0") * 255
    count = min(255, size // len(record) or 1)
    return b"\x20\0\0" + bytes([count]) + NONCE + record * count


FAMILIES: dict[str, Make] = {
    "records without a byte behind them": lambda size: b"\x20\0\0\xff" + NONCE + bytes(size),
    "empty records": lambda size: (
        b"\x20\0\0" + bytes([min(255, size // 12)]) + NONCE + bytes(12 * min(255, size // 12))
    ),
    "locators": locators,
    "addresses in a list": lambda size: reply(lcaf(1, b"\0\0" * (size // 2))),
    "lists in a list": lambda size: reply(lcaf(1, lcaf(1, b"\0\x01abcd" * 10) * (size // 68))),
    "lists nested": nested,
    "a name without an end": lambda size: reply(b"\0\x11" + b"x" * size),
    "names": lambda size: reply(lcaf(1, b"\0\x11x\0" * (size // 4))),
    "names in a list, the last without an end": lambda size: reply(lcaf(1, b"\0\x11x\0" * (size // 4) + b"\0\x11x")),
    "hops": lambda size: reply(lcaf(10, b"\0\0\0\0" * (size // 4))),
    "a body that we do not interpret": lambda size: reply(lcaf(99, bytes(size))),
    "an extension": lambda size: b"\xf4\0\0\0" + bytes(size),
    "authentication data": lambda size: b"\x30\0\0\0" + NONCE + b"\0\x02" + size.to_bytes(2, "big") + bytes(size),
}
every_family = pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)


@every_family
@pytest.mark.parametrize("cut", [0, 1], ids=["whole", "cut"])
def test_decoding_takes_steps_in_proportion_to_the_bytes(make: Make, cut: int) -> None:
    """Whole or cut short: the second is refused, and read once more to say why."""
    small, large = (make(size)[: len(make(size)) - cut] for size in (SMALL, SMALL * TIMES))
    steps(lambda: decode(large))  # what is made at the first refusal is not work of the message
    few, many = steps(lambda: decode(small)), steps(lambda: decode(large))
    assert many <= 100 + few * 1.3 * len(large) / len(small)
    assert many <= 100 * len(large) + 3000


@every_family
def test_showing_takes_steps_in_proportion_to_the_bytes(make: Make) -> None:
    small, large = make(SMALL), make(SMALL * TIMES)
    tree(large)
    few, many = steps(lambda: tree(small)), steps(lambda: tree(large))
    assert many <= 100 + few * 1.3 * len(large) / len(small)
