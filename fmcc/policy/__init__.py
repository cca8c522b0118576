"""The Policy seam: should the service follow, and where to?

A policy sees one service, its user's site and the data centres that the service may use, and answers `Stay` or `Go`
with the reason in a person's words, the rule that won and the runner-up. What it knows is in the view; a `Learner` is
also shown every handover, whether or not there is something to decide, and keeps plain state that can be saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import msgspec

__all__ = ["Candidate", "Decision", "Go", "Learner", "Policy", "State", "Stay", "View"]


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A data centre that the service may use. `rtt_ms` is its distance from the user; None = not known.

    `free` is how many more services fit; None = unlimited. The service's own place counts as free. `load` is the share
    of its capacity that is taken, and `transfer_s` how long a move there is expected to copy; None = not known.
    """

    datacenter: str
    rtt_ms: float | None
    free: int | None = None
    load: float = 0.0
    transfer_s: float | None = None

    @property
    def has_room(self) -> bool:
        return self.free is None or self.free > 0


class View(msgspec.Struct, frozen=True, gc=False):
    """What a decision is made from. `settled_s` is the time since the service last moved, `remaining_s` until it will
    have finished its task; None = it never moved, or nobody has said."""

    service: str
    user: str
    site: str
    datacenter: str
    candidates: tuple[Candidate, ...]
    service_class: str = ""
    settled_s: float | None = None
    remaining_s: float | None = None


class Stay(msgspec.Struct, frozen=True, gc=False):
    """`rule` names what decided, `runner_up` says what the next rule, or the next best place, would have been."""

    reason: str
    rule: str = ""
    runner_up: str = ""


class Go(msgspec.Struct, frozen=True, gc=False):
    datacenter: str
    reason: str
    rule: str = ""
    runner_up: str = ""


Decision: TypeAlias = Stay | Go
State: TypeAlias = Mapping[str, Any]
"""What a learner knows of one service: texts, numbers, lists and mappings of them, as JSON has."""


class Policy(Protocol):
    """Decides for one service at a time."""

    @property
    def name(self) -> str: ...

    def decide(self, view: View) -> Decision: ...


@runtime_checkable
class Learner(Protocol):
    """A policy that learns from handovers. `state` and `restore` let the daemon keep what it has learned."""

    def observe(self, view: View) -> None:
        """A handover: the user is at `view.site` now, the service still where `view` says."""

    def state(self, service: str) -> State | None:
        """What it has learned of `service`; None = nothing."""

    def forget(self, service: str) -> None:
        """The service is no more."""

    def restore(self, service: str, state: State) -> None:
        """Go on from a saved state. Raises BadState, and then knows no more than before."""
