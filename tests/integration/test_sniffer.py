"""The sniffer on a real interface: hosts that show themselves, and those that it asks for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lispfmc.wire.address import Prefix, ip_of
from tests.integration.planes import EID, MAC, Evidence, inside, named, network, until
from xtr.dataplane.sniffer import Sniffer

pytestmark = pytest.mark.namespaces


@pytest.fixture(scope="module", autouse=True)
def built() -> Iterator[None]:
    with network():
        yield


ANNOUNCE = f"""
import socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0); s.bind(("eth0", 0))
mac = bytes.fromhex("{MAC["user"].replace(":", "")}"); ip = socket.inet_aton("{EID["user"][0]}")
arp = bytes.fromhex("0001080006040001") + mac + ip + bytes(6) + ip
s.send(b"\\xff" * 6 + mac + b"\\x08\\x06" + arp)                                   # a gratuitous ARP
s.send(b"\\xff" * 6 + mac + b"\\x08\\x06" + arp[:8] + mac[::-1] + arp[14:])        # another's MAC
s.send(b"\\xff" * 6 + mac + b"\\x08\\x06" + arp[:14] + bytes(4) + arp[18:])        # no address yet
"""


def announce() -> None:
    subprocess.run(["ip", "netns", "exec", named("user"), sys.executable, "-c", ANNOUNCE], check=True)


def test_a_host_is_noticed_by_its_announcement_and_answers_a_probe_in_both_families() -> None:
    async def story() -> None:
        evidence, sniffer = Evidence(), Sniffer({"lan": 0})
        with inside("access"):
            sniffer.start(evidence)
        try:
            announce()
            mac = bytes.fromhex(MAC["user"].replace(":", ""))
            claims = [(Prefix.host(ip_of(eid)), "lan", mac) for eid in EID["user"]]
            await until(lambda: evidence.claims == claims[:1], "one claim, by the host itself")
            evidence.claims.clear()
            sniffer.probe(claims[0][0])
            await until(lambda: evidence.claims == claims[:1], "the ARP reply")
            sniffer.probe(claims[1][0])
            await until(lambda: evidence.claims == claims, "the Neighbour Advertisement")
        finally:
            sniffer.close()

    asyncio.run(story())
