"""Somebody who watches a daemon: `python -m tests.bench.watcher SOCKET`. Scrapes its metrics every second and follows
its events. Prints a line once it has begun; the end of its stdin ends it, and it prints what it has seen as JSON."""

from __future__ import annotations

import asyncio
import json
import sys

from lispfmc.runtime.client import ApiClient

EVERY_S = 1.0


async def main(listen: str) -> None:
    scrapes = events = 0
    begun = asyncio.Event()

    async def scrape() -> None:
        nonlocal scrapes
        while True:
            async with ApiClient(listen) as api:
                await api.get("/metrics")
            scrapes += 1
            begun.set()
            await asyncio.sleep(EVERY_S)

    async def follow() -> None:
        nonlocal events
        async with ApiClient(listen) as api:
            async for _ in api.events():
                events += 1

    tasks = [asyncio.create_task(scrape()), asyncio.create_task(follow())]
    await begun.wait()
    sys.stdout.write("watching\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    sys.stdout.write(json.dumps({"scrapes": scrapes, "events": events}) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
