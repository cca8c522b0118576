"""What the controller's cores want done beside sending: work for the hypervisor agents.

`PrepareMigration`, `StartMigration` and `AbortMigration` become HTTP calls to the agents; the answers come back into
the core as events of the move (`fmcc.coordinator`).
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from lispfmc.core.effects import Emit, Reject, Send, Transmit


class PrepareMigration(msgspec.Struct, frozen=True, gc=False):
    """Have the target's agent, then the source's, make ready: nothing of the service changes yet."""

    move: str
    machine: str
    source: str
    target: str


class StartMigration(msgspec.Struct, frozen=True, gc=False):
    """Have the source's agent copy, stop and hand over the machine."""

    move: str
    machine: str
    source: str
    target: str


class AbortMigration(msgspec.Struct, frozen=True, gc=False):
    """Have both agents forget the move; the machine goes on where it is."""

    move: str
    machine: str
    source: str
    target: str


AgentEffect: TypeAlias = PrepareMigration | StartMigration | AbortMigration
FmccEffect: TypeAlias = Send | Transmit | Emit | Reject | PrepareMigration | StartMigration | AbortMigration
"""Everything that the controller's core can ask for."""
