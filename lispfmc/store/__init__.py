"""Where registrations live: the seam between the decisions and what remembers them.

A Map-Server reads a view, decides (`lispfmc.core.registry.merge`, pure) and applies the outcome; followers read
`events(after)`. In-process stores are synchronous and take a batch; a remote one stands behind an adapter that fetches
the view of a whole batch, decides, and applies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from lispfmc.core.registry import Accepted, Change, Owner, Registration, View
from lispfmc.wire.address import Prefix


class Query(msgspec.Struct, frozen=True, gc=False):
    """What a view must hold: these EIDs with what covers them and lies within them, and one xTR's replay state."""

    eids: tuple[Prefix, ...]
    owner: Owner | None = None
    key_id: int = 0


class Released(msgspec.Struct, frozen=True, gc=False):
    """A displaced xTR has acknowledged that `eid` moved: it may register it anew."""

    eid: Prefix
    owner: Owner


class Numbered(msgspec.Struct, frozen=True, gc=False):
    """A change with its place in the order of all changes."""

    id: int
    change: Change


class Gap(Exception):  # noqa: N818 - not a fault: the follower reads everything anew
    """The changes after that id are no longer kept."""


class Store(Protocol):
    """Registrations, who was displaced from them, and the nonces that protect them from replay."""

    def view(self, query: Query) -> View:
        """The state that a decision about `query` reads; valid until the next `apply`."""

    def apply(self, batch: Sequence[Accepted | Released], now: float) -> None:
        """Make outcomes that `merge` decided on the current view the state."""

    def events(self, after: int | None) -> Iterator[Numbered]:
        """The changes after the one with that id (None: those that are still kept). Refreshes are no changes.

        Raises Gap when some are missing.
        """

    def registrations(self) -> Iterator[Registration]:
        """Every registration, for people; no change meanwhile."""

    def displaced(self, eid: Prefix) -> tuple[Registration, ...]:
        """The registrations whose xTRs have not yet acknowledged that `eid` moved away from them."""

    def next_deadline(self) -> float | None:
        """When the earliest registration ends, or None."""

    def expired(self, now: float) -> list[Change]:
        """Remove and report the registrations whose time is over."""

    def __len__(self) -> int: ...
