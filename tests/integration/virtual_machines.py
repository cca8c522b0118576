"""Two hypervisor agents with real virtual machines: the networks of two data centres in one namespace.

A guest's `app` is booted at dc1 (100.64.9.9). Everything runs in a thread that has entered the namespace: sockets,
agents, and the QEMUs that they start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pyroute2 import netns

from fmcc.hypervisor.echo import answers
from lispfmc.lab.entrance import enter
from lispfmc.lab.namespaces import GATEWAY4, GATEWAY_MAC
from lispfmc.lab.virtual import Engine, find_engine
from lispfmc.wire.address import Endpoint, ip_of
from lispfmc.wire.errors import LocalError
from tests.integration.agent_pair import Pair

EID, ECHO = "100.64.9.9", 7007
NEEDS_S = 60.0
T = TypeVar("T")


def engine_or_skip() -> Engine:
    if os.geteuid() != 0:
        pytest.skip("virtual machines get a port in a network namespace: needs root")
    try:
        return find_engine()
    except LocalError as error:
        pytest.skip(str(error))


class Stage:
    """The namespace and an event loop inside."""

    def __init__(self, name: str) -> None:
        self._namespace = f"lfmc-{name}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=name)
        self._ready = threading.Event()

    def start(self) -> None:
        netns.create(self._namespace)
        self._thread.start()
        self._ready.wait(NEEDS_S)
        self.ip("link set lo up", *(line for at in ("dc1", "dc2") for line in _network(at)))

    def ip(self, *lines: str) -> None:
        command = ["ip", "netns", "exec", self._namespace, "ip", "-batch", "-"]
        subprocess.run(command, input="\n".join(lines), text=True, check=True)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(NEEDS_S)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        netns.remove(self._namespace)

    def _serve(self) -> None:
        enter(self._namespace)
        self._ready.set()
        self._loop.run_forever()
        self._loop.close()


def _network(datacenter: str) -> list[str]:
    """As a site's network in the lab: the same gateway everywhere."""
    return [
        f"link add {datacenter} address {GATEWAY_MAC} type bridge",
        f"link set {datacenter} up",
        f"addr add {GATEWAY4}/32 dev {datacenter}",
    ]


class Machines:
    """The pair of agents, and what is true of the machine whatever they say."""

    def __init__(self, stage: Stage, engine: Engine, folder: Path) -> None:
        self.stage = stage
        self.folder = folder
        self.pair = Pair(None, {name: _described(engine, folder, name) for name in ("dc1", "dc2")})

    async def start(self) -> None:
        await self.pair.start()
        await self.ready()

    async def ready(self) -> None:
        """Both agents know what is theirs."""
        for client in self.pair.clients.values():
            for _ in range(int(NEEDS_S / 0.05)):
                if (await client.get("/readyz"))["ready"]:
                    break
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        await self.pair.close()
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)

    def pids(self, datacenter: str = "*") -> list[int]:
        """Of the QEMUs that are told to run."""
        return [int(path.read_text()) for path in self.folder.glob(f"{datacenter}/*.pid")]

    async def where(self) -> list[str]:
        """The data centres in whose network the machine's service answers."""
        service = Endpoint(ip_of(EID), ECHO)
        return [name for name in ("dc1", "dc2") if await answers(service, name, 1.0)]


def _described(engine: Engine, folder: Path, datacenter: str) -> dict[str, Any]:
    machine = {
        "name": "app",
        "start": "dc1",
        "echo": f"{EID}:{ECHO}",
        "memory_mb": 96,
        "interface": f"vm-{datacenter}",
        "append": f"fmc.eids={EID} fmc.gateways={GATEWAY4}",
    }
    qemu = {
        "binary": str(engine.qemu),
        "folder": str(folder / datacenter),
        "bridge": datacenter,
        "migration_address": "127.0.0.1",
        "kernel": str(engine.guest / "vmlinuz"),
        "initrd": str(engine.guest / "initrd.gz"),
        "accelerator": engine.accelerator,
        "bandwidth_mbit": 400,  # the copy takes a second or two: there is time to disturb it
        "stalled_s": 1.5,
        "alive_s": 1.5,
    }
    return {
        "driver": "qemu",
        "qemu": qemu,
        "machines": [machine, machine | {"name": "huge", "start": None, "memory_mb": 1 << 24}],
    }


@contextlib.contextmanager
def machines(name: str) -> Iterator[Machines]:
    """The machine runs at dc1 and answers."""
    engine = engine_or_skip()
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))  # sockets: pytest's own paths are too long
    stage = Stage(name)
    stage.start()
    made = Machines(stage, engine, folder)
    try:
        stage.run(made.start())
        yield made
    finally:
        stage.run(made.close())
        stage.close()
        shutil.rmtree(folder)
