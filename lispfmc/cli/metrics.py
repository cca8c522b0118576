"""`lispfmc lab metrics`: the daemons' metrics for a Prometheus, until it is interrupted."""

from __future__ import annotations

import asyncio

from lispfmc.cli.failure import DONE
from lispfmc.cli.output import Format, print_json, print_text, say
from lispfmc.lab.exposition import Exposition


async def metrics(listen: str, name: str | None, *, output: Format) -> int:
    """Says where, and serves. Labs may come and go meanwhile."""
    exposition = Exposition(name)
    port = await exposition.start(listen)
    url = f"http://{listen.rpartition(':')[0]}:{port}/targets"
    try:
        if output is Format.json:
            print_json({"targets": url})
        else:
            print_text(url)
            say("now: prometheus --config.file deploy/prometheus/prometheus.yml (Ctrl-C ends this)")
        await asyncio.Event().wait()
    finally:
        await exposition.close()
    return DONE
