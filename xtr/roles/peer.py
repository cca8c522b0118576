"""A peer's part in a move: it talks to the EIDs, is told where they are now, and marks the end of the old path.

The end marker is the last packet on the old path: control packets cannot say where in the stream of data it ends.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from lispfmc.core.plans import Plan
from lispfmc.core.versions import newer
from lispfmc.wire.address import Ip
from lispfmc.wire.moves import MovePhase, Verdict


class Peer(msgspec.Struct, frozen=True, gc=False):
    """Where a router sends packets for some EIDs, and by which epoch it knows."""

    rlocs: tuple[Ip, ...] = ()
    """Empty: it sends none."""
    epoch: int = 0


class Moved(msgspec.Struct, frozen=True, gc=False):
    """A router that may say so tells that the EIDs are at `plan.target`."""

    plan: Plan


class Use(msgspec.Struct, frozen=True, gc=False):
    """Send packets for the EIDs to `plan.target` from now on."""

    plan: Plan


class Mark(msgspec.Struct, frozen=True, gc=False):
    """Send the end marker of the EIDs to `rlocs`, after the last packet that went there."""

    plan: Plan
    rlocs: tuple[Ip, ...]


class Await(msgspec.Struct, frozen=True, gc=False):
    """At the target: these peers were told. What they send directly waits for their end markers, for a moment."""

    plan: Plan
    rlocs: tuple[Ip, ...]


PeerEffect: TypeAlias = Use | Mark


def step(peer: Peer, event: Moved, now: float) -> tuple[Peer, list[PeerEffect]]:
    """The next standing and what is to be done. A lower epoch never wins, and the same one says nothing new.

    A peer that knows already, by a publication that came first, still marks the end of the path that it has left: the
    target waits for that. A mark that comes twice says nothing new either.
    """
    plan = event.plan
    if peer.rlocs and peer.epoch == plan.epoch and set(peer.rlocs) == set(plan.target):
        return peer, [Mark(plan, plan.source)]
    if not peer.rlocs or not newer(plan.epoch, peer.epoch):
        return peer, []
    effects: list[PeerEffect] = [Use(plan)]
    if set(peer.rlocs) != set(plan.target):
        effects.append(Mark(plan, peer.rlocs))
    return Peer(plan.target, plan.epoch), effects


def verdict(peer: Peer, phase: MovePhase, plan: Plan) -> Verdict:
    """What the acknowledgement says."""
    return Verdict.STALE if newer(peer.epoch, plan.epoch) else Verdict.DONE
