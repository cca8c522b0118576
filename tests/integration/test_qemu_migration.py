"""Real live migrations under LISP: a user moves, the controller decides, and a virtual machine follows, there and back.

The lab with `--driver qemu`: its service is a Linux guest in QEMU, which answers through it all.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import tempfile
import threading
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lispfmc.lab import lifecycle
from lispfmc.lab.entrance import WHERE, inside
from lispfmc.lab.installation import Installation
from lispfmc.lab.namespaces import namespace_of
from lispfmc.lab.readiness import ask_node
from lispfmc.lab.toml_text import toml_text
from lispfmc.lab.topology import SHIPPED
from lispfmc.lab.workload import ECHO_TCP, ECHO_UDP
from lispfmc.runtime.client import ApiClient
from tests.integration.virtual_machines import engine_or_skip

pytestmark = pytest.mark.namespaces

LAB = "gqemu"
APP = "100.64.101.10"
FOLLOWS_S = 40.0
ALIVE_S = 20.0
EVERY_S = 0.005
ARRIVES_S = 5.0


class Conversation:
    """Alice's: one TCP connection to her service and numbered UDP questions, until it is ended."""

    def __init__(self) -> None:
        self._stream = inside(namespace_of(LAB, "alice"), lambda: socket.create_connection((APP, ECHO_TCP), timeout=20))
        self._datagrams = inside(namespace_of(LAB, "alice"), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._datagrams.connect((APP, ECHO_UDP))
        self._datagrams.settimeout(0.02)
        self.exchanges = 0
        self.asked_at: list[float] = []
        self.answered_at: list[float] = []
        self.answers: Counter[int] = Counter()
        """How often each question was answered."""
        self.broke: Exception | None = None
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._talk, self._ask, self._hear)]
        for thread in self._threads:
            thread.start()

    def _talk(self) -> None:
        try:
            while not self._ended.wait(0.01):
                said = struct.pack("!Q", self.exchanges)
                self._stream.sendall(said)
                heard = self._stream.recv(8, socket.MSG_WAITALL)
                if heard != said:
                    raise ConnectionError(f"{heard.hex()} came back for {said.hex()}")
                self.exchanges += 1
        except OSError as error:
            self.broke = error

    def _ask(self) -> None:
        while not self._ended.wait(EVERY_S):
            number = len(self.asked_at)
            self.asked_at.append(time.monotonic())
            with contextlib.suppress(OSError):  # her own link is down while she moves
                self._datagrams.send(struct.pack("!Q", number))

    def _hear(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError):
                self.answers[struct.unpack("!Q", self._datagrams.recv(64))[0]] += 1
                self.answered_at.append(time.monotonic())

    def unanswered(self, begin: float, end: float) -> list[int]:
        """The questions asked between two instants that nobody answers: those that went by the old place, which is far
        from her, are overtaken by later ones."""
        asked = [number for number, at in enumerate(self.asked_at) if begin <= at < end]
        until = time.monotonic() + ARRIVES_S
        while (lost := [number for number in asked if not self.answers[number]]) and time.monotonic() < until:
            time.sleep(0.02)
        return lost

    def goes_on(self) -> None:
        """Both are answered anew: what is asked now, and not what was under way."""
        exchanges, number = self.exchanges, len(self.asked_at)
        until = time.monotonic() + ALIVE_S
        while time.monotonic() < until and (self.exchanges == exchanges or max(self.answers, default=-1) < number):
            time.sleep(0.02)
        assert self.broke is None, self.broke
        assert self.exchanges > exchanges, "the TCP connection is dead"
        assert max(self.answers, default=-1) >= number, "no datagram is answered"

    def end(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._stream.close()
        self._datagrams.close()


class Followed(NamedTuple):
    """One move of the user, and what came of it."""

    move: dict[str, Any]
    qemus: list[str]
    """The data centres in which a QEMU runs afterwards."""
    asked: int
    """Questions asked from the decision to the end of the move."""
    unanswered: list[int]


class Story(NamedTuple):
    there: Followed
    back: Followed
    exchanges: int
    answers: int


@pytest.fixture(scope="module")
def lab() -> Iterator[Installation]:
    engine_or_skip()
    with tempfile.TemporaryDirectory(prefix="lfmc") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LISPFMC_RUN", folder)
        topology = Path(folder) / "one-service.toml"
        topology.write_text(toml_text(one_service()))
        lifecycle.down(LAB)
        yield lifecycle.up(str(topology), LAB, driver="qemu")
        lifecycle.down(LAB)


def one_service() -> dict[str, Any]:
    """fig5 with alice and her service alone: a virtual machine takes its memory twice while it moves."""
    topology = tomllib.loads((SHIPPED / "fig5.toml").read_text())
    for kind, name in (("users", "alice"), ("services", "alice-app")):
        topology[kind] = [each for each in topology[kind] if each["name"] == name]
    return topology


@pytest.fixture(scope="module")
def story(lab: Installation) -> Story:
    conversation = Conversation()
    try:
        conversation.goes_on()
        there = follow(lab, conversation, "access2", "dc2")
        back = follow(lab, conversation, "access1", "dc1")
    finally:
        conversation.end()
    times = conversation.answered_at
    longest = max(later - earlier for earlier, later in pairwise(times))
    print(f"longest silence {longest * 1e3:.0f} ms; {there}; {back}; {Counter(conversation.answers.values())}")  # noqa: T201 - figures for the report
    return Story(there, back, conversation.exchanges, len(times))


def follow(lab: Installation, conversation: Conversation, access: str, datacenter: str) -> Followed:
    """Alice moves; wait until the controller's move of her service has come to an end, and hear what was answered."""
    alice = lab.node("alice")
    assert alice is not None
    ask_node(alice, {"do": "attach", "site": access})
    move = asyncio.run(ended(lab.the("fmcc").api, datacenter))
    until = time.monotonic() + ALIVE_S
    while (found := qemus()) != [datacenter] and time.monotonic() < until:
        time.sleep(0.05)  # the source ends its own once it has heard that the machine lives
    move = asyncio.run(resumed(lab.the("fmcc").api, move["id"]))
    ended_at = time.monotonic()
    conversation.goes_on()
    began = move["started_monotonic_ns"] / 1e9
    asked = sum(began <= at < ended_at for at in conversation.asked_at)
    return Followed(move, found, asked, conversation.unanswered(began, ended_at))


async def ended(api: str, datacenter: str) -> dict[str, Any]:
    async with ApiClient(api) as fmcc, asyncio.timeout(FOLLOWS_S):
        while True:
            for move in (await fmcc.get("/v1/moves"))["items"]:
                if move["to"] == datacenter and move["state"] in {"committed", "failed", "unconfirmed"}:
                    found: dict[str, Any] = move
                    return found
            await asyncio.sleep(0.1)


async def resumed(api: str, move: str) -> dict[str, Any]:
    """The move once RESUMED was heard: the agent makes sure that the guest answers, the routers see it sooner."""
    async with ApiClient(api) as fmcc, asyncio.timeout(ALIVE_S):
        while True:
            found: dict[str, Any] = next(each for each in (await fmcc.get("/v1/moves"))["items"] if each["id"] == move)
            if found["resumed_monotonic_ns"] is not None or found["state"] == "failed":
                return found
            await asyncio.sleep(0.05)


def qemus() -> list[str]:
    """The data centres in whose namespace a QEMU runs."""
    spaces = {(WHERE / namespace_of(LAB, name)).stat().st_ino: name for name in ("dc1", "dc2")}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "comm").read_text().startswith("qemu-system"):
                found.append(spaces.get((process / "ns/net").stat().st_ino, ""))
    return sorted(filter(None, found))


@pytest.mark.parametrize("way", ["there", "back"])
def test_the_controller_has_a_real_virtual_machine_follow_its_user(story: Story, way: str) -> None:
    followed: Followed = getattr(story, way)
    assert followed.move["state"] == "committed", followed.move["reason"]
    assert followed.move["driver"] == "qemu"
    assert followed.move["emulated"] is False
    phases = [phase["name"] for phase in followed.move["phases"]]
    assert phases.index("stopped") < phases.index("resumed")
    assert followed.move["stopped_monotonic_ns"] < followed.move["resumed_monotonic_ns"]


def test_the_machine_runs_at_one_data_centre_after_each_move(story: Story) -> None:
    assert (story.there.qemus, story.back.qemus) == (["dc2"], ["dc1"])


def test_the_service_answers_before_between_and_after_and_its_connection_lives(story: Story) -> None:
    # the story has asserted it at each step; here, that it was one conversation on both
    assert story.exchanges > 0
    assert story.answers > 0


@pytest.mark.parametrize("way", ["there", "back"])
def test_the_network_loses_nothing_while_the_machine_moves(story: Story, way: str) -> None:
    followed: Followed = getattr(story, way)
    assert followed.move["scheme"] == "lossless"
    assert followed.asked > 0
    assert followed.unanswered == []
    # nor does a router tell of any that it had to let go
    assert (followed.move["packets"] or {}).get("lost", 0) == 0
