"""The Steering seam: how the network is led through one service's move.

A scheme is told of each phase (prepare, freeze, activate, commit, abort) and answers with messages to send; it keeps
its own retransmissions. Pure: time and nonces come in. Schemes stand beside one another and are chosen by name.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

import msgspec

from lispfmc.core.effects import Reject, Send
from lispfmc.wire.address import Endpoint, Prefix
from lispfmc.wire.messages import MapNotifyAck

__all__ = ["Acknowledged", "Outcome", "Redirect", "Repeated", "Steering"]


class Redirect(msgspec.Struct, frozen=True):
    """What a move changes: these EIDs, from one data centre's locators to another's, by map-version `version`."""

    move: str
    service: str
    eids: tuple[Prefix, ...]
    version: int
    source: str
    target: str


class Acknowledged(msgspec.Struct, frozen=True, gc=False):
    """The tunnel router of `datacenter` has taken over the redirection of this move."""

    move: str
    service: str
    datacenter: str


class Repeated(msgspec.Struct, frozen=True, gc=False):
    """An authentic acknowledgement of something already acknowledged or replaced: no error, nothing to do."""


Outcome: TypeAlias = Acknowledged | Repeated | Reject


class Steering(Protocol):
    """One scheme. Each phase may come again: the same call twice sends again and changes nothing else."""

    @property
    def scheme(self) -> str: ...

    def prepare(self, redirect: Redirect, now: float) -> list[Send]:
        """The copy begins; the service runs at the source."""

    def freeze(self, redirect: Redirect, now: float) -> list[Send]:
        """The service has stopped at the source."""

    def activate(self, redirect: Redirect, now: float) -> list[Send]:
        """The service runs at the target."""

    def commit(self, redirect: Redirect, now: float) -> list[Send]:
        """The mapping system has the new mapping."""

    def abort(self, redirect: Redirect, now: float) -> list[Send]:
        """The service stays at the source."""

    def acknowledged(self, ack: MapNotifyAck, datagram: bytes, source: Endpoint) -> Outcome: ...

    def next_deadline(self) -> float | None: ...

    def expired(self, now: float) -> list[Send]: ...
