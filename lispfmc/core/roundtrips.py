"""How long to wait for an acknowledgement before sending again, learned from those that came (RFC 8085 §3.1.1).

The smoothed round-trip time and its variation of RFC 6298 §2, for each address that acknowledges what we send.
"""

from __future__ import annotations

import msgspec

from lispfmc.wire.address import Ip

PEERS_KEPT = 65_536  # addresses whose round-trip time we know; only holders of a key get into this table

_GAIN, _VARIATION_GAIN, _SPREAD = 1 / 8, 1 / 4, 4  # RFC 6298 §2.3


class _Estimate(msgspec.Struct, frozen=True, gc=False):
    smoothed_s: float
    variation_s: float


class RoundTrips:
    """`first_s` until a peer's round-trip time is known, then by that: never below `least_s`, nor above `most_s`."""

    def __init__(self, *, first_s: float, least_s: float, most_s: float) -> None:
        self._first_s = first_s
        self._least_s = least_s
        self._most_s = most_s
        self._estimates: dict[Ip, _Estimate] = {}

    def measured(self, peer: Ip, seconds: float) -> None:
        """An acknowledgement came after this; not to be told of a message that was sent twice (Karn's rule)."""
        before = self._estimates.pop(peer, None)
        if before is None:
            after = _Estimate(seconds, seconds / 2)
        else:
            error = abs(before.smoothed_s - seconds)
            after = _Estimate(
                before.smoothed_s + _GAIN * (seconds - before.smoothed_s),
                before.variation_s + _VARIATION_GAIN * (error - before.variation_s),
            )
        self._estimates[peer] = after  # last in order: the peer that has been silent longest goes first
        if len(self._estimates) > PEERS_KEPT:
            del self._estimates[next(iter(self._estimates))]

    def timeout_s(self, peer: Ip) -> float:
        """How long to wait for `peer`."""
        estimate = self._estimates.get(peer)
        if estimate is None:
            return self._first_s
        wanted = estimate.smoothed_s + _SPREAD * estimate.variation_s
        return min(max(wanted, self._least_s), self._most_s)

    def __len__(self) -> int:
        return len(self._estimates)
