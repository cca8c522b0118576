"""A machine that a killed agent left frozen: found when an agent starts, and resumed when nobody is moving it.

A machine stands still between freeze and thaw, and only the two agents of its move know. So every other agent is asked
before anything is touched; one that does not answer may be just about to resume it, and is asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import structlog

from fmcc.hypervisor import Recovered

AGAIN_S = 0.5
LONGEST_AGAIN_S = 5.0
_log = structlog.get_logger("recovery")

NodeCall: TypeAlias = Callable[[Path, dict[str, Any]], Awaitable[dict[str, Any]]]


class Peer(Protocol):
    """Another data centre's agent (`lispfmc.runtime.client.ApiClient`)."""

    async def get(self, path: str) -> Any: ...

    async def post(self, path: str, body: dict[str, Any]) -> Any: ...


class Recovery:
    """Holds no state of its own: the node knows whether it is frozen, the agents know what is under way."""

    def __init__(
        self,
        datacenter: str,
        peers: Mapping[str, Peer],
        node: NodeCall,
        under_way: Callable[[str], bool],
        recovered: Callable[[Recovered], None],
    ) -> None:
        """`under_way(machine)` says whether this agent itself is moving it."""
        self._datacenter = datacenter
        self._peers = peers
        self._node = node
        self._under_way = under_way
        self._recovered = recovered

    async def recover(self, machine: str, node_socket: Path) -> None:
        """Returns when the machine is not frozen."""
        again_s = AGAIN_S
        while True:
            try:
                if await self._runs(machine, node_socket):
                    return
            except Exception as error:  # whatever goes wrong with one machine must not end the agent
                _log.warning("machine.unrecovered", machine=machine, why=str(error) or type(error).__name__)
            await asyncio.sleep(again_s)
            again_s = min(again_s * 2, LONGEST_AGAIN_S)

    async def _runs(self, machine: str, node_socket: Path) -> bool:
        """Look once, and resume the machine when it is nobody else's to resume."""
        status = await self._node(node_socket, {"do": "status"})
        if not status.get("frozen"):
            return True
        if self._under_way(machine):
            return False
        for peer in self._peers.values():
            if not await self._let_go(peer, machine):
                return False
        last = status.get("last_site")
        # an emulated machine can be resumed anywhere; a real one only where its memory is, which is where it last ran
        site = str(last) if last == self._datacenter or last in self._peers else self._datacenter
        # two agents that start together may both come here: the node lets one of them thaw it
        thawed = await self._node(node_socket, {"do": "thaw", "site": site})
        self._recovered(Recovered(machine, site, int(thawed["resumed_ns"])))
        return True

    async def _let_go(self, peer: Peer, machine: str) -> bool:
        """Whether this other agent does nothing with the machine. One that waits for the last state from here waits
        in vain, the state has died with the agent that held it: it is called off."""
        for each in (await peer.get("/v1/migrations"))["items"]:
            if each["machine"] != machine or each["state"] == "ended":
                continue
            waits = (each["role"], each["state"], each["from"]) == ("target", "prepared", self._datacenter)
            if not waits:
                return False
            await peer.post("/v1/incoming", {"phase": "cancel", "move": each["move"], "machine": machine})
        return True
