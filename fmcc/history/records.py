"""What is kept, as values: plain texts and numbers, times as unix time. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from fmcc.api.answers import Migration, PastDecision, PhaseView
from fmcc.deliberation import Considered
from fmcc.moves import MoveRecord
from fmcc.policy import Go
from fmcc.views import move
from fmcc.world import Service, User


class KeptUser(msgspec.Struct, frozen=True):
    """A user, and where it was seen last, since when."""

    name: str
    eids: list[str]
    added: bool
    site: str | None
    since: float | None


class KeptService(msgspec.Struct, frozen=True):
    """A service, where it was by which map-version, and what was learned of it, as of `saved`."""

    name: str
    user: str
    eids: list[str]
    added: bool
    allowed: list[str]
    service_class: str
    size_bytes: int | None
    datacenter: str
    version: int
    learned: dict[str, Any] | None
    saved: float


class Batch(msgspec.Struct):
    """What one transaction writes."""

    users: list[KeptUser] = []
    services: list[KeptService] = []
    gone_users: list[str] = []
    gone_services: list[str] = []
    moves: list[Migration] = []
    decisions: list[PastDecision] = []
    sites: dict[str, list[str]] | None = None

    def __bool__(self) -> bool:
        rows = (self.users, self.services, self.gone_users, self.gone_services, self.moves, self.decisions)
        return any(rows) or self.sites is not None


def user_record(user: User, site: str | None, since: float | None) -> KeptUser:
    return KeptUser(user.name, [str(eid) for eid in user.eids], user.added, site, since)


def service_record(
    service: Service, datacenter: str, version: int, learned: dict[str, Any] | None, saved: float
) -> KeptService:
    return KeptService(
        service.name,
        service.user,
        [str(eid) for eid in service.eids],
        service.added,
        list(service.allowed),
        service.service_class,
        service.size_bytes,
        datacenter,
        version,
        learned,
        saved,
    )


def migration(record: MoveRecord, offset: float) -> Migration:
    """`offset` is unix time less monotonic time."""
    seen = move(record)
    return Migration(
        number=0,
        started_at=round(record.move.phases[0].at + offset, 6),
        id=seen.id,
        service=seen.service,
        from_=seen.from_,
        to=seen.to,
        version=seen.version,
        driver=seen.driver,
        emulated=seen.emulated,
        scheme=seen.scheme,
        state=seen.state,
        phases=[PhaseView(phase.name, phase.at_ms) for phase in seen.phases],
        blackout_events_ms=seen.blackout_events_ms,
        reason=seen.reason,
    )


def past_decision(considered: Considered, policy: str, offset: float) -> PastDecision:
    view, decision = considered.view, considered.decision
    return PastDecision(
        number=0,
        at=round(considered.at + offset, 6),
        service=view.service,
        user=view.user,
        site=view.site,
        decision="move" if isinstance(decision, Go) else "stay",
        from_=view.datacenter,
        to=decision.datacenter if isinstance(decision, Go) else view.datacenter,
        rule=decision.rule or policy,
        reason=decision.reason,
        runner_up=decision.runner_up,
        mode="act" if considered.acts else "observe",
    )
