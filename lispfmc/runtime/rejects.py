"""Refused packets and bugs: counted always, logged once per cause in a while, the last ones kept to be looked at."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import msgspec
import structlog

from lispfmc.wire.address import Endpoint

RECENT = 256
LOG_AGAIN_AFTER = 60.0  # seconds: a flood of one kind is one line a minute and source
MAX_LOGGED_CAUSES = 1024  # spoofed source addresses must not grow this table; when full it starts anew
MAX_HEX = 1500  # bytes of a datagram that a bug report shows


class Rejected(msgspec.Struct, frozen=True):
    """One refused packet. `time` is unix time in seconds."""

    time: float
    reason: str
    source: str
    detail: str


class Rejects:
    """Counter per reason, the recent ones, and the count of bugs (exceptions that nobody expected)."""

    def __init__(self, *, wall_clock: Callable[[], float] = time.time) -> None:
        self.counts: dict[str, int] = {}
        self.bugs = 0
        self._recent: deque[Rejected] = deque(maxlen=RECENT)
        self._logged_at: dict[tuple[str, str], float] = {}
        self._wall_clock = wall_clock
        self._log = structlog.get_logger("rejects")

    def add(self, reason: str, source: Endpoint, detail: str = "") -> None:
        """A packet from `source` was refused for `reason`, one of a fixed set of words."""
        rejected = Rejected(self._wall_clock(), reason, str(source), detail)
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self._recent.append(rejected)
        if self._first_in_a_while((reason, rejected.source)):
            self._log.warning("packet.rejected", reason=reason, source=rejected.source, detail=detail)

    def bug(self, error: Exception, *, doing: str, source: Endpoint | None = None, datagram: bytes = b"") -> None:
        """An exception that is our fault. Logged with its traceback and the datagram that brought it about."""
        self.bugs += 1
        frame = error.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        where = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame else ""
        if self._first_in_a_while((type(error).__name__, where)):
            shown = datagram[:MAX_HEX].hex()
            self._log.error("bug", doing=doing, source=str(source), datagram=shown, exc_info=error)

    def recent(self) -> list[Rejected]:
        """The last refused packets, oldest first."""
        return list(self._recent)

    def _first_in_a_while(self, cause: tuple[str, str]) -> bool:
        now = self._wall_clock()
        if now - self._logged_at.get(cause, -LOG_AGAIN_AFTER) < LOG_AGAIN_AFTER:
            return False
        if len(self._logged_at) >= MAX_LOGGED_CAUSES:
            self._logged_at.clear()
        self._logged_at[cause] = now
        return True
