"""The controller's core: publications become locations, locations decisions, decisions moves, moves messages. Pure.

It composes the subscriber, the locations, the policy, one placement a service (`coordinator.step`) and the steering
scheme, and answers with effects. Inputs besides datagrams and time: what agents report, what an operator asks for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import msgspec

from fmcc import facts
from fmcc.changes import Changes
from fmcc.coordinator import step
from fmcc.deliberation import Deliberation
from fmcc.effects import FmccEffect, Persist
from fmcc.locations import (
    Locations,
    ServicePublished,
    SiteLocated,
    UserApart,
    UserMoved,
    VersionPublished,
    Whereabouts,
)
from fmcc.migrations import Migrations
from fmcc.moves import (
    BEFORE_STOP,
    AgentReport,
    Confirmed,
    Failed,
    Found,
    MoveEvent,
    MoveRecord,
    Observed,
    Placement,
    Requested,
    State,
)
from fmcc.policy import Decision, Policy, Stay, View
from fmcc.policy.rules import Rules
from fmcc.population import Population
from fmcc.requests import Requests
from fmcc.sightings import Sightings
from fmcc.standing import Standing
from fmcc.steering import Steering
from fmcc.steering.registry import SCHEMES
from fmcc.subscriber import Subscriber
from fmcc.world import Service, User, World
from lispfmc.core.effects import Emit, Reject
from lispfmc.core.versions import newer
from lispfmc.wire.address import Endpoint, Ip
from lispfmc.wire.messages import MapNotify, MapNotifyAck, MapReply, Message
from lispfmc.wire.moves import MoveMessage


class Controller:
    """See the module. Every table is bounded by the configuration."""

    def __init__(self, world: World, policy: Policy, steering: Steering, nonces: Iterator[int]) -> None:
        self.world = world
        self.policy = policy
        self.steering = steering
        self.changes = Changes()
        self._locations = Locations(world, self.changes)
        self.subscriber = Subscriber(world, self._locations.knows, nonces)
        self.migrations = Migrations(world, steering, nonces)
        self.migrations.on_change = self._replaced
        self.deliberation = Deliberation(world, policy, self.placements, self.changes)
        self.requests = Requests(world, self.migrations, self.deliberation, SCHEMES)
        self.population = Population(
            world, self._locations, self.migrations, self.deliberation, self.subscriber, self.changes
        )
        self._scheme_of: dict[str, str] = {}
        self._decide_again: set[str] = set()
        self._sightings = Sightings()

    # --- what the daemon shows ----------------------------------------------------------------------------------------

    @property
    def placements(self) -> Mapping[str, Placement]:
        return self.migrations.placements

    @property
    def moves(self) -> tuple[MoveRecord, ...]:
        """The moves of this run, oldest first."""
        return self.migrations.records

    def policy_of(self, service_class: str) -> str:
        """The name of the policy that decides for the services of a class."""
        return self.policy.policy_of(service_class) if isinstance(self.policy, Rules) else self.policy.name

    def site_at(self, rloc: Ip) -> str | None:
        """The site that an RLOC belongs to."""
        return self._locations.site_at(rloc)

    def whereabouts(self, user: str) -> Whereabouts:
        return self._locations.user(user)

    # --- inputs -------------------------------------------------------------------------------------------------------

    def received(self, message: Message, datagram: bytes, source: Endpoint, now: float) -> list[FmccEffect]:
        match message:
            case MapNotify():
                news = self.subscriber.notified(message, datagram, source, now)
                effects: list[FmccEffect] = list(news.effects)
                # the whole message before any decision: it may tell of one service ahead of the next
                learned = [self._locations.learned(eid, record, now) for eid, record in news.records]
                for published in learned:
                    if isinstance(published, SiteLocated):
                        effects.append(facts.site_located(published))
                        self.subscriber.ask_anew(now)  # who was published behind these RLOCs is told again
                    elif isinstance(published, UserApart):
                        effects.append(facts.user_apart(published))
                    elif isinstance(published, ServicePublished):
                        effects += self._service_published(published, now)
                    elif isinstance(published, VersionPublished):
                        effects += self._version_published(published, now)
                for moved in learned:
                    if isinstance(moved, UserMoved):
                        effects += self._user_moved(moved, now)
                return effects + self._reconsidered(now)
            case MapNotifyAck():
                return self.migrations.acknowledged(message, datagram, source, now)
            case MoveMessage():
                return self.migrations.answered(message, datagram, source, now) + self._reconsidered(now)
            case MapReply():
                return list(self.subscriber.replied(message, source, now))
            case _:
                return [Reject("unexpected-message", source, type(message).__name__)]

    def next_deadline(self) -> float | None:
        deadlines = (self.subscriber.next_deadline(), self.migrations.next_deadline())
        return min((at for at in deadlines if at is not None), default=None)

    def expired(self, now: float) -> list[FmccEffect]:
        effects: list[FmccEffect] = [*self.subscriber.expired(now), *self.migrations.expired(now)]
        return effects + self._reconsidered(now)

    def restored(self, standings: Mapping[str, Standing], now: float) -> list[FmccEffect]:
        """After a restart, before anything else: what was remembered of the services."""
        before = dict(self.placements)
        effects = self.migrations.restored(standings, now)
        for name, placement in before.items():
            if self.placements[name] is not placement:
                # what the history had not taken note of yet; that it is told late makes it no older
                effects += self.deliberation.replaced(placement, self.placements[name], now)
        return effects

    def agent_event(self, move: str, report: AgentReport, now: float) -> list[FmccEffect]:
        """What a hypervisor agent tells of a move; moves that are not the service's last are of the past."""
        placement = self.migrations.current(move)
        if placement is None:
            return []
        service = placement.service.name
        if isinstance(report, Failed) and placement.state is State.PREPARING:
            # refused, often because the agents still carry out a move from before our start: once more when that ended
            self._sightings.interrupted(service)
        return self._step(service, report, now) + self._reconsidered(now)

    def agent_restarted(self, datacenter: str, now: float) -> list[FmccEffect]:
        """The agent of `datacenter` has started anew: it has forgotten the moves that it had under way. The policy is
        asked again, once, when the service has been found."""
        effects: list[FmccEffect] = []
        for service, placement in list(self.placements.items()):
            move = placement.move
            if move is not None and datacenter in {move.source, move.target} and move.state is not State.QUEUED:
                effects += self._step(service, Failed(f"the agent of {datacenter} was restarted"), now)
                if self.placements[service].state is State.FAILED:
                    self._sightings.interrupted(service)
        return effects + self._reconsidered(now)

    def found(self, datacenter: str, machines: Collection[str], asked: float, now: float) -> list[FmccEffect]:
        """The agent of `datacenter`, asked at `asked`, says that these machines run there."""
        for service in self.placements.keys() & machines:
            self._sightings.seen(service, datacenter, asked)
        return self._reconsidered(now)

    def requested(self, service: str, datacenter: str, scheme: str, now: float) -> list[FmccEffect]:
        """An operator wants `service` at `datacenter`, by `scheme` ("": its own). Raises RequestRefused."""
        self.requests.check(service, datacenter, scheme)
        move = self.migrations.new_id()
        return self._step(service, Requested(move, datacenter, scheme=scheme or self._scheme(service)), now)

    def steered(self, service: str, scheme: str) -> None:
        """From now on the moves of `service` are led by `scheme`; "" = as configured. Raises RequestRefused."""
        self.requests.check_scheme(service, scheme)
        self._scheme_of[service] = scheme

    def scheme_of(self, service: str) -> str:
        """What leads the next move of `service`."""
        return self._scheme(service) or self.world.services[service].scheme

    def _scheme(self, service: str) -> str:
        return self._scheme_of.get(service, "")

    def abort(self, move: str, now: float) -> list[FmccEffect]:
        """An operator wants a move given up. Raises RequestRefused."""
        service = self.requests.check_abort(move)
        return self._step(service, Failed("aborted by request"), now) + self._reconsidered(now)

    def add_user(self, user: User, now: float) -> list[FmccEffect]:
        """Raises RequestRefused."""
        return [*self.population.add_user(user, now)]

    def remove_user(self, name: str, now: float) -> list[FmccEffect]:
        """Raises RequestRefused."""
        return [*self.population.remove_user(name)]

    def add_service(self, service: Service, now: float) -> list[FmccEffect]:
        """Raises RequestRefused."""
        # the agents have to know by which scheme they tell their routers of its moves
        scheme = service.scheme or self.steering.scheme
        return [*self.population.add_service(msgspec.structs.replace(service, scheme=scheme), now)]

    def remove_service(self, name: str, now: float) -> list[FmccEffect]:
        """Raises RequestRefused."""
        effects = self.population.remove_service(name)
        self._sightings.forget(name)
        self._decide_again.discard(name)
        self._scheme_of.pop(name, None)
        return [Persist(name, None), *effects]

    # --- from a user's place to a decision ----------------------------------------------------------------------------

    def _user_moved(self, moved: UserMoved, now: float) -> list[FmccEffect]:
        effects: list[FmccEffect] = [facts.user_moved(moved)]
        if moved.site is not None:
            for service in self.world.services_of(moved.user):
                self._sightings.user_moved(service.name)
                view = None
                if moved.before is not None:  # to be seen for the first time is no handover
                    view = self.deliberation.observe(self.placements[service.name], moved.site, now)
                effects += self._consider(service, moved.site, now, view)
        return effects

    def _consider(self, service: Service, site: str, now: float, view: View | None = None) -> list[FmccEffect]:
        """`view` is what the policy was just shown of it."""
        placement = self.placements[service.name]
        if not self._heard_of(service.name):
            # a controller that has just started must hear where the service is before it moves it from there
            self._decide_again.add(service.name)
            return []
        if not self.migrations.resting(service.name):
            self._decide_again.add(service.name)
            return [self._decided(placement, site, None)]
        decision = self.deliberation.decide(view or self.deliberation.view(placement, site, now), now)
        emit = self._decided(placement, site, decision)
        if isinstance(decision, Stay) or not self.world.acts:
            return [emit]
        scheme = self._scheme(service.name)
        requested = Requested(self.migrations.new_id(), decision.datacenter, heard=now, scheme=scheme)
        return [emit, *self._step(service.name, requested, now)]

    def _decided(self, placement: Placement, site: str, decision: Decision | None) -> Emit:
        """The event of a decision; None = it has to wait for the end of the move in flight."""
        policy = self.policy_of(placement.service.service_class)
        return facts.decided(placement, site, decision, policy, acts=self.world.acts)

    # --- from what the mapping system and the routers say to the move -------------------------------------------------

    def _service_published(self, published: ServicePublished, now: float) -> list[FmccEffect]:
        placement = self.placements[published.service]
        move = placement.move
        ours = move is not None and (move.target, move.version) == (published.datacenter, published.version)
        if ours and published.agreed:
            confirmed = self._step(published.service, Confirmed(), now)
            if confirmed:
                self.deliberation.heard(published.service)
                return confirmed
        effects = self.migrations.outdone(published.service, published.version, now)
        if published.datacenter not in self.world.datacenters:
            return effects
        if move is not None and placement.state in BEFORE_STOP and self._overtaken(published, placement):
            reason = f"it is at {published.datacenter} already, by version {published.version}"
            effects += self._step(published.service, Failed(reason), now)
        effects += self._step(published.service, Observed(published.datacenter, published.version), now)
        self.deliberation.heard(published.service)
        return effects

    def _overtaken(self, published: ServicePublished, placement: Placement) -> bool:
        """Somebody else has moved the service, and ours would only bring it back."""
        assert placement.move is not None, "it is in flight"
        if placement.state is State.PREPARING:
            return published.datacenter != placement.move.source
        return newer(published.version, placement.move.version)

    def _version_published(self, published: VersionPublished, now: float) -> list[FmccEffect]:
        """The next move has to take a version after this one, though it says nothing about the service's place."""
        placement = self.placements[published.service]
        if not newer(published.version, placement.version):
            return []
        effects = self.migrations.outdone(published.service, published.version, now)
        return effects + self._step(published.service, Observed(placement.datacenter, published.version), now)

    # --- the move -----------------------------------------------------------------------------------------------------

    def _step(self, service: str, event: MoveEvent, now: float) -> list[FmccEffect]:
        return self.migrations.step(service, event, now)

    def _replaced(self, before: Placement, after: Placement, now: float) -> list[FmccEffect]:
        if after.datacenter != before.datacenter:
            self._sightings.placed(after.service.name, now)
        return [*self.deliberation.replaced(before, after, now)]

    def _reconsidered(self, now: float) -> list[FmccEffect]:
        """What had to wait, for the end of a move or for the Map-Server's first word: machines found, and decisions."""
        effects: list[FmccEffect] = []
        # what the Map-Server publishes comes first: the version to go on from is part of it
        for name, datacenter in self._sightings.take(self._may_be_weighed):
            effects += self._located(name, datacenter, now)
        for name in sorted(self._decide_again) if self._decide_again else ():
            placement = self.placements[name]
            if self.migrations.resting(name) and self._heard_of(name):
                self._decide_again.discard(name)
                site = self._locations.user(placement.service.user).site
                if site is not None:
                    effects += self._consider(placement.service, site, now)
        return effects

    def _heard_of(self, service: str) -> bool:
        """Whether the Map-Server has said where the service is, and tells of every change."""
        return self.subscriber.whole or all(map(self.subscriber.covers, self.placements[service].service.eids))

    def _may_be_weighed(self, service: str) -> bool:
        """A move in flight has its version already; a new one has to follow the newest that is published, and waits
        until the network has been led where the last one went."""
        placement = self.placements[service]
        return placement.state is not State.NOTIFIED and (placement.in_flight or self._heard_of(service))

    def _located(self, service: str, datacenter: str, now: float) -> list[FmccEffect]:
        """The service runs at `datacenter`; the network is led there when the mapping leads elsewhere."""
        placement = self.placements[service]
        if not placement.in_flight and self._sightings.retry(service):
            self._decide_again.add(service)
        after, _ = step(placement, Found("", datacenter), now, self.world.limits)
        if after is placement:
            return []
        mode = "act" if self.world.acts else "observe"
        fields = {"service": service, "from": placement.datacenter, "to": datacenter, "mode": mode}
        effects: list[FmccEffect] = [Emit("placement.found", {**fields})]
        if self.world.acts:
            effects += self._step(service, Found(self.migrations.new_id(), datacenter), now)
        return effects
