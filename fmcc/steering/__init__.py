"""The Steering seam: how the network is led through one service's move.

A scheme is told of each phase (prepare, freeze, activate, commit, abort) and answers with messages to send; it keeps
its own retransmissions. What comes of it that is no message is news, fetched by `drained` after each call. Pure: time
and nonces come in. Schemes stand beside one another and are chosen by name (`fmcc.steering.registry`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

import msgspec

from fmcc.steering.lead import Lead
from lispfmc.core.effects import Reject, Send
from lispfmc.wire.address import Endpoint, Prefix
from lispfmc.wire.messages import MapNotifyAck
from lispfmc.wire.moves import MoveMessage

__all__ = [
    "Acknowledged",
    "Active",
    "GivenUp",
    "News",
    "Outcome",
    "Ready",
    "Redirect",
    "Remember",
    "Repeated",
    "Steering",
    "Versioned",
]


class Redirect(msgspec.Struct, frozen=True):
    """What a move changes: these EIDs, from one data centre's locators to another's, by map-version `version`."""

    move: str
    service: str
    eids: tuple[Prefix, ...]
    version: int
    source: str
    target: str
    scheme: str = ""
    tells_stop: bool = True
    """The source's hypervisor says when the service stops; without that, routers must not count on FREEZE."""


class Acknowledged(msgspec.Struct, frozen=True, gc=False):
    """The tunnel router of `datacenter` has taken over the redirection of this move."""

    move: str
    service: str
    datacenter: str


class Repeated(msgspec.Struct, frozen=True, gc=False):
    """An authentic acknowledgement of something already acknowledged or replaced: no error, nothing to do."""


Outcome: TypeAlias = Acknowledged | Repeated | Reject

# --- news -------------------------------------------------------------------------------------------------------------


class Ready(msgspec.Struct, frozen=True, gc=False):
    """The network is prepared: the copy may begin."""

    move: str
    service: str


class Active(msgspec.Struct, frozen=True, gc=False):
    """The target's router delivers to the service, whoever told it to."""

    move: str
    service: str


class GivenUp(msgspec.Struct, frozen=True, gc=False):
    """The scheme gives the move up: have the hypervisors forget it."""

    move: str
    service: str
    reason: str


class Versioned(msgspec.Struct, frozen=True, gc=False):
    """The move's new mapping has another map-version than it was asked for with."""

    move: str
    service: str
    version: int


class Remember(msgspec.Struct, frozen=True, gc=False):
    """What the scheme must still know of this service after a restart has changed: written down before anything that
    the same call returned is sent."""

    service: str


News: TypeAlias = Ready | Active | GivenUp | Versioned | Remember | Acknowledged


class Steering(Protocol):
    """One scheme. Each phase may come again: the same call twice sends again and changes nothing else."""

    @property
    def scheme(self) -> str: ...

    def prepare(self, redirect: Redirect, now: float) -> list[Send]:
        """The service runs at the source; its copy waits for `Ready`."""

    def freeze(self, redirect: Redirect, now: float) -> list[Send]:
        """The service has stopped at the source."""

    def activate(self, redirect: Redirect, now: float) -> list[Send]:
        """The service runs at the target."""

    def commit(self, redirect: Redirect, now: float) -> list[Send]:
        """The mapping system has the new mapping, or one that is newer still."""

    def abort(self, redirect: Redirect, now: float) -> list[Send]:
        """The service stays at the source."""

    def acknowledged(self, ack: MapNotifyAck, datagram: bytes, source: Endpoint) -> Outcome: ...

    def answered(self, message: MoveMessage, datagram: bytes, source: Endpoint, now: float) -> list[Send] | Reject: ...

    def drained(self) -> list[News]:
        """What has come of the calls since the last time, in order."""

    def busy(self, service: str) -> str:
        """Why the service cannot be moved anew yet; "" when it can."""

    def lead(self, service: str) -> Lead | None:
        """What must be known of the service after a restart; None when nothing."""

    def restored(self, leads: Mapping[str, Lead], now: float) -> list[Send]:
        """After a restart: goes on from what was remembered."""

    def next_deadline(self) -> float | None: ...

    def expired(self, now: float) -> list[Send]: ...
