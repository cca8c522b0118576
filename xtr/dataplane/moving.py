"""The EIDs that move, in the TUN plane: steps of their handovers become packets on devices and sockets.

Worked off in bites that leave the loop to others; while something is left to do, everything for these EIDs comes this
way. `tell` is told when the usual tables (and a faster plane's) can take over again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeAlias

from lispfmc.core.plans import Plan
from lispfmc.wire.address import Ip, Prefix
from lispfmc.wire.codec import parse_move_shim
from lispfmc.wire.dataheader import DataHeader
from lispfmc.wire.encap import HEADER_BYTES, decapsulated, ip_packet, shims
from lispfmc.wire.errors import PeerError
from lispfmc.wire.moveformat import SHIM_MARKER
from xtr.dataplane.handover import Handover, Step, Verb
from xtr.dataplane.instance import Instance, Shared
from xtr.dataplane.leading import Leading
from xtr.dataplane.outbound import Outbound
from xtr.dataplane.outer import Told
from xtr.dataplane.routing import Routing
from xtr.roles.peer import Await, Mark
from xtr.roles.state import Held, Mode, Switch

BITE_S = 0.003  # at a time; between two bites the loop does what else there is
TURN_S = 0.0003  # ... when a service has just resumed, and begins to send itself
BITE = 64  # packets, after which the time is looked at
RETRY_S = 0.001  # after the socket's buffer was full
WAIT_S = 0.02  # how precise the waiting for end markers is
_MOVE_BYTES = 16

Eids: TypeAlias = tuple[Prefix, ...]
Tell: TypeAlias = Callable[[Prefix, Mode], None]


class Moving:
    """All handovers of one plane. `xtr.dataplane.DataPlane` says what the calls mean."""

    def __init__(
        self,
        shared: Shared,
        instances: Mapping[int, Instance],
        outbounds: Mapping[int, Outbound],
        routings: Mapping[int, Routing],
        changed: Callable[[int], None],
        tell: Tell | None,
    ) -> None:
        """`changed`: a table of this Instance-ID has changed, remembered ways are to be forgotten."""
        self._shared = shared
        self._count = shared.count
        self._instances = instances
        self._outbounds = outbounds
        self._routings = routings
        self._changed = changed
        self._tell = tell
        self._handovers: dict[Eids, Handover] = {}
        self._places: dict[Prefix, tuple[str, bytes]] = {}
        self._by_move: dict[int, Handover] = {}
        self._by_eid: dict[Prefix, Handover] = {}
        self._leading = Leading(shared)
        self._due: dict[Eids, Handover] = {}
        """Those to which packets of this wake-up have brought something to do."""
        self._bites: dict[Handover, asyncio.Handle] = {}
        """The next bite of those whose steps are being worked off: nothing else touches these steps."""
        self._settling: dict[Handover, asyncio.Handle] = {}
        self._waits: dict[Handover, asyncio.Handle] = {}
        self._leaving: asyncio.Handle | None = None

    # --- switches -----------------------------------------------------------------------------------------------------

    def switch(self, switch: Switch) -> None:
        plan, now = switch.plan, self._shared.now()
        if plan.eids[0].iid not in self._instances:
            return  # a service of an Instance-ID that no interface of ours is in
        handover = self._handovers.get(plan.eids)
        if handover is None:
            handover = self._handovers[plan.eids] = Handover(
                plan, now, self._shared.room, replay_s=self._shared.replay_s, hold_bytes=self._shared.hold_bytes
            )
            self._by_eid.update(dict.fromkeys(plan.eids, handover))
        self._work_due(plan.eids)  # what came before the switch
        self._account(handover)
        before = handover.plan.move
        instance = self._instance(handover)
        self._changed(instance.iid)
        handover.switch(switch, now)
        if self._by_move.get(before) is handover:
            del self._by_move[before]
        self._by_move[plan.move] = handover
        for eid in plan.eids:
            if eid.ip in instance.here and eid not in self._places:
                self._places[eid] = self._routings[eid.iid].place(eid.ip)
            instance.led[eid.ip] = handover
            for _, waiting in instance.release(eid):  # it came before anybody knew where the EID is
                for held in waiting:
                    handover.packet(held.packet, None, held.outer_ttl or 64, now)
        self._lead(handover)
        if switch.held is Held.DELIVER and handover not in self._bites:
            self._take_turns(handover)
        else:
            self._work(handover)
        self._leave()

    def release(self, plan: Plan) -> None:
        self._work_due(plan.eids)
        handover = self._handovers.pop(plan.eids, None)
        if handover is None:
            return
        handover.end(busy=handover in self._bites)
        self._account(handover)
        self._leave()  # what it has still sent on, in the form that it had
        self._leading.forget(plan.eids)
        self._by_move.pop(handover.plan.move, None)
        instance = self._instance(handover)
        self._changed(instance.iid)
        for eid in plan.eids:
            self._by_eid.pop(eid, None)
            instance.led.pop(eid.ip, None)
            place = self._places.pop(eid, None)
            if place is not None:
                self._routings[eid.iid].deliver(eid.ip, *place)
                instance.here.add(eid.ip)

    def placed(self, eid: Prefix, interface: str, mac: bytes) -> bool:
        """The host is there. False when no move is about it: the plane delivers."""
        handover = self._by_eid.get(eid)
        if handover is None:
            return False
        self._places[eid] = (interface, mac)
        self._changed(eid.iid)
        self._lead(handover)
        self._work(handover)
        self._leave()
        return True

    def displaced(self, eid: Prefix) -> bool:
        """The host is gone. False when no move is about it."""
        handover = self._by_eid.get(eid)
        if handover is None:
            return False
        self._places.pop(eid, None)
        self._changed(eid.iid)
        self._lead(handover)
        return True

    def leads(self, eid: Prefix) -> bool:
        return eid in self._by_eid

    def waits(self, eid: Prefix) -> bool:
        """Some peers' packets for it are held until their end markers come."""
        handover = self._by_eid.get(eid)
        return handover is not None and handover.waits

    def await_markers(self, waited: Await) -> None:
        handover = self._handovers.get(waited.plan.eids)
        if handover is not None and handover.plan.same(waited.plan):
            handover.wait_for(waited.rlocs, self._shared.now())
            self._lead(handover)
            self._wait(handover)

    def mark(self, mark: Mark) -> None:
        for outbound in self._outbounds.values():
            outbound.flush()  # the marker is the last on the old path
        for rloc in mark.rlocs:
            self._leading.mark(mark.plan, rloc)

    # --- packets ------------------------------------------------------------------------------------------------------

    def packet(self, handover: Handover, packet: bytes, sender: Ip | None, ttl: int, number: int | None = None) -> None:
        """A packet for an EID that moves: what it brings to do is done at the next `flush`."""
        handover.packet(packet, sender, ttl, self._shared.now(), number)
        if sender is not None and handover.away and sender not in handover.to:
            eid = Prefix.host(_destination(packet), handover.eids[0].iid)
            if self._shared.limit.allows((eid.iid, eid.ip, sender), self._shared.now()):
                self._shared.evidence.moved_away(eid, sender)
        self._due[handover.eids] = handover

    def flush(self) -> None:
        """What the packets of a wake-up have brought is done together."""
        while self._due:
            due, self._due = self._due, {}
            for handover in due.values():
                self._work(handover)
        self._leave()

    def copied(self, eid: Prefix, packet: bytes) -> None:
        """The kernel has delivered this packet of an EID that is mirrored."""
        handover = self._by_eid.get(eid)
        if handover is not None:
            handover.copied(packet, self._shared.now())
            if handover.todo:
                self._due[handover.eids] = handover

    def shimmed(self, datagram: bytes, data_header: DataHeader, told: Told, sender: Ip) -> bytes | None:
        """A packet with a shim header; what is to be taken as any other packet comes back. Raises PeerError."""
        found, protocol, at = shims(datagram, data_header.next_protocol)
        if len(found[0].fields) < _MOVE_BYTES:
            raise PeerError("next protocol", offset=HEADER_BYTES, why="a move's shim header is longer")
        shim = parse_move_shim(found[0].fields[:_MOVE_BYTES])
        handover = self._by_move.get(shim.move)
        ours = handover is not None and handover.plan.epoch == shim.epoch
        if found[0].type == SHIM_MARKER:
            if handover is not None and ours:
                handover.marked(sender, found[0].fields[_MOVE_BYTES:] or None)
                self._due[handover.eids] = handover
            return None
        packet = ip_packet(datagram, at, protocol)
        if handover is None or not ours or sender not in handover.plan.source:
            return packet  # of an earlier move, or of one that was forgotten here: its number says nothing
        if _destination(packet) not in handover.ips or data_header.iid != handover.eids[0].iid:
            self._count["dropped.foreign-destination"] += 1
            return None
        changed = decapsulated(packet, told.ttl, told.tos)
        if changed is None:
            self._count["dropped.congestion"] += 1
            return None
        self.packet(handover, changed, sender, told.ttl, shim.sequence)
        return None

    # --- time and views -----------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """What has waited too long."""
        for handover in list(self._handovers.values()):
            if not handover.settled:
                handover.expire(now)
                self._work(handover)
        self._leave()

    def close(self) -> None:
        for timers in (self._bites, self._settling, self._waits):
            for timer in timers.values():
                timer.cancel()
        if self._leaving is not None:
            self._leaving.cancel()

    def moved(self, eids: Eids) -> dict[str, int]:
        handover = self._handovers.get(eids)
        return handover.packets() if handover else {}

    def account(self) -> None:
        """What moves have cost so far goes into the plane's counters."""
        for handover in self._handovers.values():
            self._account(handover)

    def _account(self, handover: Handover) -> None:
        for name, count in handover.newly_lost():
            self._count[name.replace("lost.", "dropped.")] += count

    # --- working off --------------------------------------------------------------------------------------------------

    def _work(self, handover: Handover) -> None:
        if handover not in self._bites:
            self._bite(handover)

    def _work_due(self, eids: Eids) -> None:
        handover = self._due.pop(eids, None)
        if handover is not None:
            self._work(handover)

    def _take_turns(self, handover: Handover) -> None:
        """The service runs: what it sends does not wait until all that was held has been delivered."""
        outbound = self._outbounds[handover.eids[0].iid]
        until = self._shared.now() + BITE_S
        self._bite(handover, TURN_S)
        outbound.readable()
        while handover in self._bites and self._shared.now() < until:
            _cancel(self._bites, handover)
            self._bite(handover, TURN_S)
            outbound.readable()

    def _bite(self, handover: Handover, seconds: float = BITE_S) -> None:
        began = self._shared.now()
        until = began + seconds
        count = 0
        while handover.todo and self._done(handover, handover.todo[0]):
            handover.done()
            count += 1
            if count % BITE == 0 and handover.todo and self._shared.now() > until:
                self._again(handover, 0.0)
                break
        self._outbounds[handover.eids[0].iid].flush()
        if count and not handover.first:
            handover.first = began
        if not handover.todo:
            self._worked_off(handover)

    def _again(self, handover: Handover, seconds: float) -> None:
        self._bites[handover] = asyncio.get_running_loop().call_later(seconds, self._go_on, handover)

    def _go_on(self, handover: Handover) -> None:
        del self._bites[handover]
        self._bite(handover)
        self._leave()

    def _leave(self) -> None:
        """What was numbered leaves, now or as soon as there is room."""
        if self._leading.flush():
            return
        if self._leaving is None:
            self._leaving = asyncio.get_running_loop().call_later(RETRY_S, self._leave_again)

    def _leave_again(self) -> None:
        self._leaving = None
        self._leave()

    def _wait(self, handover: Handover) -> None:
        """Until the end markers have come, or long enough."""
        _cancel(self._waits, handover)
        handover.expire(self._shared.now())
        self._work(handover)
        self._leave()
        if handover.waits:
            loop = asyncio.get_running_loop()
            self._waits[handover] = loop.call_later(WAIT_S, self._wait, handover)

    def _worked_off(self, handover: Handover) -> None:
        if handover.settled:
            # not now: what the core asks besides, waiting for end markers, comes in the same breath
            _cancel(self._settling, handover)
            self._settling[handover] = asyncio.get_running_loop().call_soon(self._settle, handover)
        elif handover.mode is Mode.MIRROR:
            for eid in handover.eids:
                if eid in self._places:
                    self._ready(eid, Mode.MIRROR)
        if not handover.reported:
            handover.reported = True
            handover.last = self._shared.now()
            self._shared.evidence.worked_off(handover.eids, handover.packets() | handover.instants())

    def _settle(self, handover: Handover) -> None:
        """The usual tables take over each EID whose host is known."""
        del self._settling[handover]
        instance = self._instance(handover)
        for eid in handover.eids:
            place = self._places.get(eid)
            if not handover.settled or place is None or instance.led.get(eid.ip) is not handover:
                continue
            self._outbounds[eid.iid].readable()  # what the site has sent comes first
            self._changed(eid.iid)
            self._routings[eid.iid].deliver(eid.ip, *place)
            self._outbounds[eid.iid].readable()
            if not handover.settled:
                return  # nothing may overtake what is still to be worked off; then we come here again
            del instance.led[eid.ip]
            self._ready(eid, Mode.DELIVER)

    def _ready(self, eid: Prefix, mode: Mode) -> None:
        if self._tell is not None:
            self._tell(eid, mode)

    def _done(self, handover: Handover, step: Step) -> bool:
        """Do it; False when it must wait."""
        instance = self._instance(handover)
        outbound = self._outbounds[instance.iid]
        if step.verb is Verb.DELIVER:
            if _destination(step.packet) not in instance.here:
                return False  # until the host has shown itself
            if outbound.to_site(step.packet):
                self._count["decapsulated"] += 1
            return True
        way = self._leading.way(handover)
        if way is None:
            handover.counters["lost.no-locator"] += 1
            return True
        if step.verb is Verb.MARK:
            if not self._leading.mark(handover.plan, way.path.rloc, step.packet):
                self._again(handover, RETRY_S)
                return False
            return True
        if step.verb is Verb.NUMBER and len(step.packet) <= way.limit:
            if not self._leading.number(way, step):
                self._again(handover, RETRY_S)
                return False
        else:
            outbound.pass_on(step.packet, way.entry, step.ttl + 1, self._shared.now())
        handover.counters["forwarded"] += 1
        return True

    # --- places -------------------------------------------------------------------------------------------------------

    def _lead(self, handover: Handover) -> None:
        """The site's own packets for these EIDs come to us, and what we deliver has a way of its own."""
        instance, routing = self._instance(handover), self._routings[handover.eids[0].iid]
        for eid in handover.eids:
            instance.led[eid.ip] = handover
            place = self._places.get(eid)
            if place is not None and handover.delivers:
                routing.deliver(eid.ip, *place, watched=True)
                instance.here.add(eid.ip)
            else:
                routing.undeliver(eid.ip)
                instance.here.discard(eid.ip)

    def _instance(self, handover: Handover) -> Instance:
        return self._instances[handover.eids[0].iid]


def _cancel(timers: dict[Handover, asyncio.Handle], handover: Handover) -> None:
    """One at a time for a handover: `close` would not know of an earlier one, which would ask a closed plane."""
    timer = timers.pop(handover, None)
    if timer is not None:
        timer.cancel()


def _destination(packet: bytes) -> Ip:
    return packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]
