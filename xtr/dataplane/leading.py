"""Packets of a move on their way to the other site: numbered by a shim header, or an end marker (RFC 9305 §3).

Numbered packets of all moves that leave by one source port and have one size leave together, by one call for a whole
run: what a hundred services are sent while they move is otherwise more than a router can send one by one.
"""

from __future__ import annotations

import errno
from typing import NamedTuple

from lispfmc.core.plans import Plan
from lispfmc.wire.address import Ip, Prefix
from lispfmc.wire.codec import build_move_shim, build_shim_header
from lispfmc.wire.dataheader import ShimHeader
from lispfmc.wire.encap import NEXT_IPV4, NEXT_IPV6, flow_hash, header
from lispfmc.wire.moveformat import NEXT_MOVE_SHIM, SHIM_MARKER, SHIM_PACKET
from lispfmc.wire.moves import MoveShim
from xtr.dataplane.handover import Handover, Step
from xtr.dataplane.instance import Entry, Path, Shared
from xtr.dataplane.outbound import RUN_BYTES, RUN_PACKETS
from xtr.dataplane.outer import SENDERS, Outer, run_ancillary

LANES = 4096  # of so many RLOCs, TTLs and TOS; made-up ones start it anew
_SHIM_BYTES = 4 + 16
_NUMBER_AT = 4 + 8  # in a shim header: behind its own four bytes and the move
_NO_RUN = frozenset({errno.EMSGSIZE, errno.EINVAL, errno.EIO})


class Way(NamedTuple):
    """To where one handover's packets are led, and what stands before and behind the number of each."""

    to: tuple[Ip, ...]
    plan: Plan
    path: Path
    address: tuple[str, int]
    entry: Entry
    limit: int
    before: tuple[bytes, bytes]
    """For IPv6 and for IPv4."""
    behind: bytes


class Lane:
    """One RLOC, source port, TTL and TOS; and the run that is being made."""

    __slots__ = ("address", "ancillary", "room", "run", "sender", "size")

    def __init__(self, outer: Outer, address: tuple[str, int], sender: int, ttl: int, tos: int) -> None:
        self.address = address
        self.sender = outer.senders[sender]
        self.ancillary = outer.ancillary(ttl, tos)
        self.run: list[bytes] = []
        self.size = 0
        self.room = 0  # packets of this size that the run can still take


class Leading:
    """The shim headers of one plane's moves, and where they go."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._count = shared.count
        self._ways: dict[tuple[Prefix, ...], Way] = {}
        self._lanes: dict[tuple[Ip, int, int, int], Lane] = {}
        self._begun: dict[Lane, None] = {}

    def way(self, handover: Handover) -> Way | None:
        """To where packets are led; found once for each switch."""
        known = self._ways.get(handover.eids)
        if known is not None and known.to == handover.to and known.plan is handover.plan:
            return known
        path = self._path(handover.to)
        if path is None:
            return None
        iid = handover.eids[0].iid
        shims = [self._shim(handover.plan, SHIM_PACKET, protocol, 0) for protocol in (NEXT_IPV6, NEXT_IPV4)]
        before = [header(iid, NEXT_MOVE_SHIM) + shim[:_NUMBER_AT] for shim in shims]
        limit = path.outer.limit(path.rloc, self._shared.now()) - _SHIM_BYTES
        made = self._ways[handover.eids] = Way(
            handover.to,
            handover.plan,
            path,
            path.outer.address(path.rloc),
            Entry((path,), away=True),
            limit,
            (before[0], before[1]),
            shims[0][_NUMBER_AT + 4 :],
        )
        return made

    def forget(self, eids: tuple[Prefix, ...]) -> None:
        """The move has ended."""
        self._ways.pop(eids, None)

    def number(self, way: Way, step: Step) -> bool:
        """Take a packet and its number: it leaves at the next `flush`. False when there is no room now."""
        packet = step.packet
        numbered = way.before[packet[0] >> 4 == 4] + step.number.to_bytes(4, "big") + way.behind + packet
        size = len(numbered)
        # the port that the flow has without a number
        key = way.path.rloc, flow_hash(packet) & SENDERS - 1, step.ttl, _tos(packet)
        lane = self._lanes.get(key) or self._lane(way, key)
        if lane.run and (size > lane.size or lane.room <= 0) and not self._leave(lane):
            return False
        if not lane.run:
            lane.size, lane.room = size, min(RUN_PACKETS, RUN_BYTES // size)
            self._begun[lane] = None
        lane.run.append(numbered)
        lane.room = lane.room - 1 if size == lane.size else 0  # only the last one of a run may be shorter
        return True

    def flush(self) -> bool:
        """Everything that was taken leaves; False when there is no room for all of it now."""
        for lane in list(self._begun):
            if lane.run and not self._leave(lane):
                return False
            del self._begun[lane]
        return True

    def mark(self, plan: Plan, rloc: Ip, peer: Ip = b"") -> bool:
        """Send an end marker to `rloc`: ours, or that of `peer`. False when it must wait for what comes before it."""
        if not self.flush():
            return False
        path = self._path((rloc,))
        if path is not None:
            outer = path.outer
            before = header(plan.eids[0].iid, NEXT_MOVE_SHIM) + self._shim(plan, SHIM_MARKER, 0, 0, peer)
            self._send(Lane(outer, outer.address(rloc), 0, 64, 0), [before], 0)
        return True

    def _lane(self, way: Way, key: tuple[Ip, int, int, int]) -> Lane:
        if len(self._lanes) >= LANES:
            self._lanes.clear()  # what they have begun leaves all the same
        _, sender, ttl, tos = key
        made = self._lanes[key] = Lane(way.path.outer, way.address, sender, ttl, tos)
        return made

    def _leave(self, lane: Lane) -> bool:
        """False when the socket's buffer is full: what has not left is kept."""
        run = lane.run
        try:
            sent = self._send(lane, run, len(run))
        except OSError:  # a kernel or a device that takes no runs, or one is too big now: one by one
            sent = 0
            while sent < len(run) and self._send(lane, run[sent : sent + 1], 1):
                sent += 1
        del run[:sent]
        return not run

    def _send(self, lane: Lane, run: list[bytes], packets: int) -> int:
        """How many datagrams are done with: all, or none. Raises OSError for a run that must be sent one by one."""
        try:
            if len(run) == 1:
                lane.sender.plain.sendmsg(run, lane.ancillary, 0, lane.address)
            else:
                lane.sender.runs.sendmsg(run, run_ancillary(lane.ancillary, lane.size), 0, lane.address)
        except BlockingIOError:
            return 0
        except OSError as error:
            if len(run) > 1 and error.errno in _NO_RUN:
                raise
            self._count["dropped.no-route"] += packets
        else:
            self._count["forwarded"] += packets
        return len(run)

    def _path(self, rlocs: tuple[Ip, ...]) -> Path | None:
        outers = self._shared.outers
        return next((Path(rloc, outers[len(rloc)]) for rloc in rlocs if len(rloc) in outers), None)

    def _shim(self, plan: Plan, kind: int, protocol: int, number: int, more: bytes = b"") -> bytes:
        fields = build_move_shim(MoveShim(plan.move, number, plan.epoch)) + more
        return build_shim_header(ShimHeader.of(kind, protocol, fields))


def _tos(packet: bytes) -> int:
    return packet[1] if packet[0] >> 4 == 4 else (packet[0] << 4 | packet[1] >> 4) & 0xFF
