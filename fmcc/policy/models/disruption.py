"""How long a service is disturbed while its object is copied over TCP: the paper's equation (11).

A model of TCP's latency with slow start, losses and a window limit. The paper states neither segment size nor window:
1460 bytes and 44 segments are ours. `f` contains N in its loss term already and is multiplied by N, as printed.
"""

from __future__ import annotations

import math

from fmcc.policy.models.checks import BadParameter, amount, whole

MSS_BYTES = 1460
WINDOW_SEGMENTS = 44
GROWTH = 1.57
"""By how much slow start grows a window in a round trip, with delayed acknowledgements."""
RTT_S = 0.01
"""The paper's law between data centres: rings k apart, 0.01 k^2 seconds."""


def rtt_s(rings: int) -> float:
    return RTT_S * whole("rings", rings, 1, 10_000) ** 2


def segments(bits: float, mss_bytes: int = MSS_BYTES) -> float:
    """N. Not rounded up: at the sizes in question a fraction of a segment is below every digit shown."""
    return amount("the object's size", bits, positive=True) / 8 / whole("the segment size", mss_bytes, 1, 1 << 16)


def disruption_s(
    bits: float,
    rtt: float,
    *,
    loss: float = 0.0,
    mss_bytes: int = MSS_BYTES,
    window: int = WINDOW_SEGMENTS,
) -> float:
    """Seconds for `bits` over a path of `rtt` seconds. Raises BadParameter."""
    if not 0.0 <= loss < 1.0:
        raise BadParameter(f"the loss is {loss}: it must be from 0 to below 1; correct it")
    amount("the round-trip time", rtt, positive=True)
    whole("the window", window, 1, 1 << 30)
    count = segments(bits, mss_bytes)
    rounds = max(0.0, math.log(count, GROWTH))
    f = 2.32 * (2 * loss + 4 * loss**2 + 16 * loss**3) / (1 + rtt) ** 3 * count + (1 + loss) / (rtt * 1e3)
    windows = (10 + 3 * rtt) / (4 * (1 - loss) * window * math.sqrt(window))
    return (rounds + f * count + 4 * loss * rounds + 20 * loss + windows * count) * rtt
