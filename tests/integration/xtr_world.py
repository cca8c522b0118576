"""Two whole tunnel routers and a Map-Server as daemons of this process, in the namespaces of `planes`."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mapserver.daemon import Daemon as MapServerDaemon
from mapserver.settings import MapServerSettings
from tests.integration.planes import RLOC, inside, named, run
from xtr.daemon import Daemon as XtrDaemon
from xtr.settings import XtrSettings

MAPSERVER = "198.18.0.1"
PREFIXES = {
    "access": ["100.64.1.0/24", "fd00:0:0:1::/64"],
    "cloud": ["100.64.101.0/24", "fd00:0:0:101::/64"],
}
USERS = ["100.64.0.0/19", "fd00:0:0:0::/58"]


def xtr_values(name: str, folder: Path) -> dict[str, Any]:
    """What the router's configuration file says."""
    return {
        "name": name,
        "rlocs": RLOC[name],
        "prefixes": PREFIXES[name],
        "map_servers": [
            {
                "address": MAPSERVER,
                "key_id": 1,
                "secret": f"site-{name}",
                "subscription": {"key_id": 4, "secret": f"publications-{name}"},
            }
        ],
        "dynamic": [{"prefix": each, "mobility": "presence"} for each in (USERS if name == "access" else [])],
        "dataplane": {"kind": "tun", "eid_ranges": ["100.64.0.0/10", "fd00::/8"]},
        "api": {"listen": f"unix:{folder}/{name}.sock"},
    }


def mapserver_settings(folder: Path) -> MapServerSettings:
    return MapServerSettings.model_validate(
        {
            "name": "mapserver",
            "listen": [MAPSERVER],
            "sites": [
                {
                    "name": name,
                    "key_id": 1,
                    "secret": f"site-{name}",
                    "prefixes": PREFIXES[name],
                    "roaming": USERS if name == "access" else [],
                }
                for name in PREFIXES
            ],
            "subscribers": [
                {
                    "name": name,
                    "key_id": 4,
                    "secret": f"publications-{name}",
                    "ranges": ["100.64.0.0/10", "fd00::/8"],
                    "address": RLOC[name],
                }
                for name in PREFIXES
            ],
            "mobility_ranges": [{"prefix": each} for each in USERS],
            "api": {"listen": f"unix:{folder}/mapserver.sock"},
        }
    )


@asynccontextmanager
async def world(
    folder: Path, *, routers: Iterable[str] = tuple(PREFIXES), **changes: dict[str, Any]
) -> AsyncIterator[dict[str, XtrDaemon]]:
    """`routers`, running, and a Map-Server; `changes` are settings of each router."""
    run(f"ip -n {named('cloud')} addr replace {MAPSERVER}/24 dev wan0")
    server = MapServerDaemon(mapserver_settings(folder))
    values = {name: xtr_values(name, folder) | changes.get(name, {}) for name in routers}
    xtrs = {name: XtrDaemon(XtrSettings.model_validate(each)) for name, each in values.items()}
    try:
        with inside("cloud"):
            await server.start()
        for name, xtr in xtrs.items():
            with inside(name):
                await xtr.start()
        yield xtrs
    finally:
        for xtr in xtrs.values():
            await xtr.close()
        await server.close()
        run(f"ip -n {named('cloud')} addr del {MAPSERVER}/24 dev wan0")


async def ping(namespace: str, source: str, target: str) -> str:
    """Three echo requests; what `ping` says of them."""
    process = await asyncio.create_subprocess_exec(
        *f"ip netns exec {named(namespace)} ping -n -c 3 -i 0.2 -W 2 -I {source} {target}".split(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return output.decode()
