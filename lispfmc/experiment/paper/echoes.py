"""Round-trip times from a user to its service, by UDP echo: one a second as the papers' pings, 1,000 beside them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from lispfmc.experiment.statistics import median
from lispfmc.lab.analysis import NS_PER_MS
from lispfmc.lab.installation import NodeEntry
from lispfmc.runtime.node_client import call

FINE_US, PING_US = 1_000, 1_000_000
_RECORD = struct.Struct("<QQQ")


class Answer(msgspec.Struct, frozen=True):
    """One probe that was answered."""

    number: int
    sent_ns: int
    received_ns: int

    @property
    def rtt_ms(self) -> float:
        return (self.received_ns - self.sent_ns) / NS_PER_MS


class Echoes:
    """`async with Echoes(user, eid, folder) as echoes: ...`, then `fine` and `pings`."""

    def __init__(self, user: NodeEntry, eid: str, folder: Path, *, pings: bool = True) -> None:
        self._user, self._eid, self._folder = user, eid, folder
        self._kinds = {"fine": FINE_US} | ({"pings": PING_US} if pings else {})
        self.fine: Sequence[Answer] = ()
        self.pings: Sequence[Answer] = ()

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        for kind, interval_us in self._kinds.items():
            request = {"do": "rtt.start", "id": kind, "peer": self._eid, "interval_us": interval_us}
            await call(self._user.socket, {**request, "log": str(self._folder / kind)})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for each in self._kinds:
            await call(self._user.socket, {"do": "rtt.stop", "id": each})
        self.fine = read(self._folder / "fine")
        self.pings = read(self._folder / "pings") if "pings" in self._kinds else ()


def read(path: Path) -> list[Answer]:
    """In the order in which they came."""
    data = path.read_bytes()
    return [Answer(*record) for record in _RECORD.iter_unpack(data[: len(data) // 24 * 24])]


def typical_ms(answers: Sequence[Answer], begin_ns: int, end_ns: int) -> float | None:
    """The median of what was sent in between; None when nothing was answered."""
    between = [each.rtt_ms for each in answers if begin_ns <= each.sent_ns < end_ns]
    return round(median(between), 3) if between else None


def silence_ms(answers: Sequence[Answer], begin_ns: int, end_ns: int) -> float | None:
    """The longest time without an answer, less the interval; None when there were no two."""
    times = sorted(each.received_ns for each in answers if begin_ns <= each.received_ns < end_ns)
    gaps = [other - one for one, other in pairwise(times)]
    return round(max(gaps) / NS_PER_MS - FINE_US / 1000, 3) if gaps else None


def unanswered(answers: Sequence[Answer], begin_ns: int, end_ns: int) -> int:
    """How many of the probes between the first and the last answered one of the time have no answer."""
    numbers = {each.number for each in answers if begin_ns <= each.sent_ns < end_ns}
    return max(numbers) - min(numbers) + 1 - len(numbers) if numbers else 0


def curve(answers: Sequence[Answer], begin_ns: int, bucket_ms: float) -> list[tuple[float, float, float, float, int]]:
    """By buckets of the time of sending: seconds, least, median, greatest round-trip time, and how many answers."""
    buckets: dict[int, list[float]] = {}
    for each in answers:
        buckets.setdefault(int((each.sent_ns - begin_ns) / NS_PER_MS // bucket_ms), []).append(each.rtt_ms)
    return [
        (round(at * bucket_ms / 1000, 3), min(rtts), median(rtts), max(rtts), len(rtts))
        for at, rtts in sorted(buckets.items())
    ]
