"""`lispfmc lookup` against a Map-Server process on loopback: one answer, none, and a subscription as it goes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lispfmc.cli import lookup, subscribe
from lispfmc.cli.failure import Failure
from lispfmc.cli.output import Format
from lispfmc.wire.address import Prefix, ip_of
from tests.integration.test_mapserver_loopback import ACCESS1, ACCESS2, ALICE, HOME, Running

pytestmark = pytest.mark.asyncio

OBSERVER = """
[[subscribers]]
name = "lookup"
key_id = 5
secret = "five"
xtr_id = "{xtr_id}"
address = "127.0.0.1"
port = {port}
ranges = ["100.64.0.0/10"]
"""
IDENTITY = 'key_id = 5\nsecret = "{secret}"\nxtr_id = "{xtr_id}"\nport = {port}\n'
XTR_ID = "10" * 16


class Observed(Running):
    """A Map-Server that knows the command as a subscriber, and the command."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        self.config.write_text(self.config.read_text() + OBSERVER.format(xtr_id=XTR_ID, port=port))
        self.identity = folder / "lookup.toml"
        self.identity.write_text(IDENTITY.format(secret="five", xtr_id=XTR_ID, port=port))
        for module in (lookup, subscribe):
            monkeypatch.setattr(module, "CONTROL_PORT", self.port)
        self.output: list[dict[str, Any]] = []
        monkeypatch.setattr(subscribe, "print_json_line", self.output.append)

    def watch(self, eid: str) -> asyncio.Task[int]:
        following = subscribe.subscribe(Prefix.parse(eid), ip_of("127.0.0.1"), self.identity, output=Format.json)
        return asyncio.create_task(following)

    async def until(self, lines: int) -> list[tuple[str, list[str]]]:
        """What was shown: EID and locators."""
        async with asyncio.timeout(10):
            while len(self.output) < lines:  # noqa: ASYNC110 - it prints, and can only be watched
                await asyncio.sleep(0.01)
        return [(line["eid"], [each["rloc"] for each in line["locators"]]) for line in self.output]


@pytest.fixture
def observed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Observed]:
    mapserver = Observed(tmp_path, monkeypatch)
    yield mapserver
    mapserver.close()


async def test_a_subscription_shows_what_is_there_and_every_change_and_ends_itself(observed: Observed) -> None:
    await observed.start()
    home, away = observed.peer(ACCESS1), observed.peer(ACCESS2)
    home.registers(HOME, ALICE)
    await home.is_notified()
    watching = observed.watch(HOME)
    assert await observed.until(2) == [(HOME, [ACCESS1]), (ALICE, [ACCESS1])]
    away.registers(ALICE)
    assert (await observed.until(3))[-1] == (ALICE, [ACCESS2])
    [subscription] = (await observed.get("/v1/subscriptions"))["items"]
    assert subscription["subscriber"] == "lookup"
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    async with asyncio.timeout(5):
        while (await observed.get("/v1/subscriptions"))["items"]:  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0.01)
    assert (await observed.get("/v1/status"))["notifies_pending"] in (0, 1)  # home's, which never acknowledges


async def test_who_may_not_subscribe_is_told_so(observed: Observed) -> None:
    await observed.start()
    assert await asyncio.wait_for(observed.watch("10.0.0.0/8"), 10) == 1
    assert [(line["eid"], line["action"], line["subscribed"]) for line in observed.output] == [
        ("10.0.0.0/8", "Drop/Policy-Denied", False)
    ]


async def test_a_wrong_key_is_said_and_is_no_subscription(
    observed: Observed, capsys: pytest.CaptureFixture[str]
) -> None:
    await observed.start()
    observed.identity.write_text(observed.identity.read_text().replace("five", "six"))
    with pytest.raises(Failure, match="no answer"):
        await asyncio.wait_for(observed.watch(HOME), 10)
    assert "not signed with our key" in capsys.readouterr().err


async def test_an_address_is_looked_up_by_its_longest_match(observed: Observed, tmp_path: Path) -> None:
    await observed.start()
    home = observed.peer(ACCESS1)
    home.registers(HOME, ALICE)
    await home.is_notified()
    answer = await lookup.ask(Prefix.parse("100.64.1.10"), ip_of("127.0.0.1"), 2)
    found = lookup.located(answer.reply, Prefix.parse("100.64.1.10"))
    assert found is not None
    assert (str(found.prefix), answer.requests) == (ALICE, 1)
    nobody = await lookup.ask(Prefix.parse("192.0.2.1"), ip_of("127.0.0.1"), 2)
    assert [each.locators for each in nobody.reply.records] == [()]
