"""A node's link is on when its gateway can hear it, and a site without a gateway keeps nobody waiting for long."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator

import pytest

from lispfmc.lab import link as links
from tests.integration.planes import inside, named, run

pytestmark = pytest.mark.namespaces
GATEWAY = "169.254.1.1"
EID = "100.64.101.10"


@pytest.fixture(name="_pair", autouse=True)
def pair() -> Iterator[None]:
    """A node behind a bridge, as in the lab: the bridge's port learns of the carrier later than the node."""
    try:
        run(f"ip netns add {named('node')}", f"ip netns add {named('site')}")
        site = f"ip -n {named('site')}"
        run(
            f"{site} link add br0 type bridge",
            f"{site} link set br0 address 02:00:5e:00:00:01 up",
            f"{site} link add port type veth peer name eth0 netns {named('node')}",
            f"{site} link set port master br0 up",
        )
        yield
    finally:
        for name in ("node", "site"):
            subprocess.run(["ip", "netns", "del", named(name)], check=False, capture_output=True)


def switched_on() -> tuple[links.SiteLink, list[bytes]]:
    """The link after it was switched on, and what the bridge got of the announcements sent at once."""
    with inside("site"), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as bridge:
        bridge.bind(("br0", 0x0806))
        bridge.settimeout(2.0)
        with inside("node"):
            rtnetlink = links.Rtnetlink()
            links.prepare_node(rtnetlink, [EID])
            made = links.site_link(rtnetlink, "eth0", [EID])
            links.switch_on(rtnetlink, made)
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as announcing:
                announcing.bind(("eth0", 0))
                for frame in made.announcements:
                    announcing.send(frame)
            rtnetlink.close()
            made.answers.close()
        got: list[bytes] = []
        while not got or got[-1][:42] not in made.announcements:
            try:
                got.append(bridge.recv(128))
            except TimeoutError:
                break
        return made, got


def test_the_gateway_has_answered_before_the_node_announces_itself() -> None:
    run(f"ip -n {named('site')} addr add {GATEWAY}/32 dev br0")
    made, got = switched_on()
    assert made.answered
    asked = [frame for frame in got if frame[:42] == made.question[:42]]
    assert asked, "it was asked for its MAC address"
    assert got[-1][:42] in made.announcements, "the first announcement that was sent has come through"


def test_a_link_without_a_gateway_is_on_all_the_same() -> None:
    made, got = switched_on()
    assert not made.answered
    assert [frame for frame in got if frame[:42] == made.question[:42]]
