"""Packets of a move on their way to the other site: numbered by a shim header, or an end marker (RFC 9305 §3)."""

from __future__ import annotations

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
from xtr.dataplane.outer import SENDERS

_SHIM_BYTES = 4 + 16
_NUMBER_AT = 4 + 8  # in a shim header: behind its own four bytes and the move


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


class Leading:
    """The shim headers of one plane's moves, and where they go."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._count = shared.count
        self._ways: dict[tuple[Prefix, ...], Way] = {}

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
        """Send a packet with its number; False when there is no room now."""
        before = way.before[step.packet[0] >> 4 == 4] + step.number.to_bytes(4, "big") + way.behind
        return self._send(way.path, way.address, before, step.packet, step.ttl, _tos(step.packet))

    def mark(self, plan: Plan, rloc: Ip, peer: Ip = b"") -> None:
        """Send an end marker to `rloc`: ours, or that of `peer`."""
        path = self._path((rloc,))
        if path is not None:
            before = header(plan.eids[0].iid, NEXT_MOVE_SHIM) + self._shim(plan, SHIM_MARKER, 0, 0, peer)
            self._send(path, path.outer.address(rloc), before, b"", 64, 0)

    def _send(self, path: Path, address: tuple[str, int], before: bytes, packet: bytes, ttl: int, tos: int) -> bool:
        """Send with a shim header, by the port that the flow has without one; False when there is no room."""
        outer = path.outer
        sender = outer.senders[flow_hash(packet) & SENDERS - 1 if packet else 0].plain
        try:
            sender.sendmsg((before, packet), outer.ancillary(ttl, tos), 0, address)
        except BlockingIOError:
            return False
        except OSError:
            self._count["dropped.no-route"] += 1
        else:
            self._count["forwarded"] += 1 if packet else 0
        return True

    def _path(self, rlocs: tuple[Ip, ...]) -> Path | None:
        outers = self._shared.outers
        return next((Path(rloc, outers[len(rloc)]) for rloc in rlocs if len(rloc) in outers), None)

    def _shim(self, plan: Plan, kind: int, protocol: int, number: int, more: bytes = b"") -> bytes:
        fields = build_move_shim(MoveShim(plan.move, number, plan.epoch)) + more
        return build_shim_header(ShimHeader.of(kind, protocol, fields))


def _tos(packet: bytes) -> int:
    return packet[1] if packet[0] >> 4 == 4 else (packet[0] << 4 | packet[1] >> 4) & 0xFF
