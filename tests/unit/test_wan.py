"""The WAN forwarder on virtual time: who is delayed by how much, what is lost, what is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lispfmc.lab.configs import Choices, mac_of, wan_config
from lispfmc.lab.impairment import impaired
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


def datagram(source: str, destination: str, port: int, number: int, protocol: int = 17) -> bytes:
    """A packet with a whole IP header and the ports of UDP or TCP."""
    one, other = ip_of(source), ip_of(destination)
    transport = (50000).to_bytes(2, "big") + port.to_bytes(2, "big") + b"%04d" % number
    ethernet = VNET + FORWARDER + mac(source)
    if len(one) == 4:
        return ethernet + b"\x08\x00" + b"\x45" + bytes(8) + bytes([protocol]) + bytes(2) + one + other + transport
    return ethernet + b"\x86\xdd" + b"\x60" + bytes(5) + bytes([protocol]) + bytes(1) + one + other + transport


@pytest.mark.parametrize(("one", "other"), [("198.18.0.12", "198.18.0.22"), ("2001:2::12", "2001:2::22")])
def test_losses_of_the_control_plane_spare_the_users_data(tmp_path: Path, one: str, other: str) -> None:
    config = json.loads(wan_config(load_topology("fig5"), Choices(tmp_path), "br0"))
    net = Wan(plan_of(impaired(config, {}, 20.0, seed=3)))
    for number in range(1000):
        net.take(datagram(one, other, 4341, number), 0)
        net.take(datagram(one, other, 4342, number), 0)
        net.take(datagram(one, other, 4341, number, protocol=6), 0)  # TCP, whatever its port
    kinds = [0, 0, 0]
    while (leaving := net.due(2 * MS)) is not None:
        tcp = leaving[24 + (6 if ":" in one else 9)] == 6
        kinds[2 if tcp else int(leaving[-6:-4] == (4342).to_bytes(2, "big"))] += 1
    assert kinds[0] == 1000
    assert 740 < kinds[1] < 860
    assert 740 < kinds[2] < 860


def test_an_impairment_changes_the_named_pairs_alone_and_has_a_generation(tmp_path: Path) -> None:
    config = json.loads(wan_config(load_topology("fig5"), Choices(tmp_path), "br0"))
    changed = impaired(config, {frozenset(("fmcc", "dc1")): 200.0}, 0.0, seed=1)
    both = {(pair["from"], pair["to"]): pair["delay_ms"] for pair in changed["pairs"]}
    assert both["fmcc", "dc1"] == both["dc1", "fmcc"] == 100.0
    assert both["access1", "dc1"] == 6.0
    assert impaired(changed, {}, 0.0, seed=1)["generation"] == changed["generation"] + 1
    again = {(pair["from"], pair["to"]): pair["delay_ms"] for pair in impaired(changed, {}, 5.0, seed=1)["pairs"]}
    assert again == both


def test_no_packet_that_is_still_to_come_is_due_before_the_shortest_delay_is_over(tmp_path: Path) -> None:
    net = wan(tmp_path)
    shortest = min(path.delay_ns for path in net.plan.names.values())
    assert net.least_ns() == shortest > 0
    next(iter(net.plan.names.values())).stream_delay_ns = shortest // 2
    assert net.least_ns() == shortest // 2


def test_a_packet_that_was_taken_in_late_leaves_by_when_it_came(tmp_path: Path) -> None:
    net = wan(tmp_path)
    net.take(packet("198.18.0.12", "198.18.0.21", b"late"), 3 * MS)  # the kernel's word, whatever the time is now
    assert net.due(128 * MS - 1) is None
    assert net.due(128 * MS) is not None


def test_lateness_is_reported(tmp_path: Path) -> None:
    net = wan(tmp_path)
    net.take(packet("198.18.0.12", "198.18.0.22"), 0)
    assert net.due(9 * MS) is not None
    assert net.counters()["latest_ms"] == 7.5


def test_hypervisors_http_may_be_farther_than_the_routers_of_their_data_centre(tmp_path: Path) -> None:
    config = json.loads(wan_config(load_topology("fig5"), Choices(tmp_path), "br0"))
    pair = frozenset(("fmcc", "dc2"))
    farther = impaired(config, {pair: 10.0}, 0.0, seed=1, streams_ms={pair: 100.0})
    net = Wan(plan_of(farther))
    net.take(datagram("198.18.0.22", "198.18.0.2", 4342, 1), 0)
    net.take(datagram("198.18.0.22", "198.18.0.2", 8080, 2, protocol=6), 0)
    assert net.due(5 * MS) is not None, "half of 10 ms"
    assert net.due(49 * MS) is None
    assert net.due(50 * MS) is not None
    again = Wan(plan_of(impaired(farther, {}, 0.0, seed=1)))
    again.take(datagram("198.18.0.22", "198.18.0.2", 8080, 3, protocol=6), 0)
    assert again.due(5 * MS) is not None, "until it is named no more"
