"""The whole system of one service's moves as one hashable value, and everything that can happen next.

The routers' and the controller's decisions are the real step functions, the Map-Server's the real merge rule. Around
them: channels in order, exchanges that are repeated until answered, the machine and its hypervisors, the packets of a
user. Time does not pass: what a timer could do can happen whenever it is set.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

from fmcc.steering import lead as leading
from lispfmc.core.plans import Answered, Ask, Party, Plan, Restarted, Settle
from lispfmc.core.versions import newer, next_version
from lispfmc.wire.moves import MovePhase, Verdict
from tests.explore.registry import EID, RLOCS, Registry, registered, released
from xtr.roles import peer as peers
from xtr.roles import step as role_step
from xtr.roles.state import (
    MESSAGES,
    Held,
    Mode,
    Register,
    Resumed,
    Returned,
    Role,
    State,
    Stopped,
    Superseded,
    Switch,
    Unregister,
    verdict,
)

SITES = (1, 2)
PEER, CONTROLLER, MAP_SERVER = 3, 4, 5
NAMES = {1: "x1", 2: "x2", PEER: "x3", CONTROLLER: "FMCC", MAP_SERVER: "MS"}
NODES = {rloc: node for node, rloc in RLOCS.items()}
_BROUGHT = (leading.State.ACTIVATING, leading.State.CONVERGING, leading.State.COMMITTED)
STOPPED = 0
"""Where the machine is while it is nowhere."""


class Budget(NamedTuple):
    """What may still go wrong, and what may still be asked for."""

    losses: int = 0
    duplicates: int = 0
    reorders: int = 0
    crashes: int = 0
    timeouts: int = 0
    give_ups: int = 0
    returns: int = 0
    refreshes: int = 0
    packets: int = 0
    moves_back: int = 0
    carried: int = 0


class Table(NamedTuple):
    """How a site's data plane treats packets for the EID."""

    mode: Mode | None = None
    towards: int = 0
    copies: bool = False


class Query(NamedTuple):
    """An exchange that waits for its answer."""

    by: int
    to: int
    phase: MovePhase
    plan: Plan
    again: bool


class World(NamedTuple):
    """Everything, at one moment. Lists are sorted tuples, so that equal worlds are equal values."""

    roles: tuple[Role, Role]
    peer: peers.Peer
    lead: leading.Lead
    tables: tuple[Table, Table]
    buffers: tuple[tuple[int, ...], tuple[int, ...]]
    registering: tuple[tuple[int, bool], tuple[int, bool]]  # epoch, acknowledged
    registry: Registry
    notices: tuple[int, ...]  # sites that the Map-Server tells of the standing mapping until they acknowledge
    queries: tuple[Query, ...]
    channels: tuple[tuple[tuple[int, int, bool], tuple[Any, ...]], ...]
    machine: tuple[int, int, int, int]  # where it is; the migration under way: from, to, move
    facts: tuple[tuple[int, str, int], ...]  # what hypervisors and publications will say: to whom, what, about what
    sent: int
    received: tuple[int, ...]
    crashed: tuple[int, ...]
    excused: bool  # of losing packets: a move was given up, or the machine was carried without a word
    budget: Budget


def initial(budget: Budget, *, bicast: bool = False) -> World:
    """The service runs at site 1, x3 talks to it, and the controller wants it at site 2."""
    plan = Plan(1, 2, (EID,), (RLOCS[1],), (RLOCS[2],), bicast=bicast)
    world = World(
        roles=(Role(State.HERE, owned=1, promised=1), Role(promised=1)),
        peer=peers.Peer((RLOCS[1],), 1),
        lead=leading.Lead(),
        tables=(Table(Mode.DELIVER), Table()),
        buffers=((), ()),
        registering=((1, True), (0, True)),
        registry=Registry(1, 1),
        notices=(),
        queries=(),
        channels=(),
        machine=(1, 0, 0, 0),
        facts=(),
        sent=0,
        received=(),
        crashed=(),
        excused=False,
        budget=budget,
    )
    draft = Draft(world)
    draft.led(leading.Begin(plan))
    return draft.world()


def _site(rlocs: tuple[bytes, ...]) -> int:
    return NODES[rlocs[0]]


_memo: dict[Hashable, Any] = {}


def forget() -> None:
    """The tables have been changed: what was decided by them before does not hold."""
    _memo.clear()


def _stepped(step: Callable[..., Any], state: Any, event: Any) -> Any:
    """A pure function needs to be called once for each argument."""
    key = (step, state, event)
    found = _memo.get(key)
    if found is None:
        found = _memo[key] = step(state, event, 0.0)
    return found


class Draft:
    """A world that is being changed."""

    def __init__(self, world: World) -> None:
        self.__dict__.update(zip(World._fields, world, strict=True))
        self.roles: Any = list(world.roles)
        self.tables: Any = list(world.tables)
        self.buffers: Any = list(world.buffers)
        self.registering: Any = list(world.registering)
        self.channels: Any = dict(world.channels)
        self.queries: Any = set(world.queries)
        self.facts: Any = set(world.facts)
        self.notices: Any = set(world.notices)
        self.received: Any = set(world.received)
        self.budget: Budget
        self.registry: Registry
        self.machine: tuple[int, int, int, int]
        self.peer: peers.Peer
        self.lead: leading.Lead
        self.crashed: tuple[int, ...]
        self.excused: bool
        self.sent: int

    def world(self) -> World:
        return World(
            tuple(self.roles),
            self.peer,
            self.lead,
            tuple(self.tables),
            tuple(self.buffers),
            tuple(self.registering),
            self.registry,
            tuple(sorted(self.notices)),
            tuple(sorted(self.queries, key=_order)),
            tuple(sorted((key, value) for key, value in self.channels.items() if value)),
            self.machine,
            tuple(sorted(self.facts)),
            self.sent,
            tuple(sorted(self.received)),
            self.crashed,
            self.excused,
            self.budget,
        )

    def spend(self, **what: int) -> None:
        self.budget = self.budget._replace(**{k: getattr(self.budget, k) - v for k, v in what.items()})

    def send(self, source: int, to: int, message: tuple[Any, ...]) -> None:
        key = (source, to, message[0] == "packet")
        self.channels[key] = (*self.channels.get(key, ()), message)

    # --- the routers' and the controller's own code

    def site(self, node: int, event: Any) -> None:
        role, effects = _stepped(role_step, self.roles[node - 1], event)
        self.roles[node - 1] = role
        self.excused = self.excused or role.state is State.ABORTED
        for effect in effects:
            self._site_effect(node, effect)

    def _site_effect(self, node: int, effect: Any) -> None:
        match effect:
            case Ask():
                self._ask(node, effect)
            case Settle():
                self.queries = {one for one in self.queries if one.by != node}
            case Switch():
                self._switch(node, effect)
            case Register(epoch=epoch):
                self.registering[node - 1] = (epoch, False)
                self.register(node)
            case Unregister():
                self.registering[node - 1] = (0, True)

    def led(self, event: Any) -> None:
        self.lead, effects = _stepped(leading.step, self.lead, event)
        for effect in effects:
            match effect:
                case Ask():
                    self._ask(CONTROLLER, effect)
                case Settle():
                    self.queries = {one for one in self.queries if one.by != CONTROLLER}
                case leading.Ready(plan=plan):
                    if self.machine[0] == _site(plan.source) and not self.machine[1]:
                        self.machine = (self.machine[0], _site(plan.source), _site(plan.target), plan.move)
                case leading.Failed():
                    self.excused = True
                    if self.machine[0]:  # a copy that has not ended is forgotten; what has stopped goes on somewhere
                        self.machine = (self.machine[0], 0, 0, 0)

    def _ask(self, node: int, ask: Ask) -> None:
        to = {Party.SOURCE: _site(ask.plan.source), Party.TARGET: _site(ask.plan.target), Party.PEERS: PEER}[ask.to]
        self.queries = {one for one in self.queries if one[:4] != (node, to, ask.phase, ask.plan)}
        self.queries.add(Query(node, to, ask.phase, ask.plan, False))
        self.send(node, to, ("ask", ask.phase, ask.plan))

    # --- the data plane

    def _switch(self, node: int, switch: Switch) -> None:
        plan, waiting = switch.plan, self.buffers[node - 1]
        places = {Party.SOURCE: _site(plan.source), Party.TARGET: _site(plan.target), None: 0}
        towards = places[switch.towards]
        if switch.held is Held.DELIVER:
            for packet in waiting:
                self._to_machine(node, packet)
        elif switch.held is Held.SEND:
            for packet in waiting:
                self.send(node, towards, ("packet", packet))
        if switch.held is not Held.KEEP and not (switch.held is Held.SEND and switch.copies):
            self.buffers[node - 1] = ()
        bicast = plan.bicast and switch.mode is Mode.MIRROR
        self.tables[node - 1] = Table(switch.mode, towards, switch.copies or bicast)

    def _to_machine(self, node: int, packet: int) -> None:
        if self.machine[0] == node:
            self.received.add(packet)

    def _keep(self, node: int, packet: int) -> None:
        if packet not in self.buffers[node - 1]:  # numbered, so that a copy is known as one
            self.buffers[node - 1] = (*self.buffers[node - 1], packet)

    def packet(self, node: int, sender: int, packet: int) -> None:
        table = self.tables[node - 1]
        if table.mode in (Mode.DELIVER, Mode.MIRROR):
            if table.mode is Mode.MIRROR:
                self._keep(node, packet)
            if table.copies:
                self.send(node, table.towards, ("packet", packet))
            self._to_machine(node, packet)
        elif table.mode is Mode.PUNT and sender == table.towards:
            self._keep(node, packet)
        elif table.mode is not None and sender != table.towards:
            if table.copies:
                self._keep(node, packet)
            self.send(node, table.towards, ("packet", packet))

    # --- control messages

    def register(self, node: int) -> None:
        epoch, _ = self.registering[node - 1]
        under_way = [one[2] for one in self.channels.get((node, MAP_SERVER, False), ()) if one[0] == "register"]
        self.send(node, MAP_SERVER, ("register", epoch, max(under_way, default=0) + 1))

    def deliver(self, source: int, to: int, message: tuple[Any, ...]) -> None:
        match message:
            case ("packet", packet):
                self.packet(to, source, packet)
            case ("ask", phase, plan):
                self._asked(source, to, phase, plan)
            case ("answer", phase, plan, said):
                self._answered(source, to, phase, plan, said)
            case ("register", epoch, rank):
                self._registered(source, epoch, rank)
            case ("registered", epoch):
                if self.registering[to - 1][0] == epoch:
                    self.registering[to - 1] = (epoch, True)
            case ("notice", owner, epoch):
                self._noticed(to, owner, epoch)
            case ("noticed", epoch):
                self.notices.discard(source)
                self.registry = released(self.registry, source)

    def _asked(self, source: int, to: int, phase: MovePhase, plan: Plan) -> None:
        if to == PEER:
            if phase is MovePhase.ACTIVATE:
                self.peer, _ = _stepped(peers.step, self.peer, peers.Moved(plan))
            said = peers.verdict(self.peer, phase, plan)
        else:
            ours = Party.SOURCE if _site(plan.source) == to else Party.TARGET
            senders = {CONTROLLER: Party.CONTROLLER, _site(plan.source): Party.SOURCE, _site(plan.target): Party.TARGET}
            self.site(to, MESSAGES[phase](plan, ours, senders[source]))
            said = verdict(self.roles[to - 1], phase, plan)
        self.send(to, source, ("answer", phase, plan, said))

    def _answered(self, source: int, to: int, phase: MovePhase, plan: Plan, said: Verdict) -> None:
        open_ = next((one for one in self.queries if one[:4] == (to, source, phase, plan)), None)
        if open_ is None or said is Verdict.BUSY:
            return
        self.queries.discard(open_)
        by = Party.PEERS if source == PEER else Party.SOURCE if _site(plan.source) == source else Party.TARGET
        answered = Answered(by, phase, plan, said, open_.again)
        if to == CONTROLLER:
            self.led(answered)
        elif to in SITES:
            self.site(to, answered)

    def _registered(self, node: int, epoch: int, rank: int) -> None:
        merged = registered(self.registry, node, epoch, rank)
        if not merged.fresh:
            return
        key = (node, MAP_SERVER, False)
        self.channels[key] = tuple(
            ("register", one[1], max(one[2] - rank, 0)) if one[0] == "register" else one
            for one in self.channels.get(key, ())
        )
        self.registry = merged.registry
        if merged.accepted:
            self.notices.discard(node)
            self.send(MAP_SERVER, node, ("registered", epoch))
        for each in merged.tell:
            self.notices.add(each)
            self.send(MAP_SERVER, each, ("notice", self.registry.owner, self.registry.epoch))
        if merged.changed:
            self.facts = {fact for fact in self.facts if fact[1] != "published"}
            self.facts.add((CONTROLLER, "published", self.registry.epoch))

    def _noticed(self, node: int, owner: int, epoch: int) -> None:
        role = self.roles[node - 1]
        if owner != node:
            plan = Plan(0, epoch, (EID,), (RLOCS[node],), (RLOCS[owner],))
            self.site(node, Superseded(plan))
            if role.state in (State.HERE, State.MIRRORING, State.FROZEN) and newer(role.owned, epoch):
                self.registering[node - 1] = (role.owned, False)
        self.send(node, MAP_SERVER, ("noticed", epoch))

    # --- the machine, and those who speak of it

    def stop(self) -> None:
        _, source, target, move = self.machine
        self.machine = (STOPPED, source, target, move)
        self.facts.discard((CONTROLLER, "found", source))  # what was seen before a move counts for nothing
        if self.lead.plan is None or not self.lead.plan.bicast:  # else nobody says so
            self.facts |= {(source, "stopped", move), (CONTROLLER, "stopped", move)}

    def run(self, place: int) -> None:
        _, source, target, move = self.machine
        self.machine = (place, 0, 0, 0)
        if place == target:
            self.facts |= {(target, "resumed", move), (CONTROLLER, "resumed", move)}
        else:
            self.facts -= {(source, "stopped", move), (CONTROLLER, "stopped", move)}
            self.facts |= {(source, "returned", move), (CONTROLLER, "failed", move)}

    def carry(self, place: int) -> None:
        """Somebody moves it by hand: nobody is asked or told, but its hypervisor lists it among its machines."""
        self.machine = (place, 0, 0, 0)
        self.excused = True
        self.facts = {fact for fact in self.facts if fact[1] != "found"} | {(CONTROLLER, "found", place)}

    def found(self, place: int) -> None:
        """As the coordinator has it: of a move that it was to make, it has ended; else it is a move of its own."""
        plan = self.lead.plan
        assert plan is not None, "a move has begun"
        brought = self.lead.resumed or self.lead.state in _BROUGHT
        believed = _site(plan.target if brought else plan.source)
        if place == believed:
            return
        if place == _site(plan.target):
            self.led(leading.Resumed())
        else:
            there = Plan(plan.move + 1, next_version(plan.epoch), (EID,), (RLOCS[believed],), (RLOCS[place],))
            self.led(leading.Found(there))

    def heard(self, fact: tuple[int, str, int]) -> None:
        """Hypervisors speak of a move by its id, publications of an epoch."""
        node, what, about = fact
        self.facts.discard(fact)
        if node != CONTROLLER:
            self.site(node, {"stopped": Stopped, "resumed": Resumed, "returned": Returned}[what](about))
        elif what == "published":
            self.led(leading.Published(about))
        elif what == "found":
            self.found(about)
        elif self.lead.plan is not None and self.lead.plan.move == about:
            said = {"stopped": leading.Stopped(), "resumed": leading.Resumed(), "failed": leading.GiveUp()}
            self.led(said[what])

    def crash(self, node: int) -> None:
        """Killed and started again: what was remembered is there, queues and exchanges are not."""
        self.crashed = (*self.crashed, node)
        self.queries = {one for one in self.queries if one.by != node}
        if node in SITES:
            self.buffers[node - 1] = ()
            self.tables[node - 1] = Table()
            self.site(node, Restarted())
            role = self.roles[node - 1]
            if role.state is State.HERE and role.plan is None:
                self.tables[node - 1] = Table(Mode.DELIVER)
        elif node == CONTROLLER:
            self.led(Restarted())
        elif node == MAP_SERVER:
            self.registry, self.notices = Registry(), set()


def _order(query: Query) -> tuple[Any, ...]:
    return query.by, query.to, query.phase, query.plan.move, query.plan.epoch, query.again
