"""Moves a user and follows what comes of it, as phases: the event streams of the Map-Server, of the controller and of
the data centres' tunnel routers.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from lispfmc.lab.installation import Installation, NodeEntry
from lispfmc.lab.phases import Outcome, Phase, Phases
from lispfmc.runtime.client import ApiClient
from lispfmc.runtime.node_client import call
from lispfmc.wire.errors import LocalError

AFTERMATH_S = 1.0  # acknowledgements may come after the commit: how long they are waited for
AT_THE_NODE = ("link_down", "link_up", "announced")
# A router is nearer than the controller that passes the hypervisors' words on: its own are told after those.
AFTER = {"frozen": "stop", "activated": "resume", "converging": "resume"}


class Follower:
    """`async with Follower(...) as follower:` listens from then on, so that nothing that `attach` causes is missed."""

    def __init__(
        self,
        lab: Installation,
        user: NodeEntry,
        site: str,
        service: str | None,
        on_phase: Callable[[Phase], None] = lambda _: None,
    ) -> None:
        self.phases = Phases(user.name, frozenset(_prefixes(user.eids)), site, service)
        self._user, self._site, self._on_phase, self._told = user, site, on_phase, set[str]()
        datacenters = {site for node in lab.nodes if node.role == "service" for site in node.sites}
        routers = [daemon for daemon in lab.of_role("xtr") if daemon.name in datacenters]
        followed = [lab.the("mapserver"), lab.the("fmcc"), *routers]
        self._apis = [daemon.client() for daemon in followed]
        self._changed = asyncio.Event()
        self._readers: list[asyncio.Task[None]] = []
        self._to_monotonic_ns = time.monotonic_ns() - time.time_ns()

    async def __aenter__(self) -> Self:
        for api in self._apis:
            # the position is asked for first: the stream then begins there, however long it takes to open
            last = int((await api.get("/v1/status"))["last_event"])
            self._readers.append(asyncio.create_task(self._read(api, last)))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        for api in self._apis:
            await api.close()

    async def attach(self) -> None:
        """Have the user's node move its link. Raises NodeError or Unreachable."""
        self.phases.attached(await call(self._user.socket, {"do": "attach", "site": self._site}))
        self._tell()

    async def until_over(self, timeout_s: float) -> None:
        """Return when the service has followed, or will not. Raises TimeoutError, or what broke a stream."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._until(lambda: self.phases.over)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AFTERMATH_S):
                    await self._until(self._is_whole)
        finally:
            self._tell(whole=True)

    def _is_whole(self) -> bool:
        """True when nothing is missing that comes by another stream, or after the commit."""
        at = self.phases.at_ns
        if at("registered") is None:
            return False
        if self.phases.outcome is not Outcome.committed:
            return True
        return at("acknowledged") is not None and (at("prepared") is None or at("converging") is not None)

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            for reader in self._readers:
                if reader.done():
                    reader.result()
                    raise LocalError("an event stream ended; is the lab going down?")
            self._changed.clear()
            waiting = asyncio.create_task(self._changed.wait())
            try:
                await asyncio.wait({waiting, *self._readers}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()

    async def _read(self, api: ApiClient, after: int) -> None:
        async for event in api.events(after):
            at_ns = int(event["time"] * 1e9) + self._to_monotonic_ns
            self.phases.happened(event["name"], event["fields"], at_ns)
            self._tell()

    def _tell(self, *, whole: bool = False) -> None:
        """Phases as they become known, in order: what the controller says waits for the Map-Server's word."""
        registered = self.phases.at_ns("registered") is not None
        for phase in self.phases.list():
            before = AFTER.get(phase.name)
            due = phase.name in AT_THE_NODE or (registered and (before is None or before in self._told))
            if phase.name not in self._told and (whole or due):
                self._told.add(phase.name)
                self._on_phase(phase)
        self._changed.set()


async def service_of(lab: Installation, user: str) -> dict[str, Any] | None:
    """The controller's placement of the user's service; None when the user has none."""
    async with lab.the("fmcc").client() as api:
        placements = (await api.get("/v1/placements"))["items"]
    return next((one for one in placements if one["user"] == user), None)


async def site_of(node: NodeEntry) -> str | None:
    """Where the node's one link is up."""
    site: str | None = (await call(node.socket, {"do": "status"}))["site"]
    return site


def _prefixes(eids: list[str]) -> list[str]:
    """EIDs as events write them: host routes."""
    return [eid if "/" in eid else f"{eid}/{128 if ':' in eid else 32}" for eid in eids]
