"""The sniffer on a real interface: hosts that show themselves, and those that it asks for."""

from __future__ import annotations

import asyncio
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lispfmc.wire.address import Prefix, ip_of
from tests.integration.planes import EID, MAC, Evidence, inside, named, network, receive, until, watch
from xtr.dataplane.claims import Claim, heard
from xtr.dataplane.frames import question
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


def frames(*sent: bytes) -> None:
    """Put frames on the link from the user's side."""
    with inside("user"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as link:
        link.bind(("eth0", 0))
        for frame in sent:
            link.send(frame)


def ipv4_udp(ports: tuple[int, int], payload: bytes, options: bytes = b"") -> bytes:
    size = 20 + len(options)
    head = struct.pack("!BBHHHBBH", 0x40 | size >> 2, 0, size + 8 + len(payload), 0, 0, 64, 17, 0)
    return head + bytes(4) + b"\xff" * 4 + options + struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload


def test_rarp_dhcp_and_questions_pass_the_kernels_filter_and_other_traffic_does_not() -> None:
    user, server = (bytes.fromhex(text.replace(":", "")) for text in (MAC["user"], "02:00:00:00:0d:01"))
    gateway = bytes.fromhex(MAC["gateway"].replace(":", ""))
    eid, other = ip_of("100.64.1.55"), ip_of("100.64.1.1")
    rarp = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 3, user, bytes(4), user, bytes(4))
    client = bytes([2, 1, 6, 0]) + bytes(12) + eid + bytes(8) + user + bytes(202)
    ack = client + b"\x63\x82\x53\x63" + bytes([53, 1, 5, 255])
    everybody = b"\xff" * 6

    async def story() -> None:
        evidence, sniffer = Evidence(), Sniffer({"lan": 7})
        with inside("access"):
            sniffer.start(evidence)
        try:
            frames(
                everybody + server + b"\x08\x00" + ipv4_udp((67, 69), ack),
                everybody + user + b"\x80\x35" + rarp,
                everybody + server + b"\x08\x00" + ipv4_udp((67, 68), ack, options=bytes(8)),
                question(other, user, eid),
                question(ip_of("fd00:0:0:1::77"), user, eid)[:6] + user + b"\x86\xdd",
            )
            await until(lambda: evidence.questions, "the last whole one")
            assert evidence.macs == [(user, "lan", 7)]
            assert evidence.claims == [(Prefix.host(eid, 7), "lan", user)] * 2, "the server's word, and its own"
            assert evidence.questions == [(Prefix.host(other, 7), "lan", eid, user)]
            # and what we answer reaches the asker
            with watch("user", "eth0") as wire:
                sniffer.stand_in(Prefix.host(other, 7), "lan", eid, user)
                sniffer.take_over(Prefix.host(other, 7))
                said = [await receive(wire) for _ in range(2)]
            assert [heard(each) for each in said] == [[Claim(other, gateway)]] * 2
            assert [each[:6] for each in said] == [user, everybody]
        finally:
            sniffer.close()

    asyncio.run(story())
