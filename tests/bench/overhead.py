"""What it costs a Map-Server's requests that somebody watches: its metrics every second, and every event.

The daemon's own process over loopback answers the same questions with and without a watcher, in turns. `requests`:
nothing but questions. `changes`: every thousandth message is a Map-Register that changes a mapping, which is an event.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from tests.bench import harness
from tests.bench.answering import LIMITS, RECORDS, question
from tests.bench.registering import EIDS, XTR, daemon, measured, message, messages

CHANGE_EVERY = 1000  # messages


def run(rounds: int = 9, count: int = 100_000) -> dict[str, object]:
    """`percent`: by how much a watcher slows requests down, by CPU time and by rate; what it has seen, in the mean."""
    nonces = itertools.count(1)
    limits = "".join(f"{name} = {value}\n" for name, value in LIMITS.items())
    with harness.generator() as generator, daemon(limits=limits) as (pid, port):
        setup = messages(EIDS // RECORDS, RECORDS, nonces, [1])
        generator.load(port, setup, count=len(setup), local=(XTR, port), window=16)
        chosen = random.Random(1).choices(range(EIDS), k=count)
        asked = [question(0x0A000000 + eid, port, next(nonces), XTR) for eid in chosen]
        measured(generator, pid, port, asked, 1)  # the first one warms up
        return {
            "requests": _compared(generator, pid, port, itertools.repeat(asked), rounds),
            "changes": _compared(generator, pid, port, _changing(asked, nonces), rounds),
            "change_every": CHANGE_EVERY,
            "limits": LIMITS,
        }


def _changing(asked: list[bytes], nonces: Iterator[int]) -> Iterator[list[bytes]]:
    """The questions with changes among them, and each time other ones: a repeated message would change nothing."""
    for weight in itertools.cycle(range(2, 250)):
        mixed = asked[:]
        for at in range(0, len(mixed), CHANGE_EVERY):
            mixed[at] = message(at % EIDS, 1, next(nonces), weight)
        yield mixed


def _compared(
    generator: harness.Generator, pid: int, port: int, loads: Iterator[Sequence[bytes]], rounds: int
) -> dict[str, object]:
    alone: list[dict[str, float]] = []
    watched: list[dict[str, float]] = []
    seen: list[dict[str, float]] = []
    for turn in range(rounds):
        for variant in (alone, watched) if turn % 2 else (watched, alone):
            load = next(loads)
            if variant is alone:
                alone.append(measured(generator, pid, port, load, 1))
                continue
            with _watcher(pid) as told:
                watched.append(measured(generator, pid, port, load, 1))
            seen.append(told)
    ratios = {
        "cpu_percent": [with_["cpu_us"] / without["cpu_us"] - 1 for with_, without in zip(watched, alone, strict=True)],
        "rate_percent": [1 - with_["rate"] / without["rate"] for with_, without in zip(watched, alone, strict=True)],
    }
    return {
        **{name: round(median(each) * 100, 2) for name, each in ratios.items()},
        "alone": {key: median(each[key] for each in alone) for key in ("rate", "cpu_us", "lost")},
        "watched": {key: median(each[key] for each in watched) for key in ("rate", "cpu_us", "lost")},
        "seen": {key: median(each[key] for each in seen) for key in ("scrapes", "events")},
    }


@contextmanager
def _watcher(pid: int) -> Iterator[dict[str, float]]:
    """Somebody watches the daemon meanwhile; what it has seen is in the result afterwards."""
    # the daemon's last argument is its configuration, beside its socket
    config = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[-2].decode()
    told: dict[str, float] = {}
    with harness.module("tests.bench.watcher", f"unix:{Path(config).parent}/api.sock") as (_, to, out):
        assert out.readline() == "watching\n"
        yield told
        to.close()
        told |= json.loads(out.readline())
