"""What the controller's HTTP API shows of its cores, as the types of `fmcc.api.answers`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeAlias

from fmcc.api.answers import (
    CandidateView,
    DataCenterList,
    DataCenterView,
    DecisionList,
    DecisionView,
    DistanceList,
    DistanceView,
    MoveList,
    MoveView,
    PhaseView,
    PlacementList,
    PlacementView,
    ServiceList,
    ServiceView,
    SiteList,
    SiteView,
    UserList,
    UserView,
)
from fmcc.controller import Controller
from fmcc.deliberation import Considered
from fmcc.moves import IN_FLIGHT, Move, MoveRecord
from fmcc.policy import Go
from lispfmc.wire.address import ip_text

Packets: TypeAlias = Callable[[str], dict[str, int] | None]


def users(controller: Controller, now: float) -> UserList:
    return UserList([user(controller, name, now) for name in controller.world.users])


def user(controller: Controller, name: str, now: float) -> UserView:
    here = controller.whereabouts(name)
    services = [service.name for service in controller.world.services_of(name)]
    at = controller.placements[services[0]].datacenter if services else None
    return UserView(
        name=name,
        eids=[str(eid) for eid in controller.world.users[name].eids],
        site=here.site,
        since_s=None if here.since is None else round(now - here.since, 3),
        distance_ms=controller.deliberation.rtt_ms(here.site, at, now) if here.site and at else None,
        services=services,
        added=controller.world.users[name].added,
    )


def services(controller: Controller) -> ServiceList:
    return ServiceList([service(controller, name) for name in controller.placements])


def service(controller: Controller, name: str) -> ServiceView:
    placement = controller.placements[name]
    known = placement.service
    return ServiceView(
        name=name,
        user=known.user or None,
        eids=[str(eid) for eid in known.eids],
        service_class=known.service_class,
        allowed=list(known.allowed),
        size_bytes=known.size_bytes,
        datacenter=placement.datacenter,
        version=placement.version,
        state=str(placement.state),
        move=placement.move.id if placement.move else None,
        policy=controller.policy_of(known.service_class),
        added=known.added,
    )


def placements(controller: Controller) -> PlacementList:
    ping_pongs = controller.deliberation.ping_pongs
    return PlacementList(
        [
            PlacementView(
                service=name,
                user=placement.service.user or None,
                eids=[str(eid) for eid in placement.service.eids],
                datacenter=placement.datacenter,
                version=placement.version,
                state=str(placement.state),
                move=placement.move.id if placement.move else None,
                ping_pongs=ping_pongs.get(name, 0),
            )
            for name, placement in controller.placements.items()
        ]
    )


def datacenters(controller: Controller, following: Collection[str]) -> DataCenterList:
    hosted: dict[str, list[str]] = {name: [] for name in controller.world.datacenters}
    for name, placement in controller.placements.items():
        hosted[placement.datacenter].append(name)
    world = controller.world
    return DataCenterList(
        [
            DataCenterView(
                name=name,
                rlocs=[ip_text(rloc) for rloc in world.sites[name]],
                rlocs_from="configuration"
                if not each.located
                else "mapping-system"
                if world.sites[name]
                else "nowhere",
                prefix=None if each.prefix is None else str(each.prefix),
                capacity=each.capacity,
                taken=controller.deliberation.taken(name),
                agent=name in following,
                services=hosted[name],
            )
            for name, each in world.datacenters.items()
        ]
    )


def distances(controller: Controller, now: float) -> DistanceList:
    return DistanceList(
        [
            DistanceView(a, b, round(ms, 3), "configured" if age_s is None else "measured", age_s)
            for a, b, ms, age_s in controller.deliberation.distances(now)
        ]
    )


def decisions(controller: Controller, now: float) -> DecisionList:
    """The last decision of each service that had one: the rule that won, the runner-up, and what was weighed."""
    return DecisionList([_considered(controller, each, now) for each in controller.deliberation.latest.values()])


def _considered(controller: Controller, considered: Considered, now: float) -> DecisionView:
    view, decision = considered.view, considered.decision
    return DecisionView(
        service=view.service,
        user=view.user,
        site=view.site,
        service_class=view.service_class,
        decision="move" if isinstance(decision, Go) else "stay",
        from_=view.datacenter,
        to=decision.datacenter if isinstance(decision, Go) else view.datacenter,
        rule=decision.rule or controller.policy.name,
        reason=decision.reason,
        runner_up=decision.runner_up,
        policy=controller.policy_of(view.service_class),
        mode="act" if considered.acts else "observe",
        age_s=round(now - considered.at, 3),
        ping_pongs=controller.deliberation.ping_pongs.get(view.service, 0),
        settled_s=view.settled_s,
        remaining_s=view.remaining_s,
        candidates=[
            CandidateView(each.datacenter, each.rtt_ms, each.free, round(each.load, 4), each.transfer_s)
            for each in view.candidates
        ],
    )


def sites(controller: Controller) -> SiteList:
    world = controller.world
    return SiteList(
        [
            SiteView(name, "datacenter" if name in world.datacenters else "access", [ip_text(rloc) for rloc in rlocs])
            for name, rlocs in world.sites.items()
        ]
    )


def moves(controller: Controller, packets: Packets = lambda _: None) -> MoveList:
    """`packets` is what the tunnel routers have told of a move's."""
    return MoveList([move(record, packets) for record in controller.moves])


def move(record: MoveRecord, packets: Packets = lambda _: None) -> MoveView:
    moved = record.move
    started = moved.phases[0].at if moved.phases else 0.0
    return MoveView(
        id=moved.id,
        service=record.service,
        from_=moved.source,
        to=moved.target,
        version=moved.version,
        driver=moved.driver,
        emulated=moved.emulated,
        scheme=moved.scheme,
        state=str(moved.state),
        started_monotonic_ns=int(started * 1e9),
        phases=[PhaseView(phase.name, round((phase.at - started) * 1000, 3)) for phase in moved.phases],
        stopped_monotonic_ns=moved.stopped_ns,
        resumed_monotonic_ns=moved.resumed_ns,
        blackout_events_ms=_blackout(moved),
        reason=moved.reason,
        ended=moved.state not in IN_FLIGHT,
        packets=packets(moved.id),
    )


def _blackout(moved: Move) -> float | None:
    """STOP to RESUME by the hypervisors' clocks: meaningful where both share one, as in the lab."""
    if moved.stopped_ns is None or moved.resumed_ns is None:
        return None
    return round((moved.resumed_ns - moved.stopped_ns) / 1e6, 3)
