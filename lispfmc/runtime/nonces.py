"""Nonces for the cores, which never make their own: an ordered sequence for what is replay-protected, a random one for
Map-Requests.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator

_COUNTER_BITS = 20


def ordered_nonces(wall_clock: Callable[[], float] = time.time) -> Iterator[int]:
    """Strictly growing 64-bit nonces: unix milliseconds, then a counter.

    RFC 9301 §5.6 wants the nonce of a Map-Register to grow; the milliseconds keep it growing across a restart. When the
    wall clock steps back the sequence goes on from where it was.
    """
    last = 0
    while True:
        last = max(last + 1, int(wall_clock() * 1000) << _COUNTER_BITS)
        yield last


def random_nonces() -> Iterator[int]:
    """Unpredictable 64-bit nonces: RFC 9301 §5.2 has the reply to a Map-Request trusted by them."""
    while True:
        yield secrets.randbits(64)
