"""The baseline of the UDP benchmark: asyncio's DatagramProtocol as shipped, in a process with nothing else in it.

It stands alone because what else a process has in its heap changes what the 256 KiB buffer of each datagram costs.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

REPLY = bytes(40)


class Protocol(asyncio.DatagramProtocol):
    """What a reader of the documentation would write."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        del data
        self._transport.sendto(REPLY, addr)


async def listen() -> asyncio.DatagramTransport:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Protocol, local_addr=("127.0.0.1", 0))
    return transport


async def serve(transport: asyncio.DatagramTransport) -> None:
    """Print the port, then answer until stdin ends."""
    ended = asyncio.Event()
    sys.stdout.write(f"{transport.get_extra_info('sockname')[1]}\n")
    sys.stdout.flush()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    transport.close()


async def main() -> None:
    await serve(await listen())


if __name__ == "__main__":
    asyncio.run(main())
