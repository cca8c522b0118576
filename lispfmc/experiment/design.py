"""What is measured, how often and in which order. Pure: a design is a value, and the same design gives the same runs.

A point is one setting. Its runs are spread over blocks; in each block every scheme has a lab of its own for a session,
the sessions' order and the order within each is drawn by lot from the design's seed. So a drift of the machine hits all
points alike, and no lab is rebuilt for each run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from enum import StrEnum

import msgspec

from lispfmc.wire.errors import LocalError

SCHEMES = ("lossless", "fig9", "cp", "dataplane", "pubsub", "garp", "bicast", "smr")
ABLATIONS = ("lossless-no-replay", "lossless-no-hold")
NULL, BRIDGE, USER = "null-move", "same-bridge", "user-move"
BLOCKS = 5
RUNS_A_BLOCK = 5
"""At least, of each point: a lab for fewer is not worth its building."""
LOSS_RTT_MS = 50.0
MAX_SERVICES = 200


class BadDesign(LocalError):  # noqa: N818 - reads as the answer that it is
    """An experiment that cannot be, and why."""


class Kind(StrEnum):
    """What happens in a run."""

    MOVE = "move"
    TCP = "tcp"
    """The same, and the probes travel in TCP connections."""
    NULL = "null"
    """The service is stopped and resumed where it is."""
    BRIDGE = "bridge"
    """It resumes at another port of the same bridge."""
    USER = "user"
    """The user moves to the other access network."""
    CROWD = "crowd"
    """All services of a lab of their own move at once."""


class Point(msgspec.Struct, frozen=True, omit_defaults=True):
    """One setting. `datacenters_ms`: round-trip times from the controller to dc1 and dc2, where they are not the same
    as to everybody else (the papers' two cases)."""

    scheme: str
    fmcc_rtt_ms: float
    control_loss: float = 0.0
    datacenters_ms: tuple[float, float] | None = None
    kind: Kind = Kind.MOVE
    hypervisors_ms: float | None = None
    """Round-trip time from the controller to both hypervisors, where they are not as far as their routers. With it,
    `datacenters_ms` are those of source and target, on the way back too."""
    at_once: int = 0
    """So many of a crowd are under way at a time, the others wait; 0: all are."""


class Planned(msgspec.Struct, frozen=True, omit_defaults=True):
    """One run: its number in the whole experiment, its point, and the seed of the losses."""

    number: int
    point: Point
    seed: int


class Session(msgspec.Struct, frozen=True):
    """Runs on one lab, in order. `scheme` is how its daemons are configured."""

    block: int
    scheme: str
    runs: tuple[Planned, ...]
    services: int = 1
    """On its lab."""
    at_once: int = 0
    """As a Point's."""


class Design(msgspec.Struct, frozen=True):
    """The whole experiment, as it is written into its folder."""

    schemes: tuple[str, ...]
    fmcc_rtts_ms: tuple[float, ...]
    losses: tuple[float, ...] = (0.0,)
    runs: int = 50
    null_runs: int = 50
    bridge_runs: int = 0
    cases_ms: tuple[tuple[float, float], ...] = ()
    case_scheme: str = "fig9"
    case_hypervisors_ms: tuple[float, ...] = ()
    """With these, all schemes are measured in each case at each of these distances of the hypervisors."""
    case_runs: int = 20
    tcp_runs: int = 0
    user_runs: int = 0
    services: int = 0
    service_rounds: int = 3
    at_once: int = 0
    """Not 0: crowds are measured once more, with so many moves under way at a time."""
    all_at_once: bool = True
    """Crowds are measured with all of their moves under way."""
    seed: int = 1
    topology: str = "metro"
    plane: str = "auto"
    user: str = "alice"
    ip: int = 4
    """The IP version of the probes."""
    interval_us: int = 250
    tcp_interval_us: int = 1000
    service_interval_us: int = 5000
    copy_s: float = 0.1
    pause_ms: float = 60.0

    def checked(self) -> Design:
        """The design itself. Raises BadDesign."""
        known = (*SCHEMES, *ABLATIONS)
        for scheme in self.schemes:
            if scheme not in known:
                raise BadDesign(f"no scheme {scheme!r}; known are {', '.join(known)}")
        if not self.schemes or not self.fmcc_rtts_ms:
            raise BadDesign("nothing to measure: no scheme, or no round-trip time of the controller; name one")
        for name, values in (("--schemes", self.schemes), ("--sweep", self.fmcc_rtts_ms), ("--loss", self.losses)):
            if len(set(values)) != len(values):
                raise BadDesign(f"{name}: a value is there twice; name each once")
        if any(not 0 <= loss < 100 for loss in self.losses):
            raise BadDesign(f"--loss: {_list(self.losses)}: a share of packets is at least 0 and below 100 percent")
        if any(rtt < 0 for rtt in self.fmcc_rtts_ms):
            raise BadDesign(f"--sweep: {_list(self.fmcc_rtts_ms)}: a round-trip time is not below 0")
        if self.runs < 1 or self.null_runs < 0 or self.bridge_runs < 0:
            raise BadDesign("--runs: at least one run a point")
        if not 0 <= self.services <= MAX_SERVICES:
            raise BadDesign(f"--services: {self.services}: at most {MAX_SERVICES} fit into the data centre's prefix")
        if self.at_once < 0:
            raise BadDesign(f"--at-once: {self.at_once}: at least one service moves at a time")
        if self.at_once and not self.services:
            raise BadDesign("--at-once: it says how many of a crowd move at a time; say how many there are: --services")
        if not 100 <= self.interval_us <= 5000:
            raise BadDesign(f"--interval: {self.interval_us} us: probes are sent every 100 to 5000 us")
        return self

    @property
    def loss_rtt_ms(self) -> float:
        """Where control losses are measured: at 50 ms, or in the middle of the sweep."""
        rtts = sorted(self.fmcc_rtts_ms)
        return LOSS_RTT_MS if LOSS_RTT_MS in rtts else rtts[len(rtts) // 2]

    def points(self, scheme: str) -> list[Point]:
        """The points of one scheme."""
        points = [Point(scheme, rtt) for rtt in self.fmcc_rtts_ms if 0.0 in self.losses]
        points += [Point(scheme, self.loss_rtt_ms, loss) for loss in self.losses if loss > 0]
        if self.case_hypervisors_ms:
            every = [(case, far) for case in self.cases_ms for far in self.case_hypervisors_ms]
            points += [Point(scheme, max(case), 0.0, case, hypervisors_ms=far) for case, far in every]
        elif scheme == self.case_scheme:
            points += [Point(scheme, max(case), 0.0, case) for case in self.cases_ms]
        return points

    def sessions(self) -> list[Session]:
        """All runs, in the order in which they are made."""
        lot = random.Random(self.seed)  # noqa: S311 - a repeatable order, no secret
        blocks = max(1, min(BLOCKS, self.runs // RUNS_A_BLOCK))
        sessions, number = [], 0
        for block in range(blocks):
            order = list(self.schemes)
            lot.shuffle(order)
            for scheme in order:
                wanted = list(self._share(scheme, block, blocks))
                lot.shuffle(wanted)
                runs = []
                for point in wanted:
                    runs.append(Planned(number, point, lot.getrandbits(31)))
                    number += 1
                sessions.append(Session(block, scheme, tuple(runs)))
        limits = [*([0] if self.all_at_once else []), *([self.at_once] if self.at_once else [])]
        for at_once in limits if self.services else ():
            for scheme in self.schemes:
                point = Point(scheme, self.loss_rtt_ms, kind=Kind.CROWD, at_once=at_once)
                runs = [Planned(number + at, point, lot.getrandbits(31)) for at in range(self.service_rounds)]
                number += len(runs)
                sessions.append(Session(blocks - 1, scheme, tuple(runs), self.services, at_once))
        return sessions

    def _share(self, scheme: str, block: int, blocks: int) -> Iterator[Point]:
        for point in self.points(scheme):
            runs = self.runs if point.datacenters_ms is None else min(self.runs, self.case_runs)
            yield from [point] * _part(runs, block, blocks)
        yield from [Point(scheme, self.loss_rtt_ms, kind=Kind.TCP)] * _part(self.tcp_runs, block, blocks)
        # these have nothing to do with the scheme: its labs share them
        shared = (
            (NULL, Kind.NULL, self.null_runs),
            (BRIDGE, Kind.BRIDGE, self.bridge_runs),
            (USER, Kind.USER, self.user_runs),
        )
        for name, kind, total in shared:
            runs = _part(total, self.schemes.index(scheme), len(self.schemes))
            yield from [Point(name, self.loss_rtt_ms, kind=kind)] * _part(runs, block, blocks)


def headline(**changes: object) -> Design:
    """The figures of the front page: `metro`, B = 60 ms, probes every 250 us each way, 50 runs a point."""
    design = Design(
        schemes=("lossless", "fig9"),
        fmcc_rtts_ms=(1.0, 10.0, 50.0, 100.0, 200.0),
        losses=(0.0, 5.0, 20.0),
        # RTT of the controller to dc1 and dc2 in the papers' Fig. 6; the way back swaps source and target
        cases_ms=((100.0, 10.0), (50.0, 50.0)),
        bridge_runs=50,
        tcp_runs=20,
        user_runs=50,
        services=100,
        at_once=8,
    )
    return msgspec.structs.replace(design, **changes)


def numbers(text: str, what: str) -> tuple[float, ...]:
    """A comma-separated list. Raises BadDesign."""
    try:
        return tuple(float(each) for each in text.split(","))
    except ValueError:
        raise BadDesign(f"{what}: {text!r} is no list of numbers; write for example 1,10,50") from None


def swept(text: str) -> tuple[float, ...]:
    """The values of `--sweep fmcc-rtt=...`. Raises BadDesign."""
    name, _, values = text.partition("=")
    if name != "fmcc-rtt" or not values:
        raise BadDesign(f"--sweep: {text!r} sweeps nothing that is known; write for example fmcc-rtt=1,10,50")
    return numbers(values, "--sweep")


def _part(total: int, index: int, parts: int) -> int:
    """How many of `total` fall to part `index` of `parts`, as equal as can be."""
    return total * (index + 1) // parts - total * index // parts


def _list(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
