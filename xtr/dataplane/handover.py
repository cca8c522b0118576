"""What happens to the packets of the EIDs that move together: delivered, copied, held or led to the other site. Pure.

Packets and switches go in; steps come out in `todo`, in the order in which they are to be done, and are worked off by
`xtr.dataplane.moving`. Nothing overtakes: a packet that comes while others are being worked off goes behind them.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from enum import Enum
from typing import NamedTuple

from lispfmc.core.plans import Party, Plan
from lispfmc.wire.address import Ip, Prefix
from xtr.dataplane.holding import SEQUENCES, HoldQueue, MarkerGate, ReplayRing, Room
from xtr.roles.state import Held, Mode, Switch

REPLAY_S = 0.05
"""What was delivered so shortly before STOP was heard of may have died with the machine; the rest it has received."""
MOST_HELD = 64 << 20  # bytes, whatever a controller allows: a second at half a gigabit
MARKER_WAIT_S = 0.3  # a direct packet's wait for the end of the old path, whose routers may be behind with their work
MARKERS_S = 1.0  # after which nobody waits for end markers any more
_MICROSECONDS = 1e6


class Verb(Enum):
    """What is to be done with a packet."""

    DELIVER = "deliver"
    LEAD = "lead"
    """Send it to the other site as any packet for it."""
    NUMBER = "number"
    """... with its number in the move, so that a copy is known as one."""
    MARK = "mark"
    """Send an end marker; the packet is the RLOC of the peer that marks, or nothing when it is ourselves."""


class Step(NamedTuple):
    """A packet, and what is to be done with it; `ttl` is that of the outer header."""

    verb: Verb
    packet: bytes
    ttl: int = 64
    number: int = 0


class Handover:
    """One service's packets at one router. In no mode it does nothing: the tables of the plane decide."""

    def __init__(
        self,
        plan: Plan,
        now: float,
        room: Room | None = None,
        *,
        replay_s: float = REPLAY_S,
        hold_bytes: int = MOST_HELD,
    ) -> None:
        """`room` is that of all moves together."""
        self._room = room or Room(4 * MOST_HELD)
        self._replay_s, self._hold_bytes = replay_s, hold_bytes
        self.mode = Mode.PUNT
        self.to: tuple[Ip, ...] = ()
        """The RLOCs of the site that packets are led to."""
        self.todo: deque[Step] = deque()
        self.counters: Counter[str] = Counter()
        self.reported = True
        self.switched = self.first = self.last = 0.0
        """When the last switch was made, and when the packets that it set free were worked off: first and last."""
        self._copies = False
        self._numbers = False
        self._waited: set[Ip] = set()
        self._until = 0.0
        self._bytes = 0
        self._begin(plan, now)

    def _begin(self, plan: Plan, now: float) -> None:
        self.plan = plan
        self.most = min(plan.hold_bytes, MOST_HELD)
        self.ips = frozenset(eid.ip for eid in plan.eids)
        self._hold = HoldQueue(min(self.most, self._hold_bytes), plan.hold_ms / 1000, self._room)
        # a router that is started anew goes on above every number that it gave out before
        self._ring = ReplayRing(self.most, self._replay_s, self._room, first=int(now * _MICROSECONDS) % SEQUENCES)
        self._gate = MarkerGate(self.most, MARKER_WAIT_S, self._room)
        self.counters.clear()
        self._accounted: dict[str, int] = {}

    @property
    def eids(self) -> tuple[Prefix, ...]:
        return self.plan.eids

    @property
    def delivers(self) -> bool:
        return self.mode in (Mode.DELIVER, Mode.MIRROR)

    @property
    def away(self) -> bool:
        """The service runs at the other site, and whoever sends here should know."""
        return self.mode is Mode.FORWARD and not self._copies

    @property
    def settled(self) -> bool:
        """Everything is worked off, and the plane's tables can do alone what remains."""
        return self.mode is Mode.DELIVER and not self.todo and not self._waited

    @property
    def waits(self) -> bool:
        """Packets of some peers wait for end markers."""
        return bool(self._waited)

    # --- inputs -------------------------------------------------------------------------------------------------------

    def switch(self, switch: Switch, now: float) -> None:
        """First what is held and kept, then the other mode."""
        self._end_waiting()
        same = switch.plan.same(self.plan)
        to = {Party.SOURCE: switch.plan.source, Party.TARGET: switch.plan.target}
        self.to = to.get(switch.towards, ()) if switch.towards else ()
        match switch.held:
            case Held.SEND:
                held = self._hold.drain(now)
                kept = self._ring.freeze(now, switch.stopped_s) if self.mode is Mode.MIRROR else self._ring.copies()
                self._add_all(Step(Verb.LEAD, packet) for packet in held)
                # another move's router knows nothing of this one's numbers
                verb = Verb.NUMBER if same else Verb.LEAD
                self._add_all(Step(verb, one.packet, number=one.sequence) for one in kept)
            case Held.DELIVER:
                kept_packets = [*self._hold.drain(now), *(one.packet for one in self._ring.copies())]
                self._add_all(Step(Verb.DELIVER, packet) for packet in kept_packets)
            case Held.DISCARD:
                self._hold.discard()
            case Held.KEEP:
                pass
        if switch.held is not Held.KEEP and not switch.copies:
            self._ring.clear()
        if not same:
            self._hold.discard()
            self._ring.clear()
            self._begin(switch.plan, now)
        self.mode, self._copies = switch.mode, switch.copies
        # numbers go on when nothing is copied any more: the target takes all of them in by the same way, in order
        self._numbers = switch.mode is Mode.FORWARD and switch.towards is Party.TARGET
        self.reported = False
        self.switched, self.first, self.last = now, 0.0, 0.0

    def packet(self, packet: bytes, sender: Ip | None, ttl: int, now: float, number: int | None = None) -> None:
        """A packet for one of the EIDs: from the xTR `sender`, or from this site. `number`: the source's."""
        there = sender is not None and sender in self.to
        if self.delivers:
            self._here(packet, sender, number, now)
        elif self.mode is Mode.PUNT and there:
            self._hold.put(number, packet, now)
        elif self.mode is Mode.FORWARD and there and (number is not None or not self._copies):
            self.counters["lost.circle"] += 1  # no packet goes back to where it came from
        elif ttl <= 1:
            self.counters["lost.ttl"] += 1
        else:
            # what the target could not hold, as it came from its own site, is turned back once, with a number
            self._lead(packet, ttl if sender is None else ttl - 1, now)

    def copied(self, packet: bytes, now: float) -> None:
        """The kernel has delivered this packet; perhaps just before it was told to stop, and this is its replay."""
        if self.mode is Mode.FORWARD and self._replay_s:
            self._ring.counters["replayed"] += 1
            self._lead(packet, 64, now)
        if self.mode is not Mode.MIRROR:
            return
        number = self._ring.put(packet, now)
        if self.plan.bicast:
            self._add(Step(Verb.NUMBER, packet, number=number))

    def marked(self, sender: Ip, peer: Ip | None) -> None:
        """An end marker: of `sender` itself, to be led on, or of `peer`, led here by the source."""
        if self.mode is Mode.FORWARD and peer is None and sender not in self.to:
            self._add(Step(Verb.MARK, sender))
        elif peer is not None and sender in self.plan.source:
            self._waited.discard(peer)
            self._add_all(Step(Verb.DELIVER, packet) for packet in self._gate.marked(peer))

    def wait_for(self, peers: tuple[Ip, ...], now: float) -> None:
        """These peers were told to send here: first the old path has to end."""
        if self.mode is Mode.DELIVER:
            self._waited.update(peers)
            self._until = now + MARKERS_S

    def expire(self, now: float) -> None:
        """What has waited too long."""
        self._hold.expire(now)
        self._add_all(Step(Verb.DELIVER, packet) for packet in self._gate.expired(now))
        if now >= self._until:
            self._end_waiting()

    # --- views --------------------------------------------------------------------------------------------------------

    def packets(self) -> dict[str, int]:
        """How many of what: see docs/metrics.md."""
        hold, ring = self._hold.counters, self._ring.counters
        found = {
            "held": hold["held"],
            "holding": len(self._hold),
            "forwarded": self.counters["forwarded"],
            "replayed": ring["replayed"],
            "duplicate": hold["duplicate"],
            "marker-missed": self._gate.counters["marker-missed"],
            "not-copied": ring["dropped.copies-full"],
            "lost.hold-full": hold["dropped.hold-full"],
            "lost.room-full": hold["dropped.room-full"],
            "lost.hold-late": hold["dropped.hold-late"],
            "lost.stop-late": ring["dropped.stop-late"],
        }
        lost = {name: count for name, count in self.counters.items() if name.startswith("lost.")}
        always = ("held", "forwarded", "replayed")
        named = {name: count for name, count in (found | lost).items() if count or name in always}
        return {**named, "lost": sum(count for name, count in named.items() if name.startswith("lost."))}

    def instants(self) -> dict[str, int]:
        """When the last switch and the work that came of it were done, in nanoseconds of the monotonic clock."""
        times = {"switched": self.switched, "first": self.first, "last": self.last}
        return {f"{name}_ns": int(at * 1e9) for name, at in times.items() if at}

    def newly_lost(self) -> list[tuple[str, int]]:
        """What was lost since this was asked last, by reason."""
        lost = {name: count for name, count in self.packets().items() if name.startswith("lost.")}
        before, self._accounted = self._accounted, lost
        return [(name, count - before.get(name, 0)) for name, count in lost.items() if count > before.get(name, 0)]

    # --- steps --------------------------------------------------------------------------------------------------------

    def _here(self, packet: bytes, sender: Ip | None, number: int | None, now: float) -> None:
        if number is not None and not self._hold.fresh(number):
            return
        if self.mode is Mode.MIRROR:
            self.copied(packet, now)
        waits = number is None and sender is not None and sender in self._waited
        ready = self._gate.direct(sender, packet, now) if waits and sender is not None else [packet]
        self._add_all(Step(Verb.DELIVER, each) for each in ready)

    def _end_waiting(self) -> None:
        for peer in self._waited:
            self._add_all(Step(Verb.DELIVER, packet) for packet in self._gate.marked(peer))
        self._waited.clear()

    def _lead(self, packet: bytes, ttl: int, now: float) -> None:
        if self._numbers:
            number = self._ring.put(packet, now) if self._copies else self._ring.number()
            self._add(Step(Verb.NUMBER, packet, ttl, number))
        else:
            self._add(Step(Verb.LEAD, packet, ttl))

    def _add(self, step: Step) -> None:
        size = len(step.packet)
        # what was held, and as much again that came meanwhile; one that waits for nobody needs no room
        if self.todo and (self._bytes + size > 2 * self.most or not self._room.fits(size)):
            self.counters["lost.busy"] += 1
            return
        self._room.give(-size)
        self._bytes += size
        self.todo.append(step)

    def _add_all(self, steps: Iterable[Step]) -> None:
        for step in steps:
            self._add(step)

    def done(self) -> None:
        """The first step is done."""
        size = len(self.todo.popleft().packet)
        self._bytes -= size
        self._room.give(size)

    def end(self, *, busy: bool = False) -> None:
        """Nobody will ask any more: what is kept goes, and what waits for a host that has not come. `busy`: its steps
        are being worked off."""
        self._end_waiting()
        while self.todo and not busy:
            self.counters["lost.released"] += 1
            self.done()
        self._hold.discard()
        self._ring.clear()
