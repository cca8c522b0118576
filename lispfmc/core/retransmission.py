"""Messages that are sent again until they are acknowledged.

`start` says what to send now; `expired` says what is due again and which keys have been given up. Each key holds the
messages of one exchange; starting it anew replaces them. What a given-up key means is its owner's decision.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

import msgspec

from lispfmc.core.deadlines import Deadlines
from lispfmc.core.effects import Send

K = TypeVar("K", bound=Hashable)


class Schedule(msgspec.Struct, frozen=True, gc=False):
    """When to send again: after `first_s`, then twice as long each time up to `longest_s`.

    `tries` counts every transmission, the first included; None goes on until it is acknowledged or stopped.
    """

    first_s: float
    longest_s: float
    tries: int | None = None


class _Exchange(msgspec.Struct, frozen=True):
    sends: tuple[Send, ...]
    schedule: Schedule
    sent: int
    interval_s: float


class Retransmissions(Generic[K]):
    """Exchanges that wait for an acknowledgement. The owner bounds them by the table its keys come from."""

    def __init__(self) -> None:
        self._exchanges: dict[K, _Exchange] = {}
        self._deadlines: Deadlines[K] = Deadlines()

    def start(self, key: K, sends: Sequence[Send], schedule: Schedule, now: float) -> list[Send]:
        """Begin the exchange, in place of one with the same key. Returns what to send now."""
        self._exchanges[key] = _Exchange(tuple(sends), schedule, 1, schedule.first_s)
        self._deadlines.set(key, now + schedule.first_s)
        return list(sends)

    def acknowledged(self, key: K) -> bool:
        """End the exchange; False when there was none (a second acknowledgement is no error)."""
        self._deadlines.cancel(key)
        return self._exchanges.pop(key, None) is not None

    def sends(self, key: K) -> tuple[Send, ...]:
        """What is being retransmitted under `key`; empty when nothing is."""
        exchange = self._exchanges.get(key)
        return exchange.sends if exchange else ()

    def transmissions(self, key: K) -> int:
        """How often it was sent; 0 when nothing waits under `key`."""
        exchange = self._exchanges.get(key)
        return exchange.sent if exchange else 0

    def next(self) -> float | None:
        """When something is due, or None."""
        return self._deadlines.next()

    def expired(self, now: float) -> tuple[list[Send], list[K]]:
        """What to send again now, and the keys whose last try went unanswered (they are forgotten)."""
        due: list[Send] = []
        given_up: list[K] = []
        for key in list(self._deadlines.pop_expired(now)):
            exchange = self._exchanges[key]
            schedule = exchange.schedule
            if schedule.tries is not None and exchange.sent >= schedule.tries:
                del self._exchanges[key]
                given_up.append(key)
                continue
            interval_s = min(exchange.interval_s * 2, schedule.longest_s)
            self._exchanges[key] = _Exchange(exchange.sends, schedule, exchange.sent + 1, interval_s)
            self._deadlines.set(key, now + interval_s)
            due.extend(exchange.sends)
        return due, given_up

    def __contains__(self, key: K) -> bool:
        return key in self._exchanges

    def __len__(self) -> int:
        return len(self._exchanges)
