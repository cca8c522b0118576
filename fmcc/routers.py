"""What the sites' tunnel routers tell of packets in moves, and whether they answer: read from their event streams.

Only where `[[sites]] api` says how to reach a router's own HTTP API. Nothing that a move needs depends on it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

from fmcc.parts import Parts
from lispfmc.runtime.client import STRANGE, ApiClient, not_ours
from lispfmc.runtime.events import EventLog

PACKETS = "move.packets"
COUNTED = ("held", "forwarded", "replayed", "lost")
MOVES_KEPT = 256
AGAIN_S = 1.0


class Routers:
    """One client a site."""

    def __init__(self, clients: Mapping[str, ApiClient], parts: Parts, events: EventLog) -> None:
        self._clients = clients
        self._parts = parts
        self._events = events
        self._packets: OrderedDict[str, Counter[str]] = OrderedDict()
        for site in clients:
            parts.expect(site, "tunnel router")

    def packets(self, move: str) -> dict[str, int] | None:
        """What happened to the packets of a move, at both sites; None when no router has told of them."""
        counted = self._packets.get(move)
        return None if counted is None else {name: counted[name] for name in COUNTED}

    async def follow(self, site: str) -> None:
        """Take in the events of one router until cancelled."""
        client, last = self._clients[site], None
        while True:
            why = "it closed the connection"
            try:
                status = await client.get("/v1/status")
                last = int(status["last_event"]) if last is None else last
                self._parts.found(site, up=True)
                async for event in client.events(last):
                    last = int(event["id"])
                    self._take(site, event)
            except STRANGE as error:
                why = not_ours(client.listen, error)
            self._parts.found(site, up=False, why=why)
            await asyncio.sleep(AGAIN_S)

    def _take(self, site: str, event: Mapping[str, Any]) -> None:
        if event["name"] != PACKETS:
            return
        fields = event["fields"]
        move = str(fields["move"])
        counted = self._packets.setdefault(move, Counter())
        told = {name: int(fields.get(name, 0)) for name in COUNTED}
        counted.update(told)
        while len(self._packets) > MOVES_KEPT:
            self._packets.popitem(last=False)
        self._events.append(PACKETS, {"move": move, "site": site, **told})
