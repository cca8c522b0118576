"""Two real hypervisor agents on loopback, real HTTP between them and to us.

For the emulated driver the machine is a real process behind a node agent's protocol, frozen by SIGSTOP; its links are a
name that is set or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from fmcc.hypervisor.agent import Agent
from fmcc.hypervisor.settings import AgentSettings
from lispfmc.runtime import node_client
from lispfmc.runtime.client import ApiClient, ApiError
from lispfmc.runtime.events import EventLog
from lispfmc.runtime.rejects import Rejects

COUNTING = "import time\nwhile True: time.sleep(0.001)"
WAIT_S = 15
BODY = {"move": "m1", "machine": "app", "from": "dc1", "to": "dc2"}


class NodeServer:
    """A node: one process, and the name of the site whose link is up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.site: str | None = "dc1"
        self.last_site: str | None = "dc1"
        self.frozen = False
        self.refuses_thaw_at: str | None = None
        self.silent_once_frozen = False
        self._server: asyncio.Server | None = None
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(sys.executable, "-c", COUNTING)
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def close(self) -> None:
        assert self._process is not None
        assert self._server is not None
        self._process.kill()
        await self._process.wait()
        self._server.close()

    def process_state(self) -> str:
        """ "T" when the kernel has stopped the process."""
        assert self._process is not None
        return Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not (line := await reader.readline()):
            writer.close()  # whoever it was has been cancelled
            return
        request = json.loads(line)
        try:
            answer = {"ok": True, **self._do(request)}
        except ValueError as error:
            answer = {"ok": False, "error": str(error)}
        writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    def _do(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process is not None
        loop = asyncio.get_running_loop()
        if self.frozen and self.silent_once_frozen:
            raise ValueError("does not answer")
        match request["do"]:
            case "freeze" if not self.frozen:
                self.site, self.frozen = None, True
                os.kill(self._process.pid, signal.SIGSTOP)
                while self.process_state() != "T":  # the signal is on its way; a real node waits too
                    os.sched_yield()
                now_ns = int(loop.time() * 1e9)
                return {"down_ns": now_ns, "stopped_ns": now_ns}
            case "thaw" if self.frozen and request["site"] != self.refuses_thaw_at:
                self.site = self.last_site = request["site"]
                self.frozen = False
                os.kill(self._process.pid, signal.SIGCONT)
                return {"resumed_ns": int(loop.time() * 1e9)}
            case "status":
                return {"site": self.site, "last_site": self.last_site, "frozen": self.frozen}
        raise ValueError(f"cannot {request['do']} now")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Pair:
    """Agents of dc1 and dc2 with clients; `node` is the machine of the emulated driver."""

    def __init__(self, node: NodeServer | None, described: dict[str, dict[str, Any]]) -> None:
        """`described`: of each data centre, what its settings say beside names, addresses and tokens."""
        self._node = node
        self.ports = {"dc1": free_port(), "dc2": free_port()}
        self.clients: dict[str, ApiClient] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.agents: dict[str, Agent] = {}
        self.settings = {
            name: AgentSettings.model_validate(
                {
                    "name": f"hypervisor-{name}",
                    "datacenter": name,
                    "listen": f"127.0.0.1:{port}",
                    "token": f"token-{name}",
                    "peers": [
                        {"datacenter": peer, "address": f"127.0.0.1:{at}", "token": f"token-{peer}"}
                        for peer, at in self.ports.items()
                        if peer != name
                    ],
                }
                | described[name]
            )
            for name, port in self.ports.items()
        }

    @property
    def node(self) -> NodeServer:
        assert self._node is not None, "only the emulated driver has one"
        return self._node

    async def start(self) -> None:
        if self._node is not None:
            await self._node.start()
        for name, settings in self.settings.items():
            self.clients[name] = ApiClient(str(settings.listen), token=settings.token)
            await self.start_agent(name)

    async def answers(self, name: str) -> None:
        for _ in range(200):
            with contextlib.suppress(Exception):
                await self.clients[name].get("/v1/status")
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"the agent of {name} does not answer")

    async def start_agent(self, name: str) -> None:
        self.agents[name] = Agent(self.settings[name], EventLog(), Rejects())
        self.tasks[name] = asyncio.create_task(self.agents[name].run())
        await self.answers(name)

    async def stop(self, name: str) -> None:
        self.tasks[name].cancel()
        await asyncio.gather(self.tasks[name], return_exceptions=True)

    async def close(self) -> None:
        for name in self.ports:
            await self.stop(name)
            await self.clients[name].close()
        if self._node is not None:
            await self._node.close()

    async def prepare(self) -> None:
        for name in ("dc2", "dc1"):
            await self.clients[name].post("/v1/migrations/prepare", BODY)

    async def until(self, name: str, event: str, move: str | None = None) -> dict[str, Any]:
        """The fields of the first such event of this agent (of this move)."""
        async with asyncio.timeout(WAIT_S):
            async for told in self.clients[name].events(0):
                fields: dict[str, Any] = told["fields"]
                if told["name"] == f"hypervisor.{event}" and move in {None, fields.get("move")}:
                    return fields
        raise AssertionError("the stream ended")


def emulated_pair(tmp_path: Path, *, copy_s: float = 0.6, pause_ms: float = 60.0) -> Pair:
    node = NodeServer(tmp_path / "app.sock")
    machine = {"name": "app", "node_socket": str(node.path), "copy_s": copy_s, "pause_ms": pause_ms}
    return Pair(node, {name: {"machines": [machine]} for name in ("dc1", "dc2")})


MakePair = Callable[..., Awaitable[Pair]]


async def eventually(true: Callable[[], bool]) -> None:
    for _ in range(500):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


def ignored(datacenter: str, machines: Collection[str], asked: float) -> None:
    """Who does not want to know where machines are."""


async def refusal(asked: Awaitable[Any]) -> ApiError:
    with pytest.raises(ApiError) as refused:
        await asked
    return refused.value


async def left_frozen(pair: Pair, *, last_site: str = "dc1") -> None:
    """What an agent that is killed between freeze and thaw leaves behind."""
    pair.node.last_site = last_site
    await node_client.call(pair.node.path, {"do": "freeze"})
