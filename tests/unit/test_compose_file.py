"""docker-compose.yml without an engine: only what Compose 1.29 and 2 both read, and the topology's own places."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from lispfmc.lab.topology import load_topology
from lispfmc.wire.address import ip_text

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()


def test_no_key_that_only_one_compose_version_reads() -> None:
    top_level = set(re.findall(r"^([\w-]+):", TEXT, re.MULTILINE))
    assert {key for key in top_level if not key.startswith("x-")} == {"services", "networks", "volumes"}
    forbidden = ("privileged", "internal", "include", "develop", "pull_policy", "extends", "container_name", "cgroup")
    assert not [key for key in forbidden if re.search(rf"^\s*{key}:", TEXT, re.MULTILINE)]


def test_every_member_has_its_locator_of_the_topology() -> None:
    topology = load_topology("fig5")
    in_core = dict(re.findall(r"command: \[\w+, ([\w-]+)\]\n\s+networks: \{core: \{ipv4_address: ([\d.]+)\}", TEXT))
    expected = {name: ip_text(rlocs[0]) for name, rlocs in topology.members.items()}
    assert in_core.items() >= (expected | {"wan": ip_text(topology.wan.forwarder)}).items()


def test_every_node_is_wired_to_its_candidate_sites() -> None:
    topology = load_topology("fig5")
    for node in topology.nodes:
        found = re.search(rf"command: \[node, {node.name}\]\n\s+networks: (.*)\n", TEXT)
        assert found, node.name
        assert re.findall(r"(\w+): \{ipv4", found[1]) == [site.name for site in topology.candidates(node)]


def test_docker_hands_out_benchmark_addresses_only_and_no_eid() -> None:
    found = [ipaddress.ip_address(text) for text in re.findall(r"\d+\.\d+\.\d+\.\d+", TEXT)]
    addresses = [address for address in found if not address.is_loopback]  # the page is published there, and only there
    assert addresses
    assert len(re.findall(r"ports: ", TEXT)) == len(re.findall(r'ports: \["127\.0\.0\.1:', TEXT)) == 1
    assert all(address in ipaddress.ip_network("198.18.0.0/15") for address in addresses)
