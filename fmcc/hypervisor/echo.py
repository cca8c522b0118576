"""Whether a machine lives: its own service answers. A hypervisor's "running" says nothing of the guest inside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time

from lispfmc.wire.address import Endpoint, ip_text

AGAIN_S = 0.02


async def answers(service: Endpoint, interface: str | None, within_s: float) -> bool:
    """Ask the UDP echo service until it answers or the time is over. `interface`: ask on that network only, whatever
    the routes say: the machine has to be here, and its site does not lead to it yet."""
    loop = asyncio.get_running_loop()
    question = os.urandom(16)  # an answer that is on its way from elsewhere is none
    until = time.monotonic() + within_s
    with socket.socket(socket.AF_INET if len(service.ip) == 4 else socket.AF_INET6, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0)
        if interface is not None:
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
        with contextlib.suppress(OSError):
            asking.connect((ip_text(service.ip), service.port))
        while time.monotonic() < until:
            with contextlib.suppress(OSError, TimeoutError):  # not reached yet
                asking.send(question)
                async with asyncio.timeout(AGAIN_S):
                    while await loop.sock_recv(asking, 64) != question:
                        pass
                    return True
            await asyncio.sleep(AGAIN_S / 4)
    return False
