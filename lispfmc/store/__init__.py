"""Where registrations live: the seam between the decisions and what remembers them.

A Map-Server reads a view, decides (`lispfmc.core.merging.merge`, pure) and applies the outcome; followers read
`events(after)`. In-process stores are synchronous and take a batch; a remote one stands behind an adapter that fetches
the view of a whole batch, decides, and applies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, TypeAlias

import msgspec

from lispfmc.core.registry import Accepted, Change, Lease, Owner, Registration, ToldAlike, View
from lispfmc.core.subscriptions import Subscribed
from lispfmc.wire.address import Prefix
from lispfmc.wire.errors import LocalError


class Query(msgspec.Struct, frozen=True, gc=False):
    """What a view must hold: these EIDs with what covers them and lies within them, and one xTR's replay state."""

    eids: tuple[Prefix, ...]
    owner: Owner | None = None
    key_id: int = 0


class Released(msgspec.Struct, frozen=True, gc=False):
    """A displaced xTR has acknowledged that `eid` moved: it may register it anew."""

    eid: Prefix
    owner: Owner


class Dropped(msgspec.Struct, frozen=True, gc=False):
    """The configuration has taken from an xTR what it had registered."""

    eid: Prefix
    owner: Owner


Item: TypeAlias = Accepted | ToldAlike | Released | Dropped | Subscribed
"""What a store applies."""


class Numbered(msgspec.Struct, frozen=True, gc=False):
    """What a change made of an EID, and its place in the order of all changes; None when nobody has it any more."""

    id: int
    eid: Prefix
    after: Registration | None


class Gap(Exception):  # noqa: N818 - not a fault: the follower reads everything anew
    """The changes after that id are no longer kept."""


class Store(Protocol):
    """Registrations, who was displaced from them, the nonces that protect them from replay, and subscriptions."""

    def view(self, query: Query) -> View:
        """The state that a decision about `query` reads; valid until the next `apply`."""

    def apply(self, batch: Sequence[Item], now: float) -> None:
        """Make outcomes that `merge` decided on the current view the state."""

    def forget(self) -> None:
        """Have no lease renewed by its memo until it was decided on once more: what it stands for may not be allowed
        any more."""

    def renew(self, lease: Lease, nonce: int, now: float) -> None:
        """The same Map-Register came once more, with a nonce that is greater than the last: what `apply` does then."""

    def commit(self) -> None:
        """Make what was applied outlive this process, as far as the store does that: before it is acknowledged.

        Raises StoreError when it cannot; then nothing of it may be acknowledged.
        """

    def events(self, after: int | None) -> Iterator[Numbered]:
        """The changes after the one with that id (None: those that are still kept). Refreshes are no changes.

        Raises Gap when some are missing.
        """

    @property
    def last_event(self) -> int:
        """The id of the last change, 0 before the first."""

    def registrations(self, after: Prefix | None = None) -> Iterator[Registration]:
        """Every registration, or those that follow an EID, by family, length and address; no change meanwhile."""

    def static(self) -> Iterable[Registration]:
        """What the configuration maps."""

    def displaced(self, eid: Prefix) -> tuple[Registration, ...]:
        """The registrations whose xTRs have not yet acknowledged that `eid` moved away from them."""

    @property
    def settled(self) -> bool:
        """Whether `displaced` has nothing to tell of any EID."""

    def departures(self) -> Iterator[tuple[Prefix, Registration]]:
        """Everything that `displaced` tells, by EID."""

    def subscriptions(self) -> Iterable[Subscribed]:
        """The subscriptions that were kept over a restart, in the order of their last change."""

    def recent(self) -> Sequence[Change]:
        """The changes shortly before the last restart: who had to be told of them may not have been."""

    def next_deadline(self) -> float | None:
        """When the earliest registration ends, or None."""

    def expired(self, now: float) -> list[Change]:
        """Remove and report registrations whose time is over; when many are, some, and the deadline stays due."""

    def close(self) -> None: ...

    def __len__(self) -> int: ...


class StoreError(LocalError):
    """The store cannot keep what it was told."""
