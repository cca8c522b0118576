"""What hands the daemons' metrics to a Prometheus: its targets, each daemon's own answer, and one that is down."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from lispfmc.lab.exposition import Exposition
from lispfmc.lab.installation import Daemon, Installation
from lispfmc.runtime.events import EventLog
from lispfmc.runtime.http import Api
from lispfmc.runtime.rejects import Rejects
from lispfmc.wire.errors import LocalError

pytestmark = pytest.mark.asyncio


def lab(folder: Path, name: str, *daemons: Daemon) -> None:
    (folder / name).mkdir()
    installation = Installation(name, "fig5", "namespaces", list(daemons), [], "198.18.0.1")
    (folder / name / "lab.json").write_bytes(msgspec.json.encode(installation))


@pytest_asyncio.fixture
async def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Two labs: one with a daemon that answers and one that is gone, and another that has only just come up."""
    monkeypatch.setenv("LISPFMC_RUN", str(tmp_path))
    listen = f"unix:{tmp_path}/a.sock"
    lab(tmp_path, "one", Daemon("access1", "xtr", listen), Daemon("dc1", "xtr", "unix:/nowhere/dc1.sock"))
    api = Api("xtr", "access1", EventLog(), Rejects(), dict[str, Any], list)
    await api.start(listen)
    exposition = Exposition()
    port = await exposition.start("127.0.0.1:0")
    lab(tmp_path, "two", Daemon("mapserver", "mapserver", listen))
    yield f"127.0.0.1:{port}"
    await exposition.close()
    await api.close()


async def get(host: str, path: str) -> tuple[int, str, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"http://{host}{path}") as answer:
        body = await (answer.json() if answer.content_type == "application/json" else answer.text())
        return answer.status, answer.headers["Content-Type"], body


async def test_prometheus_is_told_of_every_daemon_of_every_lab(served: str) -> None:
    _, kind, targets = await get(served, "/targets")
    assert kind.startswith("application/json")
    assert {tuple(each["targets"]) for each in targets} == {(served,)}
    labels = [each["labels"] for each in targets]
    assert [(each["lab"], each["instance"], each["daemon"]) for each in labels] == [
        ("one", "access1", "xtr"),
        ("one", "dc1", "xtr"),
        ("two", "mapserver", "mapserver"),
    ]


async def test_each_path_is_that_daemons_own_answer(served: str) -> None:
    status, kind, text = await get(served, "/metrics/one/access1")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert 'lispfmc_info{daemon="xtr",name="access1"' in text


async def test_a_daemon_that_is_down_and_one_that_is_unknown_say_so(served: str) -> None:
    status, _, text = await get(served, "/metrics/one/dc1")
    assert (status, "cannot reach the daemon" in text) == (502, True)
    status, _, text = await get(served, "/metrics/one/nobody")
    assert (status, "see /targets" in text) == (404, True)


async def test_one_lab_can_be_chosen(served: str) -> None:
    only = Exposition("two")
    assert [each["labels"]["lab"] for each in only.targets("h:1")] == ["two"]


async def test_a_port_that_is_taken_is_named(served: str) -> None:
    with pytest.raises(LocalError, match="choose another --listen"):
        await Exposition().start(served)
