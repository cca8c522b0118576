"""The TUN plane in bad weather: a router that is killed, a flood of unknown EIDs, a Map-Server that is gone."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lispfmc.lab.toml_text import toml_text
from lispfmc.wire.address import ip_of
from lispfmc.wire.encap import header
from tests.integration.planes import EID, PORT, RLOC, ipv4, named, network, receive, run, sites, udp, until, watch
from tests.integration.xtr_world import ping, world, xtr_values
from xtr.dataplane.device import QUEUE_LENGTH

pytestmark = pytest.mark.namespaces


@pytest.fixture(scope="module", autouse=True)
def built() -> Iterator[None]:
    with network():
        yield


def tables() -> str:
    """Everything that the access router may have left in its namespace."""
    commands = ("rule show", "-6 rule show", "route show table all", "-6 route show table all", "link show type tun")
    return "".join(
        subprocess.run(f"ip -n {named('access')} {each}".split(), check=True, capture_output=True, text=True).stdout
        for each in commands
    )


@contextmanager
def router(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The access router as a process of its own."""
    config = folder / "access.toml"
    config.write_text(toml_text(xtr_values("access", folder)))
    command = f"ip netns exec {named('access')} {sys.executable} -m xtr --config {config}"
    with (folder / "access.log").open("ab") as log:
        process = subprocess.Popen(command.split(), stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def reached(tries: int = 20) -> None:
    """The user reaches the service."""
    for _ in range(tries):
        if " 0% packet loss" in await ping("user", EID["user"][0], EID["service"][0]):
            return
    raise AssertionError("the user does not reach the service")


def test_a_killed_router_lets_nothing_out_unencapsulated_and_its_successor_takes_over(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path, routers=["cloud"]):
            await ping("service", EID["service"][0], EID["user"][0])
            with router(tmp_path) as first:
                await reached()
                first.send_signal(signal.SIGKILL)
                first.wait()
            # a way out, if anything took it
            run(f"ip -n {named('access')} route add default via {RLOC['cloud'][0]} dev wan0")
            with watch("cloud", "wan0") as wire:
                assert "100% packet loss" in await ping("user", EID["user"][0], EID["service"][0])
                leaked = []
                while True:
                    try:
                        frame = wire.recv(2048)
                    except BlockingIOError:
                        break
                    if frame[12:14] == b"\x08\x00" and frame[26:30] == ip_of(EID["user"][0]):
                        leaked.append(frame)
                assert not leaked
            run(f"ip -n {named('access')} route del default via {RLOC['cloud'][0]} dev wan0")
            with router(tmp_path) as second:
                await reached()
                second.terminate()
                assert second.wait(10) == 0
        assert "4341" not in tables()
        assert "lisp0" not in tables()

    asyncio.run(story())


def test_a_flood_of_unknown_eids_leaves_the_resolved_flow_alone() -> None:
    async def story() -> None:
        with (
            sites("tun") as (access, _cloud),
            udp("user", EID["user"][0]) as user,
            udp("service", EID["service"][0]) as service,
        ):
            access.forward(EID["service"][0], RLOC["cloud"][0])
            for number in range(8000):
                user.sendto(b"?", (f"100.65.{number >> 8}.{number & 255}", PORT))
                if number % 40 == 0:
                    user.sendto(str(number).encode(), (EID["service"][0], PORT))
                    await asyncio.sleep(0)
            assert [int(await receive(service)) for _ in range(200)] == list(range(0, 8000, 40))
            counters = access.plane.counters()
            assert counters["encapsulated"] == 200
            assert len(access.evidence.misses) <= 2048 + 1000, "half of the queue, and a second's budget"
            assert counters.get("dropped.too-many-misses", 0) + counters.get("dropped.queue-full", 0) > 0
            # another host's packet still finds room
            run(f"ip -n {named('user')} addr add 100.64.1.12/32 dev eth0")
            with udp("user", "100.64.1.12") as other:
                queued = access.count("queued")
                await asyncio.sleep(0.1)
                other.sendto(b"!", ("100.66.0.1", PORT))
                await until(lambda: access.count("queued") == queued + 1, "a first packet of somebody else waits")
            run(f"ip -n {named('user')} addr del 100.64.1.12/32 dev eth0")

    asyncio.run(story())


def test_what_comes_while_the_router_is_not_scheduled_waits_and_what_has_no_room_is_counted() -> None:
    sent = 9000

    async def story() -> None:
        with sites("tun") as (access, _), udp("user", EID["user"][0]) as user:
            access.forward(EID["service"][0], RLOC["cloud"][0])
            for _ in range(sent):
                user.sendto(b"x", (EID["service"][0], PORT))
            lost = access.count("dropped.device-full")
            few = 10  # the kernel's own chatter
            assert 0 < lost <= sent - QUEUE_LENGTH + few
            await until(lambda: sent <= access.count("encapsulated") + lost <= sent + few, "the others go on")

    asyncio.run(story())


def test_what_the_sockets_buffer_has_no_room_for_is_counted() -> None:
    sent = 60_000

    async def story() -> None:
        with sites("tun") as (_, cloud):
            packet = header(0) + ipv4(EID["user"][0], EID["service"][0], b"x")
            with udp("access", RLOC["access"][0], 0) as other:
                for _ in range(sent):
                    other.sendto(packet, (RLOC["cloud"][0], 4341))
            lost = cloud.count("dropped.socket-full")
            assert 0 < lost < sent
            await until(lambda: cloud.count("decapsulated") + lost == sent, "the others are delivered", 10)

    asyncio.run(story())


def test_a_router_whose_map_server_is_gone_forwards_what_it_knows(tmp_path: Path) -> None:
    async def story() -> None:
        async with world(tmp_path) as xtrs:
            await ping("service", EID["service"][0], EID["user"][0])
            await reached()
            run(f"ip -n {named('cloud')} addr del 198.18.0.1/24 dev wan0")
            try:
                assert " 0% packet loss" in await ping("user", EID["user"][0], EID["service"][0])
                assert xtrs["access"]._router.map_cache(0.0)
            finally:
                run(f"ip -n {named('cloud')} addr add 198.18.0.1/24 dev wan0")

    asyncio.run(story())
