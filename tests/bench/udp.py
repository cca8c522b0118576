"""UDP endpoints: CPU time of the server process for a request and its reply, with a trivial handler.

One server of each kind and loop stands ready, and the load goes to each in turn, several times over.
"""

from __future__ import annotations

from contextlib import ExitStack
from statistics import median

from tests.bench.harness import generator, process_cpu, server

REQUESTS = [bytes([number]) * 64 for number in range(64)]
ENDPOINTS = {
    # asyncio's DatagramProtocol as shipped, alone in a process: the baseline
    "protocol": ("tests.bench.echo_shipped",),
    # the same in a process that has our packages loaded: its heap happens to make the baseline cheaper
    "protocol_loaded": ("tests.bench.echo", "protocol", "asyncio"),
    "protocol_loaded_uvloop": ("tests.bench.echo", "protocol", "uvloop"),
    **{kind: ("tests.bench.echo", kind, "asyncio") for kind in ("dgram", "drained", "batched")},
    **{f"{kind}_uvloop": ("tests.bench.echo", kind, "uvloop") for kind in ("dgram", "drained", "batched")},
}


def run(*, rounds: int = 5, count: int = 15_000) -> dict[str, dict[str, float]]:
    """By endpoint: `cpu_us_per_request`."""
    taken: dict[str, list[float]] = {name: [] for name in ENDPOINTS}
    with ExitStack() as stack:
        load = stack.enter_context(generator()).load
        servers = {name: stack.enter_context(server(*command)) for name, command in ENDPOINTS.items()}
        for _, port in servers.values():
            load(port, REQUESTS, count=min(count, 1000))
        for _ in range(rounds):
            for name, (pid, port) in servers.items():
                before = process_cpu(pid)
                received = load(port, REQUESTS, count=count).received
                taken[name].append((process_cpu(pid) - before) / max(1, received) * 1e6)
    return {name: {"cpu_us_per_request": round(median(each), 2)} for name, each in taken.items()}
