"""The real Map-Server daemon as the benchmarks run it: `python -m tests.bench.mapserver_daemon FILE`.

Prints its UDP port once it is ready; the end of its stdin ends it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

from lispfmc.runtime import config, logs, service
from mapserver.daemon import Daemon
from mapserver.settings import MapServerSettings


async def main(path: Path) -> None:
    settings = config.load(path, MapServerSettings)
    logs.configure(settings.log)
    daemon = Daemon(settings, path)
    await daemon.start()
    service.settle()
    if settings.workers > 1:
        while daemon.status()["workers"] != settings.workers:  # noqa: ASYNC110 - another process: it can only be asked
            await asyncio.sleep(0.1)
        await asyncio.sleep(1.0)  # until its socket is bound
    sys.stdout.write(f"{settings.port}\n")
    sys.stdout.flush()
    try:
        await asyncio.to_thread(sys.stdin.read)
    finally:
        await daemon.close()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
