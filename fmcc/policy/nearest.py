"""`nearest`: the service lives in the data centre with the least round-trip time to its user's site."""

from __future__ import annotations

from fmcc.policy import Decision, Go, Stay, View


class Nearest:
    """Follows whenever another data centre with room is strictly nearer; a tie stays."""

    name = "nearest"

    def decide(self, view: View) -> Decision:
        known = {c.datacenter: c for c in view.candidates if c.rtt_ms is not None}
        here = known.get(view.datacenter)
        nearer = sorted(
            (c.rtt_ms, c.datacenter)
            for c in known.values()
            if c.rtt_ms is not None and (here is None or here.rtt_ms is None or c.rtt_ms < here.rtt_ms)
        )
        for rtt_ms, datacenter in nearer:
            if datacenter != view.datacenter and known[datacenter].has_room:
                now_at = f"{here.rtt_ms:g} ms" if here is not None else "an unknown distance"
                return Go(datacenter, f"{rtt_ms:g} ms from {view.site} instead of {now_at}")
        if any(datacenter != view.datacenter for _, datacenter in nearer):
            full = ", ".join(datacenter for _, datacenter in nearer)
            return Stay(f"nearer to {view.site} but full: {full}")
        if here is None:
            return Stay(f"no distance from {view.site} to an allowed data centre is configured")
        return Stay(f"{view.datacenter} is the nearest to {view.site} ({here.rtt_ms:g} ms)")
