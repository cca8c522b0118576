"""Recorded positions (latitude, longitude, time) as journeys over hexagons. A wrong line is refused by its number.

CSV, one position a line, in the order of time for each user; a header names the columns `lat`, `lon`, `time` and, when
several users are in the file, `user`. Time is in seconds, or ISO 8601. A long silence ends a session.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fmcc.policy.models.arrays import Floats, Integers
from fmcc.policy.models.checks import amount
from fmcc.policy.simulation.faults import TraceError
from fmcc.policy.simulation.journeys import Cells

EARTH_M = 6_371_008.8
HEXAGON_M = 500.0
SESSION_GAP_S = 900.0
COLUMNS: Mapping[str, str] = {
    "lat": "lat",
    "latitude": "lat",
    "lon": "lon",
    "lng": "lon",
    "long": "lon",
    "longitude": "lon",
    "time": "time",
    "timestamp": "time",
    "user": "user",
    "id": "user",
}
NEEDED = ("lat", "lon", "time")


@dataclass(frozen=True)
class Position:
    line: int
    user: str
    lat: float
    lon: float
    time: float


@dataclass(frozen=True)
class Gap:
    """A silence that ended a session."""

    line: int
    user: str
    seconds: float


@dataclass(frozen=True)
class Trace:
    """The journeys of the users with a handover at least, the silences between sessions, and who made none."""

    journeys: Mapping[str, Cells]
    gaps: Sequence[Gap]
    still: Sequence[str]


def load(
    path: Path, *, hexagon_m: float = HEXAGON_M, session_gap_s: float = SESSION_GAP_S, refuse_gaps: bool = False
) -> Trace:
    """The journeys in a file. Raises TraceError. `hexagon_m` is from one cell's centre to the next one's."""
    amount("the hexagon", hexagon_m, positive=True)
    amount("the session gap", session_gap_s, positive=True)
    by_user: dict[str, list[Position]] = {}
    gaps: list[Gap] = []
    for position in positions(path):
        known = by_user.setdefault(position.user, [])
        if known:
            gap = _follows(path, known[-1], position, session_gap_s)
            if gap is not None and refuse_gaps:
                why = f"{gap.seconds:.6g} s without a position; fill the gap or split the trace"
                raise TraceError(path, gap.line, why)
            gaps += [gap] if gap is not None else []
        known.append(position)
    if not by_user:
        raise TraceError(path, None, "no position in it; give lines of lat,lon,time")
    journeys = {user: _journey(known, hexagon_m, session_gap_s) for user, known in by_user.items()}
    moving = {user: journey for user, journey in journeys.items() if journey.handovers}
    if not moving:
        raise TraceError(
            path,
            None,
            f"nobody leaves a hexagon of {hexagon_m:g} m within a session; use smaller ones, or a longer gap",
        )
    return Trace(moving, gaps, sorted(journeys.keys() - moving.keys()))


def positions(path: Path) -> Iterator[Position]:
    """The lines of a file. Raises TraceError."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            yield from _parsed(path, csv.reader(stream))
    except OSError as error:
        raise TraceError(path, None, f"cannot be read, {error.strerror}; give a file of lat,lon,time") from error
    except UnicodeDecodeError as error:
        raise TraceError(path, None, f"is no text: {error.reason}; give a file of lat,lon,time") from error


def _parsed(path: Path, rows: Iterable[list[str]]) -> Iterator[Position]:
    columns: list[str] | None = None
    for line, row in enumerate(rows, 1):
        fields = [field.strip() for field in row]
        if not any(fields) or fields[0].startswith("#"):
            continue
        if columns is None:
            header = [field.lower() for field in fields]
            columns = _columns(path, line, header) if any(field in COLUMNS for field in header) else list(NEEDED)
            if header[0] in COLUMNS:
                continue
        if len(fields) != len(columns):
            names = ",".join(columns)
            raise TraceError(path, line, f"{len(fields)} fields instead of {len(columns)} ({names}); correct it")
        yield _position(path, line, dict(zip(columns, fields, strict=True)))


def _columns(path: Path, line: int, header: list[str]) -> list[str]:
    columns = [COLUMNS.get(field, "") for field in header]
    missing = [name for name in NEEDED if name not in columns]
    twice = [name for name in (*NEEDED, "user") if columns.count(name) > 1]
    if missing or twice:
        what = f"no column {missing[0]}" if missing else f"two columns {twice[0]}"
        raise TraceError(path, line, f"{what}; the header names lat, lon, time and perhaps user")
    return columns


def _position(path: Path, line: int, fields: Mapping[str, str]) -> Position:
    lat, lon = (_degrees(path, line, name, fields[name], most) for name, most in (("lat", 90.0), ("lon", 180.0)))
    return Position(line, fields.get("user", ""), lat, lon, _seconds(path, line, fields["time"]))


def _degrees(path: Path, line: int, name: str, text: str, most: float) -> float:
    value = _number(text)
    if value is None:
        raise TraceError(path, line, f"{name} is {text!r}, no number; give degrees" if text else f"{name} is empty")
    if abs(value) > most:
        raise TraceError(path, line, f"{name} is {text}, beyond {most:g} degrees; are lat and lon interchanged?")
    return value


def _seconds(path: Path, line: int, text: str) -> float:
    value = _number(text)
    if value is not None:
        return value
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise TraceError(path, line, f"time is {text!r}; give seconds, or ISO 8601 as 2008-05-17T10:00:00") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _follows(path: Path, before: Position, after: Position, session_gap_s: float) -> Gap | None:
    """Time goes on. A silence of more than the session gap is returned."""
    who = f" of {after.user}" if after.user else ""
    if after.time == before.time:
        same = (after.lat, after.lon) == (before.lat, before.lon)
        what = "the same position" if same else "another position"
        raise TraceError(path, after.line, f"{what}{who} at the time of line {before.line}; remove one of them")
    if after.time < before.time:
        back = before.time - after.time
        why = f"time{who} goes back by {back:.6g} s from line {before.line}; sort the trace by time"
        raise TraceError(path, after.line, why)
    seconds = after.time - before.time
    return Gap(after.line, after.user, seconds) if seconds > session_gap_s else None


def _journey(known: Sequence[Position], hexagon_m: float, session_gap_s: float) -> Cells:
    cells = hexagons(np.array([each.lat for each in known]), np.array([each.lon for each in known]), hexagon_m)
    times = np.array([each.time for each in known])
    begins = np.concatenate([[True], np.diff(times) > session_gap_s])
    changed = np.concatenate([[True], (np.diff(cells, axis=0) != 0).any(axis=1)])
    kept = begins | changed  # where the user stays in its cell nothing is handed over
    return Cells(cells[kept][None], begins[kept])


def hexagons(lat: Floats, lon: Floats, hexagon_m: float) -> Integers:
    """Axial coordinates of the cells that positions lie in, flat around the first one: traces are of one city."""
    north = np.radians(lat - lat[0]) * EARTH_M
    apart = (lon - lon[0] + 180.0) % 360.0 - 180.0  # across the date line the short way
    east = np.radians(apart) * EARTH_M * math.cos(math.radians(float(lat[0])))
    r = north / (hexagon_m * math.sqrt(3) / 2)
    q = east / hexagon_m - r / 2
    # round the three cube coordinates, then mend the one that was farthest off: they must sum to 0
    s = -q - r
    rounded = np.stack([np.rint(q), np.rint(r), np.rint(s)])
    off = np.abs(rounded - np.stack([q, r, s]))
    worst = off.argmax(axis=0)
    mended_q = np.where(worst == 0, -rounded[1] - rounded[2], rounded[0])
    mended_r = np.where(worst == 1, -rounded[0] - rounded[2], rounded[1])
    return np.stack([mended_q, mended_r], axis=-1).astype(np.int64)
