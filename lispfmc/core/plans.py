"""What a lossless move is, as values that source, target, peers and controller share, and how they talk of it.

A `Plan` says everything about one move of some EIDs; each move message carries all of it, so that each can be
understood alone, again, and late. Its epoch is the new Map-Version (RFC 9302): the higher one always wins.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

import msgspec

from lispfmc.wire.address import Ip, Prefix
from lispfmc.wire.messages import EidRecord, Locator
from lispfmc.wire.moves import OLD_PLACE, MoveMessage, MovePhase, Verdict

TTL_MINUTES = 1440


class Plan(msgspec.Struct, frozen=True, gc=False):
    """One move: these EIDs, from the router at `source` to that at `target`, by map-version `epoch`."""

    move: int
    epoch: int
    eids: tuple[Prefix, ...]
    source: tuple[Ip, ...]
    target: tuple[Ip, ...]
    bicast: bool = False
    """Nobody will say when the service stops: the source copies to the target from PREPARE on."""
    hold_bytes: int = 4 << 20
    hold_ms: int = 10_000

    def records(self) -> tuple[EidRecord, ...]:
        """The EIDs at the target; the source's locators stand beside, as not to be used."""
        locators = tuple(Locator.of(rloc, priority=1 if len(rloc) == 4 else 2) for rloc in self.target)
        locators += tuple(Locator.of(rloc, priority=OLD_PLACE) for rloc in self.source)
        return tuple(EidRecord.of(eid, locators, ttl_minutes=TTL_MINUTES, map_version=self.epoch) for eid in self.eids)

    def message(self, phase: MovePhase, nonce: int) -> MoveMessage:
        """What tells of this move that it enters `phase`."""
        return MoveMessage.of(
            phase,
            *self.records(),
            nonce=nonce,
            move=self.move,
            epoch=self.epoch,
            bicast=self.bicast,
            hold_bytes=self.hold_bytes,
            hold_ms=self.hold_ms,
        )

    def same(self, other: Plan | None) -> bool:
        """The same attempt of the same move."""
        return other is not None and (self.move, self.epoch) == (other.move, other.epoch)


def plan_of(message: MoveMessage) -> Plan | None:
    """The plan that a message carries whole; None when its records contradict one another, or there are none."""
    eids: list[Prefix] = []
    places = set()
    for record in message.records:
        eid = record.prefix
        addresses = [(locator.address, locator.priority == OLD_PLACE) for locator in record.locators]
        if eid is None or not eid.is_host or record.map_version != message.epoch:
            return None
        target = tuple(rloc for rloc, old in addresses if not old and isinstance(rloc, bytes))
        source = tuple(rloc for rloc, old in addresses if old and isinstance(rloc, bytes))
        eids.append(eid)
        places.add((source, target))
    if len(places) != 1 or len(set(eids)) != len(eids) or not message.epoch:
        return None
    source, target = places.pop()
    if not source or not target or set(source) & set(target):
        return None
    return Plan(
        message.move,
        message.epoch,
        tuple(eids),
        source,
        target,
        message.bicast,
        message.hold_bytes,
        message.hold_ms,
    )


class Party(StrEnum):
    """Whom a message is for, or from."""

    SOURCE = "source"
    TARGET = "target"
    PEERS = "peers"
    CONTROLLER = "controller"
    AGENT = "agent"


class Ask(msgspec.Struct, frozen=True, gc=False):
    """Tell `to` that the move enters `phase`, again and again until it answers."""

    to: Party
    phase: MovePhase
    plan: Plan


class Settle(msgspec.Struct, frozen=True, gc=False):
    """Ask nobody about this move any more, or only what is asked after this."""

    plan: Plan


class Answered(msgspec.Struct, frozen=True, gc=False):
    """`by` has answered; `again` = not our first copy: what was sent meanwhile may be lost."""

    by: Party
    phase: MovePhase
    plan: Plan
    verdict: Verdict
    again: bool = False


class Restarted(msgspec.Struct, frozen=True, gc=False):
    """The daemon was started anew with what it remembered; tables, queues and exchanges are gone."""


class TimedOut(msgspec.Struct, frozen=True, gc=False):
    """The state's time is over."""


Exchange: TypeAlias = Ask | Settle
