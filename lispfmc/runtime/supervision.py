"""What a service manager is told of a daemon (sd_notify(3)): that it is up, that its loop turns, that it ends.

Without one, nothing happens. A datagram to the socket that the manager names is all of the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator


def tell(state: str) -> bool:
    """Send `state` ("READY=1") to the service manager. False: there is none that listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        try:
            out.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)
        except OSError:  # it went away; a daemon does not end because nobody watches
            return False
    return True


def watchdog_s() -> float | None:
    """How long this process may be silent before the service manager restarts it; None: it is not watched."""
    period = os.environ.get("WATCHDOG_USEC", "")
    watched = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(period) / 1e6 if watched and period.isdecimal() and int(period) > 0 else None


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[None]:
    """While inside, the event loop says that it turns: twice in each watchdog period (sd_watchdog_enabled(3))."""
    period = watchdog_s()
    if period is None:
        yield
        return
    turning = asyncio.create_task(_turn(period / 2))
    try:
        yield
    finally:
        turning.cancel()


async def _turn(every_s: float) -> None:
    while True:
        tell("WATCHDOG=1")
        await asyncio.sleep(every_s)
