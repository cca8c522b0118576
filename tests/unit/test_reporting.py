"""What a tunnel router tells a controller of distances, through the controller's real API."""

from __future__ import annotations

from pathlib import Path

import pytest

from lispfmc.runtime.client import ApiClient
from lispfmc.wire.address import Ip, ip_of
from tests.unit.test_fmcc_api import running
from xtr.reporting import Reporting
from xtr.settings import DistanceSettings

pytestmark = pytest.mark.asyncio
DC1, DC2, ELSEWHERE = ip_of("198.18.0.21"), ip_of("198.18.0.22"), ip_of("203.0.113.1")


async def test_each_measurement_is_told_once_and_those_of_no_site_are_let_go(tmp_path: Path) -> None:
    measured: dict[Ip, tuple[float, float]] = {DC1: (0.030, 1.0), ELSEWHERE: (0.001, 1.0)}
    reporting = Reporting(DistanceSettings(), (ip_of("198.18.0.11"),), lambda: measured)
    where = f"unix:{tmp_path}/fmcc.sock"
    async with ApiClient(where) as client:
        await reporting.report(client)  # nobody is there yet: told later
        async with running(tmp_path) as world:
            distances = world.net.fmcc.deliberation
            world.net.now = 1000.0
            await reporting.report(client)
            told = {(each["a"], each["b"]): each for each in (await client.get("/v1/distances"))["items"]}
            assert (told["access1", "dc1"]["ms"], told["access1", "dc1"]["source"]) == (30.0, "measured")
            assert (told["access1", "dc2"]["ms"], told["access1", "dc2"]["source"]) == (240.0, "configured")
            before = distances._rtts[frozenset(("access1", "dc1"))]
            measured[DC2] = (0.002, 2.0)
            await reporting.report(client)
            assert distances._rtts[frozenset(("access1", "dc1"))] is before, "nothing new of dc1"
            told = {(each["a"], each["b"]): each for each in (await client.get("/v1/distances"))["items"]}
            assert told["access1", "dc2"]["ms"] == 2.0
