"""The Map-Server as a process that is killed: what it has acknowledged is there when it comes back (store = sqlite)."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lispfmc.lab.installation import Daemon, Installation
from lispfmc.runtime.client import ApiClient
from lispfmc.store.journal import numbers
from lispfmc.wire.address import Prefix
from lispfmc.wire.auth import sign
from lispfmc.wire.messages import EidRecord, Locator, MapNotify, MapRegister, MapReply
from tests.integration.test_mapserver_loopback import ACCESS1, ACCESS2, ALICE, FMCC, HOME, SERVER, Peer, Running

pytestmark = pytest.mark.asyncio


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    mapserver = Running(tmp_path)
    with mapserver.config.open("a") as config:
        config.write(f'\n[store]\nkind = "sqlite"\npath = "{tmp_path / "store"}"\n')
    yield mapserver
    mapserver.close()


async def kill(running: Running) -> None:
    assert running.process is not None
    running.process.kill()
    await running.process.wait()


async def all_items(running: Running) -> dict[str, Any]:
    items: dict[str, Any] = {}
    after = ""
    async with ApiClient(running.api) as api:
        while True:
            page = await api.get(f"/v1/registrations?after={after}&limit=100")
            items.update((item["eid"], item) for item in page["items"])
            if page["next"] is None:
                return items
            after = page["next"]


async def hears_within(peer: Peer, seconds: float) -> MapNotify | None:
    try:
        async with asyncio.timeout(seconds):
            return await peer.is_notified()
    except TimeoutError:
        return None


async def test_killed_in_a_storm_it_has_every_acknowledged_registration(running: Running) -> None:
    await running.start()
    home, away, fmcc = running.peer(ACCESS1), running.peer(ACCESS2), running.peer(FMCC)
    home.registers(HOME)
    await home.is_notified()
    fmcc.asks(HOME, subscribe=True)
    subscribed = await fmcc.is_notified()
    fmcc.acknowledges(subscribed)
    registers = {}
    acknowledged: list[int] = []

    async def storm() -> None:
        for number in range(1, 250):
            register = home.registers(f"100.64.1.{number}/32")
            registers[register.nonce] = (f"100.64.1.{number}/32", register)
            if number % 4 == 0:
                await asyncio.sleep(0)

    async def hear() -> None:
        while True:
            message = await home.hears()
            if isinstance(message, MapNotify) and message.nonce in registers:
                acknowledged.append(message.nonce)
            if len(acknowledged) == 120:
                await kill(running)
                return

    await asyncio.gather(storm(), hear())
    while (message := await hears_within(home, 0.2)) is not None:  # what it has sent before it was killed
        if message.nonce in registers:
            acknowledged.append(message.nonce)

    await running.start()
    items = await all_items(running)
    missing = [registers[nonce][0] for nonce in acknowledged if registers[nonce][0] not in items]
    assert missing == []
    assert 0 < items[HOME]["expires_s"] < 180

    for nonce in acknowledged[-5:]:  # played again
        home.socket.sendto(sign(registers[nonce][1], home.key), home.server)
    while (await running.get("/v1/rejects"))["counts"].get("replayed-nonce", 0) < 5:  # noqa: ASYNC110 - it can only be asked
        await asyncio.sleep(0.02)

    last = subscribed.nonce
    while (told := await hears_within(fmcc, 0.3)) is not None:  # what it was in the midst of telling
        fmcc.acknowledges(told)
    away.registers(ALICE)
    while True:
        published = await fmcc.is_notified()
        fmcc.acknowledges(published)
        assert published.nonce >= last
        last = published.nonce
        if any(
            str(record.prefix) == ALICE and record.locators[0].address == away.address for record in published.records
        ):
            break
    away.asks(ALICE)
    while not isinstance(reply := await away.hears(), MapReply):
        pass
    assert reply.records[0].locators[0].address == away.address
    assert await running.stop() == 0


async def test_a_full_journal_becomes_a_snapshot_by_itself_and_a_restart_goes_by_it(
    running: Running, tmp_path: Path
) -> None:
    with running.config.open("a") as config:
        config.write("journal_mib = 1\n")
    store = tmp_path / "store"
    await running.start()
    home = running.peer(ACCESS1)
    early = home.registers(HOME)
    await home.is_notified()
    [first] = numbers(store)
    weights = itertools.cycle(range(1, 100))
    while first in numbers(store):  # it goes when the snapshot is whole
        weight = next(weights)  # another mapping each time: a mere refresh takes little room
        for start in range(0, 240, 24):
            register_with_weight(home, weight, start)
            await home.is_notified()
    assert (store / "snapshot.sqlite").exists()
    assert min(numbers(store)) > first
    late = home.registers("100.64.1.250/32")
    while (await home.is_notified()).nonce != late.nonce:
        pass
    before = await all_items(running)
    await kill(running)

    await running.start()
    items = await all_items(running)
    assert {eid: item["locators"] for eid, item in items.items()} == {e: i["locators"] for e, i in before.items()}
    assert {HOME, "100.64.1.250/32"} <= items.keys()
    assert len(items) == 242
    home.socket.sendto(sign(early, home.key), home.server)  # what knows its nonce is the snapshot
    while not (await running.get("/v1/rejects"))["counts"].get("replayed-nonce"):  # noqa: ASYNC110 - likewise
        await asyncio.sleep(0.02)
    assert await running.stop() == 0


def register_with_weight(peer: Peer, weight: int, start: int) -> None:
    locators = [Locator.of(peer.address, weight=weight)]
    hosts = (Prefix.parse(f"100.64.1.{number}/32") for number in range(start, start + 24))
    records = [EidRecord.of(host, locators, ttl_minutes=1440) for host in hosts]
    xtr_id = peer.address.ljust(16, b".")
    register = MapRegister.of(*records, nonce=next(peer.nonces), xtr_id=xtr_id, site_id=bytes(8))
    peer.socket.sendto(sign(register, peer.key), peer.server)


async def test_a_second_map_server_cannot_use_the_same_store(running: Running) -> None:
    await running.start()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "mapserver",
        "--config",
        str(running.config),
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 78
    assert "another Map-Server uses it" in stderr.decode()
    assert await running.stop() == 0


async def test_a_hangup_has_it_read_its_configuration_anew(running: Running) -> None:
    await running.start()
    home = running.peer(ACCESS1)
    home.registers(HOME)
    await home.is_notified()
    text = running.config.read_text()
    static = '\n[[static]]\nprefix = "100.64.7.0/24"\nrlocs = ["127.0.0.77"]\n'
    running.config.write_text(text.replace("[api]", static + "\n[api]"))
    assert running.process is not None
    running.process.send_signal(signal.SIGHUP)
    while "100.64.7.0/24" not in await all_items(running):  # noqa: ASYNC110 - likewise
        await asyncio.sleep(0.02)

    running.config.write_text(text.replace('name = "access1"', 'name = "access1"\nnonsense = 1'))
    async with ApiClient(running.api) as api:
        kept = await api.post("/v1/reload", {})
        assert not kept["applied"]
        assert "nonsense" in kept["why"]
        running.config.write_text(text.replace('prefixes = ["100.64.1.0/24"]', 'prefixes = ["100.64.3.0/24"]'))
        changed = await api.post("/v1/reload", {})
    assert changed["applied"]
    assert changed["changes"] == [
        "sites.access1.prefixes: [100.64.1.0/24] -> [100.64.3.0/24]",
        "static.100.64.7.0/24: removed",
    ]
    assert await all_items(running) == {}
    assert await running.stop() == 0


async def test_a_restart_with_other_settings_ends_what_they_do_not_allow(running: Running) -> None:
    await running.start()
    home = running.peer(ACCESS1)
    home.registers(HOME, ALICE)
    await home.is_notified()
    await kill(running)
    text = running.config.read_text()
    await running.start()
    assert set(await all_items(running)) == {HOME, ALICE}, "the same settings"
    await kill(running)

    running.config.write_text(text.replace('prefixes = ["100.64.1.0/24"]', 'prefixes = ["100.64.3.0/24"]'))
    await running.start()
    assert HOME not in await all_items(running)
    await kill(running)
    await running.start()
    assert HOME not in await all_items(running), "and that is kept"


async def lispfmc(*arguments: str) -> tuple[int, str]:
    """The command, as its user runs it: exit code and stdout."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "lispfmc.cli", *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_the_command_pages_filters_and_reloads(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await running.start()
    home = running.peer(ACCESS1)
    eids = [f"100.64.1.{low}/32" for low in range(256)] + [f"100.64.1.{low}/31" for low in range(0, 256, 2)]
    eids += [f"100.64.1.{low}/30" for low in range(0, 256, 4)] + [f"100.64.1.{low}/29" for low in range(0, 256, 8)]
    eids += [f"100.64.1.{low}/28" for low in range(0, 256, 16)] + [
        "100.64.1.0/27",
        "100.64.1.32/27",
        HOME,
        "100.64.1.0/25",
    ]
    for start in range(0, len(eids), 32):
        home.registers(*eids[start : start + 32])
        await home.is_notified()
    away = running.peer(ACCESS2)
    away.registers(*(others := [f"100.64.2.{low}/32" for low in range(64)]))
    await away.is_notified()
    eids += others
    lab = Installation("t", "t", "namespaces", [Daemon("mapserver", "mapserver", running.api)], [], SERVER)
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "lab.json").write_bytes(msgspec.json.encode(lab))
    monkeypatch.setenv("LISPFMC_RUN", str(tmp_path))
    code, out = await lispfmc("show", "registrations", "-o", "json")
    assert code == 0
    assert sorted(item["eid"] for item in json.loads(out)["items"]) == sorted(eids)  # more than a page
    assert len((await lispfmc("show", "registrations"))[1].splitlines()) == 1 + len(eids)
    _, out = await lispfmc("show", "registrations", "--eid", "100.64.1.64/26", "--limit", "6", "-o", "json")
    found = [item["eid"] for item in json.loads(out)["items"]]
    assert len(found) == 6
    assert found[0] == "100.64.1.0/25"  # what answers for it comes first
    _, out = await lispfmc("show", "registrations", "--site", "access2", "-o", "json")
    assert [item["eid"] for item in json.loads(out)["items"]] == sorted(others, key=lambda eid: int(eid[9:-3]))
    running.config.write_text(running.config.read_text().replace('prefixes = ["100.64.1.0/24"]', "prefixes = []"))
    code, out = await lispfmc("reload")
    assert (code, out) == (0, "mapserver: sites.access1.prefixes: [100.64.1.0/24] -> []\n")
    running.config.write_text("nonsense")
    assert (await lispfmc("reload"))[0] == 78
    assert await running.stop() == 0
