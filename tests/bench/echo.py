"""The server of the UDP benchmark: `python -m tests.bench.echo ENDPOINT LOOP` answers every datagram with 40 bytes.

Prints its port when it listens; ends when its stdin does. "protocol" is the baseline in a process like the others'.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import uvloop

from lispfmc.runtime.udp import UdpSocket, open_batched, open_dgram, open_drained
from lispfmc.wire.address import Endpoint, ip_of
from tests.bench import echo_shipped

REPLY = echo_shipped.REPLY
LOCAL = Endpoint(ip_of("127.0.0.1"), 0)
OPEN: dict[str, Callable[..., Any]] = {"dgram": open_dgram, "drained": open_drained, "batched": open_batched}
LOOPS: dict[str, Callable[..., Any]] = {"asyncio": asyncio.run, "uvloop": uvloop.run}


async def serve(kind: str) -> None:
    """Print the port, then answer until stdin ends."""
    ended = asyncio.Event()
    endpoint: UdpSocket = await OPEN[kind](LOCAL, lambda _data, source: endpoint.send(REPLY, source))
    sys.stdout.write(f"{endpoint.local.port}\n")
    sys.stdout.flush()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    endpoint.close()
    await asyncio.sleep(0)  # a transport closes in the loop's next turn


if __name__ == "__main__":
    LOOPS[sys.argv[2]](echo_shipped.main() if sys.argv[1] == "protocol" else serve(sys.argv[1]))
