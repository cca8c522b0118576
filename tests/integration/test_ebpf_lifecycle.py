"""The kernel plane outlives its daemon, which takes it over again; and leaves with it when it ends in order."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lispfmc.lab.toml_text import toml_text
from tests.integration.planes import EID, MAC, PORT, named, network, run, udp, until
from tests.integration.xtr_world import ping, world, xtr_values
from xtr.dataplane.choice import unavailable

pytestmark = [
    pytest.mark.namespaces,
    pytest.mark.skipif(bool(unavailable()), reason=unavailable() or "the kernel plane runs here"),
]
KERNEL = {"dataplane": {"kind": "ebpf", "eid_ranges": ["100.64.0.0/10", "fd00::/8"]}}


@pytest.fixture(scope="module", autouse=True)
def built() -> Iterator[None]:
    with network():
        yield


def left() -> str:
    """What a router may leave in its namespace."""
    commands = (
        "ip rule show",
        "ip route show table all",
        "ip link show type tun",
        "tc qdisc show dev lan",
        "tc qdisc show dev wan0",
    )
    return "".join(
        subprocess.run(
            f"ip netns exec {named('access')} {each}".split(), check=True, capture_output=True, text=True
        ).stdout
        for each in commands
    )


@contextmanager
def router(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The access router as a process of its own."""
    config = folder / "access.toml"
    config.write_text(toml_text(xtr_values("access", folder) | KERNEL))
    command = f"ip netns exec {named('access')} {sys.executable} -m xtr --config {config}"
    with (folder / "access.log").open("ab") as log:
        process = subprocess.Popen(command.split(), stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def reached() -> None:
    for _ in range(20):
        if " 0% packet loss" in await ping("user", EID["user"][0], EID["service"][0]):
            return
    raise AssertionError("the user does not reach the service")


class Stream:
    """Numbered datagrams from one host to the other, every few milliseconds, until it is told to stop."""

    def __init__(self, source: socket.socket, target: socket.socket, to: str) -> None:
        self._source, self._target, self._to = source, target, to
        self.sent, self.received = 0, set[int]()
        self._sending = asyncio.create_task(self._send())
        asyncio.get_running_loop().add_reader(target.fileno(), self._receive)

    async def _send(self) -> None:
        while True:
            self._source.sendto(self.sent.to_bytes(4, "big"), (self._to, PORT))
            self.sent += 1
            await asyncio.sleep(0.003)

    def _receive(self) -> None:
        self.received.add(int.from_bytes(self._target.recv(64), "big"))

    async def lost(self) -> int:
        self._sending.cancel()
        await asyncio.sleep(0.2)
        asyncio.get_running_loop().remove_reader(self._target.fileno())
        return self.sent - len(self.received)


def test_a_killed_router_leaves_the_kernel_forwarding_and_its_successor_takes_over_without_a_loss(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with world(tmp_path, routers=["cloud"], cloud=KERNEL):
            await ping("service", EID["service"][0], EID["user"][0])
            with (
                udp("user", EID["user"][0]) as user,
                udp("service", EID["service"][0]) as service,
            ):
                with router(tmp_path) as first:
                    await reached()
                    there, back = Stream(user, service, EID["service"][0]), Stream(service, user, EID["user"][0])
                    await asyncio.sleep(0.2)
                    first.send_signal(signal.SIGKILL)
                    first.wait()
                before = len(there.received)
                await until(lambda: len(there.received) > before + 50, "the kernel goes on")
                with router(tmp_path) as second:
                    await asyncio.sleep(2)
                    assert (await there.lost(), await back.lost()) == (0, 0)
                    assert "dataplane.chosen" in (tmp_path / "access.log").read_text()
                    await reached()
                    second.terminate()
                    assert second.wait(10) == 0
        remains = left()
        assert all(each not in remains for each in ("clsact", "lisp0", "4341")), remains

    asyncio.run(story())


def test_without_a_tun_device_what_is_not_lisps_goes_on_and_nothing_leaks(tmp_path: Path) -> None:
    async def story() -> None:
        stranger = "10.9.0.1"
        run(
            f"ip -n {named('user')} addr add {stranger}/32 dev eth0",
            f"ip -n {named('access')} route add {stranger}/32 dev lan",
            f"ip -n {named('access')} neigh replace {stranger} lladdr {MAC['user']} dev lan nud permanent",
        )
        async with world(tmp_path, routers=["cloud"], cloud=KERNEL):
            await ping("service", EID["service"][0], EID["user"][0])
            with router(tmp_path) as first:
                await reached()
                first.kill()
                first.wait()
            run(f"ip -n {named('access')} link del lisp0")
            assert " 0% packet loss" in await ping("user", stranger, "198.18.0.11")
            assert " 0% packet loss" in await ping("user", EID["user"][0], EID["service"][0]), "the kernel knows it"
            assert "100% packet loss" in await ping("user", EID["user"][0], "100.64.200.1")
            with router(tmp_path) as second:
                log = tmp_path / "access.log"
                await until(lambda: log.read_text().count("dataplane.chosen") == 2, "the second one runs", 10)
                await reached()
                second.terminate()
                assert second.wait(10) == 0
        run(f"ip -n {named('user')} addr del {stranger}/32 dev eth0")

    asyncio.run(story())
