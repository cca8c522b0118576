"""The WAN forwarder on virtual time: who is delayed by how much, what is lost, what is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lispfmc.lab.configs import Choices, mac_of, wan_config
from lispfmc.lab.topology import load_topology
from lispfmc.lab.wan import Wan, plan_of
from lispfmc.wire.address import ip_of

MS = 1_000_000
FORWARDER = bytes.fromhex(mac_of(ip_of("198.18.0.254")).replace(":", ""))
VNET = bytes(10)


def wan(tmp_path: Path, loss_percent: float = 0, seed: int = 1) -> Wan:
    config = json.loads(wan_config(load_topology("fig5"), Choices(tmp_path), "br0", seed))
    for pair in config["pairs"]:
        pair["loss_percent"] = loss_percent
    return Wan(plan_of(config))


def mac(address: str) -> bytes:
    return bytes.fromhex(mac_of(ip_of(address)).replace(":", ""))


def packet(source: str, destination: str, payload: bytes = b"", to: bytes = FORWARDER) -> bytes:
    """As the packet socket gives it: virtio header, Ethernet, IP header, payload."""
    one, other = ip_of(source), ip_of(destination)
    if len(one) == 4:
        return VNET + to + mac(source) + b"\x08\x00" + bytes(12) + one + other + payload
    return VNET + to + bytes(6) + b"\x86\xdd" + bytes(8) + one + other + payload


def test_a_packet_leaves_after_half_of_the_round_trip_to_the_owner_of_its_destination(tmp_path: Path) -> None:
    net = wan(tmp_path)
    net.take(packet("198.18.0.12", "198.18.0.21", b"hello"), 0)
    assert net.wait_ns(0) == 125 * MS
    assert net.due(125 * MS - 1) is None
    leaving = net.due(125 * MS)
    assert leaving == VNET + mac("198.18.0.21") + FORWARDER + packet("198.18.0.12", "198.18.0.21", b"hello")[22:]
    assert net.wait_ns(0) is None


def test_both_families_and_both_directions_of_a_pair_are_delayed_alike(tmp_path: Path) -> None:
    for source, destination in (("198.18.0.11", "198.18.0.21"), ("2001:2::11", "2001:2::21")):
        for one, other in ((source, destination), (destination, source)):
            net = wan(tmp_path)
            net.take(packet(one, other), 0)
            assert net.wait_ns(0) == 6 * MS


def test_a_short_path_overtakes_a_long_one_and_packets_of_one_pair_keep_their_order(tmp_path: Path) -> None:
    net = wan(tmp_path)
    net.take(packet("198.18.0.12", "198.18.0.21", b"far"), 0)
    for number in range(50):
        net.take(packet("198.18.0.12", "198.18.0.22", b"%03d" % number), 0)
    out = []
    while (leaving := net.due(1000 * MS)) is not None:
        out.append(leaving[44:])
    assert out == [b"%03d" % number for number in range(50)] + [b"far"]


@pytest.mark.parametrize(
    "stray",
    [
        packet("198.18.0.12", "198.18.0.21", to=b"\xff" * 6),
        packet("198.18.0.12", "198.18.0.21", to=mac("198.18.0.21")),
        VNET + FORWARDER + bytes(6) + b"\x08\x06" + bytes(28),
        VNET + FORWARDER,
        b"",
    ],
)
def test_frames_that_are_not_for_the_forwarder_are_left_alone(tmp_path: Path, stray: bytes) -> None:
    net = wan(tmp_path)
    net.take(stray, 0)
    assert net.wait_ns(0) is None
    assert net.unknown == 0


def test_a_packet_between_strangers_is_counted_and_dropped(tmp_path: Path) -> None:
    net = wan(tmp_path)
    net.take(packet("198.18.0.99", "198.18.0.21"), 0)
    net.take(packet("100.64.1.10", "100.64.101.10"), 0)
    assert net.wait_ns(0) is None
    assert net.counters()["unknown"] == 2


def test_loss_is_the_configured_share_and_the_same_again_with_the_same_seed(tmp_path: Path) -> None:
    def survivors(seed: int, *, other_traffic: bool = False) -> list[bytes]:
        net = wan(tmp_path, loss_percent=10, seed=seed)
        for number in range(2000):
            net.take(packet("198.18.0.12", "198.18.0.22", b"%04d" % number), 0)
            if other_traffic:
                net.take(packet("198.18.0.11", "198.18.0.21"), 0)
        out = []
        while (leaving := net.due(2 * MS)) is not None:
            out.append(leaving[44:])
        return out

    first = survivors(7)
    assert 1740 < len(first) < 1860
    assert survivors(7) == first
    assert survivors(7, other_traffic=True) == first, "a pair's losses do not depend on the others' traffic"
    assert survivors(8) != first


def test_lateness_is_reported(tmp_path: Path) -> None:
    net = wan(tmp_path)
    net.take(packet("198.18.0.12", "198.18.0.22"), 0)
    assert net.due(9 * MS) is not None
    assert net.counters()["latest_ms"] == 7.5
