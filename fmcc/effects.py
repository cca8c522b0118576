"""What the controller's cores want done beside sending: work for the hypervisor agents, and memory of the moves.

`PrepareMigration`, `StartMigration`, `AbortMigration` and `RecallMigration` become HTTP calls to the agents; the
answers come back into the core as events of the move (`fmcc.coordinator`).
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from fmcc.standing import Standing
from lispfmc.core.effects import Emit, Reject, Send, Transmit


class PrepareMigration(msgspec.Struct, frozen=True, gc=False):
    """Have the target's agent, then the source's, make ready: nothing of the service changes yet."""

    move: str
    machine: str
    source: str
    target: str
    scheme: str = ""


class StartMigration(msgspec.Struct, frozen=True, gc=False):
    """Have the source's agent copy, stop and hand over the machine."""

    move: str
    machine: str
    source: str
    target: str
    scheme: str = ""


class AbortMigration(msgspec.Struct, frozen=True, gc=False):
    """Have both agents forget the move; the machine goes on where it is."""

    move: str
    machine: str
    source: str
    target: str


class RecallMigration(msgspec.Struct, frozen=True, gc=False):
    """After our restart: see how far the agents are with the move, and begin the copy if it has not begun."""

    move: str
    machine: str
    source: str
    target: str
    scheme: str = ""


class Persist(msgspec.Struct, frozen=True, gc=False):
    """Write down how a service stands, before the effects that follow: it must be known after a restart. None: it is no
    more, and one that gets its name later begins anew."""

    service: str
    standing: Standing | None


AgentEffect: TypeAlias = PrepareMigration | StartMigration | AbortMigration | RecallMigration
FmccEffect: TypeAlias = (
    Send | Transmit | Emit | Reject | Persist | PrepareMigration | StartMigration | AbortMigration | RecallMigration
)
"""Everything that the controller's core can ask for."""
