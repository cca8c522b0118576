"""What the controller's events say, built when somebody reads them: in a storm of handovers few are read. Pure."""

from __future__ import annotations

from fmcc.locations import SiteLocated, UserApart, UserMoved
from fmcc.moves import Placement
from fmcc.policy import Decision, Go
from lispfmc.core.effects import Emit, FieldValue, Lazy
from lispfmc.wire.address import ip_text


def user_moved(moved: UserMoved) -> Emit:
    return Emit("user.moved", Lazy(_moved, moved))


def _moved(moved: UserMoved) -> dict[str, FieldValue]:
    return {"user": moved.user, "eid": str(moved.eid), "from": moved.before, "to": moved.site}


def user_apart(apart: UserApart) -> Emit:
    return Emit("user.at-two-sites", {"user": apart.user, "site": apart.site, "sites": list(apart.sites)})


def site_located(located: SiteLocated) -> Emit:
    return Emit("site.located", {"site": located.site, "rlocs": [ip_text(rloc) for rloc in located.rlocs]})


def decided(placement: Placement, site: str, decision: Decision | None, policy: str, *, acts: bool) -> Emit:
    """`decision` None: it has to wait for the end of the move in flight."""
    return Emit("decision.made", Lazy(_decided, placement, site, decision, policy, acts))


def _decided(
    placement: Placement,
    site: str,
    decision: Decision | None,
    policy: str,
    acts: bool,  # noqa: FBT001 - by Lazy
) -> dict[str, FieldValue]:
    going = isinstance(decision, Go)
    return {
        "user": placement.service.user,
        "service": placement.service.name,
        "site": site,
        "decision": "later" if decision is None else "move" if going else "stay",
        "from": placement.datacenter,
        "to": decision.datacenter if isinstance(decision, Go) else placement.datacenter,
        "reason": decision.reason if decision else "a move is in flight: decided when it has ended",
        "rule": (decision.rule or policy) if decision else "in-flight",
        "runner_up": decision.runner_up if decision else "",
        "policy": policy,
        "mode": "act" if acts else "observe",
    }
