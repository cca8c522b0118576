"""Two workers against one: Map-Requests from several addresses at once, which the kernel spreads over the workers.

The load takes CPU time of its own: on a machine of two cores the ratio says how little is left for a second worker.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from statistics import median

from tests.bench import harness
from tests.bench.answering import ITR, LIMITS, RECORDS, free_port, question
from tests.bench.registering import EIDS, XTR, daemon, messages

FLOWS = 4


def run(rounds: int = 5, count: int = 8000) -> dict[str, object]:
    rates: dict[int, list[float]] = {1: [], 2: []}
    limits = "".join(f"{name} = {value}\n" for name, value in LIMITS.items())
    nonces = itertools.count(1)
    with ExitStack() as stack:
        generators = [stack.enter_context(harness.generator()) for _ in range(FLOWS)]
        ports = {number: stack.enter_context(daemon(limits=limits, workers=number))[1] for number in rates}
        for port in ports.values():
            setup = messages(EIDS // RECORDS, RECORDS, nonces, [1])
            generators[0].load(port, setup, count=len(setup), local=(XTR, port), window=16)
        flows = []
        for _ in range(FLOWS):
            local = free_port()
            chosen = random.Random(local).choices(range(EIDS), k=count)
            flows.append((local, [question(0x0A000000 + eid, local, next(nonces)) for eid in chosen]))
        pool = stack.enter_context(ThreadPoolExecutor(FLOWS))
        for _ in range(rounds):
            for number, port in ports.items():
                rates[number].append(_rate(pool, generators, flows, port))
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    return {
        "workers2": {
            "request_rate_ratio": round(median(ratios), 2),
            "rate": round(median(rates[2])),
            "rate_of_one": round(median(rates[1])),
        }
    }


def _rate(
    pool: ThreadPoolExecutor,
    generators: Sequence[harness.Generator],
    flows: Sequence[tuple[int, list[bytes]]],
    port: int,
) -> float:
    def one(generator: harness.Generator, flow: tuple[int, list[bytes]]) -> int:
        local, questions = flow
        return generator.load(port, questions, count=len(questions), local=(ITR, local), window=32).received

    started = time.perf_counter()
    received = sum(pool.map(one, generators, flows))
    return received / (time.perf_counter() - started)
