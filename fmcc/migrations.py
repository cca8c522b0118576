"""The moves of all services: each event goes through the coordinator's table, what it wants of the network goes to the
scheme, and what comes of that comes back as events. Pure.

What must be known after a restart is written down (`Persist`) before what follows from it: before the messages where
the scheme says so; where it remembers nothing, after them, and before the hypervisors are asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from fmcc.coordinator import Steer, entered, redirect_of, step
from fmcc.effects import AbortMigration, AgentEffect, FmccEffect, Persist, PrepareMigration, RecallMigration
from fmcc.moves import (
    IN_FLIGHT,
    Activated,
    Admitted,
    Deferred,
    Failed,
    Move,
    MoveEvent,
    MoveRecord,
    Placement,
    Requested,
    SiteAcknowledged,
    State,
    TimedOut,
    Versioned,
    Warmed,
)
from fmcc.queue import Queue
from fmcc.standing import Standing
from fmcc.steering import (
    Acknowledged,
    Active,
    GivenUp,
    News,
    Ready,
    Redirect,
    Remember,
    Repeated,
    Steering,
)
from fmcc.steering import Versioned as SchemeVersioned
from fmcc.world import World
from lispfmc.core.deadlines import Deadlines
from lispfmc.core.effects import Emit, Reject, Send
from lispfmc.core.versions import newer
from lispfmc.wire.address import Endpoint
from lispfmc.wire.errors import LocalError
from lispfmc.wire.messages import MapNotifyAck
from lispfmc.wire.moves import MoveMessage

MOVES_KEPT = 256
"""Finished moves that /v1/moves still shows."""


class Migrations:
    """See the module. Every table is bounded by the configuration, but the finished moves: by `MOVES_KEPT`."""

    def __init__(self, world: World, steering: Steering, nonces: Iterator[int]) -> None:
        self._world = world
        self.steering = steering
        self._nonces = nonces
        self.placements = {each.name: Placement(each, each.datacenter) for each in world.services.values()}
        self._moves: dict[str, MoveRecord] = {}
        self._queue = Queue(world.limits.moves_at_once)
        self._deadlines: Deadlines[str] = Deadlines()
        self.on_change: Callable[[Placement, Placement, float], list[FmccEffect]] = lambda _before, _after, _now: []
        """Told of every change of a placement."""

    # --- what others ask ----------------------------------------------------------------------------------------------

    @property
    def records(self) -> tuple[MoveRecord, ...]:
        """The moves of this run, oldest first."""
        return tuple(self._moves.values())

    def last(self, service: str) -> MoveRecord:
        """The move that the service made last, or is making. Raises LocalError when it has made none."""
        move = self.placements[service].move
        if move is None:
            raise LocalError(f"{service} has not moved yet")
        return MoveRecord(service, move)

    def current(self, move: str) -> Placement | None:
        """The service whose last move this is."""
        record = self._moves.get(move)
        placement = self.placements.get(record.service) if record is not None else None
        return placement if placement is not None and placement.move and placement.move.id == move else None

    def busy(self, service: str) -> str:
        """Why no new move of the service may begin, beside one in flight; "" when it may."""
        return self.steering.busy(service)

    def resting(self, service: str) -> bool:
        return not self.placements[service].in_flight and not self.busy(service)

    def new_id(self) -> str:
        return f"{next(self._nonces):016x}"

    # --- inputs -------------------------------------------------------------------------------------------------------

    def step(self, service: str, event: MoveEvent, now: float) -> list[FmccEffect]:
        """One event of one service's move, and what comes of it."""
        before = self.placements[service]
        if type(event) is Requested and not self._queue.room(before.datacenter, event.target):
            event = Deferred(event.move, event.target, event.heard, event.scheme)
        after, wanted = step(before, event, now, self._world.limits)
        self.placements[service] = after
        self._queue.changed(before, after)
        if after.move is not None:
            self._keep(service, after.move)
        effects: list[FmccEffect] = []
        for effect in wanted:
            effects += self._steer(effect, now) if isinstance(effect, Steer) else [effect]
        effects = self._after_the_messages(service, before, after, effects)
        effects += self.on_change(before, after, now)
        effects = self._with_news(effects, now)
        return effects if type(event) is Admitted else effects + self._admitted(now)

    def answered(self, message: MoveMessage, datagram: bytes, source: Endpoint, now: float) -> list[FmccEffect]:
        answer = self.steering.answered(message, datagram, source, now)
        return [answer] if isinstance(answer, Reject) else self._with_news([*answer], now)

    def acknowledged(self, ack: MapNotifyAck, datagram: bytes, source: Endpoint, now: float) -> list[FmccEffect]:
        match self.steering.acknowledged(ack, datagram, source):
            case Acknowledged() as news:
                return self._heard(news, now)
            case Repeated():
                return []
            case Reject() as reject:
                return [reject]

    def outdone(self, service: str, version: int, now: float) -> list[FmccEffect]:
        """A mapping of a newer version than our last move's is published: nobody waits for ours any more."""
        placement = self.placements[service]
        if placement.move is None or placement.in_flight or not newer(version, placement.move.version):
            return []
        if not self.busy(service):
            return []
        redirect = msgspec.structs.replace(redirect_of(placement), version=version)
        return self._with_news([*self.steering.commit(redirect, now)], now)

    def restored(self, standings: Mapping[str, Standing], now: float) -> list[FmccEffect]:
        """After a restart: every move goes on from where it was."""
        known = {name: each for name, each in standings.items() if name in self.placements}
        for name, standing in known.items():
            move = standing.move and entered(standing.move, standing.move.state, now, self._world.limits)
            service = self._world.services[name]
            restored = Placement(service, standing.datacenter, standing.version, move)
            self._queue.changed(self.placements[name], restored)
            self.placements[name] = restored
            if move is not None:
                self._keep(name, move)
        leads = {name: each.lead for name, each in known.items() if each.lead is not None}
        effects = self._with_news([*self.steering.restored(leads, now)], now)
        for name in known:
            effects += self._continued(name, now)
        return effects + self._admitted(now)

    def removed(self, service: str) -> Placement:
        """It exists no more; its past moves are still shown."""
        self._deadlines.cancel(service)
        return self.placements.pop(service)

    def next_deadline(self) -> float | None:
        deadlines = (self.steering.next_deadline(), self._deadlines.next())
        return min((at for at in deadlines if at is not None), default=None)

    def expired(self, now: float) -> list[FmccEffect]:
        effects = self._with_news([*self.steering.expired(now)], now)
        for service in list(self._deadlines.pop_expired(now)):
            effects += self.step(service, TimedOut(), now)
        return effects

    def _admitted(self, now: float) -> list[FmccEffect]:
        """Moves that waited begin."""
        effects: list[FmccEffect] = []
        for service in self._queue.next():
            effects += self.step(service, Admitted(), now)
        return effects

    # --- the scheme ---------------------------------------------------------------------------------------------------

    def _steer(self, steer: Steer, now: float) -> list[Send]:
        phases: dict[str, Callable[[Redirect, float], list[Send]]] = {
            "prepare": self.steering.prepare,
            "freeze": self.steering.freeze,
            "activate": self.steering.activate,
            "commit": self.steering.commit,
            "abort": self.steering.abort,
        }
        return phases[steer.verb](steer.redirect, now)

    def _with_news(self, effects: list[FmccEffect], now: float) -> list[FmccEffect]:
        """The effects of a call, after what must be remembered of it and before what has come of it."""
        news = self.steering.drained()
        remembered = dict.fromkeys(each.service for each in news if isinstance(each, Remember))
        first: list[FmccEffect] = [self._persist(service) for service in remembered]
        return [*first, *effects, *(effect for each in news for effect in self._heard(each, now))]

    def _heard(self, news: News, now: float) -> list[FmccEffect]:
        event: MoveEvent
        match news:
            case Remember():
                return []
            case Ready():
                event = Warmed()
            case Active():
                event = Activated()
            case GivenUp(reason=reason):
                event = Failed(reason)
            case SchemeVersioned(version=version):
                event = Versioned(version)
            case Acknowledged(datacenter=datacenter):
                event = SiteAcknowledged(datacenter)
        current = self.current(news.move)
        return self.step(current.service.name, event, now) if current is not None else []

    # --- memory -------------------------------------------------------------------------------------------------------

    def _after_the_messages(
        self, service: str, before: Placement, after: Placement, effects: list[FmccEffect]
    ) -> list[FmccEffect]:
        if after == before:
            return effects
        sends = [effect for effect in effects if isinstance(effect, Send)]
        others = [effect for effect in effects if not isinstance(effect, Send)]
        return [*sends, self._persist(service), *others]

    def _persist(self, service: str) -> Persist:
        return Persist(service, Standing.of(self.placements[service], self.steering.lead(service)))

    def _continued(self, service: str, now: float) -> list[FmccEffect]:
        """What a restart has interrupted is asked again; all of it is idempotent."""
        placement = self.placements[service]
        move = placement.move
        if move is None:
            return []
        ends = (move.id, service, move.source, move.target)
        effects: list[FmccEffect] = []
        if move.state in IN_FLIGHT:
            fields = {"move": move.id, "service": service, "from": move.source, "to": move.target}
            effects.append(Emit("migration.continued", {**fields, "state": str(move.state)}))
        lead = self.steering.lead(service)
        # a lead of an earlier move says nothing of one that another scheme has in hand
        led = lead is not None and lead.plan is not None and lead.plan.move == int(move.id, 16)
        agent: AgentEffect
        match move.state:
            case State.PREPARING:
                agent = PrepareMigration(*ends, move.scheme)
            case State.COPYING | State.STOPPED:
                agent = RecallMigration(*ends, move.scheme)
            case State.FAILED if self.busy(service):
                agent = AbortMigration(*ends)
            case State.WARMING if not led:
                return effects + self._with_news([*self._steer(Steer("prepare", redirect_of(placement)), now)], now)
            case State.NOTIFIED if not led:
                return effects + self._with_news([*self._steer(Steer("activate", redirect_of(placement)), now)], now)
            case _:
                return effects
        return [*effects, agent]

    def _keep(self, service: str, move: Move) -> None:
        self._moves[move.id] = MoveRecord(service, move)
        if move.deadline is None:
            self._deadlines.cancel(service)
        else:
            self._deadlines.set(service, move.deadline)
        if len(self._moves) > MOVES_KEPT:
            del self._moves[next(iter(self._moves))]
