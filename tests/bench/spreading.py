"""Two workers against one: Map-Requests from several addresses at once, which the kernel spreads over the workers.

The load takes CPU time of its own: on a machine of two cores the ratio of the rates says how little is left for a
second worker. What the daemon itself gains says `capacity_ratio`: CPU time of a request with one worker, by what the
busier of two spends on it; the ratio of the rates where every process has a core.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from tests.bench import harness
from tests.bench.answering import ITR, LIMITS, RECORDS, free_port, question
from tests.bench.registering import EIDS, XTR, daemon, messages

FLOWS = 4


def run(rounds: int = 5, count: int = 8000) -> dict[str, object]:
    rates: dict[int, list[float]] = {1: [], 2: []}
    spent: dict[int, list[list[float]]] = defaultdict(list)
    limits = "".join(f"{name} = {value}\n" for name, value in LIMITS.items())
    nonces = itertools.count(1)
    with ExitStack() as stack:
        generators = [stack.enter_context(harness.generator()) for _ in range(FLOWS)]
        daemons = {number: stack.enter_context(daemon(limits=limits, workers=number)) for number in rates}
        for _, port in daemons.values():
            setup = messages(EIDS // RECORDS, RECORDS, nonces, [1])
            generators[0].load(port, setup, count=len(setup), local=(XTR, port), window=16)
        flows = []
        for _ in range(FLOWS):
            local = free_port()
            chosen = random.Random(local).choices(range(EIDS), k=count)
            flows.append((local, [question(0x0A000000 + eid, local, next(nonces)) for eid in chosen]))
        pool = stack.enter_context(ThreadPoolExecutor(FLOWS))
        for _ in range(rounds):
            for number, (pid, port) in daemons.items():
                workers = [pid, *_children(pid)]
                before = [harness.process_cpu(each) for each in workers]
                rate, received = _rate(pool, generators, flows, port)
                after = [harness.process_cpu(each) for each in workers]
                rates[number].append(rate)
                spent[number].append([(end - start) / received * 1e6 for start, end in zip(before, after, strict=True)])
    ratios = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    return {
        "workers2": {
            "request_rate_ratio": round(median(ratios), 2),
            "rate": round(median(rates[2])),
            "rate_of_one": round(median(rates[1])),
            "capacity_ratio": round(
                median(max(one) / max(two) for one, two in zip(spent[1], spent[2], strict=True)), 2
            ),
            "cpu_us": round(median(map(sum, spent[2])), 2),
            "cpu_us_of_one": round(median(map(sum, spent[1])), 2),
        }
    }


def _rate(
    pool: ThreadPoolExecutor,
    generators: Sequence[harness.Generator],
    flows: Sequence[tuple[int, list[bytes]]],
    port: int,
) -> tuple[float, int]:
    def one(generator: harness.Generator, flow: tuple[int, list[bytes]]) -> int:
        local, questions = flow
        return generator.load(port, questions, count=len(questions), local=(ITR, local), window=32).received

    started = time.perf_counter()
    received = sum(pool.map(one, generators, flows))
    return received / (time.perf_counter() - started), received


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]
