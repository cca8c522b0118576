"""What the controller's HTTP API answers, as types. Fields are an API: they are only ever added to.

Units are in the names; ages count from now, `at` is unix time. An EID is text with its length, "100.64.1.10/32".
"""

from __future__ import annotations

from typing import Literal

import msgspec


class UserView(msgspec.Struct, frozen=True):
    """A user and where it is; `site` null: not seen yet, or gone. `distance_ms` is that of its first service."""

    name: str
    eids: list[str]
    site: str | None
    since_s: float | None
    distance_ms: float | None
    services: list[str]
    added: bool
    """By this API, not by the configuration: it can be removed by it too."""


class UserList(msgspec.Struct, frozen=True):
    items: list[UserView]


class PlacementView(msgspec.Struct, frozen=True):
    """Where a service is, by which map-version, and the state of its last move."""

    service: str
    user: str | None
    eids: list[str]
    datacenter: str
    version: int
    state: str
    move: str | None
    ping_pongs: int


class PlacementList(msgspec.Struct, frozen=True):
    items: list[PlacementView]


class ServiceView(msgspec.Struct, frozen=True):
    """A service: whom it follows (null: nobody), where it may go, and where it is."""

    name: str
    user: str | None
    eids: list[str]
    service_class: str
    allowed: list[str]
    size_bytes: int | None
    datacenter: str
    version: int
    state: str
    move: str | None
    policy: str
    added: bool


class ServiceList(msgspec.Struct, frozen=True):
    items: list[ServiceView]


class CandidateView(msgspec.Struct, frozen=True):
    """A data centre as it was weighed."""

    datacenter: str
    rtt_ms: float | None
    free: int | None
    load: float
    transfer_s: float | None


class DecisionView(msgspec.Struct, frozen=True):
    """The last decision about a service: the rule that won, the runner-up, and what was weighed."""

    service: str
    user: str
    site: str
    service_class: str
    decision: Literal["move", "stay"]
    from_: str = msgspec.field(name="from")
    to: str
    rule: str
    reason: str
    runner_up: str
    policy: str
    mode: Literal["act", "observe"]
    age_s: float
    ping_pongs: int
    settled_s: float | None
    remaining_s: float | None
    candidates: list[CandidateView]


class DecisionList(msgspec.Struct, frozen=True):
    items: list[DecisionView]


class PastDecision(msgspec.Struct, frozen=True):
    """A decision of any run, from the history."""

    number: int
    at: float
    service: str
    user: str
    site: str
    decision: Literal["move", "stay"]
    from_: str = msgspec.field(name="from")
    to: str
    rule: str
    reason: str
    runner_up: str
    mode: Literal["act", "observe"]


class PastDecisionList(msgspec.Struct, frozen=True):
    """Newest first; `next` is what `before` has to be for those that follow, null at the end."""

    items: list[PastDecision]
    next: int | None


class PhaseView(msgspec.Struct, frozen=True):
    name: str
    at_ms: float


class MoveView(msgspec.Struct, frozen=True):
    """One move. `at_ms` counts from the first phase, which was at `started_monotonic_ns` (CLOCK_MONOTONIC)."""

    id: str
    service: str
    from_: str = msgspec.field(name="from")
    to: str
    version: int
    driver: str
    emulated: bool | None
    scheme: str
    state: str
    started_monotonic_ns: int
    phases: list[PhaseView]
    stopped_monotonic_ns: int | None
    resumed_monotonic_ns: int | None
    blackout_events_ms: float | None
    reason: str
    ended: bool
    packets: dict[str, int] | None = None
    """Held, forwarded, replayed and lost, as the tunnel routers told; null: they have told nothing."""


class MoveList(msgspec.Struct, frozen=True):
    items: list[MoveView]


class Migration(msgspec.Struct, frozen=True):
    """A move of any run, from the history: `number` orders them, `started_at` is unix time. One that was under way when
    the controller was killed keeps the state that it had then."""

    number: int
    started_at: float
    id: str
    service: str
    from_: str = msgspec.field(name="from")
    to: str
    version: int
    driver: str
    emulated: bool | None
    scheme: str
    state: str
    phases: list[PhaseView]
    blackout_events_ms: float | None
    reason: str


class MigrationList(msgspec.Struct, frozen=True):
    """Newest first; `next` is what `before` has to be for those that follow, null at the end."""

    items: list[Migration]
    next: int | None


class DataCenterView(msgspec.Struct, frozen=True):
    """A data centre: its room, whether its agent answers, the RLOCs of the xTR that serves it, and their source."""

    name: str
    rlocs: list[str]
    rlocs_from: Literal["configuration", "mapping-system", "nowhere"]
    prefix: str | None
    capacity: int | None
    taken: int
    agent: bool
    services: list[str]


class DataCenterList(msgspec.Struct, frozen=True):
    items: list[DataCenterView]


class DistanceView(msgspec.Struct, frozen=True):
    """What counts as the round-trip time between two sites, measured (`age_s` ago) or configured."""

    a: str
    b: str
    ms: float
    source: Literal["measured", "configured"]
    age_s: float | None


class DistanceList(msgspec.Struct, frozen=True):
    items: list[DistanceView]


class DistanceTold(msgspec.Struct, frozen=True):
    """What the pair's distance counts as now: measurements are smoothed."""

    a: str
    b: str
    ms: float


class MovePlan(msgspec.Struct, frozen=True):
    """A move that could begin now."""

    service: str
    from_: str = msgspec.field(name="from")
    to: str
    scheme: str


class SchemeTold(msgspec.Struct, frozen=True):
    """By what the service's next moves are led; null: as configured."""

    service: str
    scheme: str | None


class RemainingTold(msgspec.Struct, frozen=True):
    service: str
    remaining_s: float | None


class Removed(msgspec.Struct, frozen=True):
    removed: str


class ReportTaken(msgspec.Struct, frozen=True):
    """How many of the reported locators are a known site's, and how many are nobody's."""

    taken: int
    unknown: int


class PartView(msgspec.Struct, frozen=True):
    """Something that the controller depends on: does it answer, and since when (unix time) is that so."""

    name: str
    kind: str
    up: bool
    since: float


class SiteView(msgspec.Struct, frozen=True):
    """A site: an access network or a data centre, and the RLOCs of its tunnel router."""

    name: str
    kind: Literal["access", "datacenter"]
    rlocs: list[str]


class SiteList(msgspec.Struct, frozen=True):
    items: list[SiteView]


class Status(msgspec.Struct, frozen=True):
    """What GET /v1/status adds to what every daemon says."""

    mode: Literal["act", "observe"]
    policy: str
    scheme: str
    subscriptions: dict[str, bool]
    agents: dict[str, bool]
    users: int
    services: int
    drops: int
    history: str
    parts: list[PartView] = []
