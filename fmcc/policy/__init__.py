"""The Policy seam: should the service follow, and where to?

A policy sees one service, its user's site and the data centres that the service may use, and answers `Stay` or `Go`
with the reason in a person's words. Pure: what it knows is in the view. Learned and model-based policies plug in here.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

import msgspec

__all__ = ["Candidate", "Decision", "Go", "Policy", "Stay", "View"]


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A data centre that the service may use. `rtt_ms` is its distance from the user; None = not known.

    `free` is how many more services fit; None = unlimited. The service's own place counts as free.
    """

    datacenter: str
    rtt_ms: float | None
    free: int | None = None

    @property
    def has_room(self) -> bool:
        return self.free is None or self.free > 0


class View(msgspec.Struct, frozen=True, gc=False):
    """What a decision is made from."""

    service: str
    user: str
    site: str
    datacenter: str
    candidates: tuple[Candidate, ...]


class Stay(msgspec.Struct, frozen=True, gc=False):
    reason: str


class Go(msgspec.Struct, frozen=True, gc=False):
    datacenter: str
    reason: str


Decision: TypeAlias = Stay | Go


class Policy(Protocol):
    """Decides for one service at a time."""

    @property
    def name(self) -> str: ...

    def decide(self, view: View) -> Decision: ...
