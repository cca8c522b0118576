"""What decisions are made from besides places, and what became of them: distances measured, copies timed, room taken,
ping-pongs counted, and the last decision of each service with what it was weighed against. Pure.

The controller asks for a view and a decision, and tells of every placement that changes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from fmcc.changes import Changes
from fmcc.moves import MoveRecord, Placement
from fmcc.moves import State as MoveState
from fmcc.policy import Candidate, Decision, Learner, Policy, State, View
from fmcc.policy.rules import Rules
from fmcc.world import Service, World
from lispfmc.core.effects import Emit, FieldValue
from lispfmc.wire.errors import LocalError

MEASURED_FOR_S = 300.0
"""How long a measured distance counts. Then the configured one does again: a router that is gone measures nothing."""
SMOOTHING = 0.25
"""Weight of a new measurement against those before it."""


CANDIDATES_KEPT = 10_000
"""Sets of candidates that are made once: one for each site, place, set of allowed data centres and size."""
DECISIONS_KEPT = 10_000
"""Decisions that can still be explained in full: a kilobyte each. The events of all others have gone by."""


class Considered(msgspec.Struct, frozen=True, gc=False):
    """A decision, when it was made (monotonic seconds), and the view that it was made from."""

    view: View
    decision: Decision
    at: float
    acts: bool


class _Measured(msgspec.Struct, frozen=True, gc=False):
    ms: float
    at: float


class _Settled(msgspec.Struct, frozen=True, gc=False):
    """Where a service came from when it last moved, and when."""

    left: str
    at: float


class Deliberation:
    """Bounded by the world: pairs of sites, and services."""

    def __init__(
        self, world: World, policy: Policy, placements: Mapping[str, Placement], changes: Changes | None = None
    ) -> None:
        """`placements` is the controller's own table, only read here."""
        self.world = world
        self._changes = Changes() if changes is None else changes
        self.policy = policy
        learns = policy.learns if isinstance(policy, Rules) else True
        self._learner = policy if learns and isinstance(policy, Learner) else None
        self._limited = any(each.capacity is not None for each in world.datacenters.values())
        self._candidates_of: dict[tuple[str, str, tuple[str, ...], int | None], tuple[Candidate, ...]] = {}
        self._placements = placements
        self._taken = dict.fromkeys(world.datacenters, 0)
        for placement in placements.values():
            self._count(placement, 1)
        self._rtts: dict[frozenset[str], _Measured] = {}
        self._ends: dict[str, float] = {}
        self._copied_s: dict[str, float] = {}
        self._settled: dict[str, _Settled] = {}
        self._heard: set[str] = set()
        self.ping_pongs: dict[str, int] = {}
        # the oldest is to leave at once, which a plain dict finds by walking over all that have left
        self.latest: OrderedDict[str, Considered] = OrderedDict()

    # --- what is told -------------------------------------------------------------------------------------------------

    def measured(self, a: str, b: str, rtt_ms: float, now: float) -> None:
        """Someone measured the round-trip time between two sites. Raises LocalError."""
        unknown = sorted({a, b} - self.world.sites.keys())
        if unknown or a == b:
            why = f"no site {unknown[0]!r}" if unknown else "a site has no distance from itself"
            raise LocalError(f"the distance of {a} and {b}: {why}; name two of {', '.join(sorted(self.world.sites))}")
        if not 0.0 <= rtt_ms < float("inf"):
            raise LocalError(f"the distance of {a} and {b}: {rtt_ms} is no number of milliseconds; measure again")
        pair = frozenset((a, b))
        before = self._rtts.get(pair)
        if before is not None and now - before.at < MEASURED_FOR_S:
            rtt_ms = before.ms + SMOOTHING * (rtt_ms - before.ms)
        self._rtts[pair] = _Measured(rtt_ms, now)

    def remaining(self, service: str, seconds: float | None, now: float) -> None:
        """How long the service will go on, or that nobody knows. Raises LocalError."""
        if service not in self.world.services:
            raise LocalError(f"no service {service!r}: it is not configured; name one of {_list(self.world.services)}")
        if seconds is None:
            self._ends.pop(service, None)
        elif 0.0 <= seconds < float("inf"):
            self._ends[service] = now + seconds
        else:
            raise LocalError(f"what is left of {service}: {seconds} is no number of seconds; give one not below 0")

    def heard(self, service: str) -> None:
        """The Map-Server has said where the service is: what it says next is a move."""
        self._heard.add(service)

    def added(self, placement: Placement) -> None:
        self._count(placement, 1)
        self._changes.services[placement.service.name] = None

    def removed(self, placement: Placement) -> None:
        """The service is no more: nothing of it stays."""
        name = placement.service.name
        self._count(placement, -1)
        self._heard.discard(name)
        tables: tuple[dict[str, Any], ...] = (self._ends, self._copied_s, self._settled, self.ping_pongs, self.latest)
        for table in tables:
            table.pop(name, None)
        if isinstance(self.policy, Rules):
            self.policy.forget(name)
        self._changes.services[name] = None

    def replaced(self, before: Placement, after: Placement, now: float) -> list[Emit]:
        """A placement has changed: room, the time that the copy took, and whether the service is back too soon."""
        if after is before:
            return []
        name = after.service.name
        self._changes.services[name] = None
        if after.move is not None and after.move is not before.move:
            self._changes.moved(MoveRecord(name, after.move))
        self._count(before, -1)
        self._count(after, 1)
        if before.datacenter == after.datacenter:
            return []
        if name not in self._heard and (after.move is None or after.move.state is not MoveState.NOTIFIED):
            return []  # the first word after a start: it was there all the time, it has not moved
        if (copied_s := _copied_s(after)) is not None:
            known = self._copied_s.get(name, copied_s)
            self._copied_s[name] = known + 0.5 * (copied_s - known)
        last = self._settled.get(name)
        self._settled[name] = _Settled(before.datacenter, now)
        if last is None or last.left != after.datacenter or now - last.at > self.world.ping_pong_s:
            return []
        self.ping_pongs[name] = self.ping_pongs.get(name, 0) + 1
        fields: dict[str, FieldValue] = {
            "service": name,
            "from": before.datacenter,
            "to": after.datacenter,
            "after_s": round(now - last.at, 3),
            "count": self.ping_pongs[name],
        }
        return [Emit("migration.pingpong", fields)]

    # --- what a restart must not forget -------------------------------------------------------------------------------

    def state(self, service: str, now: float) -> State | None:
        """What is known of one service, as plain values; None = nothing."""
        learned = self.policy.state(service) if isinstance(self.policy, Learner) else None
        copied_s, ping_pongs = self._copied_s.get(service), self.ping_pongs.get(service, 0)
        settled = self._settled.get(service)
        if learned is None and copied_s is None and not ping_pongs and settled is None:
            return None
        return {
            "policy": self._policy_of(service),
            "learned": learned,
            "copied_s": copied_s,
            "ping_pongs": ping_pongs,
            "left": None if settled is None else settled.left,
            "settled_s": None if settled is None else now - settled.at,
        }

    def restore(self, service: str, state: State, saved: float) -> None:
        """Go on from a state that was saved at `saved`. Raises LocalError when it is none of ours; what another policy
        had learned is let go."""
        if service not in self.world.services:
            raise LocalError(f"no service {service!r}: it is not configured; what is known of it is let go")
        copied_s, ping_pongs, learned = state.get("copied_s"), state.get("ping_pongs", 0), state.get("learned")
        timed = copied_s is None or (isinstance(copied_s, int | float) and 0.0 <= copied_s < float("inf"))
        left, settled_s = state.get("left"), state.get("settled_s")
        moved = left is None or (isinstance(left, str) and isinstance(settled_s, int | float) and settled_s >= 0.0)
        if not timed or not moved or not isinstance(ping_pongs, int) or ping_pongs < 0:
            raise LocalError(f"what is known of {service}: impossible values; it is learned anew")
        if learned is not None and state.get("policy") == self._policy_of(service):
            if isinstance(self.policy, Rules):
                self.policy.restore(service, learned, self.world.services[service].service_class)
            elif isinstance(self.policy, Learner):
                self.policy.restore(service, learned)
        if copied_s is not None:
            self._copied_s[service] = float(copied_s)
        if ping_pongs:
            self.ping_pongs[service] = ping_pongs
        if left is not None and settled_s is not None:
            self._settled[service] = _Settled(left, saved - settled_s)

    def _policy_of(self, service: str) -> str:
        policy, known = self.policy, self.world.services[service]
        return policy.policy_of(known.service_class) if isinstance(policy, Rules) else policy.name

    # --- what is asked ------------------------------------------------------------------------------------------------

    def rtt_ms(self, a: str, b: str, now: float) -> float | None:
        """As measured lately, else as configured."""
        measured = self._rtts.get(frozenset((a, b))) if self._rtts else None
        if measured is not None and now - measured.at < MEASURED_FOR_S:
            return measured.ms
        return self.world.rtt_ms(a, b)

    def distances(self, now: float) -> Iterator[tuple[str, str, float, float | None]]:
        """Every pair of sites that has a distance, in ms, and how old it is; None: it is the configured one."""
        for pair in sorted(self._rtts.keys() | self.world.rtts_ms.keys(), key=sorted):
            a, b = sorted(pair) if len(pair) == 2 else (*pair, *pair)
            measured, ms = self._rtts.get(pair), self.rtt_ms(a, b, now)
            fresh = measured is not None and now - measured.at < MEASURED_FOR_S
            if ms is not None:
                yield a, b, ms, round(now - measured.at, 3) if measured is not None and fresh else None

    def taken(self, datacenter: str) -> int:
        """How many services it has, or waits for."""
        return self._taken[datacenter]

    def view(self, placement: Placement, site: str, now: float) -> View:
        service = placement.service
        settled, ends = self._settled.get(service.name), self._ends.get(service.name)
        return View(
            service=service.name,
            user=service.user,
            site=site,
            datacenter=placement.datacenter,
            candidates=self._candidates(placement, site, now),
            service_class=service.service_class,
            settled_s=None if settled is None else now - settled.at,
            remaining_s=None if ends is None else max(0.0, ends - now),
        )

    def has_room(self, placement: Placement, datacenter: str) -> bool:
        free = self._free(placement, datacenter)
        return free is None or free > 0

    def observe(self, placement: Placement, site: str, now: float) -> View | None:
        """A handover, whether or not something is decided; returns what the policy was shown, if it learns."""
        if self._learner is None:
            return None
        self._changes.services[placement.service.name] = None
        view = self.view(placement, site, now)
        self._learner.observe(view)
        return view

    def decide(self, view: View, now: float) -> Decision:
        decision = self.policy.decide(view)
        self.latest[view.service] = considered = Considered(view, decision, now, self.world.acts)
        self.latest.move_to_end(view.service)
        self._changes.decided(considered)
        if len(self.latest) > DECISIONS_KEPT:
            self.latest.popitem(last=False)
        return decision

    def _candidates(self, placement: Placement, site: str, now: float) -> tuple[Candidate, ...]:
        """Where nothing but the configuration matters they are the same for many services, and made once."""
        service = placement.service
        if self._limited or self._rtts or service.name in self._copied_s:
            return tuple(self._candidate(placement, name, site, now) for name in service.allowed)
        key = (site, placement.datacenter, service.allowed, service.size_bytes)
        made = self._candidates_of.get(key)
        if made is None:
            if len(self._candidates_of) >= CANDIDATES_KEPT:
                self._candidates_of.clear()
            made = tuple(self._candidate(placement, name, site, now) for name in service.allowed)
            self._candidates_of[key] = made
        return made

    def _candidate(self, placement: Placement, datacenter: str, site: str, now: float) -> Candidate:
        capacity = self.world.datacenters[datacenter].capacity
        load = self._taken[datacenter] / capacity if capacity else 0.0
        transfer_s = self._transfer_s(placement.service, placement.datacenter, datacenter)
        free = self._free(placement, datacenter)
        return Candidate(datacenter, self.rtt_ms(site, datacenter, now), free, load, transfer_s)

    def _transfer_s(self, service: Service, source: str, target: str) -> float | None:
        """As the last copies took, else as size and rate say."""
        if source == target:
            return 0.0
        measured = self._copied_s.get(service.name)
        return self.world.transfer_s(service, source, target) if measured is None else measured

    def _free(self, placement: Placement, datacenter: str) -> int | None:
        capacity = self.world.datacenters[datacenter].capacity
        if capacity is None:
            return None
        return capacity - self._taken[datacenter] + (datacenter in _occupied(placement))

    def _count(self, placement: Placement, by: int) -> None:
        for datacenter in _occupied(placement):
            if datacenter in self._taken:
                self._taken[datacenter] += by


def _occupied(placement: Placement) -> set[str]:
    """A service takes room where it runs, and where it is going."""
    if placement.in_flight and placement.move is not None:
        return {placement.datacenter, placement.move.target}
    return {placement.datacenter}


def _copied_s(placement: Placement) -> float | None:
    """How long the move that has just ended copied; None when this change was no move of ours."""
    move = placement.move
    if move is None or move.state is not MoveState.NOTIFIED:
        return None
    at = {phase.name: phase.at for phase in move.phases}
    started, resumed = at.get("copy.started"), at.get("resumed")
    return None if started is None or resumed is None else resumed - started


def _list(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names)) or "none"
