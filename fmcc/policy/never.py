"""`never`: services stay where they are; the control against which every other policy is measured."""

from __future__ import annotations

from fmcc.policy import Decision, Stay, View


class Never:
    name = "never"

    def decide(self, view: View) -> Decision:
        return Stay(f"the policy never moves {view.service}")
