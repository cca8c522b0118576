"""The controller's core: publications become locations, locations decisions, decisions moves, moves messages. Pure.

It composes the subscriber, the locations, the policy, one placement a service (`coordinator.step`) and the steering
scheme, and answers with effects. Inputs besides datagrams and time: what agents report, what an operator asks for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from fmcc import facts, population
from fmcc.changes import Changes
from fmcc.coordinator import MoveEffect, Steer, step
from fmcc.deliberation import Deliberation
from fmcc.effects import FmccEffect
from fmcc.locations import (
    Locations,
    ServicePublished,
    SiteLocated,
    UserApart,
    UserMoved,
    VersionPublished,
    Whereabouts,
)
from fmcc.moves import (
    AgentReport,
    Confirmed,
    Failed,
    Found,
    Move,
    MoveEvent,
    MoveRecord,
    Observed,
    Placement,
    Requested,
    SiteAcknowledged,
    State,
    TimedOut,
)
from fmcc.policy import Decision, Policy, Stay, View
from fmcc.policy.rules import Rules
from fmcc.population import RequestRefused
from fmcc.sightings import Sightings
from fmcc.steering import Acknowledged, Repeated, Steering
from fmcc.subscriber import Subscriber
from fmcc.world import Service, User, World
from lispfmc.core.deadlines import Deadlines
from lispfmc.core.effects import Emit, Reject, Send
from lispfmc.core.versions import newer
from lispfmc.wire.address import Endpoint, Ip
from lispfmc.wire.errors import LocalError
from lispfmc.wire.messages import MapNotify, MapNotifyAck, MapReply, Message

MOVES_KEPT = 256
"""Finished moves that /v1/moves still shows."""


class Controller:
    """See the module. Every table is bounded by the configuration, but the finished moves: by `MOVES_KEPT`."""

    def __init__(self, world: World, policy: Policy, steering: Steering, nonces: Iterator[int]) -> None:
        self.world = world
        self.policy = policy
        self.steering = steering
        self._nonces = nonces
        self.changes = Changes()
        self._locations = Locations(world, self.changes)
        self.subscriber = Subscriber(world, self._locations.knows, nonces)
        self._placements = {s.name: Placement(s, s.datacenter) for s in world.services.values()}
        self.deliberation = Deliberation(world, policy, self._placements, self.changes)
        self._moves: dict[str, MoveRecord] = {}
        self._deadlines: Deadlines[str] = Deadlines()
        self._decide_again: set[str] = set()
        self._sightings = Sightings()

    # --- what the daemon shows ----------------------------------------------------------------------------------------

    @property
    def placements(self) -> Mapping[str, Placement]:
        return self._placements

    @property
    def moves(self) -> tuple[MoveRecord, ...]:
        """The moves of this run, oldest first."""
        return tuple(self._moves.values())

    def last_move(self, service: str) -> MoveRecord:
        """The move that the service made last, or is making. Raises LocalError when it has made none."""
        move = self._placements[service].move
        if move is None:
            raise LocalError(f"{service} has not moved yet")
        return MoveRecord(service, move)

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
                return self._acknowledged(message, datagram, source, now)
            case MapReply():
                return list(self.subscriber.replied(message, source, now))
            case _:
                return [Reject("unexpected-message", source, type(message).__name__)]

    def next_deadline(self) -> float | None:
        deadlines = (self.subscriber.next_deadline(), self.steering.next_deadline(), self._deadlines.next())
        return min((at for at in deadlines if at is not None), default=None)

    def expired(self, now: float) -> list[FmccEffect]:
        effects: list[FmccEffect] = [*self.subscriber.expired(now), *self.steering.expired(now)]
        for service in list(self._deadlines.pop_expired(now)):
            effects += self._step(service, TimedOut(), now)
        return effects + self._reconsidered(now)

    def agent_event(self, move: str, report: AgentReport, now: float) -> list[FmccEffect]:
        """What a hypervisor agent tells of a move; moves that are not the service's last are of the past."""
        record = self._moves.get(move)
        placement = self._placements.get(record.service) if record is not None else None
        current = placement.move if placement is not None else None
        if record is None or current is None or current.id != move:
            return []
        if isinstance(report, Failed) and current.state is State.PREPARING:
            # refused, often because the agents still carry out a move from before our start: once more when that ended
            self._sightings.interrupted(record.service)
        return self._step(record.service, report, now) + self._reconsidered(now)

    def agent_restarted(self, datacenter: str, now: float) -> list[FmccEffect]:
        """The agent of `datacenter` has started anew: it has forgotten the moves that it had under way. The policy is
        asked again, once, when the service has been found."""
        effects: list[FmccEffect] = []
        for service, placement in list(self._placements.items()):
            move = placement.move
            if move is not None and datacenter in {move.source, move.target}:
                effects += self._step(service, Failed(f"the agent of {datacenter} was restarted"), now)
                if self._placements[service].state is State.FAILED:
                    self._sightings.interrupted(service)
        return effects + self._reconsidered(now)

    def found(self, datacenter: str, machines: Collection[str], asked: float, now: float) -> list[FmccEffect]:
        """The agent of `datacenter`, asked at `asked`, says that these machines run there."""
        for service in self._placements.keys() & machines:
            self._sightings.seen(service, datacenter, asked)
        return self._reconsidered(now)

    def requested(self, service: str, datacenter: str, now: float) -> list[FmccEffect]:
        """An operator wants `service` at `datacenter`. Raises RequestRefused."""
        self.check(service, datacenter)
        return self._step(service, Requested(self._new_move_id(), datacenter), now)

    def check(self, service: str, datacenter: str) -> None:
        """Raises RequestRefused when `service` cannot move to `datacenter` now."""
        placement = self._placements.get(service)
        if placement is None:
            known = ", ".join(sorted(self._placements))
            raise RequestRefused(f"no service {service!r}", "it is not configured", f"choose one of {known}", 404)
        allowed = placement.service.allowed
        if datacenter not in allowed:
            known = "unknown" if datacenter not in self.world.datacenters else f"not allowed for {service}"
            raise RequestRefused(
                f"{service} cannot move to {datacenter!r}", f"it is {known}", f"choose one of {', '.join(allowed)}", 403
            )
        if placement.in_flight:
            why = f"it is on its way to {placement.move.target if placement.move else ''}"
            raise RequestRefused(f"{service} cannot move to {datacenter}", why, "wait until that move has ended", 409)
        if placement.datacenter == datacenter:
            raise RequestRefused(
                f"{service} cannot move to {datacenter}", "it is there already", "choose another data centre", 409
            )
        if not self.deliberation.has_room(placement, datacenter):
            why = f"it is full ({self.world.datacenters[datacenter].capacity} services)"
            raise RequestRefused(f"{service} cannot move to {datacenter}", why, "move another service away first", 409)

    def abort(self, move: str, now: float) -> list[FmccEffect]:
        """An operator wants a move given up. Raises RequestRefused."""
        return self._step(self.check_abort(move), Failed("aborted by request"), now) + self._reconsidered(now)

    def check_abort(self, move: str) -> str:
        """The service whose move it is. Raises RequestRefused when it cannot be aborted now."""
        record = self._moves.get(move)
        if record is None:
            why = "it was not begun in this run of the controller"
            raise RequestRefused(f"no move {move!r}", why, "see GET /v1/moves", 404)
        current = self._placements[record.service].move if record.service in self._placements else None
        state = record.move.state
        if current is None or current.id != move or state not in {State.PREPARING, State.COPYING}:
            # once the machine stands still, only its hypervisors can say where it will run
            do = "request a move back when it has ended" if state is State.STOPPED else "nothing is to be aborted"
            raise RequestRefused(f"the move {move} cannot be aborted", f"it is {state}", do, 409)
        return record.service

    # --- who comes, who goes, and what the run before this one knew ---------------------------------------------------

    def check_user(self, user: User) -> None:
        """Raises RequestRefused when the user cannot be added."""
        population.check_user(self.world, user, self._locations.owner)

    def add_user(self, user: User, now: float) -> list[FmccEffect]:
        """Raises RequestRefused."""
        self.check_user(user)
        self.world.users[user.name] = user
        self._locations.add(user)
        self.changes.users[user.name] = None
        self.subscriber.ask_anew(now)
        return [Emit("user.added", {"user": user.name, "eids": [str(eid) for eid in user.eids]})]

    def check_user_leaves(self, name: str) -> None:
        """Raises RequestRefused when the user cannot be removed."""
        population.check_user_leaves(self.world, name)

    def remove_user(self, name: str, now: float) -> list[FmccEffect]:
        """Raises RequestRefused."""
        self.check_user_leaves(name)
        self._forget(self.world.users.pop(name))
        self.changes.users[name] = None
        return [Emit("user.removed", {"user": name})]

    def check_service(self, service: Service) -> None:
        """Raises RequestRefused when the service cannot be added."""
        population.check_service(self.world, service, self._locations.owner)

    def add_service(self, service: Service, now: float) -> list[FmccEffect]:
        """Raises RequestRefused."""
        self.check_service(service)
        self.world.follows(service)
        self.world.services[service.name] = service
        self._locations.add(service)
        self._placements[service.name] = Placement(service, service.datacenter)
        self.deliberation.added(self._placements[service.name])
        self.subscriber.ask_anew(now)
        eids = [str(eid) for eid in service.eids]
        return [Emit("service.added", {"service": service.name, "user": service.user or None, "eids": eids})]

    def check_service_leaves(self, name: str) -> None:
        """Raises RequestRefused: a service on its way has to arrive first."""
        population.check_service_leaves(self.world, name)
        if self._placements[name].in_flight:
            what, why = f"service {name!r} cannot be removed", "a move of it is under way"
            raise RequestRefused(what, why, "wait until it has ended, or abort it", 409)

    def remove_service(self, name: str, now: float) -> list[FmccEffect]:
        """Raises RequestRefused."""
        self.check_service_leaves(name)
        service = self.world.services[name]
        self.deliberation.removed(self._placements.pop(name))
        self.world.follows_no_more(self.world.services.pop(name))
        self._forget(service)
        self._sightings.forget(name)
        self._deadlines.cancel(name)
        self._decide_again.discard(name)
        return [Emit("service.removed", {"service": name})]

    def _forget(self, owner: User | Service) -> None:
        self._locations.remove(owner)
        for eid in owner.eids:
            self.subscriber.forget(eid)

    def remembered(self, service: str, datacenter: str, version: int) -> None:
        """Where the service was when we last ran, before anything is heard: to find it there is no move."""
        placement = Placement(self._placements[service].service, datacenter, version)
        self.deliberation.replaced(self._placements[service], placement, 0.0)  # unheard of: no move of anybody's
        self._placements[service] = placement
        self.deliberation.heard(service)

    def remembered_user(self, user: str, site: str) -> None:
        self._locations.remembered(user, site)

    # --- from a user's place to a decision ----------------------------------------------------------------------------

    def _user_moved(self, moved: UserMoved, now: float) -> list[FmccEffect]:
        effects: list[FmccEffect] = [facts.user_moved(moved)]
        if moved.site is not None:
            for service in self.world.services_of(moved.user):
                self._sightings.user_moved(service.name)
                view = None
                if moved.before is not None:  # to be seen for the first time is no handover
                    view = self.deliberation.observe(self._placements[service.name], moved.site, now)
                effects += self._consider(service, moved.site, now, view)
        return effects

    def _consider(self, service: Service, site: str, now: float, view: View | None = None) -> list[FmccEffect]:
        """`view` is what the policy was just shown of it."""
        placement = self._placements[service.name]
        if not self._heard_of(service.name):
            # a controller that has just started must hear where the service is before it moves it from there
            self._decide_again.add(service.name)
            return []
        if placement.in_flight:
            self._decide_again.add(service.name)
            return [self._decided(placement, site, None)]
        decision = self.deliberation.decide(view or self.deliberation.view(placement, site, now), now)
        emit = self._decided(placement, site, decision)
        if isinstance(decision, Stay) or not self.world.acts:
            return [emit]
        requested = Requested(self._new_move_id(), decision.datacenter, heard=now)
        return [emit, *self._step(service.name, requested, now)]

    def _decided(self, placement: Placement, site: str, decision: Decision | None) -> Emit:
        """The event of a decision; None = it has to wait for the end of the move in flight."""
        policy = self.policy_of(placement.service.service_class)
        return facts.decided(placement, site, decision, policy, acts=self.world.acts)

    # --- from what the mapping system and the routers say to the move -------------------------------------------------

    def _service_published(self, published: ServicePublished, now: float) -> list[FmccEffect]:
        placement = self._placements[published.service]
        move = placement.move
        ours = move is not None and (move.target, move.version) == (published.datacenter, published.version)
        if ours and published.agreed:
            confirmed = self._step(published.service, Confirmed(), now)
            if confirmed:
                self.deliberation.heard(published.service)
                return confirmed
        if published.datacenter not in self.world.datacenters:
            return []
        effects: list[FmccEffect] = []
        if move is not None and placement.state is State.PREPARING and published.datacenter != move.source:
            effects += self._step(published.service, Failed(f"it is at {published.datacenter} already"), now)
        effects += self._step(published.service, Observed(published.datacenter, published.version), now)
        self.deliberation.heard(published.service)
        return effects

    def _version_published(self, published: VersionPublished, now: float) -> list[FmccEffect]:
        """The next move has to take a version after this one, though it says nothing about the service's place."""
        placement = self._placements[published.service]
        if not newer(published.version, placement.version):
            return []
        return self._step(published.service, Observed(placement.datacenter, published.version), now)

    def _acknowledged(self, ack: MapNotifyAck, datagram: bytes, source: Endpoint, now: float) -> list[FmccEffect]:
        match self.steering.acknowledged(ack, datagram, source):
            case Acknowledged(move=move, service=service, datacenter=datacenter):
                placement = self._placements.get(service)
                current = placement.move if placement is not None else None
                if current is None or current.id != move:
                    return []
                return self._step(service, SiteAcknowledged(datacenter), now)
            case Repeated():
                return []
            case Reject() as reject:
                return [reject]

    # --- the move -----------------------------------------------------------------------------------------------------

    def _step(self, service: str, event: MoveEvent, now: float) -> list[FmccEffect]:
        before = self._placements[service]
        after, wanted = step(before, event, now, self.world.limits)
        effects = self._led(wanted, now)
        self._placements[service] = after
        if after.datacenter != before.datacenter:
            self._sightings.placed(service, now)
        effects += self.deliberation.replaced(before, after, now)
        if after.move is not None:
            self._keep(service, after.move)
        return effects

    def _reconsidered(self, now: float) -> list[FmccEffect]:
        """What had to wait, for the end of a move or for the Map-Server's first word: machines found, and decisions."""
        effects: list[FmccEffect] = []
        # what the Map-Server publishes comes first: the version to go on from is part of it
        for name, datacenter in self._sightings.take(self._heard_of):
            effects += self._located(name, datacenter, now)
        for name in sorted(self._decide_again) if self._decide_again else ():
            placement = self._placements[name]
            if not placement.in_flight and self._heard_of(name):
                self._decide_again.discard(name)
                site = self._locations.user(placement.service.user).site
                if site is not None:
                    effects += self._consider(placement.service, site, now)
        return effects

    def _heard_of(self, service: str) -> bool:
        """Whether the Map-Server has said where the service is, and tells of every change."""
        return self.subscriber.whole or all(map(self.subscriber.covers, self._placements[service].service.eids))

    def _located(self, service: str, datacenter: str, now: float) -> list[FmccEffect]:
        """The service runs at `datacenter`; the network is led there when the mapping leads elsewhere."""
        placement = self._placements[service]
        if not placement.in_flight and self._sightings.retry(service):
            self._decide_again.add(service)
        after, _ = step(placement, Found("", datacenter), now, self.world.limits)
        if after is placement:
            return []
        mode = "act" if self.world.acts else "observe"
        fields = {"service": service, "from": placement.datacenter, "to": datacenter, "mode": mode}
        effects: list[FmccEffect] = [Emit("placement.found", {**fields})]
        if self.world.acts:
            effects += self._step(service, Found(self._new_move_id(), datacenter), now)
        return effects

    def _led(self, wanted: list[MoveEffect], now: float) -> list[FmccEffect]:
        """The effects, with each `Steer` replaced by what the scheme sends in that phase."""
        effects: list[FmccEffect] = []
        for effect in wanted:
            if isinstance(effect, Steer):
                effects += self._steer(effect, now)
            else:
                effects.append(effect)
        return effects

    def _steer(self, steer: Steer, now: float) -> list[Send]:
        phases = {
            "prepare": self.steering.prepare,
            "freeze": self.steering.freeze,
            "activate": self.steering.activate,
            "commit": self.steering.commit,
            "abort": self.steering.abort,
        }
        return phases[steer.verb](steer.redirect, now)

    def _keep(self, service: str, move: Move) -> None:
        self._moves[move.id] = MoveRecord(service, move)
        if move.deadline is None:
            self._deadlines.cancel(service)
        else:
            self._deadlines.set(service, move.deadline)
        if len(self._moves) > MOVES_KEPT:
            del self._moves[next(iter(self._moves))]

    def _new_move_id(self) -> str:
        return f"{next(self._nonces):016x}"
