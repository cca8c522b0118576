"""What every benchmark here needs: interleaved timing in CPU time, servers and load as processes of their own, results.

Absolute figures depend on the machine and on its neighbours, ratios of one run hardly: variants that are compared take
turns, many short rounds each, and the median counts. Nothing here passes or fails.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from timeit import Timer
from typing import IO, Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("construct", "msgspec", "uvloop", "asyncio-dgram")


class Call(NamedTuple):
    """One variant of a micro-benchmark: `function(argument)`, again and again."""

    function: Callable[[Any], object]
    argument: Any


class Timings(NamedTuple):
    """Microseconds of CPU a call, by variant, one for each round."""

    rounds: Mapping[str, Sequence[float]]

    def us(self, variant: str) -> float:
        return round(median(self.rounds[variant]), 3)

    def ratio(self, slow: str, fast: str) -> float:
        """How many times longer `slow` takes, round by round, so that what slows both down does not count."""
        pairs = zip(self.rounds[slow], self.rounds[fast], strict=True)
        return round(median(one / other for one, other in pairs), 1)


def timed(calls: Mapping[str, Call], *, rounds: int = 15, round_s: float = 0.004) -> Timings:
    """Each variant in turn, `rounds` times over, `round_s` seconds at a time; the empty loop's time is taken off."""
    empty = Timer("pass", timer=time.thread_time)
    timers = {
        name: Timer("function(argument)", globals=call._asdict(), timer=time.thread_time)
        for name, call in calls.items()
    }
    numbers = {name: max(1, int(round_s / _first_us(timer) * 1e6)) for name, timer in timers.items()}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, timer in timers.items():
            number = numbers[name]
            taken[name].append((timer.timeit(number) - empty.timeit(number)) / number * 1e6)
    return Timings(taken)


def _first_us(timer: Timer) -> float:
    number = 1
    while (seconds := timer.timeit(number)) < 0.001:
        number *= 4
    return seconds / number * 1e6


def process_cpu(pid: int) -> float:
    """CPU seconds that a process has used: its kernel clock, to the nanosecond, without its help."""
    return time.clock_gettime(~pid << 3 | 2)  # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of the kernel


@contextmanager
def module(*command: str) -> Iterator[tuple[subprocess.Popen[str], IO[str], IO[str]]]:
    """Run `python -m command` with its stdin and stdout as pipes. The end of its stdin ends it."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, process.stdin, process.stdout
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


@contextmanager
def server(*command: str) -> Iterator[tuple[int, int]]:
    """A server that prints its UDP port once it listens: its pid and its port."""
    with module(*command) as (process, _, out):
        yield process.pid, int(out.readline())


class Load(NamedTuple):
    """What the load generator saw."""

    received: int
    lost: int
    seconds: float


class Generator:
    """The load generator, in a process of its own. Made by `generator`."""

    def __init__(self, to: IO[str], answers: IO[str]) -> None:
        self._to = to
        self._answers = answers

    def load(self, port: int, requests: Sequence[bytes], *, count: int, window: int = 128) -> Load:
        """`count` requests to a server on this machine, `window` of them under way at a time."""
        hexadecimal = [each.hex() for each in requests]
        job = {"host": "127.0.0.1", "port": port, "requests": hexadecimal, "count": count, "window": window}
        self._to.write(json.dumps(job) + "\n")
        self._to.flush()
        return Load(**json.loads(self._answers.readline()))


@contextmanager
def generator() -> Iterator[Generator]:
    """A load generator that is ready."""
    with module("tests.bench.load") as (_, to, answers):
        yield Generator(to, answers)


def environment() -> dict[str, object]:
    """What the figures depend on."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": _git(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: version(name) for name in PACKAGES},
        "kernel": f"{platform.system()} {platform.release()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load": [round(each, 2) for each in os.getloadavg()],
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _git() -> str | None:
    """The revision, with "-dirty" when the tree differs from it; None outside a repository."""
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()


def write(path: Path, results: Mapping[str, object], before: Mapping[str, object]) -> None:
    """The artefact: results and the environment as it was `before`, with the load at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    load_after = [round(each, 2) for each in os.getloadavg()]
    whole = {**results, "environment": {**before, "load_after": load_after}}
    path.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
