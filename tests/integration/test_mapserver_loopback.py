"""The Map-Server as users run it: a process with a configuration file, real UDP on loopback, its HTTP API, signals."""

from __future__ import annotations

import asyncio
import itertools
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lispfmc.runtime.client import ApiClient, ApiError, Unreachable
from lispfmc.wire import decode, encode
from lispfmc.wire.address import Prefix, ip_of
from lispfmc.wire.auth import Key, sign, verify
from lispfmc.wire.messages import (
    Ecm,
    EidRecord,
    Locator,
    MapNotify,
    MapNotifyAck,
    MapRegister,
    MapReply,
    MapRequest,
    Message,
    RequestRecord,
)

pytestmark = pytest.mark.asyncio

SERVER, ACCESS1, ACCESS2, FMCC = "127.0.0.1", "127.0.0.11", "127.0.0.12", "127.0.0.2"
HOME, ALICE = "100.64.1.0/24", "100.64.1.10/32"
KEYS = {ACCESS1: Key(1, b"one"), ACCESS2: Key(1, b"two"), FMCC: Key(9, b"nine")}
CONFIG = """
name = "mapserver"
listen = ["127.0.0.1"]
port = {port}

[[sites]]
name = "access1"
key_id = 1
secret = "one"
prefixes = ["100.64.1.0/24"]

[[sites]]
name = "access2"
key_id = 1
secret = "two"
prefixes = ["100.64.2.0/24"]
roaming = ["100.64.1.0/24"]

[[subscribers]]
name = "fmcc"
key_id = 9
secret = "nine"
address = "127.0.0.2"
ranges = ["100.64.1.0/24"]

[api]
listen = "unix:{api}"
"""


class Peer:
    """A socket of a site or of the controller."""

    def __init__(self, address: str, port: int) -> None:
        self.address = ip_of(address)
        self.key = KEYS[address]
        self.server = (SERVER, port)
        self.nonces = itertools.count(time.time_ns())
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind((address, port))

    def registers(self, *eids: str, key: Key | None = None) -> MapRegister:
        records = [EidRecord.of(Prefix.parse(eid), [Locator.of(self.address)], ttl_minutes=1440) for eid in eids]
        register = MapRegister.of(
            *records, nonce=next(self.nonces), xtr_id=self.address.ljust(16, b"."), site_id=bytes(8)
        )
        self.socket.sendto(sign(register, key or self.key), self.server)
        return register

    def asks(self, eid: str, *, subscribe: bool = False) -> None:
        record = RequestRecord.of(Prefix.parse(eid), notify=subscribe)
        ids: dict[str, Any] = {"xtr_id": bytes(16), "site_id": bytes(8)} if subscribe else {}
        request = MapRequest.of(record, nonce=next(self.nonces), itr_rlocs=[self.address], **ids)
        ecm = Ecm.of(request, source=self.address, destination=ip_of(eid.partition("/")[0]), source_port=self.server[1])
        self.socket.sendto(encode(ecm), self.server)

    def acknowledges(self, notify: MapNotify) -> None:
        self.socket.sendto(sign(MapNotifyAck.of(notify), self.key), self.server)

    async def hears(self) -> Message:
        """The next message; a Map-Notify with our key's signature."""
        datagram = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.socket, 65535), 5)
        message = decode(datagram)
        if isinstance(message, MapNotify):
            assert verify(message, datagram, self.key)
        return message

    async def is_notified(self) -> MapNotify:
        message = await self.hears()
        assert isinstance(message, MapNotify)
        return message


class Running:
    """The process, and peers beside it."""

    def __init__(self, folder: Path) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind((SERVER, 0))
            self.port: int = free.getsockname()[1]
        self.api = f"unix:{folder / 'api.sock'}"
        self.config = folder / "mapserver.toml"
        self.config.write_text(CONFIG.format(port=self.port, api=folder / "api.sock"))
        self.process: asyncio.subprocess.Process | None = None
        self.peers: list[Peer] = []

    async def start(self, *options: str) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mapserver", "--config", str(self.config), *options, stderr=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(20):
            while not await self.is_ready():  # noqa: ASYNC110 - another process: it can only be asked
                await asyncio.sleep(0.05)

    async def is_ready(self) -> bool:
        try:
            await self.get("/readyz")
        except (Unreachable, ApiError):
            return False
        return True

    def peer(self, address: str) -> Peer:
        self.peers.append(Peer(address, self.port))
        return self.peers[-1]

    async def get(self, path: str) -> Any:
        async with ApiClient(self.api) as client:
            return await client.get(path)

    async def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 10)

    def close(self) -> None:
        for peer in self.peers:
            peer.socket.close()
        if self.process is not None and self.process.returncode is None:
            self.process.kill()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    mapserver = Running(tmp_path)
    yield mapserver
    mapserver.close()


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_a_user_moves_and_everybody_who_must_know_is_told(running: Running, loop: str) -> None:
    await running.start("--loop", loop)
    home, away, fmcc = running.peer(ACCESS1), running.peer(ACCESS2), running.peer(FMCC)
    register = home.registers(HOME, ALICE)
    acknowledgement = await home.is_notified()
    assert (acknowledgement.nonce, acknowledgement.records) == (register.nonce, register.records)
    fmcc.asks(HOME, subscribe=True)
    subscribed = await fmcc.is_notified()
    fmcc.acknowledges(subscribed)

    away.registers(ALICE)
    moved = await home.is_notified()
    home.acknowledges(moved)
    published = await fmcc.is_notified()
    fmcc.acknowledges(published)
    for notify in (moved, published):
        assert [str(record.prefix) for record in notify.records] == [ALICE]
        assert notify.records[0].locators[0].address == away.address
    assert published.nonce == subscribed.nonce + 1
    await away.is_notified()

    away.asks("100.64.1.9/32")
    reply = await away.hears()
    assert isinstance(reply, MapReply)
    assert [str(record.prefix) for record in reply.records] == [HOME, ALICE]

    items = (await running.get("/v1/registrations"))["items"]
    assert {item["eid"]: item["site"] for item in items} == {HOME: "access1", ALICE: "access2"}
    [subscription] = (await running.get("/v1/subscriptions"))["items"]
    assert (subscription["eid"], subscription["pending"]) == (HOME, 0)
    assert (await running.get("/v1/status"))["notifies_pending"] == 0
    assert await running.stop() == 0


async def test_garbage_and_forgeries_are_counted_and_the_next_message_is_served(running: Running) -> None:
    await running.start()
    home = running.peer(ACCESS1)
    for size in (0, 1, 12, 1400):
        home.socket.sendto(bytes([0x30]) * size, home.server)
    home.registers(HOME, key=Key(1, b"guessed"))
    register = home.registers(HOME)
    assert (await home.is_notified()).nonce == register.nonce
    home.socket.sendto(sign(register, home.key), home.server)  # played again
    home.registers(HOME)
    await home.is_notified()
    rejects = await running.get("/v1/rejects")
    assert "bad-authentication" in str(rejects)
    assert "replayed-nonce" in str(rejects)
    assert "malformed" in str(rejects)
    assert await running.stop() == 0


async def test_an_unanswered_notify_is_sent_again_by_the_real_clock(running: Running) -> None:
    await running.start()
    home, away = running.peer(ACCESS1), running.peer(ACCESS2)
    home.registers(ALICE)
    await home.is_notified()
    away.registers(ALICE)
    first = await home.is_notified()
    started = asyncio.get_running_loop().time()
    second = await home.is_notified()
    assert second == first
    assert 0.1 < asyncio.get_running_loop().time() - started < 2.0
    home.acknowledges(second)
    assert await running.stop() == 0


async def test_a_wrong_configuration_names_file_and_line_and_exits_with_78(running: Running) -> None:
    text = running.config.read_text().replace('prefixes = ["100.64.2.0/24"]', 'prefixs = ["100.64.2.1/24"]')
    running.config.write_text(text)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mapserver", "--config", str(running.config), stderr=asyncio.subprocess.PIPE
    )
    _, stderr = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 78
    line = text.splitlines().index('prefixs = ["100.64.2.1/24"]') + 1
    assert f"{running.config}:{line}:" in stderr.decode()
