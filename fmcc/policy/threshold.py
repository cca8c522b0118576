"""Policies that compare the distance with a number: `always`, `threshold:T`, and what `mdp` and `learned` share."""

from __future__ import annotations

from fmcc.policy import Decision, Go, Stay, View
from fmcc.policy.gauge import Gauge, Reading, told
from fmcc.policy.models.checks import amount


def compared(view: View, reading: Reading, threshold: float, rule: str, why: str = "") -> Decision:
    """Go when the best place is at least `threshold` steps nearer. Of equal places the service's own is the best."""
    best, distance = reading.best, reading.distance
    full = f"; full: {', '.join(reading.fuller)}" if reading.fuller else ""
    if best is None:
        why_not = f"nearer but full: {', '.join(reading.fuller)}" if reading.fuller else "no distance is known"
        return Stay(f"no data centre to go to from {view.site}: {why_not}", rule, "none")
    if best.datacenter == view.datacenter:
        return Stay(f"{view.datacenter} is the best for {view.site} ({told(best)}){full}", rule, next_nearest(view))
    if distance is None:
        reason = f"{told(best)} from {view.site} instead of an unknown distance"
        return Go(best.datacenter, reason, rule, f"stay at {view.datacenter}")
    reach = f"{best.datacenter} is {distance:.3g} steps nearer to {view.site} ({told(best)} instead of " + (
        f"{told(reading.here)}), the threshold is {threshold:.3g}{why}{full}"
    )
    if distance >= threshold:
        return Go(best.datacenter, reach, rule, f"stay at {view.datacenter}, below a distance of {threshold:.3g}")
    return Stay(reach, rule, f"move to {best.datacenter}, from a distance of {threshold:.3g} on")


def next_nearest(view: View) -> str:
    """The nearest of the other places."""
    others = [
        (each.rtt_ms, each.datacenter)
        for each in view.candidates
        if each.datacenter != view.datacenter and each.rtt_ms is not None
    ]
    if not others:
        return "none"
    rtt_ms, datacenter = min(others)
    return f"{datacenter} ({rtt_ms:g} ms)"


class Always:
    """Follows at every handover that brings another data centre nearer, as in the papers' testbed."""

    name = "always"

    def __init__(self, gauge: Gauge | None = None) -> None:
        self._gauge = gauge or Gauge()

    def decide(self, view: View) -> Decision:
        return compared(view, self._gauge.read(view), 0.0, self.name)


class Threshold:
    """Follows from a fixed distance on, in steps of the service's latency curve."""

    def __init__(self, threshold: float, gauge: Gauge | None = None) -> None:
        self._threshold = amount("the threshold", threshold)
        self._gauge = gauge or Gauge()
        self.name = f"threshold:{threshold:g}"

    def decide(self, view: View) -> Decision:
        return compared(view, self._gauge.read(view), self._threshold, self.name)
