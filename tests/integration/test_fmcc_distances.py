"""In the lab: access networks probe the data centres' locators, the controller decides by what they measured."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lispfmc.lab import lifecycle, namespaces, netem, processes
from lispfmc.lab.configs import Choices, wan_config
from lispfmc.lab.installation import Installation
from lispfmc.lab.topology import SHIPPED, load_topology
from lispfmc.runtime.client import ApiClient
from lispfmc.runtime.node_client import call

pytestmark = [pytest.mark.namespaces, pytest.mark.asyncio]
LAB = "hfar"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    """fig5, but that the controller is told what is measured."""
    monkeypatch.setenv("LISPFMC_RUN", str(tmp_path / "run"))
    text = (SHIPPED / "fig5.toml").read_text()
    topology = tmp_path / "far.toml"
    topology.write_text(
        text.replace('mode = "act"', 'mode = "act"\nmeasured = true').replace("copy_s = 5.0", "copy_s = 0.5")
    )
    lab = lifecycle.up(str(topology), LAB)
    try:
        yield lab
    finally:
        lifecycle.down(LAB)


async def until(ask: Callable[[], Any], true: Callable[[Any], bool]) -> Any:
    async with asyncio.timeout(30):
        while True:
            if true(answer := await ask()):
                return answer
            await asyncio.sleep(0.1)


def slower(lab: Installation, described: Path, between: str, rtt_ms: float) -> None:
    """The WAN between two members is slower from now on."""
    text = described.read_text()
    before = next(line for line in text.splitlines() if between in line)
    described.write_text(text.replace(before, f"  {{ between = {between}, rtt_ms = {rtt_ms} }},"))
    topology, choices = load_topology(str(described)), Choices(lab.folder)
    if (lab.folder / "wan.json").exists():
        (lab.folder / "wan.json").write_text(wan_config(topology, choices, "br0"))
        (wan,) = (process for process in processes.recorded(lab.folder) if process.name == "wan")
        os.kill(wan.pid, signal.SIGHUP)
        return
    core = namespaces.namespace_of(LAB, "core")
    for member in topology.members:
        subprocess.run(["ip", "netns", "exec", core, "tc", "qdisc", "del", "dev", member, "root"], check=True)
    netem.apply(core, topology, choices)


async def test_when_the_wan_becomes_slower_the_decision_changes(lab: Installation, tmp_path: Path) -> None:
    alice = next(node for node in lab.users() if node.name == "alice")
    async with ApiClient(lab.the("fmcc").api) as api:

        async def distance(a: str, b: str) -> tuple[str, float]:
            items = (await api.get("/v1/distances"))["items"]
            (one,) = (each for each in items if {each["a"], each["b"]} == {a, b})
            return one["source"], one["ms"]

        async def placed() -> tuple[str, str]:
            (one,) = (each for each in (await api.get("/v1/placements"))["items"] if each["user"] == "alice")
            return one["datacenter"], one["state"]

        # the WAN's round-trip time, and the routers' own; the first answers of a busy machine take longer
        near = pytest.approx(12, abs=8)
        await until(lambda: distance("access1", "dc1"), lambda it: bool(it[0] == "measured" and it[1] == near))
        await call(alice.socket, {"do": "attach", "site": "access2"})
        await until(placed, lambda it: bool(it == ("dc2", "committed")))
        slower(lab, tmp_path / "far.toml", '["access1", "dc1"]', 400)
        await until(lambda: distance("access1", "dc1"), lambda it: bool(it[1] > 100))
        await call(alice.socket, {"do": "attach", "site": "access1"})

        async def decided() -> dict[str, Any]:
            (one,) = (each for each in (await api.get("/v1/decisions"))["items"] if each["user"] == "alice")
            return dict(one)

        decision = await until(decided, lambda it: bool(it["site"] == "access1"))
        assert (decision["decision"], decision["from"]) == ("stay", "dc2"), "by the configuration dc1 is nearer"
        assert (await placed())[0] == "dc2"
