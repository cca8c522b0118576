"""The policies by the names that configuration uses. numpy is loaded only for those that need it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from fmcc.policy import Policy
from fmcc.policy.gauge import Curve, Gauge
from fmcc.policy.models.checks import BadParameter
from fmcc.policy.nearest import Nearest
from fmcc.policy.never import Never
from fmcc.policy.threshold import Always, Threshold

COST_PER_S = 0.0625
"""What a second of copying costs, in steps of distance borne for one handover: 1 GB at 100 Mbit/s, 80 s, costs 5."""


class Parameters(msgspec.Struct, frozen=True):
    """What the policies' distances and tables are made from. `curve` takes the place of `step_ms`."""

    step_ms: float = 10.0
    curve: Sequence[tuple[float, float]] = ()
    load_ms: float = 0.0
    gamma: float = 0.95
    thr: int = 10
    cost_per_s: float = COST_PER_S

    def gauge(self) -> Gauge:
        curve = Curve(self.curve) if self.curve else Curve.straight(self.step_ms)
        return Gauge(curve, load_ms=self.load_ms)


DEFAULTS = Parameters()


class Maker(Protocol):
    def __call__(self, parameters: Parameters = DEFAULTS) -> Policy: ...


def _nearest(parameters: Parameters = DEFAULTS) -> Policy:
    return Nearest()


def _never(parameters: Parameters = DEFAULTS) -> Policy:
    return Never()


def _always(parameters: Parameters = DEFAULTS) -> Policy:
    return Always(parameters.gauge())


def _mdp(parameters: Parameters = DEFAULTS) -> Policy:
    from fmcc.policy.mdp import Mdp
    from fmcc.policy.table import ThresholdTable

    table = ThresholdTable(gamma=parameters.gamma, thr=parameters.thr)
    return Mdp(table, parameters.gauge(), cost_per_s=parameters.cost_per_s)


def _learned(parameters: Parameters = DEFAULTS) -> Policy:
    from fmcc.policy.learned import Learned
    from fmcc.policy.table import ThresholdTable

    table = ThresholdTable(gamma=parameters.gamma, thr=parameters.thr)
    return Learned(table, parameters.gauge(), cost_per_s=parameters.cost_per_s)


POLICIES: Mapping[str, Maker] = {
    "nearest": _nearest,
    "never": _never,
    "always": _always,
    "mdp": _mdp,
    "learned": _learned,
}
KNOWN = ", ".join([*sorted(POLICIES), "threshold:T"])


def make(name: str, parameters: Parameters = DEFAULTS) -> Policy:
    """The policy of that name. Raises BadParameter."""
    if name in POLICIES:
        return POLICIES[name](parameters)
    return Threshold(threshold_of(name), parameters.gauge())


def threshold_of(name: str) -> float:
    """T of "threshold:T". Raises BadParameter for any other name."""
    kind, colon, number = name.partition(":")
    if kind != "threshold":
        raise BadParameter(f"no policy {name!r}, known are {KNOWN}; choose one")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not colon or not 0.0 <= value < float("inf"):
        raise BadParameter(f"policy {name!r}: the threshold is no number of steps; write threshold:3, for example")
    return value


def check(name: str) -> None:
    """Raises BadParameter when there is no such policy; makes none."""
    if name not in POLICIES:
        threshold_of(name)
